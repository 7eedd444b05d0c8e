//! The trace header `X-Mailflow-Trace`: what the edge knows of a message, carried on the inner hops.
//!
//! The edge alone writes it, the scanner fills in its verdict token, listserv takes it off. Everybody else's copy is stripped.
//! It is believed only over mutual TLS or loopback. Custody, arrival and client are the edge's word, not the sender's.

use std::net::IpAddr;

use crate::id::Ident;
use crate::timestamp::Timestamp;

/// The field's name.
pub const NAME: &str = "X-Mailflow-Trace";

/// Octets of HELO that are kept: a domain and then some.
const HELO_BYTES_MAX: usize = 255;
/// Octets of a value that are looked at: a token, an encoded HELO and the rest are below this.
const VALUE_BYTES_MAX: usize = 8192;
/// The line length to aim at (RFC 5322 2.1.1).
const LINE_BYTES_GOAL: usize = 78;

/// What the edge knows of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The message's name on the inner hops.
    pub ident: Ident,
    /// Does the client still wait, or did the edge say 250 and keep the message?
    pub custody: Custody,
    /// When the edge had the whole message.
    pub arrival: Timestamp,
    /// The client's address.
    pub client: IpAddr,
    /// What the client called itself, cleaned.
    pub helo: Box<str>,
    /// SPF of the reverse-path (of HELO when that is null).
    pub spf: Spf,
    /// Own network or authenticated: exempt from scanning by rule, counted.
    pub exempt: bool,
    /// A signed verdict (`verdict::Token`), when a scanner gave one.
    pub verdict: Option<Box<str>>,
}

/// Whose the message is while it travels inward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The client still waits: a refusal reaches the sender.
    Live,
    /// The edge owns it: a refusal would need a bounce, so bad mail is quarantined.
    Spooled,
}

/// The result of an SPF check (RFC 7208 2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spf {
    /// The domain authorises this client.
    Pass,
    /// It forbids it.
    Fail,
    /// It discourages it.
    SoftFail,
    /// It says nothing about it.
    Neutral,
    /// No policy published, or not checked.
    #[default]
    None,
    /// DNS did not answer.
    TempError,
    /// The published policy cannot be read.
    PermError,
}

impl Spf {
    /// The word of RFC 7208 2.6: `pass`, `fail`, `softfail`, `neutral`, `none`, `temperror`, `permerror`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [
            Self::Pass,
            Self::Fail,
            Self::SoftFail,
            Self::Neutral,
            Self::None,
            Self::TempError,
            Self::PermError,
        ]
        .into_iter()
        .find(|spf| spf.as_str() == word)
    }
}

impl Custody {
    /// `live` or `spooled`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Spooled => "spooled",
        }
    }
}

impl Trace {
    /// The whole header field, folded, with its CRLF.
    ///
    /// `v=1; ident=...; custody=...; arrival=MILLISECONDS; client=...; helo=...; spf=...; exempt=yes|no; verdict=...`. White space
    /// means nothing, so that a token longer than a line can be folded; HELO is percent-encoded.
    pub fn header(&self) -> String {
        let mut items = vec![
            "v=1".to_owned(),
            format!("ident={}", self.ident),
            format!("custody={}", self.custody.as_str()),
            format!("arrival={}", self.arrival.0),
            format!("client={}", self.client.to_canonical()),
            format!("helo={}", encode(&clean(&self.helo))),
            format!("spf={}", self.spf.as_str()),
            format!("exempt={}", if self.exempt { "yes" } else { "no" }),
        ];
        if let Some(token) = &self.verdict {
            let token: String = token.chars().filter(char::is_ascii_graphic).collect();
            items.push(format!("verdict={}", token.replace(';', "")));
        }
        let mut out = format!("{NAME}:");
        let mut line = out.len();
        let last = items.len() - 1;
        for (at, item) in items.iter().enumerate() {
            let end = if at == last { "" } else { ";" };
            // All ASCII: pieces may be cut anywhere.
            let mut rest = item.as_str();
            while !rest.is_empty() {
                let (piece, left) = rest.split_at(rest.len().min(LINE_BYTES_GOAL - 2));
                if line + piece.len() + 2 > LINE_BYTES_GOAL {
                    out.push_str("\r\n");
                    line = 0;
                }
                out.push(' ');
                out.push_str(piece);
                line += piece.len() + 1;
                rest = left;
            }
            out.push_str(end);
            line += end.len();
        }
        out.push_str("\r\n");
        out
    }

    /// Reads the field's value (as `header::Field::text` gives it). `None` when it is not ours or not whole.
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let value: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if !value.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut items = Items::default();
        let rest = value.strip_prefix("v=1;")?;
        for item in rest.split(';') {
            let (key, value) = item.split_once('=')?;
            let place = match key {
                "ident" => &mut items.ident,
                "custody" => &mut items.custody,
                "arrival" => &mut items.arrival,
                "client" => &mut items.client,
                "helo" => &mut items.helo,
                "spf" => &mut items.spf,
                "exempt" => &mut items.exempt,
                "verdict" => &mut items.verdict,
                // What a later edge adds within the same version is nothing to us.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        items.read()
    }
}

/// The field's items as text.
#[derive(Default)]
struct Items<'a> {
    ident: Option<&'a str>,
    custody: Option<&'a str>,
    arrival: Option<&'a str>,
    client: Option<&'a str>,
    helo: Option<&'a str>,
    spf: Option<&'a str>,
    exempt: Option<&'a str>,
    verdict: Option<&'a str>,
}

impl Items<'_> {
    fn read(self) -> Option<Trace> {
        let helo = decode(self.helo?)?;
        Some(Trace {
            ident: Ident::parse(self.ident?).ok()?,
            custody: match self.custody? {
                "live" => Custody::Live,
                "spooled" => Custody::Spooled,
                _ => return None,
            },
            arrival: Timestamp(millis(self.arrival?)?),
            client: self.client?.parse::<IpAddr>().ok()?.to_canonical(),
            helo: (clean(&helo) == helo).then(|| helo.into())?,
            spf: Spf::parse(self.spf?)?,
            exempt: match self.exempt? {
                "yes" => true,
                "no" => false,
                _ => return None,
            },
            verdict: match self.verdict {
                Some("") => return None,
                token => token.map(Into::into),
            },
        })
    }
}

/// A number without the sign that `parse` would take.
fn millis(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// A HELO argument as it may be kept: no control characters, bounded.
fn clean(helo: &str) -> String {
    helo[..helo.floor_char_boundary(HELO_BYTES_MAX)]
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [b, left @ ..] = rest {
        rest = left;
        if *b == b'%' {
            let (digits, left) = rest.split_first_chunk::<2>()?;
            let nibble = |b: u8| char::from(b).to_digit(16);
            out.push((nibble(digits[0])? * 16 + nibble(digits[1])?) as u8);
            rest = left;
        } else {
            out.push(*b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests;
