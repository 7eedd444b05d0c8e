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
