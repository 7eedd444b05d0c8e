//! Rules on header fields, applied to a message before it is taken. Pure. Matching takes time that grows with the text alone, whatever
//! the pattern: a pattern with backtracking would let a stranger stop an edge with one line.

use std::fmt;
use std::str::FromStr;

use mail::header;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::decide::{Decision, Finding};
use crate::config::{Action, HeaderRule};
use crate::reason::Reason;

/// Octets of one field that are looked at.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// What a pattern may become when it is compiled.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression; case does not matter in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

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
        f.write_str(self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Which rules a message's header meets. The evidence is the rule's name, not the field: the sender knows what it sent.
pub fn check(rules: &[HeaderRule], message: &[u8]) -> Decision {
    let mut decision = Decision::default();
    let active = || rules.iter().filter(|rule| rule.action != Action::Off);
    if active().next().is_none() {
        return decision;
    }
    for field in header::fields(message) {
        for rule in active().filter(|rule| field.is(&rule.field)) {
            let text = field.text();
            let looked_at = &text[..text.floor_char_boundary(FIELD_BYTES_MAX)];
            if !rule.pattern.0.is_match(looked_at) {
                continue;
            }
            let finding = Finding {
                reason: Reason::Header,
                evidence: format!("{} ({})", rule.field, rule.name),
            };
            if rule.action == Action::Enforce {
                decision.refusal = Some(finding);
                return decision;
            }
            if !decision.warned.contains(&finding) {
                decision.warned.push(finding);
            }
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, field: &str, pattern: &str, action: Action) -> HeaderRule {
        HeaderRule {
            name: name.into(),
            field: field.into(),
            pattern: pattern.parse().unwrap(),
            action,
        }
    }

    #[test]
    fn a_field_is_matched_unfolded_in_any_case_and_in_the_header_alone() {
        let rules = [
            rule("pills", "Subject", "cheap +pills", Action::Enforce),
            rule("mailer", "X-Mailer", "^bulk", Action::Warn),
            rule("off", "From", ".", Action::Off),
        ];
        for (message, refused, warned) in [
            ("Subject: hello\r\n\r\ncheap pills\r\n", false, 0),
            ("subject: Cheap Pills\r\n\r\n", true, 0),
            ("Subject: cheap\r\n  pills\r\n\r\n", true, 0),
            ("X-Mailer: Bulker\r\nX-Mailer: bulk\r\n\r\n", false, 1),
            ("X-Mailer: not bulk\r\n\r\n", false, 0),
            ("X-Mailer: bulk\r\nSubject: cheap  pills\r\n\r\n", true, 1),
            ("Subject: hello\r\n\r\nSubject: cheap pills\r\n", false, 0),
            ("", false, 0),
        ] {
            let decision = check(&rules, message.as_bytes());
            assert_eq!(
                (decision.refusal.is_some(), decision.warned.len()),
                (refused, warned),
                "{message:?}"
            );
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_complained_of() {
        assert!("(".parse::<Pattern>().is_err());
        assert!("a{1000}{1000}".parse::<Pattern>().is_err());
    }
}
