//! Replies: three digits, an enhanced status and text (RFC 5321 4.2, RFC 2034, RFC 3463).

use std::fmt;

/// Octets of one line of text, codes and CRLF apart: with them it stays below the 512 of RFC 5321 4.5.3.1.5.
pub const LINE_BYTES_MAX: usize = 480;
/// Lines of one reply; what goes beyond is cut.
pub const LINES_MAX: usize = 100;

/// An SMTP or LMTP reply. `lines` holds the text without codes; never empty, no line holds CR, LF or more than 480 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200-599.
    pub code: u16,
    /// `X.Y.Z`; none on 220, 221 greetings, 250 of EHLO and 354.
    pub enhanced: Option<EnhancedStatus>,
    /// The text, a line each.
    pub lines: Vec<String>,
}

/// `class.subject.detail` of RFC 3463.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedStatus(pub u8, pub u16, pub u16);

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a reply means for the one who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// 2xx and 3xx.
    Positive,
    /// 4xx: try again later.
    Transient,
    /// 5xx: do not try again.
    Permanent,
}

impl Reply {
    /// A reply with an enhanced status, `Reply::new(550, (5, 1, 1), "no such user")`. Text is cleaned (printable ASCII is left,
    /// anything else becomes `?`) and folded to fit the wire; a line break in it starts a new line.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl AsRef<str>) -> Self {
        Self {
            code,
            enhanced: Some(EnhancedStatus(enhanced.0, enhanced.1, enhanced.2)),
            lines: lines(text.as_ref()),
        }
    }

    /// A reply without an enhanced status (220, 354, EHLO).
    pub fn plain(code: u16, text: impl AsRef<str>) -> Self {
        Self {
            code,
            enhanced: None,
            lines: lines(text.as_ref()),
        }
    }

    /// What the first digit says.
    pub fn severity(&self) -> Severity {
        match self.code {
            ..400 => Severity::Positive,
            400..500 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        self.severity() == Severity::Positive
    }

    /// Appends the wire form, `550-5.1.1 ...CRLF ... 550 5.1.1 ...CRLF`, every line at most 512 octets.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Cleaned once more: the fields are open, and no text may ever put a line of its own on the wire.
        let lines = lines(&self.lines.join("\n"));
        let last = lines.len().saturating_sub(1);
        for (at, line) in lines.iter().enumerate() {
            let separator = if at == last { ' ' } else { '-' };
            let mut head = format!("{:03}{separator}", self.code.min(999));
            if let Some(enhanced) = self.enhanced {
                head.push_str(&enhanced.to_string());
                if !line.is_empty() {
                    head.push(' ');
                }
            }
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// All text in one line, for logs and DSNs.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

/// Text as lines that the wire takes; never empty.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for piece in text.split(['\r', '\n']) {
        let clean: String = piece
            .chars()
            .map(|c| match c {
                '\t' => ' ',
                ' '..='~' => c,
                _ => '?',
            })
            .collect();
        let mut rest = clean.trim_end();
        while rest.len() > LINE_BYTES_MAX && lines.len() < LINES_MAX {
            // All ASCII by now: any offset is a character's border.
            let at = rest[..=LINE_BYTES_MAX]
                .rfind(' ')
                .filter(|at| *at > 0)
                .unwrap_or(LINE_BYTES_MAX);
            lines.push(rest[..at].trim_end().to_owned());
            rest = rest[at..].trim_start();
        }
        if !rest.is_empty() && lines.len() < LINES_MAX {
            lines.push(rest.to_owned());
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// `550 5.1.1 text`, in one line.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "{} {} {}", self.code, enhanced, self.text()),
            None => write!(f, "{} {}", self.code, self.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn wire_forms() {
        fn check(reply: &Reply, expected: &str) {
            assert_eq!(wire(reply), expected, "{reply:?}");
        }
        check(
            &Reply::new(550, (5, 1, 1), "no such user"),
            "550 5.1.1 no such user\r\n",
        );
        check(&Reply::plain(354, "go on"), "354 go on\r\n");
        check(&Reply::plain(250, ""), "250 \r\n");
        check(&Reply::new(250, (2, 0, 0), ""), "250 2.0.0\r\n");
        check(
            &Reply::plain(250, "mx.example\nPIPELINING\r\nSIZE 1000\n"),
            "250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1000\r\n",
        );
        check(
            &Reply::new(554, (5, 7, 1), "listed\r\n250 2.0.0 fine"),
            "554-5.7.1 listed\r\n554 5.7.1 250 2.0.0 fine\r\n",
        );
        check(
            &Reply::plain(220, "a\0b\x07c\x7fd\té\u{85}"),
            "220 a?b?c?d ??\r\n",
        );
        check(&Reply::plain(220, "\r\n\r\n"), "220 \r\n");
        // Fields that were filled by hand go through the same door.
        let open = Reply {
            code: 70_00,
            enhanced: None,
            lines: vec!["a\r\n250 b".into(), "x".repeat(500)],
        };
        check(
            &open,
            &format!(
                "999-a\r\n999-250 b\r\n999-{}\r\n999 {}\r\n",
                "x".repeat(480),
                "x".repeat(20)
            ),
        );
        let none = Reply {
            code: 250,
            enhanced: None,
            lines: Vec::new(),
        };
        check(&none, "250 \r\n");
    }

    #[test]
    fn long_text_is_folded_at_spaces() {
        let text = "word ".repeat(300);
        let reply = Reply::new(451, (4, 7, 0), &text);
        assert_eq!(reply.text(), text.trim_end());
        assert!(reply.lines.len() > 2);
        assert!(reply.lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
        assert!(
            wire(&reply)
                .lines()
                .all(|line| line.starts_with("451") && line.len() <= 510)
        );
        assert_eq!(Reply::plain(250, "x\n".repeat(5000)).lines.len(), LINES_MAX);
        assert_eq!(
            Reply::plain(250, "x".repeat(1_000_000)).lines.len(),
            LINES_MAX
        );
    }

    #[test]
    fn severities() {
        fn check(code: u16, severity: Severity) {
            assert_eq!(Reply::plain(code, "").severity(), severity, "{code}");
        }
        check(220, Severity::Positive);
        check(354, Severity::Positive);
        check(399, Severity::Positive);
        check(400, Severity::Transient);
        check(499, Severity::Transient);
        check(500, Severity::Permanent);
        check(599, Severity::Permanent);
        assert_eq!(
            Reply::new(550, (5, 1, 1), "a\nb").to_string(),
            "550 5.1.1 a b"
        );
        assert_eq!(Reply::plain(250, "ok").to_string(), "250 ok");
    }

    #[test]
    fn total() {
        let long = "x y ".repeat(400);
        let seeds: [&[u8]; 2] = [b"no such user\r\nhere", long.as_bytes()];
        mutation::each(
            &seeds,
            &[b"\r\n", b"\n", b"\0", b" ", b"\xc3\xa9"],
            1000,
            |bytes| {
                let reply = Reply::new(550, (5, 65535, 65535), String::from_utf8_lossy(bytes));
                let wire = wire(&reply);
                assert!(wire.ends_with("\r\n"));
                for line in wire.split_terminator("\r\n") {
                    assert!(line.len() <= 510 && line.starts_with("550"), "{line:?}");
                    assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')), "{line:?}");
                }
            },
        );
    }
}
