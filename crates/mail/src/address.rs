//! Domains, mailboxes and reverse-paths (RFC 5321 sections 4.1.2 and 4.1.3, RFC 6531, RFC 5890).
//!
//! Parsed once at the door; behind it everybody passes these types on. A U-label and its A-label are the same domain.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// Octets of a local part, unquoted.
pub const LOCAL_BYTES_MAX: usize = 255;
/// Octets of a domain in A-labels: what DNS can carry as text (RFC 1035 2.3.4).
pub const DOMAIN_BYTES_MAX: usize = 253;
/// Octets of one label (RFC 1035 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Octets of a domain before IDNA looks at it: a U-label is at most a few times as long as its A-label.
const UNICODE_BYTES_MAX: usize = 1024;

/// A domain name, lower case, A-labels only, without a trailing dot; or an address literal, `[192.0.2.1]` / `[IPv6:2001:db8::1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses a domain or an address literal. A U-label is turned into its A-label, a trailing dot is dropped.
    ///
    /// An underscore is let through, since real mail hosts have it. A bare dotted quad is no name (RFC 5321 4.1.3 wants brackets).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::BadLiteral)?;
            return literal(inner).map(|text| Self(text.into()));
        }
        if text.len() > UNICODE_BYTES_MAX {
            return Err(AddressError::DomainTooLong);
        }
        let plain = text.is_ascii() && !has_a_label(text);
        let mut name = if plain {
            text.to_ascii_lowercase()
        } else {
            // The deny list stays empty and hyphens are allowed: `check_name` looks at the outcome, in one place for all names.
            Uts46::new()
                .to_ascii(
                    text.as_bytes(),
                    AsciiDenyList::EMPTY,
                    Hyphens::Allow,
                    DnsLength::Ignore,
                )
                .map_err(|_| AddressError::BadDomain)?
                .into_owned()
        };
        if name.ends_with('.') {
            name.pop();
        }
        check_name(&name)?;
        Ok(Self(name.into()))
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
    ///
    /// Dots may stand anywhere in the local part: there are mailboxes like `a..b@` and `a.@`, and the wire form quotes them.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = if let Some(quoted) = text.strip_prefix('"') {
            split_quoted(quoted)?
        } else {
            let (local, domain) = text.split_once('@').ok_or(AddressError::Incomplete)?;
            if let Some(c) = local.chars().find(|c| !is_atext(*c) && *c != '.') {
                return Err(AddressError::Unexpected(c));
            }
            (local.to_owned(), domain)
        };
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Incomplete);
        }
        Self::new(&local, Domain::parse(domain)?)
    }

    /// Puts an address together from its unquoted local part. Refuses an empty one, control characters and more
    /// than 255 octets.
    pub fn new(local: &str, domain: Domain) -> Result<Self, AddressError> {
        if local.is_empty() {
            return Err(AddressError::Incomplete);
        }
        if local.len() > LOCAL_BYTES_MAX {
            return Err(AddressError::LocalTooLong);
        }
        if let Some(c) = local.chars().find(|c| breaks_line(*c)) {
            return Err(AddressError::Unexpected(c));
        }
        Ok(Self {
            local: local.into(),
            domain,
        })
    }

    /// The same domain with another local part, whatever its length. For addresses below a list, whose own name is short.
    pub(crate) fn with_local(&self, local: String) -> Self {
        Self {
            local: local.into(),
            domain: self.domain.clone(),
        }
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
        if is_dot_atom(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_char('"')?;
        for c in self.local.chars() {
            if c == '"' || c == '\\' {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        write!(f, "\"@{}", self.domain)
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

/// Whether a label starts like an A-label, which IDNA must then check.
fn has_a_label(text: &str) -> bool {
    text.split('.').any(|label| {
        label
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
    })
}

fn check_name(name: &str) -> Result<(), AddressError> {
    if name.len() > DOMAIN_BYTES_MAX {
        return Err(AddressError::DomainTooLong);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return Err(AddressError::Unexpected(c));
    }
    let whole = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let digits_only = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if digits_only || !name.split('.').all(whole) {
        return Err(AddressError::BadDomain);
    }
    Ok(())
}

/// What stands between the brackets of an address literal, in its one spelling.
fn literal(inner: &str) -> Result<String, AddressError> {
    let tagged = inner
        .split_at_checked(5)
        .filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6:"));
    match tagged {
        Some((_, address)) => address
            .parse::<Ipv6Addr>()
            .map(|address| format!("[IPv6:{address}]")),
        None => inner
            .parse::<Ipv4Addr>()
            .map(|address| format!("[{address}]")),
    }
    .map_err(|_| AddressError::BadLiteral)
}

/// Reads a quoted string behind its opening quote, up to and with the `@` after it (RFC 5321 4.1.2, Quoted-string).
fn split_quoted(text: &str) -> Result<(String, &str), AddressError> {
    let mut local = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text.get(at + 1..).unwrap_or_default();
                return match rest.strip_prefix('@') {
                    Some(domain) => Ok((local, domain)),
                    None => Err(rest
                        .chars()
                        .next()
                        .map_or(AddressError::Incomplete, AddressError::Unexpected)),
                };
            }
            '\\' => match chars.next() {
                Some((_, c)) => local.push(c),
                None => return Err(AddressError::Incomplete),
            },
            c => local.push(c),
        }
    }
    Err(AddressError::Incomplete)
}

/// `atext` of RFC 5322 3.2.3 with the non-ASCII of RFC 6531 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !breaks_line(c) && !c.is_whitespace())
}

/// Whether the wire takes a local part without quotes.
fn is_dot_atom(local: &str) -> bool {
    local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// Control characters, and what Unicode takes for the end of a line.
fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
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
    /// More than 253 octets: RFC 5321 4.5.3.1.2 has 255, of which DNS can carry 253.
    #[error("domain longer than 253 octets")]
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

#[cfg(test)]
mod tests;
