//! The canaries: known spam, known malware, a known ham, and malware behind as much text as is asked for. Messages alone; who sends
//! them and what their answers mean is `health`'s and `size`'s.

/// SpamAssassin's test pattern, in two pieces so that no scanner takes this file for spam.
const GTUBE: [&str; 2] = [
    "XJS*C4JDBQADN1.NSBN3*2IDNEN*",
    "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X",
];

/// The anti-malware test file, in two pieces for the same reason.
const EICAR: [&str; 2] = [
    r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-",
    "ANTIVIRUS-TEST-FILE!$H+H*",
];

/// A message that must be judged as what it is.
fn message(subject: &str, body: &str) -> Vec<u8> {
    let date = mail::Timestamp::now().rfc5322();
    let id = mail::Timestamp::now().0;
    format!(
        "Received: from canary.invalid (canary.invalid [10.0.0.1]) by localhost with ESMTP; {date}\r\n\
         From: Canary <canary@canary.invalid>\r\nTo: Scanner <scanner@canary.invalid>\r\n\
         Subject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}.canary@canary.invalid>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

/// A plain letter, which nobody may object to.
pub fn ham() -> Vec<u8> {
    message(
        "Minutes of the meeting",
        "Hello,\r\n\r\nthe minutes of our last meeting are ready. Please read them before Friday.",
    )
}

/// The message that every spamd must call spam.
pub fn gtube() -> Vec<u8> {
    message("Test of the filter", &GTUBE.concat())
}

/// The message that every clamd must find malware in.
pub fn eicar() -> Vec<u8> {
    EICAR.concat().into_bytes()
}

/// A mail with the test file as its attachment, in two pieces between which any text may stand.
pub fn behind_text() -> (Vec<u8>, Vec<u8>) {
    let date = mail::Timestamp::now().rfc5322();
    let head = format!(
        "Received: from canary.invalid (canary.invalid [10.0.0.1]) by localhost with ESMTP; {date}\r\n\
         From: Canary <canary@canary.invalid>\r\nTo: Scanner <scanner@canary.invalid>\r\n\
         Subject: A long letter\r\nDate: {date}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=canary\r\n\r\n--canary\r\n\r\n"
    );
    let tail = format!(
        "\r\n--canary\r\nContent-Type: application/octet-stream\r\n\r\n{}\r\n--canary--\r\n",
        EICAR.concat()
    );
    (head.into(), tail.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canaries_are_whole() {
        assert_eq!(eicar().len(), 68);
        assert!(
            String::from_utf8(gtube())
                .unwrap()
                .contains("*C4JDBQADN1.NSBN3*2IDNEN*GTUBE")
        );
    }
}
