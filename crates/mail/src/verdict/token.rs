//! The signed form of a verdict: base64url of a version byte, the verdict's fields and an HMAC over them and the digest of the message.
//!
//! It says that one of our scanners saw this message. Whether that was recent enough, and by rules that still hold, is for its reader.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Action, Class, Classes, Keys, Verdict};
use crate::timestamp::Timestamp;

/// Octets of a token.
pub const TOKEN_BYTES_MAX: usize = 2048;
/// Octets of one line that carries a piece of a token.
const LINE_BYTES_MAX: usize = 400;
/// What starts a line that carries a piece of a token.
const LINE_PREFIX: &str = "verdict=";
/// The form's version: the first byte.
const VERSION: u8 = 2;
/// What the tag is over, so that no other use of the same keys could pass for a verdict.
const PURPOSE: &[u8] = b"mailflow verdict";
/// Bytes of the tag.
const TAG_BYTES: usize = 32;
/// Bytes before base64: three become four octets.
const PAYLOAD_BYTES_MAX: usize = TOKEN_BYTES_MAX / 4 * 3 - TAG_BYTES;
/// Bytes of each free text (reason, rules, signatures).
const TEXT_BYTES_MAX: usize = 200;

/// A signed verdict: printable, no white space, at most 2,048 octets (rule names are cut to fit).
pub struct Token;

impl Token {
    /// Signs a verdict about the message with this digest.
    pub fn sign(verdict: &Verdict, digest: &[u8; 32], keys: &Keys) -> String {
        let mut bytes = encode(verdict);
        let tag = keys.sign(&[PURPOSE, &bytes, digest]);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The verdict, when the token is ours and speaks of this digest. Whether it is still fresh enough is the caller's question.
    pub fn verify(token: &str, digest: &[u8; 32], keys: &Keys) -> Option<Verdict> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (payload, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        keys.verify(&[PURPOSE, payload, digest], tag)
            .then(|| decode(payload))?
    }

    /// A reply's lines that carry a token: `verdict=` and a piece in each, none longer than 400 octets.
    pub fn to_lines(token: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = token;
        while !rest.is_empty() {
            let cut = rest.floor_char_boundary(LINE_BYTES_MAX - LINE_PREFIX.len());
            lines.push(format!("{LINE_PREFIX}{}", &rest[..cut]));
            rest = &rest[cut..];
        }
        lines
    }

    /// The token that a reply's lines carry, put together again; other lines may stand between. `None` when they carry none, or
    /// more than a token can be.
    pub fn from_lines(lines: &[String]) -> Option<String> {
        let mut token = String::new();
        for piece in lines
            .iter()
            .filter_map(|line| line.strip_prefix(LINE_PREFIX))
        {
            token.push_str(piece.trim_end());
            if token.len() > TOKEN_BYTES_MAX {
                return None;
            }
        }
        (!token.is_empty()).then_some(token)
    }
}

/// The payload: version, class, classes found, action, score, required, time, reason, rules, signatures, tests. Texts have their
/// length in front.
fn encode(verdict: &Verdict) -> Vec<u8> {
    let mut out = vec![VERSION, verdict.class as u8];
    out.extend(verdict.found.bits().to_be_bytes());
    out.push(verdict.action as u8);
    out.push(u8::from(verdict.score_hundredths.is_some()));
    out.extend(verdict.score_hundredths.unwrap_or(0).to_be_bytes());
    out.extend(verdict.required_hundredths.to_be_bytes());
    out.extend(verdict.time.0.to_be_bytes());
    for text in [&verdict.reason, &verdict.rules, &verdict.signatures] {
        push_text(&mut out, cut(text, TEXT_BYTES_MAX));
    }
    for test in &verdict.tests {
        let test = cut(test, TEXT_BYTES_MAX);
        if out.len() + 1 + test.len() > PAYLOAD_BYTES_MAX {
            break;
        }
        push_text(&mut out, test);
    }
    out
}

fn decode(payload: &[u8]) -> Option<Verdict> {
    let mut rest = payload;
    let [version, class] = *take::<2>(&mut rest)?;
    if version != VERSION {
        return None;
    }
    let found = Classes::from_bits(u16::from_be_bytes(*take(&mut rest)?))?;
    let [action, scored] = *take::<2>(&mut rest)?;
    if scored > 1 {
        return None;
    }
    let score = i32::from_be_bytes(*take(&mut rest)?);
    let required_hundredths = i32::from_be_bytes(*take(&mut rest)?);
    let time = Timestamp(u64::from_be_bytes(*take(&mut rest)?));
    let reason = take_text(&mut rest)?;
    let rules = take_text(&mut rest)?;
    let signatures = take_text(&mut rest)?;
    let mut tests = Vec::new();
    while !rest.is_empty() {
        tests.push(take_text(&mut rest)?);
    }
    Some(Verdict {
        class: class_of(class)?,
        found,
        action: action_of(action)?,
        score_hundredths: (scored == 1).then_some(score),
        required_hundredths,
        tests,
        reason,
        rules,
        signatures,
        time,
    })
}

/// By the place in [`Class::ALL`].
fn class_of(byte: u8) -> Option<Class> {
    Class::ALL.get(usize::from(byte)).copied()
}

fn action_of(byte: u8) -> Option<Action> {
    Action::ALL.get(usize::from(byte)).copied()
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Appends a text of at most [`TEXT_BYTES_MAX`] bytes, its length in front.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(taken)
}

fn take_text(rest: &mut &[u8]) -> Option<Box<str>> {
    let [len] = *take::<1>(rest)?;
    let (text, left) = rest.split_at_checked(usize::from(len))?;
    *rest = left;
    std::str::from_utf8(text).ok().map(Into::into)
}
