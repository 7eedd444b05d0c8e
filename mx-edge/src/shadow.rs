//! A second policy beside the one in force: it sees the same evidence, refuses nobody, and every difference is counted and logged. Runs
//! apart from the session, so that no client waits for it.

mod door;

use std::sync::Arc;

use prometheus::IntCounterVec;
use tokio::sync::Semaphore;
use tracing::info;

use crate::config::Action;
use crate::inquiry::{Inquiry, Ruling};
use crate::policy;
use crate::policy::decide::{Decision, Finding};
use crate::reason::Reason;

pub use door::{ShadowDoor, Visit};

/// Decisions under way at once; more are counted as skipped.
const DECISIONS_MAX: usize = 256;

/// The second policy's limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Received fields.
    pub hops_max: usize,
    /// Recipients of a notification.
    pub null_sender_recipients_max: usize,
}

/// The second policy.
pub struct Shadow {
    /// Who would come in.
    pub door: ShadowDoor,
    limits: Limits,
    ruling: Arc<Ruling>,
    slots: Arc<Semaphore>,
    differences: IntCounterVec,
}

/// Whom a decision is about, for the log.
#[derive(Clone, Debug)]
pub struct About {
    /// The session.
    pub session: Box<str>,
    /// The reverse-path.
    pub from: String,
    /// The forward-path, or several.
    pub to: String,
    /// The client has passed the screen before.
    pub known: bool,
}

impl Shadow {
    /// Of this policy.
    pub fn new(
        ruling: Ruling,
        door: ShadowDoor,
        limits: Limits,
        differences: &IntCounterVec,
    ) -> Self {
        Self {
            door,
            limits,
            ruling: Arc::new(ruling),
            slots: Arc::new(Semaphore::new(DECISIONS_MAX)),
            differences: differences.clone(),
        }
    }

    /// The policy.
    pub fn ruling(&self) -> &Arc<Ruling> {
        &self.ruling
    }

    /// Decides on the same recipient, some time later; `fixed` is what its access list has decided already.
    pub fn recipient(
        &self,
        inquiry: &Inquiry,
        fixed: Option<Decision>,
        live: &Decision,
        about: About,
    ) {
        if let Some(decision) = fixed {
            return told(&self.differences, live, &decision, &about);
        }
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.differences.with_label_values(&["skipped", ""]).inc();
            return;
        };
        let mut inquiry = inquiry.before(&self.ruling);
        let (differences, live) = (self.differences.clone(), live.clone());
        tokio::spawn(async move {
            let decision = inquiry.decide(&about.to).await;
            told(&differences, &live, &decision, &about);
            drop(slot);
        });
    }

    /// Decides on one more recipient of a notification that has `accepted` already; `live` is what the first policy says to that.
    pub fn notification(&self, accepted: usize, live: Option<Finding>, about: &About) {
        let most = self.limits.null_sender_recipients_max;
        let action = self.ruling.policy.rules.null_sender_recipients;
        let refusal = (action == Action::Enforce && accepted >= most).then(|| Finding {
            reason: Reason::NullSenderRecipients,
            evidence: format!("{} of {most}", accepted + 1),
        });
        self.told_apart(live, refusal, about);
    }

    /// Decides on the hops of the same message; `live` is what the first policy says to them.
    pub fn hops(&self, message: &[u8], live: Option<Finding>, about: &About) {
        let refusal = match self.ruling.policy.rules.hops {
            Action::Enforce => policy::hops(message, self.limits.hops_max).err(),
            Action::Warn | Action::Off => None,
        };
        let refusal = refusal.map(|reason| Finding {
            reason,
            evidence: String::new(),
        });
        self.told_apart(live, refusal, about);
    }

    /// One rule alone, where the two policies differ in it.
    fn told_apart(&self, live: Option<Finding>, shadow: Option<Finding>, about: &About) {
        let decision = |refusal| Decision {
            refusal,
            ..Decision::default()
        };
        let (live, shadow) = (decision(live), decision(shadow));
        if difference(&live, &shadow).0 != "same" {
            told(&self.differences, &live, &shadow, about);
        }
    }

    /// Decides on the same message.
    pub fn message(&self, message: &[u8], live: &Decision, about: &About) {
        let decision = self.ruling.checks.judge(message).decision;
        if difference(live, &decision).0 != "same" {
            told(&self.differences, live, &decision, about);
        }
    }
}

/// What becomes of the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Held,
    Discarded,
    Refused(Reason),
}

impl Fate {
    fn of(decision: &Decision) -> Self {
        match decision {
            Decision {
                refusal: Some(finding),
                ..
            } => Self::Refused(finding.reason),
            Decision {
                discard: Some(_), ..
            } => Self::Discarded,
            Decision { hold: Some(_), .. } => Self::Held,
            _ => Self::Accepted,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Accepted => "",
            Self::Held => "held",
            Self::Discarded => "discarded",
            Self::Refused(reason) => reason.label(),
        }
    }
}

/// What a second policy's decision is to the first one's, and by which rule.
pub fn difference(live: &Decision, shadow: &Decision) -> (&'static str, &'static str) {
    let (live, shadow) = (Fate::of(live), Fate::of(shadow));
    let outcome = match (live, shadow) {
        _ if live == shadow => "same",
        (Fate::Refused(_), Fate::Refused(_)) => "other_reason",
        (_, Fate::Refused(_)) => "would_refuse",
        (_, Fate::Held) => "would_hold",
        (_, Fate::Discarded) => "would_discard",
        (_, Fate::Accepted) => "would_accept",
    };
    let rule = match shadow {
        Fate::Refused(_) => shadow,
        _ => live,
    };
    (outcome, rule.label())
}

fn told(counter: &IntCounterVec, live: &Decision, shadow: &Decision, about: &About) {
    let (outcome, rule) = difference(live, shadow);
    counter.with_label_values(&[outcome, rule]).inc();
    if outcome == "same" {
        return;
    }
    let finding = shadow.refusal.as_ref().or(live.refusal.as_ref());
    info!(
        event = "shadow",
        session = %about.session,
        from = %about.from,
        to = %about.to,
        known_client = about.known,
        outcome,
        live = Fate::of(live).label(),
        shadow = Fate::of(shadow).label(),
        evidence = finding.map_or("", |finding| finding.evidence.as_str()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: Reason) -> Decision {
        Decision {
            refusal: Some(Finding {
                reason,
                evidence: String::new(),
            }),
            ..Decision::default()
        }
    }

    #[test]
    fn differences_are_named() {
        use Reason::{HeloName, Listed};
        let held = || Decision {
            hold: Some("bulk".into()),
            ..Decision::default()
        };
        let none = Decision::default;
        for (live, shadow, expected) in [
            (none(), none(), ("same", "")),
            (held(), held(), ("same", "held")),
            (none(), held(), ("would_hold", "")),
            (held(), none(), ("would_accept", "held")),
            (refused(Listed), held(), ("would_hold", "dnsbl")),
            (held(), refused(Listed), ("would_refuse", "dnsbl")),
            (refused(Listed), refused(Listed), ("same", "dnsbl")),
            (none(), refused(HeloName), ("would_refuse", "helo_name")),
            (refused(Listed), none(), ("would_accept", "dnsbl")),
            (
                refused(Listed),
                refused(HeloName),
                ("other_reason", "helo_name"),
            ),
        ] {
            assert_eq!(difference(&live, &shadow), expected, "{live:?} {shadow:?}");
        }
    }
}
