//! What scanning a message found, what is to be done about it, and the signed form in which it travels (design, invariant 3).

use crate::timestamp::Timestamp;

/// What a scan found out about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its class.
    pub class: Class,
    /// SpamAssassin's score in hundredths of a point; `None` when it was not asked (exempt, or malware was found first).
    pub score_hundredths: Option<i32>,
    /// The score from which mail counts as spam, in hundredths.
    pub required_hundredths: i32,
    /// Names of the rules that hit.
    pub tests: Vec<Box<str>>,
    /// What made the class: the malware's name, the structural objection; empty for clean and spam.
    pub reason: Box<str>,
    /// Version of the scanner's rules and policy.
    pub rules: Box<str>,
    /// clamd's answer to VERSION.
    pub signatures: Box<str>,
    /// When it was scanned.
    pub time: Timestamp,
}

/// Content classes, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Below the tag level.
    Clean,
    /// From the tag level on: marked, passed.
    Spammy,
    /// Its structure could not be trusted: too deep, too many parts, ambiguous, oversize.
    Unchecked,
    /// From the kill level on.
    Spam,
    /// clamd found something.
    Malware,
}

impl Class {
    /// `clean`, `spammy`, `unchecked`, `spam`, `malware`: the word in logs, metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Spammy => "spammy",
            Self::Unchecked => "unchecked",
            Self::Spam => "spam",
            Self::Malware => "malware",
        }
    }
}

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On its way, marked as its class says.
    Pass,
    /// 550 5.7.1 while the client waits.
    Refuse,
    /// To listserv's quarantine: nobody waits any more, and strangers get no bounce.
    Quarantine,
}

/// Secrets by which tokens are signed: the first signs, all verify, so that they rotate with overlap.
#[derive(Clone)]
pub struct Keys(Vec<ring::hmac::Key>);

impl Keys {
    /// One key a secret, at least one, each at least 16 bytes.
    pub fn new(secrets: &[Vec<u8>]) -> Option<Self> {
        todo!("{}", secrets.len())
    }

    /// HMAC-SHA256 of the parts, each preceded by its length.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        todo!("{}", parts.len())
    }

    /// Whether any key made `tag` (at least its first 16 bytes; compared in constant time) over the parts.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        todo!("{} {}", parts.len(), tag.len())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// SHA-256 of a message without its trace header: what a verdict is about.
pub fn digest(message: &[u8]) -> [u8; 32] {
    todo!("{}", message.len())
}

/// A signed verdict: printable, no white space, at most 2,048 octets (rule names are cut to fit).
pub struct Token;

impl Token {
    /// Signs a verdict about the message with this digest.
    pub fn sign(verdict: &Verdict, digest: &[u8; 32], keys: &Keys) -> String {
        todo!("{verdict:?} {digest:?} {keys:?}")
    }

    /// The verdict, when the token is ours and speaks of this digest. Whether it is still fresh enough is the caller's question.
    pub fn verify(token: &str, digest: &[u8; 32], keys: &Keys) -> Option<Verdict> {
        todo!("{token} {digest:?} {keys:?}")
    }

    /// A reply's lines that carry a token: `verdict=` and a piece in each, none longer than 400 octets.
    pub fn to_lines(token: &str) -> Vec<String> {
        todo!("{token}")
    }

    /// The token that a reply's lines carry, put together again.
    pub fn from_lines(lines: &[String]) -> Option<String> {
        todo!("{lines:?}")
    }
}
