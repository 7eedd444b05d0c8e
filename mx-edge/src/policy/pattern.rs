//! A rule's pattern. Matching takes time that grows with the text alone, whatever the pattern: one with backtracking would let a stranger
//! stop an edge with one line.

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Octets of one field that are looked at.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// What a pattern may become when it is compiled.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression; case does not matter in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Whether a text matches; of a long one its beginning is looked at.
    pub fn matches(&self, text: &str) -> bool {
        let looked_at = text.floor_char_boundary(FIELD_BYTES_MAX);
        self.0.is_match(&text[..looked_at])
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(text);
        let built = builder
            .case_insensitive(true)
            .size_limit(PATTERN_BYTES_MAX)
            .build();
        built.map(Self).map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_is_none_is_complained_of() {
        assert!("(".parse::<Pattern>().is_err());
        assert!("a{1000}{1000}".parse::<Pattern>().is_err());
    }

    #[test]
    fn the_beginning_of_a_long_text_is_looked_at() {
        let pattern: Pattern = "End$".parse().unwrap();
        assert!(pattern.matches("the END"));
        assert!(!pattern.matches(&("\u{fc}".repeat(FIELD_BYTES_MAX) + "end")));
    }
}
