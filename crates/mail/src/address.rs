//! Domains, mailboxes and reverse-paths (RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531, RFC 5890).
//!
//! Parsed once at the door; behind it everybody passes these types on. A U-label and its A-label are the same domain.

use std::fmt;

/// A domain name, lower case, A-labels only, without a trailing dot; or an address literal, `[192.0.2.1]` / `[IPv6:2001:db8::1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses a domain or an address literal. A U-label is turned into its A-label, a trailing dot is dropped.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        todo!("{text}")
    }

    /// The domain as it goes on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an address literal instead of a name.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox `local@domain`. The local part is kept as sent, but unquoted; [`fmt::Display`] quotes it where the wire needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Box<str>,
    domain: Domain,
}

impl Address {
    /// Parses `local@domain` without angle brackets (`"quo ted"@example.org`, `δοκιμή@παράδειγμα.ελ` too).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        todo!("{text}")
    }

    /// Puts an address together from its unquoted local part. Refuses an empty one, control characters and more
    /// than 255 octets.
    pub fn new(local: &str, domain: Domain) -> Result<Self, AddressError> {
        todo!("{local} {domain}")
    }

    /// The local part, unquoted, case as sent.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form by which directories look an address up: local part in lower case. The wire form keeps its case (RFC 5321 2.4).
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }

    /// Whether SMTPUTF8 is needed to put this address on the wire.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

/// The argument of MAIL FROM: nothing (`<>`), or a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: notifications; nobody gets a DSN about them (RFC 5321 4.5.5).
    Null,
    /// A mailbox.
    Address(Address),
}

impl ReversePath {
    /// Parses what stands between the angle brackets: empty, or a mailbox.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            Ok(Self::Null)
        } else {
            Address::parse(text).map(Self::Address)
        }
    }

    /// The mailbox, if there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

/// Without angle brackets; empty for the null reverse-path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`, or nothing before or after it.
    #[error("no local part or no domain")]
    Incomplete,
    /// More than 255 octets before the `@`. RFC 5321 4.5.3.1.1 promises 64; VERP and confirmation addresses need more.
    #[error("local part longer than 255 octets")]
    LocalTooLong,
    /// More than 255 octets (RFC 5321 4.5.3.1.2).
    #[error("domain longer than 255 octets")]
    DomainTooLong,
    /// A character that this place does not allow.
    #[error("unexpected {0:?}")]
    Unexpected(char),
    /// Not a domain name: an empty or overlong label, a hyphen at an end, or Unicode that IDNA refuses.
    #[error("bad domain name")]
    BadDomain,
    /// Not an address literal of RFC 5321 4.1.3.
    #[error("bad address literal")]
    BadLiteral,
}
