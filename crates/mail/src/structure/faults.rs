//! What is wrong with a message's header (RFC 5322 2.1.1, 2.2, 3.6; RFC 2045 for its parts'), as amavis sorts it: mail that is
//! delivered all over the world, and that readers see differently.

/// Bytes of a header line without CRLF (RFC 5322 2.1.1).
const LINE_BYTES_MAX: usize = 998;

/// Fields that may stand once (RFC 5322 3.6).
const ONCE: [&str; 11] = [
    "Date",
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
];

/// Fields that must stand (RFC 5322 3.6).
const REQUIRED: [&str; 2] = ["Date", "From"];

/// One thing that is wrong, the first of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Text beyond ASCII without SMTPUTF8.
    #[error("8-bit text in {0}")]
    EightBit(Box<str>),
    /// A NUL.
    #[error("NUL in {0}")]
    Nul(Box<str>),
    /// A CR without LF, or a LF without CR.
    #[error("bare CR or LF in {0}")]
    BareBreak(Box<str>),
    /// A line longer than 998 bytes.
    #[error("line longer than {LINE_BYTES_MAX} bytes in {0}")]
    LongLine(Box<str>),
    /// A line of white space alone, where some readers end the header.
    #[error("line of white space in {0}")]
    BlankFold(Box<str>),
    /// A line that is no field, before the blank one.
    #[error("line that is no field")]
    NoField,
    /// A field that may stand once.
    #[error("{0} more than once")]
    Repeated(&'static str),
    /// A field that must stand.
    #[error("no {0}")]
    Missing(&'static str),
}

/// All faults of a message's own header, each kind once for a field. With `utf8` (SMTPUTF8, RFC 6532) valid UTF-8 is none.
pub fn faults(message: &[u8], utf8: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut counts = [0usize; ONCE.len()];
    let mut walk = crate::header::fields(message);
    for field in walk.by_ref() {
        if let Some(at) = ONCE.iter().position(|name| field.is(name)) {
            counts[at] += 1;
        }
        of_field(&field, utf8, &mut |fault| {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        });
    }
    if !matches!(
        &message[walk.offset()..],
        [] | [b'\r', b'\n', ..] | [b'\n', ..]
    ) {
        faults.push(Fault::NoField);
    }
    for (name, count) in ONCE.into_iter().zip(counts) {
        if count > 1 {
            faults.push(Fault::Repeated(name));
        } else if count == 0 && REQUIRED.contains(&name) {
            faults.push(Fault::Missing(name));
        }
    }
    faults
}

fn of_field(field: &crate::header::Field<'_>, utf8: bool, found: &mut dyn FnMut(Fault)) {
    let name: Box<str> = String::from_utf8_lossy(&field.name[..field.name.len().min(60)]).into();
    let readable = match utf8 {
        true => std::str::from_utf8(field.raw).is_ok(),
        false => field.raw.is_ascii(),
    };
    if !readable {
        found(Fault::EightBit(name.clone()));
    }
    if field.raw.contains(&0) {
        found(Fault::Nul(name.clone()));
    }
    for (at, line) in field.raw.split_inclusive(|b| *b == b'\n').enumerate() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let whole = text.strip_suffix(b"\r");
        if whole.is_none() && text.len() < line.len() || whole.unwrap_or(text).contains(&b'\r') {
            found(Fault::BareBreak(name.clone()));
        }
        let text = whole.unwrap_or(text);
        if text.len() > LINE_BYTES_MAX {
            found(Fault::LongLine(name.clone()));
        }
        if at > 0 && text.trim_ascii().is_empty() {
            found(Fault::BlankFold(name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, utf8: bool, expected: &[&str]) {
        let message = format!("{header}\r\nbody \0 \u{e4}\r\n");
        let faults = faults(message.as_bytes(), utf8);
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{header:?}");
    }

    #[test]
    fn faults_of_headers() {
        let good = "Date: 1\r\nFrom: a@b\r\nSubject: hello\r\n there\r\n";
        let with = |line: &str| format!("{good}{line}\r\n");
        check(good, false, &[]);
        check("", false, &["no Date", "no From"]);
        check("From: a\r\n", false, &["no Date"]);
        check(&with("X: gr\u{fc}n"), false, &["8-bit text in X"]);
        check(&with("X: gr\u{fc}n"), true, &[]);
        check(&with("X: a\0b"), false, &["NUL in X"]);
        check(&with("X: a\rb"), false, &["bare CR or LF in X"]);
        check(&with("X: a\n b"), false, &["bare CR or LF in X"]);
        check(
            &with("X: a\r\n \r\n b"),
            false,
            &["line of white space in X"],
        );
        let long = with(&format!("X: {}", "a".repeat(996)));
        check(&long, false, &["line longer than 998 bytes in X"]);
        check(&with(&format!("X: {}", "a".repeat(995))), false, &[]);
        check(&with("subject: two"), false, &["Subject more than once"]);
        check(&with("Received: 1\r\nReceived: 2"), false, &[]);
        check(
            &with("From: x\r\nFROM : y"),
            false,
            &["From more than once"],
        );
        check(&with("no field here"), false, &["line that is no field"]);
        let broken = faults(b"Date: 1\r\nFrom: \xff\r\n\r\n", true);
        assert_eq!(broken, [Fault::EightBit("From".into())]);
        assert_eq!(faults(b"Date: 1\r\nFrom: a", false), []);
    }
}
