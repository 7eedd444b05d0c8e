//! Replies: three digits, an enhanced status and text (RFC 5321 4.2, RFC 2034, RFC 3463).

use std::fmt;

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
    /// A reply with an enhanced status, `Reply::new(550, (5, 1, 1), "no such user")`. Text is cleaned and folded to fit the wire.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: impl AsRef<str>) -> Self {
        todo!("{code} {enhanced:?} {}", text.as_ref())
    }

    /// A reply without an enhanced status (220, 354, EHLO).
    pub fn plain(code: u16, text: impl AsRef<str>) -> Self {
        todo!("{code} {}", text.as_ref())
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
        todo!("{}", out.len())
    }

    /// All text in one line, for logs and DSNs.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
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
