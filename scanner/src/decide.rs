//! From findings to classes and an action a recipient. Pure: what is decided depends on the arguments alone.
//!
//! Every class that was found has an action by the recipient's policy; the strongest action is taken, and of those classes that
//! ask for it the worst names the message. An answer that is missing defers only when it could still change what is done: a
//! message that is refused anyway is refused.

use mail::structure::Objection;
use mail::trace::Custody;
use mail::verdict::{Action, Class, Classes};

use crate::policy::{Levels, Policy};
use crate::structure::Inspection;
use crate::trouble::Trouble;
use crate::{clamd, spamd};

/// What was found out about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Findings {
    /// Its structure cannot be trusted; nobody else was asked.
    Objection(Objection),
    /// What the message is made of, and what the two daemons said.
    Asked {
        /// Names, types and what is wrong with them.
        inspection: Inspection,
        /// clamd's answer.
        virus: Result<clamd::Finding, Trouble>,
        /// spamd's answer.
        spam: Result<spamd::Finding, Trouble>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The score, where spamd answered.
    pub score_hundredths: Option<i32>,
    /// The rules that hit.
    pub tests: Vec<Box<str>>,
    /// One a recipient, in order.
    pub outcomes: Vec<Outcome>,
}

impl Decision {
    /// The worst class of all recipients' and what made it: the message's, in counts and logs.
    pub fn worst(&self) -> (Class, &str) {
        let worst = self.outcomes.iter().max_by_key(|outcome| outcome.class);
        worst.map_or((Class::Clean, ""), |outcome| {
            (outcome.class, &outcome.reason)
        })
    }
}

/// What is to be done for one recipient. Recipients with equal outcomes share a transaction with the list host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The class that decided.
    pub class: Class,
    /// All classes found, as this recipient's policy sees them.
    pub found: Classes,
    /// What is done.
    pub action: Action,
    /// What made the class; empty for clean, spammy and spam.
    pub reason: Box<str>,
    /// By which scores it was judged.
    pub levels: Levels,
}

/// Local parts whose mail meets no kill level (RFC 5321 4.5.1, RFC 2142; design, invariant 11).
pub fn meets_no_kill_level(local: &str) -> bool {
    ["postmaster", "abuse", "security"]
        .iter()
        .any(|name| local.eq_ignore_ascii_case(name))
}

/// Decides, for each recipient by its policy.
pub fn decide(
    findings: &Findings,
    policies: &[Policy<'_>],
    custody: Custody,
) -> Result<Decision, Trouble> {
    let spam = match findings {
        Findings::Asked { spam: Ok(spam), .. } => Some(spam),
        _ => None,
    };
    let outcomes = policies
        .iter()
        .map(|policy| outcome(findings, policy, custody))
        .collect::<Result<_, _>>()?;
    Ok(Decision {
        score_hundredths: spam.map(|spam| spam.score_hundredths),
        tests: spam.map(|spam| spam.tests.clone()).unwrap_or_default(),
        outcomes,
    })
}

fn outcome(findings: &Findings, policy: &Policy<'_>, custody: Custody) -> Result<Outcome, Trouble> {
    let found = found(findings, policy);
    // Nobody waits any more, and strangers get no bounce.
    let action = |class| match (policy.actions.of(class), custody) {
        (Action::Refuse, Custody::Spooled) => Action::Quarantine,
        (action, _) => action,
    };
    let (class, reason) = found
        .iter()
        .max_by_key(|(class, _)| (action(*class), *class))
        .cloned()
        .unwrap_or((Class::Clean, "".into()));
    let action = action(class);
    if let Findings::Asked { virus, spam, .. } = findings {
        // What clamd has not seen goes nowhere, not even into a quarantine.
        if let Err(trouble) = virus
            && action != Action::Refuse
        {
            return Err(trouble.clone());
        }
        if let Err(trouble) = spam
            && action < Action::Quarantine
        {
            return Err(trouble.clone());
        }
    }
    Ok(Outcome {
        class,
        found: found.into_iter().map(|(class, _)| class).collect(),
        action,
        reason,
        levels: policy.levels,
    })
}

/// All classes, each with what made it.
fn found(findings: &Findings, policy: &Policy<'_>) -> Vec<(Class, Box<str>)> {
    let (inspection, virus, spam) = match findings {
        Findings::Objection(objection) => return vec![objected(objection)],
        Findings::Asked {
            inspection,
            virus,
            spam,
        } => (inspection, virus, spam),
    };
    let mut found = Vec::new();
    let mut files = inspection.files.iter();
    if let Some(hit) = files.find_map(|file| policy.banned.hit(file)) {
        found.push((Class::Banned, hit.into()));
    }
    let of_structure = [
        (Class::Ambiguous, &inspection.ambiguous),
        (Class::Unscanned, &inspection.unscanned),
        (Class::BadHeader, &inspection.bad_header),
    ];
    for (class, reason) in of_structure {
        found.extend(reason.clone().map(|reason| (class, reason)));
    }
    match virus {
        Ok(clamd::Finding::Infected(name)) => found.push((Class::Malware, name.clone())),
        Ok(clamd::Finding::Unscanned(reason)) => found.push((Class::Unscanned, reason.clone())),
        Ok(clamd::Finding::Oversized(reason)) => found.push((Class::Oversized, reason.clone())),
        Ok(clamd::Finding::Clean) | Err(_) => {}
    }
    if let Ok(spam) = spam {
        let score = spam.score_hundredths;
        if score >= policy.levels.kill && !policy.no_kill_level {
            found.push((Class::Spam, "".into()));
        } else if score >= policy.levels.tag2.min(policy.levels.kill) {
            found.push((Class::Spammy, "".into()));
        }
    }
    found
}

/// The class of a structure that no parser may see.
fn objected(objection: &Objection) -> (Class, Box<str>) {
    let class = match objection {
        Objection::Ambiguous(_) | Objection::BoundaryTooLong(_) => Class::Ambiguous,
        Objection::TooDeep(_)
        | Objection::TooManyParts(_)
        | Objection::HeaderTooLong(_)
        | Objection::TooManyFields(_)
        | Objection::LineTooLong(_) => Class::Unscanned,
    };
    (class, objection.to_string().into())
}

#[cfg(test)]
mod tests;
