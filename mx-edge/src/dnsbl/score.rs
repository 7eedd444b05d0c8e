//! What the lists' answers add up to. Pure: it is told answers as they come, and says as soon as no other answer can change the
//! outcome.

use std::net::Ipv4Addr;

use super::codes::Codes;
use crate::config::CodeText;

/// A filter on one zone's answers with what it is worth; several may ask the same zone.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which zone, by its place.
    pub zone: usize,
    /// Which answers count.
    pub codes: Codes,
    /// What one adds; negative for a list of good clients.
    pub weight: i32,
    /// The list's name in replies and logs; a zone's name may hold a customer's secret.
    pub name: Box<str>,
    /// What its answers mean.
    pub texts: Vec<CodeText>,
}

/// From which score on what follows.
#[derive(Clone, Debug)]
pub struct Scoring {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Listed from here up.
    pub threshold: i32,
    /// Allowed from here down; none when nobody is.
    pub allow_threshold: Option<i32>,
}

/// A zone's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not here yet.
    Pending,
    /// None to be had, or the list does not count at present: it adds nothing.
    Void,
    /// These; none when the client is not listed.
    Codes(Vec<Ipv4Addr>),
}

/// What it means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Listed.
    Listed,
    /// Vouched for.
    Allowed,
    /// Neither.
    Neutral,
}

/// A rule that counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The list's name, with what its answer means.
    pub name: Box<str>,
    /// The answer.
    pub code: Ipv4Addr,
    /// What it added.
    pub weight: i32,
}

impl Scoring {
    /// The outcome, once it is fixed; `Pending` answers count as unknown.
    pub fn outcome(&self, answers: &[Answer]) -> Option<Outcome> {
        let (mut least, mut most) = (0, 0);
        for rule in &self.rules {
            match answers.get(rule.zone) {
                Some(Answer::Codes(codes)) if codes.iter().any(|code| rule.codes.count(*code)) => {
                    least += rule.weight;
                    most += rule.weight;
                }
                Some(Answer::Pending) => {
                    least += rule.weight.min(0);
                    most += rule.weight.max(0);
                }
                _ => {}
            }
        }
        let allowed = |score: i32| self.allow_threshold.is_some_and(|allow| score <= allow);
        if least >= self.threshold {
            return Some(Outcome::Listed);
        }
        if allowed(most) {
            return Some(Outcome::Allowed);
        }
        (most < self.threshold && !allowed(least)).then_some(Outcome::Neutral)
    }

    /// The outcome when nothing more is waited for.
    pub fn decide(&self, answers: &[Answer]) -> Outcome {
        let known: Vec<_> = answers
            .iter()
            .map(|answer| match answer {
                Answer::Pending => Answer::Void,
                answer => answer.clone(),
            })
            .collect();
        self.outcome(&known).unwrap_or(Outcome::Neutral)
    }

    /// The rules that counted, the weightiest first.
    pub fn hits(&self, answers: &[Answer]) -> Vec<Hit> {
        let mut hits: Vec<Hit> = self
            .rules
            .iter()
            .filter_map(|rule| match answers.get(rule.zone)? {
                Answer::Codes(codes) => {
                    let code = codes.iter().find(|code| rule.codes.count(**code))?;
                    Some(Hit {
                        name: CodeText::told(&rule.texts, &rule.name, *code).into(),
                        code: *code,
                        weight: rule.weight,
                    })
                }
                _ => None,
            })
            .collect();
        hits.sort_by_key(|hit| -hit.weight);
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block lists of weight 3 and 1 (one of them asked twice), an allow list of weight -2.
    fn scoring(allow_threshold: Option<i32>) -> Scoring {
        let rule = |zone, codes: &str, weight, name: &str| Rule {
            zone,
            codes: codes.parse().unwrap(),
            weight,
            name: name.into(),
            texts: Vec::new(),
        };
        Scoring {
            rules: vec![
                rule(0, "127.0.0.[2..9]", 3, "black"),
                rule(1, "127.0.0.2", 1, "grey"),
                rule(1, "127.0.0.3", 2, "grey-3"),
                rule(2, "127.0.[0..255].[0..3]", -2, "white"),
            ],
            threshold: 3,
            allow_threshold,
        }
    }

    fn answers(texts: [&str; 3]) -> Vec<Answer> {
        let answer = |text: &str| match text {
            "?" => Answer::Pending,
            "x" => Answer::Void,
            "" => Answer::Codes(Vec::new()),
            codes => Answer::Codes(codes.split(' ').map(|code| code.parse().unwrap()).collect()),
        };
        texts.map(answer).to_vec()
    }

    #[test]
    fn an_outcome_is_told_as_soon_as_it_is_fixed() {
        use Outcome::*;
        let (black, grey, white) = ("127.0.0.4", "127.0.0.2 127.0.0.3", "127.0.10.2");
        for (allow, texts, expected) in [
            (None, ["?", "?", "?"], None),
            (None, ["", "", ""], Some(Neutral)),
            (None, [black, "", ""], Some(Listed)),
            // The allow list may still save it.
            (None, [black, "", "?"], None),
            (None, [black, grey, "?"], Some(Listed)),
            (None, [black, "", white], Some(Neutral)),
            (None, ["x", grey, "x"], Some(Listed)),
            (None, ["", "?", white], Some(Neutral)),
            (None, ["", "?", ""], None),
            (None, ["127.255.255.254", "x", "x"], Some(Neutral)),
            (Some(-1), ["", "", white], Some(Allowed)),
            (Some(-1), ["", "?", white], None),
            (Some(-1), ["", "", "?"], None),
            (Some(-1), ["", "", ""], Some(Neutral)),
        ] {
            let (scoring, answers) = (scoring(allow), answers(texts));
            assert_eq!(scoring.outcome(&answers), expected, "{texts:?} {allow:?}");
            if let Some(expected) = expected {
                assert_eq!(scoring.decide(&answers), expected);
            }
        }
        assert_eq!(scoring(None).decide(&answers([black, "?", "?"])), Listed);
    }

    #[test]
    fn hits_name_the_weightiest_first() {
        let hits = scoring(None).hits(&answers(["127.0.0.4", "127.0.0.2 127.0.0.3", ""]));
        let names: Vec<_> = hits.iter().map(|hit| (&*hit.name, hit.weight)).collect();
        assert_eq!(names, [("black", 3), ("grey-3", 2), ("grey", 1)]);
    }
}
