//! Identifiers: the ident that an edge gives a message, and the id under which a spool keeps it.

use std::fmt;

/// `edge.boot.counter`: names one message on its way through the inner hops (design: accepted once).
///
/// `edge` is the edge's short name (`[a-z0-9-]{1,32}`), `boot` 1-16 and `counter` 1-16 lower-case hexadecimal digits.
/// Travels as XFORWARD IDENT; a hop believes it only from a trusted peer and only in this form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ident(Box<str>);

impl Ident {
    /// Makes the ident of a message. Panics never: `edge` was checked when the configuration was read; refuses nonsense.
    pub fn new(edge: &str, boot: u64, counter: u64) -> Result<Self, BadIdent> {
        Self::parse(&format!("{edge}.{boot:x}.{counter:x}"))
    }

    /// Parses the wire form.
    pub fn parse(text: &str) -> Result<Self, BadIdent> {
        let mut parts = text.split('.');
        let (Some(edge), Some(boot), Some(counter), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadIdent);
        };
        let is_edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let fits = |part: &str, most: usize, is: fn(u8) -> bool| {
            (1..=most).contains(&part.len()) && part.bytes().all(is)
        };
        if fits(edge, 32, is_edge) && fits(boot, 16, is_hex) && fits(counter, 16, is_hex) {
            Ok(Self(text.into()))
        } else {
            Err(BadIdent)
        }
    }

    /// The wire form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not `edge.boot.counter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ident of the form edge.boot.counter")]
pub struct BadIdent;

/// A spool's name for a message: 128 bits, made by the accepting process, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u128);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for MessageId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idents() {
        fn check(text: &str, good: bool) {
            assert_eq!(Ident::parse(text).is_ok(), good, "{text:?}");
        }
        check("edge-1.68f0a1b2.1f", true);
        check("e.0.0", true);
        check(
            &format!("{}.{}.{}", "e".repeat(32), "f".repeat(16), "0".repeat(16)),
            true,
        );
        check(&format!("{}.0.0", "e".repeat(33)), false);
        check(&format!("e.{}.0", "f".repeat(17)), false);
        check(&format!("e.0.{}", "f".repeat(17)), false);
        check("", false);
        check("e.0", false);
        check("e.0.0.0", false);
        check("e..0", false);
        check(".0.0", false);
        check("E.0.0", false);
        check("e.A.0", false);
        check("e.g.0", false);
        check("e.0.+1", false);
        check("e_1.0.0", false);
        check("é.0.0", false);
        check("e.0.0\r\n", false);
        check(" e.0.0", false);
        check("[UNAVAILABLE]", false);
    }

    #[test]
    fn made() {
        let ident = Ident::new("edge-1", u64::MAX, 0x1f).unwrap();
        assert_eq!(ident.as_str(), "edge-1.ffffffffffffffff.1f");
        assert_eq!(Ident::parse(&ident.to_string()), Ok(ident));
        assert_eq!(Ident::new("Edge", 1, 1), Err(BadIdent));
    }

    #[test]
    fn message_ids() {
        let id = MessageId(0x1f);
        assert_eq!(id.to_string(), "0000000000000000000000000000001f");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("x".parse::<MessageId>().is_err());
    }
}
