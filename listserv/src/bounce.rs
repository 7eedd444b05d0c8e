//! Reading what comes back to a list's return address: does it say that a member's mailbox failed? Pure.

use mail::ReversePath;
use mail::header;
use mail::structure::{self, Limits};
use mail_parser::{MessageParser, MimeHeaders, PartType};

/// What a returned message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The post did not reach the member.
    Failed,
    /// It is still being tried, or arrived.
    NotFailed,
    /// It is no report: a person or an auto-responder answered the reverse-path.
    NoReport,
}

impl Says {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "counted",
            Self::NotFailed => "not-failed",
            Self::NoReport => "no-report",
        }
    }
}

/// Reads a message that came to `dev-return-N-user=host@`. A delivery report is taken at its word (RFC 3464 2.3.3); anything else
/// from the null reverse-path is an old host's bounce.
pub fn read(reverse_path: &ReversePath, message: &[u8]) -> Says {
    match actions(message) {
        Some(actions) if actions.is_empty() => Says::Failed, // a report that names no action is broken, its sender meant failure
        Some(actions) if actions.iter().any(|action| action == "failed") => Says::Failed,
        Some(_) => Says::NotFailed,
        None if *reverse_path == ReversePath::Null => Says::Failed,
        None => Says::NoReport,
    }
}

/// The Action fields of a message/delivery-status part; `None` when there is no such part, or the structure cannot be trusted.
fn actions(message: &[u8]) -> Option<Vec<String>> {
    let report = header::fields(message).any(|field| {
        field.is("Content-Type") && {
            let text = field.text().to_ascii_lowercase();
            text.starts_with("multipart/report") || text.starts_with("message/delivery-status")
        }
    });
    if !report {
        return None;
    }
    structure::scan(message, &Limits::default()).ok()?;
    let parsed = MessageParser::default().parse(message)?;
    let status = parsed.parts.iter().find(|part| {
        part.content_type().is_some_and(|kind| {
            kind.ctype().eq_ignore_ascii_case("message")
                && kind
                    .subtype()
                    .is_some_and(|sub| sub.to_ascii_lowercase().ends_with("delivery-status"))
        })
    })?;
    let text = match &status.body {
        PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes.as_ref(),
        PartType::Message(inner) => inner.raw_message.as_ref(),
        PartType::Multipart(_) => return None,
    };
    let actions = String::from_utf8_lossy(text)
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim()
                .eq_ignore_ascii_case("action")
                .then(|| value.trim().to_ascii_lowercase())
        })
        .collect();
    Some(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(action: &str) -> String {
        format!(
            "From: MAILER-DAEMON@one.example\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
             --b\r\nContent-Type: text/plain\r\n\r\nAction: failed, says this text\r\n\
             --b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Reporting-MTA: dns; one.example\r\n\r\nFinal-Recipient: rfc822; joe@one.example\r\n{action}Status: 4.4.1\r\n\r\n\
             --b--\r\n"
        )
    }

    #[test]
    fn reads() {
        let null = ReversePath::Null;
        let person = ReversePath::parse("joe@one.example").unwrap();
        let plain = "Subject: failure notice\r\n\r\nHi. This is the qmail-send program\r\n";
        let table = [
            (&null, report("Action: failed\r\n"), Says::Failed),
            (&null, report("Action: Delayed\r\n"), Says::NotFailed),
            (&null, report("action:relayed\r\n"), Says::NotFailed),
            (
                &null,
                report("Action: delayed\r\nAction: failed\r\n"),
                Says::Failed,
            ),
            (&null, report(""), Says::Failed),
            (&person, report("Action: failed\r\n"), Says::Failed),
            (&null, plain.to_owned(), Says::Failed),
            (&person, plain.to_owned(), Says::NoReport),
            (&person, String::new(), Says::NoReport),
        ];
        for (from, message, expected) in table {
            assert_eq!(read(from, message.as_bytes()), expected, "{message}");
        }
    }
}
