//! What scanning a message found, what is to be done about it, and the signed form in which it travels (design, invariant 3).

use ring::{digest, hmac};

use crate::timestamp::Timestamp;
use crate::{header, trace};

mod class;
mod token;

pub use class::{Action, Class, Classes};
pub use token::Token;

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// The shortest part of a tag that is compared, in bytes.
const TAG_BYTES_MIN: usize = 16;

/// What a scan found out about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its class: the one that decided, in general the worst of those found.
    pub class: Class,
    /// All classes that were found.
    pub found: Classes,
    /// What was decided for those recipients with whom this verdict travels.
    pub action: Action,
    /// SpamAssassin's score in hundredths of a point; `None` when it was not asked (exempt, or malware was found first).
    pub score_hundredths: Option<i32>,
    /// The score from which mail is marked as spam, in hundredths.
    pub required_hundredths: i32,
    /// Names of the rules that hit.
    pub tests: Vec<Box<str>>,
    /// What made the class: the malware's name, the banned name, the structural objection; empty for clean and spam.
    pub reason: Box<str>,
    /// Version of the scanner's rules and policy.
    pub rules: Box<str>,
    /// clamd's answer to VERSION.
    pub signatures: Box<str>,
    /// When it was scanned.
    pub time: Timestamp,
}

/// How a scanner's reply names malware.
pub fn malware_told(name: &str) -> String {
    format!("malware found ({name})")
}

/// The malware that a line of a reply names.
pub fn malware_in(line: &str) -> Option<&str> {
    named(line, "malware found (").filter(|name| !name.contains(' '))
}

/// How a scanner's reply says why a message cannot be checked: nested too deep, a header too long, encrypted.
pub fn unchecked_told(reason: &str) -> String {
    format!("message cannot be checked ({reason})")
}

/// The reason that a line of a reply gives for that.
pub fn unchecked_in(line: &str) -> Option<&str> {
    named(line, "message cannot be checked (")
}

/// What stands in brackets behind `before`, when it is printable and short.
fn named<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    let (name, _) = rest.split_once(')')?;
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    (!name.is_empty() && name.len() <= 100 && name.chars().all(plain)).then_some(name)
}

/// Secrets by which tokens are signed: the first signs, all verify, so that they rotate with overlap.
#[derive(Clone)]
pub struct Keys(Vec<ring::hmac::Key>);

impl Keys {
    /// One key a secret, at least one, each at least 16 bytes.
    pub fn new(secrets: &[Vec<u8>]) -> Option<Self> {
        if secrets.is_empty() || secrets.iter().any(|s| s.len() < SECRET_BYTES_MIN) {
            return None;
        }
        let key = |secret: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA256, secret);
        Some(Self(secrets.iter().map(key).collect()))
    }

    /// HMAC-SHA256 of the parts, each preceded by its length.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        // `new` leaves at least one key; were there none, nothing could be verified by a tag of zeros either.
        self.tags(parts).next().unwrap_or_default()
    }

    /// Whether any key made `tag` (at least its first 16 bytes; compared in constant time) over the parts.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        // All keys are tried whatever the first ones say: which one fits is nobody's business.
        (TAG_BYTES_MIN..=32).contains(&tag.len())
            && self
                .tags(parts)
                .fold(false, |any, ours| any | same(&ours[..tag.len()], tag))
    }

    /// What each key makes of the parts, the signing one first.
    pub(crate) fn tags<'a>(&'a self, parts: &'a [&[u8]]) -> impl Iterator<Item = [u8; 32]> + 'a {
        self.0.iter().map(move |key| {
            let mut context = hmac::Context::with_key(key);
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            let mut tag = [0; 32];
            tag.copy_from_slice(context.sign().as_ref());
            tag
        })
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// Whether two secrets are the same, in a time that depends on their length alone.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// SHA-256 of a message without its trace header: what a verdict is about.
pub fn digest(message: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut from = 0;
    let mut walk = header::fields(message);
    let mut start = walk.offset();
    while let Some(field) = walk.next() {
        if field.is(trace::NAME) {
            context.update(&message[from..start]);
            from = walk.offset();
        }
        start = walk.offset();
    }
    context.update(&message[from..]);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests;
