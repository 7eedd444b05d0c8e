//! A second policy beside the one in force: it sees the same evidence, refuses nobody, and every difference is counted and logged. Runs
//! apart from the session, so that no client waits for it.

use std::sync::Arc;

use prometheus::IntCounterVec;
use tokio::sync::Semaphore;
use tracing::info;

use crate::inquiry::{Inquiry, Ruling};
use crate::policy::decide::Decision;
use crate::policy::header;

/// Decisions under way at once; more are counted as skipped.
const DECISIONS_MAX: usize = 256;

/// The second policy.
pub struct Shadow {
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
    pub fn new(ruling: Ruling, differences: &IntCounterVec) -> Self {
        Self {
            ruling: Arc::new(ruling),
            slots: Arc::new(Semaphore::new(DECISIONS_MAX)),
            differences: differences.clone(),
        }
    }

    /// The policy.
    pub fn ruling(&self) -> &Arc<Ruling> {
        &self.ruling
    }

    /// Decides on the same recipient, some time later.
    pub fn recipient(&self, inquiry: &Inquiry, live: &Decision, about: About) {
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

    /// Decides on the same message.
    pub fn message(&self, message: &[u8], live: &Decision, about: &About) {
        let decision = header::check(&self.ruling.policy.rules.headers, message);
        if (&decision.refusal, &decision.hold) != (&live.refusal, &live.hold) {
            told(&self.differences, live, &decision, about);
        }
    }
}

/// What a second policy's decision is to the first one's, and by which rule.
pub fn difference(live: &Decision, shadow: &Decision) -> (&'static str, &'static str) {
    let reason = |decision: &Decision| decision.refusal.as_ref().map(|finding| finding.reason);
    match (reason(live), reason(shadow)) {
        (None, None) if live.hold.is_none() && shadow.hold.is_some() => ("would_hold", ""),
        (None, None) if live.hold.is_some() && shadow.hold.is_none() => ("would_accept", ""),
        (None, None) => ("same", ""),
        (Some(live), Some(shadow)) if live == shadow => ("same", shadow.label()),
        (None, Some(shadow)) => ("would_refuse", shadow.label()),
        (Some(live), None) if shadow.hold.is_some() => ("would_hold", live.label()),
        (Some(live), None) => ("would_accept", live.label()),
        (Some(_), Some(shadow)) => ("other_reason", shadow.label()),
    }
}

fn told(counter: &IntCounterVec, live: &Decision, shadow: &Decision, about: &About) {
    let (outcome, rule) = difference(live, shadow);
    counter.with_label_values(&[outcome, rule]).inc();
    if outcome == "same" {
        return;
    }
    let reason = |decision: &Decision| match (&decision.refusal, &decision.hold) {
        (Some(finding), _) => finding.reason.label().to_owned(),
        (None, Some(rule)) => format!("held by {rule}"),
        (None, None) => String::new(),
    };
    let finding = shadow.refusal.as_ref().or(live.refusal.as_ref());
    info!(
        event = "shadow",
        session = %about.session,
        from = %about.from,
        to = %about.to,
        known_client = about.known,
        outcome,
        live = reason(live),
        shadow = reason(shadow),
        evidence = finding.map_or("", |finding| finding.evidence.as_str()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::decide::Finding;
    use crate::reason::Reason;

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
            (held(), held(), ("same", "")),
            (none(), held(), ("would_hold", "")),
            (held(), none(), ("would_accept", "")),
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
