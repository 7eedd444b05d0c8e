//! How large messages are, and the text that makes them so. Text is made once, messages are cut from it at lines' ends, so that a
//! message costs a copy and no two are alike.

use std::str::FromStr;

use crate::random::Random;

/// Text to cut from.
const TEXT_BYTES: usize = 2 << 20;
/// Largest message.
const SIZE_MAX: u64 = 1 << 30;
/// A mail hub's day: 63,595 messages of 546,124,884 octets, 8,588 on average, of which half are below this ...
const DAY_MEDIAN: f64 = 3500.0;
/// ... and this deviation of the logarithm makes up the rest.
const DAY_DEVIATION: f64 = 1.34;
/// No single one may outweigh a run.
const DAY_MAX: f64 = 10e6;
const DAY_MIN: f64 = 400.0;

/// How large messages are, octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All alike from, to; the same when all are of one size.
    Even(u64, u64),
    /// As on a mail hub's day: most small, few large, 8.6 KB on average.
    Day,
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "day" {
            return Ok(Self::Day);
        }
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let size = |text| {
            let size = service::config::bytes::parse(text)?;
            match size <= SIZE_MAX {
                true => Ok(size),
                false => Err(format!("{text} is more than 1 GiB")),
            }
        };
        let (from, to) = (size(from)?, size(to)?);
        match from <= to {
            true => Ok(Self::Even(from, to)),
            false => Err(format!(
                "{text:?}: the first size is larger than the second"
            )),
        }
    }
}

impl Sizes {
    /// The size of the next message.
    pub fn next(self, random: &mut Random) -> usize {
        let size = match self {
            Self::Even(from, to) => from + random.below(to - from + 1),
            Self::Day => {
                let size = DAY_MEDIAN * (DAY_DEVIATION * random.normal()).exp();
                size.clamp(DAY_MIN, DAY_MAX) as u64
            }
        };
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

/// Words of about the usual lengths; what they say does not matter, that lines differ does.
const WORDS: &[&str] = &[
    "the",
    "of",
    "release",
    "and",
    "to",
    "patch",
    "a",
    "in",
    "build",
    "that",
    "is",
    "server",
    "it",
    "for",
    "was",
    "branch",
    "on",
    "test",
    "with",
    "as",
    "mirror",
    "be",
    "at",
    "by",
    "commit",
    "this",
    "from",
    "have",
    "vote",
    "or",
    "index",
    "one",
    "had",
    "thread",
    "not",
    "but",
    "what",
    "memory",
    "all",
    "were",
    "configuration",
    "when",
    "we",
    "there",
    "can",
    "dependency",
    "an",
    "your",
];

/// See the module.
#[derive(Debug)]
pub struct Text {
    bytes: Vec<u8>,
    /// Where lines begin; the last one is the end.
    starts: Vec<usize>,
}

impl Text {
    /// Lines of words, none beginning with a dot.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, u64::MAX);
        let mut bytes = Vec::with_capacity(TEXT_BYTES + 128);
        let mut starts = vec![0];
        while bytes.len() < TEXT_BYTES {
            let length = 20 + random.below(52) as usize;
            let start = bytes.len();
            while bytes.len() < start + length {
                let word = WORDS[random.below(WORDS.len() as u64) as usize];
                bytes.extend_from_slice(word.as_bytes());
                bytes.push(b' ');
            }
            bytes.truncate(bytes.len() - 1);
            bytes.extend_from_slice(b"\r\n");
            starts.push(bytes.len());
        }
        Self { bytes, starts }
    }

    /// Appends whole lines, so many octets or up to a line more.
    pub fn append(&self, size: usize, random: &mut Random, out: &mut Vec<u8>) {
        let mut left = size;
        while left > 0 {
            let first = random.below(self.starts.len() as u64 - 1) as usize;
            let from = self.starts[first];
            let wanted = from.saturating_add(left);
            let last = self.starts.partition_point(|&start| start < wanted);
            let to = self.starts.get(last).copied().unwrap_or(self.bytes.len());
            out.extend_from_slice(&self.bytes[from..to]);
            left = left.saturating_sub(to - from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_explained() {
        for (text, expected) in [
            ("day", Ok(Sizes::Day)),
            ("6000", Ok(Sizes::Even(6000, 6000))),
            ("1KiB..4KiB", Ok(Sizes::Even(1024, 4096))),
        ] {
            assert_eq!(text.parse(), expected);
        }
        for text in ["", "x", "2..1", "2GiB"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_days_sizes_are_that_days() {
        let mut sizes: Vec<usize> = (0..100_000)
            .map(|n| Sizes::Day.next(&mut Random::new(1, n)))
            .collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((8_000..9_200).contains(&mean), "{mean}");
        sizes.sort_unstable();
        assert!((3_400..3_600).contains(&sizes[50_000]), "{}", sizes[50_000]);
    }

    #[test]
    fn text_is_whole_lines_that_need_no_stuffing() {
        let text = Text::new(1);
        for size in [0, 1, 100, 6000, 3 * TEXT_BYTES] {
            let mut out = Vec::new();
            text.append(size, &mut Random::new(1, 1), &mut out);
            assert!(
                (size..size + 128).contains(&out.len()),
                "{size}: {}",
                out.len()
            );
            assert!(out.is_empty() || out.ends_with(b"\r\n"));
            assert!(!out.starts_with(b".") && !out.windows(3).any(|w| w == b"\n.\r"));
            assert_eq!(
                out.iter().filter(|&&byte| byte == b'\n').count(),
                out.windows(2).filter(|w| w == b"\r\n").count()
            );
        }
        let (mut one, mut two) = (Vec::new(), Vec::new());
        text.append(1000, &mut Random::new(1, 1), &mut one);
        text.append(1000, &mut Random::new(1, 2), &mut two);
        assert_ne!(one, two);
    }
}
