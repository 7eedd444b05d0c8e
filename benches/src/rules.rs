//! What is answered otherwise than with a yes: `STAGE[:PATTERN][%SHARE][#COUNT]=WHAT`; the first rule that fits answers.
//!
//! WHAT is a reply, `drop` (hang up without a word) or `wait DURATION` (then the next rule that fits, or the yes).
//! `connect=421 4.3.2 closed`, `mail:*@bad.example=550 5.7.1 no`, `rcpt:*@slow.example=wait 200ms`, `data%1.5=drop`,
//! `rcpt:nobody@*#3=450 4.2.0 later`. The pattern of `connect` is held against the address that was connected to.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mail::Reply;

use crate::random::Random;

/// Where in the dialogue a rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Instead of the greeting; the pattern is held against the local IP address.
    Connect,
    /// To MAIL; the pattern is held against the reverse-path.
    Mail,
    /// To RCPT; the pattern is held against the forward-path.
    Rcpt,
    /// To the message, for each recipient that the pattern fits.
    Data,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Reply(Reply),
    Drop,
    Wait(Duration),
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    stage: Stage,
    pattern: String,
    /// How many of those that fit it answers, of 1.
    share: f64,
    /// How many it was held against: chance that can be repeated.
    met: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
    what: What,
}

/// What the rules want of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// First so long nothing.
    pub wait: Duration,
    /// Then this.
    pub act: Act,
}

/// What is done in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// What a server does that takes everything.
    #[default]
    Go,
    /// This is said.
    Reply(Reply),
    /// The connection is closed without a word.
    Drop,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{what} in {text:?}; write STAGE[:PATTERN][%SHARE][#COUNT]=CODE X.Y.Z TEXT, drop, or wait DURATION"
            )
        };
        let (place, what) = text.split_once('=').ok_or_else(|| wrong("no = "))?;
        let (place, left) = match place.rsplit_once('#') {
            Some((place, count)) => (
                place,
                count.parse().map_err(|_| wrong("count is no number"))?,
            ),
            None => (place, u64::MAX),
        };
        let (place, share) = match place.rsplit_once('%') {
            Some((place, percent)) => {
                let percent = percent.parse::<f64>().ok();
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                let percent = percent.ok_or_else(|| wrong("share is no percentage"))?;
                (place, percent / 100.0)
            }
            None => (place, 1.0),
        };
        let (stage, pattern) = place.split_once(':').unwrap_or((place, "*"));
        let stage = match stage {
            "connect" => Stage::Connect,
            "mail" => Stage::Mail,
            "rcpt" => Stage::Rcpt,
            "data" => Stage::Data,
            _ => return Err(wrong("stage is none of connect, mail, rcpt, data")),
        };
        let what = match what.split_once(' ') {
            None if what == "drop" => What::Drop,
            Some(("wait", duration)) => {
                What::Wait(service::config::duration::parse(duration).map_err(|why| wrong(&why))?)
            }
            _ => What::Reply(
                parse_reply(what)
                    .ok_or_else(|| wrong("reply is not CODE X.Y.Z TEXT with 4xx or 5xx"))?,
            ),
        };
        Ok(Self {
            stage,
            pattern: pattern.to_lowercase(),
            share,
            met: Arc::default(),
            left: Arc::new(AtomicU64::new(left)),
            what,
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
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// In the order given.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Adds one behind the others.
    pub fn push(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any rule hangs up.
    pub fn drops(&self) -> bool {
        self.0.iter().any(|rule| rule.what == What::Drop)
    }

    /// What is wanted of this stage and address; a counted rule is used up by one.
    pub fn decide(&self, stage: Stage, address: &str) -> Decision {
        let mut decision = Decision::default();
        if self.0.iter().all(|rule| rule.stage != stage) {
            return decision;
        }
        let address = address.to_lowercase();
        for rule in self.0.iter().filter(|rule| rule.stage == stage) {
            if !fits(&rule.pattern, &address) || !rule.is_met() || !rule.take() {
                continue;
            }
            match &rule.what {
                What::Wait(wait) => decision.wait += *wait,
                What::Reply(reply) => {
                    decision.act = Act::Reply(reply.clone());
                    break;
                }
                What::Drop => {
                    decision.act = Act::Drop;
                    break;
                }
            }
        }
        decision
    }
}

impl Rule {
    /// Whether chance picks it.
    fn is_met(&self) -> bool {
        self.share >= 1.0
            || Random::new(0, self.met.fetch_add(1, Ordering::Relaxed)).share() < self.share
    }

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

    fn rules(texts: &[&str]) -> Rules {
        Rules::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn code(decision: Decision) -> Option<u16> {
        match decision.act {
            Act::Reply(reply) => Some(reply.code),
            Act::Go | Act::Drop => None,
        }
    }

    #[test]
    fn rules_answer_in_order_and_as_often_as_told() {
        let rules = rules(&[
            "rcpt:no@*#2=451 4.2.0 later",
            "rcpt:no@*=550 5.1.1 unknown",
            "data=452 4.2.2 full",
            "connect:127.0.0.2=drop",
        ]);
        let codes: Vec<_> = (0..3)
            .map(|_| code(rules.decide(Stage::Rcpt, "No@x")))
            .collect();
        assert_eq!(codes, [Some(451), Some(451), Some(550)]);
        assert_eq!(rules.decide(Stage::Rcpt, "yes@x"), Decision::default());
        assert_eq!(
            rules.decide(Stage::Data, "yes@x").act,
            Act::Reply(Reply::new(452, (4, 2, 2), "full"))
        );
        assert_eq!(rules.decide(Stage::Connect, "127.0.0.2").act, Act::Drop);
        assert_eq!(rules.decide(Stage::Connect, "127.0.0.1").act, Act::Go);
        assert!(rules.drops());
    }

    #[test]
    fn waits_add_up_before_what_answers() {
        let rules = rules(&[
            "rcpt=wait 200ms",
            "rcpt:*@slow.example=wait 1s",
            "rcpt:no@*=550 5.1.1 unknown",
            "rcpt=wait 1h",
        ]);
        let decision = rules.decide(Stage::Rcpt, "no@slow.example");
        assert_eq!(decision.wait, Duration::from_millis(1200));
        assert_eq!(code(decision), Some(550));
        let decision = rules.decide(Stage::Rcpt, "yes@x");
        assert_eq!(decision.wait, Duration::from_millis(3_600_200));
        assert_eq!(decision.act, Act::Go);
    }

    #[test]
    fn a_share_is_that_share_and_the_same_each_time() {
        let count = || {
            let rules = rules(&["data:*@x%12.5=451 4.3.0 busy"]);
            let refused = (0..10_000).filter(|_| code(rules.decide(Stage::Data, "a@x")).is_some());
            refused.count()
        };
        let refused = count();
        assert!((1150..1350).contains(&refused), "{refused} of 10000");
        assert_eq!(count(), refused);
    }

    #[test]
    fn a_wrong_rule_is_told() {
        for (text, expected) in [
            ("rcpt", "no ="),
            ("helo=550 5.0.0 x", "stage"),
            ("rcpt#x=550 5.0.0 x", "count"),
            ("rcpt=250 2.0.0 x", "reply"),
            ("rcpt=550 x", "reply"),
            ("rcpt=dropped", "reply"),
            ("rcpt%x=drop", "share"),
            ("rcpt%101=drop", "share"),
            ("rcpt=wait a while", ""),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
