//! Chosen replies: `STAGE[:PATTERN][#COUNT]=REPLY`, the first rule that fits answers.
//!
//! `connect=421 4.3.2 closed`, `mail:*@bad.example=550 5.7.1 no`, `rcpt:nobody@*=550 5.1.1 unknown`, `data#3=451 4.3.0 later`.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::Reply;

/// Where in the dialogue a rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Instead of the greeting.
    Connect,
    /// To MAIL; the pattern is held against the reverse-path.
    Mail,
    /// To RCPT; the pattern is held against the forward-path.
    Rcpt,
    /// To the message, for each recipient that the pattern fits.
    Data,
}

/// A chosen reply.
#[derive(Clone, Debug)]
pub struct Rule {
    stage: Stage,
    pattern: String,
    left: Arc<AtomicU64>,
    reply: Reply,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{what} in {text:?}; write STAGE[:PATTERN][#COUNT]=CODE X.Y.Z TEXT")
        };
        let (place, reply) = text.split_once('=').ok_or_else(|| wrong("no = "))?;
        let (place, count) = match place.split_once('#') {
            Some((place, count)) => (
                place,
                count.parse().map_err(|_| wrong("count is no number"))?,
            ),
            None => (place, u64::MAX),
        };
        let (stage, pattern) = place.split_once(':').unwrap_or((place, "*"));
        let stage = match stage {
            "connect" => Stage::Connect,
            "mail" => Stage::Mail,
            "rcpt" => Stage::Rcpt,
            "data" => Stage::Data,
            _ => return Err(wrong("stage is none of connect, mail, rcpt, data")),
        };
        let reply = parse_reply(reply)
            .ok_or_else(|| wrong("reply is not CODE X.Y.Z TEXT with 4xx or 5xx"))?;
        Ok(Self {
            stage,
            pattern: pattern.to_lowercase(),
            left: Arc::new(AtomicU64::new(count)),
            reply,
        })
    }
}

fn parse_reply(text: &str) -> Option<Reply> {
    let mut words = text.splitn(3, ' ');
    let code: u16 = words
        .next()?
        .parse()
        .ok()
        .filter(|code| (400..600).contains(code))?;
    let mut digits = words
        .next()?
        .split('.')
        .map(|digits| digits.parse::<u16>().ok());
    let status = (
        u8::try_from(digits.next()??).ok()?,
        digits.next()??,
        digits.next()??,
    );
    Some(Reply::new(code, status, words.next().unwrap_or("as told")))
}

/// The rules in the order given.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// In the order given.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The reply that was chosen for this stage and address, if any; a counted rule is used up by one.
    pub fn reply(&self, stage: Stage, address: &str) -> Option<Reply> {
        let address = address.to_lowercase();
        self.0
            .iter()
            .filter(|rule| rule.stage == stage && fits(&rule.pattern, &address))
            .find(|rule| rule.take())
            .map(|rule| rule.reply.clone())
    }
}

impl Rule {
    fn take(&self) -> bool {
        let less = |left: u64| {
            if left == u64::MAX {
                Some(left)
            } else {
                left.checked_sub(1)
            }
        };
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// Whether text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut cuts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            cuts.any(|at| fits(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_shells_do() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a@b", true),
            ("a@b", "a@b", true),
            ("a@b", "a@bc", false),
            ("*@b", "a@b", true),
            ("*@b", "a@b.c", false),
            ("a*@*.c", "abc@b.c", true),
            ("a*@*.c", "bbc@b.c", false),
            ("ä*", "äö", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_answer_in_order_and_as_often_as_told() {
        let texts = [
            "rcpt:no@*#2=451 4.2.0 later",
            "rcpt:no@*=550 5.1.1 unknown",
            "data=452 4.2.2 full",
        ];
        let rules = Rules::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let codes: Vec<u16> = (0..3)
            .filter_map(|_| rules.reply(Stage::Rcpt, "No@x"))
            .map(|reply| reply.code)
            .collect();
        assert_eq!(codes, [451, 451, 550]);
        assert_eq!(rules.reply(Stage::Rcpt, "yes@x"), None);
        assert_eq!(
            rules.reply(Stage::Data, "yes@x").unwrap().to_string(),
            "452 4.2.2 full"
        );
    }

    #[test]
    fn a_wrong_rule_is_told() {
        for (text, expected) in [
            ("rcpt", "no ="),
            ("helo=550 5.0.0 x", "stage"),
            ("rcpt#x=550 5.0.0 x", "count"),
            ("rcpt=250 2.0.0 x", "reply"),
            ("rcpt=550 x", "reply"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
