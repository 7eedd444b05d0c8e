//! From findings to a class and an action a recipient. Pure: what is decided depends on the arguments alone.
//!
//! An answer that is missing defers only when it could still change what is done: a message that is refused anyway is refused.

use mail::trace::Custody;
use mail::verdict::{Action, Class};

use crate::trouble::Trouble;
use crate::{clamd, spamd};

/// The scores that matter, in hundredths of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// From here on a message is marked as spam and passed.
    pub tag: i32,
    /// From here on it does not pass.
    pub kill: i32,
}

/// What was found out about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Findings {
    /// Its structure cannot be trusted; nobody else was asked.
    Objection(Box<str>),
    /// What the two daemons said.
    Asked {
        /// clamd's answer.
        virus: Result<clamd::Finding, Trouble>,
        /// spamd's answer.
        spam: Result<spamd::Finding, Trouble>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The message's class.
    pub class: Class,
    /// What made it; empty for clean, spammy and spam.
    pub reason: Box<str>,
    /// The score, where spamd answered.
    pub score_hundredths: Option<i32>,
    /// The rules that hit.
    pub tests: Vec<Box<str>>,
    /// One action a recipient, in order.
    pub actions: Vec<Action>,
}

impl Decision {
    /// The class under which the message travels on with an action: spam that passes (to postmaster) is marked, not quarantined.
    pub fn class_for(&self, action: Action) -> Class {
        match (self.class, action) {
            (Class::Spam, Action::Pass) => Class::Spammy,
            (class, _) => class,
        }
    }
}

/// Local parts whose mail meets no kill level (RFC 5321 4.5.1, RFC 2142; design, invariant 11).
pub fn meets_no_kill_level(local: &str) -> bool {
    ["postmaster", "abuse", "security"]
        .iter()
        .any(|name| local.eq_ignore_ascii_case(name))
}

/// Decides. `no_kill_level` says for each recipient whether it meets no kill level.
pub fn decide(
    findings: &Findings,
    levels: Levels,
    custody: Custody,
    no_kill_level: &[bool],
) -> Result<Decision, Trouble> {
    let bad = match custody {
        Custody::Live => Action::Refuse,
        Custody::Spooled => Action::Quarantine,
    };
    let all = |action| vec![action; no_kill_level.len()];
    let (virus, spam) = match findings {
        Findings::Objection(reason) => {
            return Ok(decision(Class::Unchecked, reason, None, all(bad)));
        }
        Findings::Asked { virus, spam } => (virus, spam),
    };
    // Found malware needs no score.
    if let Ok(clamd::Finding::Infected(name)) = virus {
        return Ok(decision(Class::Malware, name, spam.as_ref().ok(), all(bad)));
    }
    let kills = |spam: &spamd::Finding| spam.score_hundredths >= levels.kill;
    if let Ok(spam) = spam
        && kills(spam)
    {
        let is_settled = virus.is_ok()
            || (custody == Custody::Live && no_kill_level.iter().all(|exempt| !exempt));
        if is_settled {
            let actions = match virus {
                // It goes nowhere unopened, whoever it is for.
                Ok(clamd::Finding::Unchecked(_)) => all(bad),
                _ => no_kill_level
                    .iter()
                    .map(|exempt| if *exempt { Action::Pass } else { bad })
                    .collect(),
            };
            return Ok(decision(Class::Spam, "", Some(spam), actions));
        }
    }
    if let Ok(clamd::Finding::Unchecked(reason)) = virus {
        return Ok(decision(
            Class::Unchecked,
            reason,
            spam.as_ref().ok(),
            all(bad),
        ));
    }
    virus.as_ref().map_err(Clone::clone)?;
    let spam = spam.as_ref().map_err(Clone::clone)?;
    let class = match spam.score_hundredths >= levels.tag {
        true => Class::Spammy,
        false => Class::Clean,
    };
    Ok(decision(class, "", Some(spam), all(Action::Pass)))
}

fn decision(
    class: Class,
    reason: &str,
    spam: Option<&spamd::Finding>,
    actions: Vec<Action>,
) -> Decision {
    Decision {
        class,
        reason: reason.into(),
        score_hundredths: spam.map(|spam| spam.score_hundredths),
        tests: spam.map(|spam| spam.tests.clone()).unwrap_or_default(),
        actions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trouble::{Cause, Kind};
    use clamd::Finding::{Clean, Infected, Unchecked};

    const LEVELS: Levels = Levels {
        tag: 500,
        kill: 1000,
    };

    fn missing<T>(daemon: Kind) -> Result<T, Trouble> {
        let cause = Cause::TimedOut;
        Err(Trouble { daemon, cause })
    }

    fn asked(virus: Option<clamd::Finding>, score: Option<i32>) -> Findings {
        let spam = |score_hundredths| spamd::Finding {
            score_hundredths,
            tests: vec!["A".into()],
        };
        Findings::Asked {
            virus: virus.map_or(missing(Kind::Clamd), Ok),
            spam: score.map_or(missing(Kind::Spamd), |score| Ok(spam(score))),
        }
    }

    /// Recipients: `.` an ordinary one, `p` a postmaster. Outcome: the class and an action each (`+` pass, `x` refuse,
    /// `q` quarantine), or the daemon whose answer is missing; live, then spooled.
    fn check(findings: &Findings, recipients: &str, live: &str, spooled: &str) {
        let exempt: Vec<bool> = recipients.bytes().map(|b| b == b'p').collect();
        for (custody, expected) in [(Custody::Live, live), (Custody::Spooled, spooled)] {
            let outcome = match decide(findings, LEVELS, custody, &exempt) {
                Ok(decision) => {
                    let action = |action: &Action| match action {
                        Action::Pass => '+',
                        Action::Refuse => 'x',
                        Action::Quarantine => 'q',
                    };
                    let actions: String = decision.actions.iter().map(action).collect();
                    format!("{} {actions}", decision.class.as_str())
                }
                Err(trouble) => trouble.daemon.as_str().to_owned(),
            };
            assert_eq!(outcome, expected, "{findings:?} {recipients} {custody:?}");
        }
    }

    #[test]
    fn what_is_done_with_what_was_found() {
        let infected = || Some(Infected("Eicar".into()));
        let unchecked = || Some(Unchecked("Encrypted".into()));
        check(&asked(Some(Clean), Some(499)), "..", "clean ++", "clean ++");
        check(&asked(Some(Clean), Some(-100)), "p", "clean +", "clean +");
        check(
            &asked(Some(Clean), Some(500)),
            "..",
            "spammy ++",
            "spammy ++",
        );
        check(&asked(Some(Clean), Some(999)), ".", "spammy +", "spammy +");
        check(&asked(Some(Clean), Some(1000)), "..", "spam xx", "spam qq");
        check(
            &asked(Some(Clean), Some(100_420)),
            ".p.",
            "spam x+x",
            "spam q+q",
        );
        check(
            &asked(infected(), Some(0)),
            ".p",
            "malware xx",
            "malware qq",
        );
        check(
            &asked(infected(), Some(2000)),
            ".",
            "malware x",
            "malware q",
        );
        check(&asked(infected(), None), ".", "malware x", "malware q");
        check(
            &asked(unchecked(), Some(0)),
            ".p",
            "unchecked xx",
            "unchecked qq",
        );
        check(&asked(unchecked(), None), ".", "unchecked x", "unchecked q");
        check(&asked(unchecked(), Some(2000)), ".p", "spam xx", "spam qq");
        let objection = Findings::Objection("nested deeper than 50 levels".into());
        check(&objection, ".p", "unchecked xx", "unchecked qq");
    }

    #[test]
    fn a_missing_answer_defers_where_it_could_matter() {
        check(&asked(None, Some(0)), ".", "clamd", "clamd");
        check(&asked(Some(Clean), None), ".", "spamd", "spamd");
        check(&asked(None, None), ".", "clamd", "clamd");
        // Refused whatever clamd says; but what is kept, or goes to postmaster, must have been seen by clamd.
        check(&asked(None, Some(1000)), "..", "spam xx", "clamd");
        check(&asked(None, Some(1000)), ".p", "clamd", "clamd");
    }

    #[test]
    fn spam_that_passes_is_marked() {
        let exempt = [true, false];
        let found = asked(Some(Clean), Some(2000));
        let decision = decide(&found, LEVELS, Custody::Spooled, &exempt).unwrap();
        assert_eq!(decision.class_for(Action::Pass), Class::Spammy);
        assert_eq!(decision.class_for(Action::Quarantine), Class::Spam);
    }

    #[test]
    fn role_addresses() {
        for (local, expected) in [
            ("postmaster", true),
            ("Abuse", true),
            ("SECURITY", true),
            ("postmaster2", false),
            ("", false),
        ] {
            assert_eq!(meets_no_kill_level(local), expected, "{local}");
        }
    }
}
