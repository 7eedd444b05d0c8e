//! Patterns of addresses: text with places that each message fills in its own way. Pure.
//!
//! `{n}` the message's number, `{r}` the recipient's place in it, `{1..500}` any number of these alike, `{zipf:200}` a rank from 1 to 200,
//! the second half as often as the first, the third a third as often, as recipients' domains are: `m{1..90000}@d{zipf:200}.example`.

use std::str::FromStr;
use std::sync::Arc;

use crate::random::Random;
use crate::stamp::push_number;

/// Ranks of a Zipf distribution at most.
const RANKS_MAX: usize = 1_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    Message,
    Recipient,
    /// From, and how many.
    Any(u64, u64),
    Zipf(Arc<Zipf>),
}

/// Ranks from 1, each with a share of one over itself.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// So many ranks.
    pub fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks.max(1)).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let sums: Vec<f64> = sums.collect();
        Self(sums.into_iter().map(|up_to| up_to / sum).collect())
    }

    /// The rank of a share from 0 up to 1.
    pub fn rank(&self, share: f64) -> u64 {
        let before = self.0.partition_point(|up_to| *up_to <= share);
        before.min(self.0.len() - 1) as u64 + 1
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (inside, after) = behind
                .split_once('}')
                .ok_or_else(|| format!("no }} in {text:?}"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::parse(inside).ok_or_else(|| {
                format!("{{{inside}}} in {text:?} is none of {{n}}, {{r}}, {{1..9}}, {{zipf:9}}")
            })?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        let plain = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !"<>".contains(c));
        match plain {
            true => Ok(Self(pieces)),
            false => Err(format!(
                "{text:?} is no address: printable ASCII without < and >"
            )),
        }
    }
}

impl Piece {
    fn parse(inside: &str) -> Option<Self> {
        if let Some(ranks) = inside.strip_prefix("zipf:") {
            let ranks = ranks.parse().ok();
            let ranks = ranks.filter(|ranks| (1..=RANKS_MAX).contains(ranks))?;
            return Some(Self::Zipf(Arc::new(Zipf::new(ranks))));
        }
        match inside {
            "n" => Some(Self::Message),
            "r" => Some(Self::Recipient),
            _ => {
                let (from, to) = inside.split_once("..")?;
                let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
                let count = to.checked_sub(from)?.checked_add(1)?;
                Some(Self::Any(from, count))
            }
        }
    }
}

impl Pattern {
    /// Appends the address of a message's recipient.
    pub fn write(&self, message: u64, recipient: u64, random: &mut Random, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Message => push_number(message, out),
                Piece::Recipient => push_number(recipient, out),
                Piece::Any(from, count) => push_number(from + random.below(*count), out),
                Piece::Zipf(zipf) => push_number(zipf.rank(random.share()), out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pattern: &str, message: u64, recipient: u64) -> String {
        let pattern: Pattern = pattern.parse().unwrap();
        let mut out = Vec::new();
        pattern.write(message, recipient, &mut Random::new(1, message), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn places_are_filled_in() {
        for (pattern, expected) in [
            ("", ""),
            ("a@b.example", "a@b.example"),
            ("u{n}-{r}@b", "u7-3@b"),
            ("{5..5}@{zipf:1}", "5@1"),
        ] {
            assert_eq!(write(pattern, 7, 3), expected);
        }
        let some: std::collections::BTreeSet<String> =
            (0..1000).map(|n| write("{10..19}", n, 0)).collect();
        assert_eq!(some.len(), 10);
        assert_eq!(some.first().unwrap(), "10");
        assert_eq!(some.last().unwrap(), "19");
    }

    #[test]
    fn wrong_patterns_are_explained() {
        for (pattern, expected) in [
            ("a{n@b", "no }"),
            ("a{x}@b", "{x} in"),
            ("{9..1}", "{9..1} in"),
            ("{zipf:0}", "{zipf:0} in"),
            ("a b", "\"a b\" is no address"),
            ("<a@b>", "\"<a@b>\" is no address"),
        ] {
            let why = pattern.parse::<Pattern>().unwrap_err();
            assert!(why.starts_with(expected), "{pattern}: {why}");
        }
    }

    #[test]
    fn ranks_have_their_shares() {
        let zipf = Zipf::new(3);
        let sum = 1.0 + 1.0 / 2.0 + 1.0 / 3.0;
        for (share, rank) in [
            (0.0, 1),
            (0.99 / sum, 1),
            (1.01 / sum, 2),
            (1.49 / sum, 2),
            (1.51 / sum, 3),
            (1.0, 3),
        ] {
            assert_eq!(zipf.rank(share), rank, "{share}");
        }
    }
}
