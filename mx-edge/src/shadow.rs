//! A second policy beside the one in force: it sees the same evidence, refuses nobody, and every difference is counted and logged. Runs
//! apart from the session, so that no client waits for it.

use std::sync::Arc;

use prometheus::IntCounterVec;
use tokio::sync::Semaphore;
use tracing::info;

use crate::inquiry::{Inquiry, Ruling};
use crate::policy::decide::{Decision, Finding};
use crate::policy::header;
use crate::reason::Reason;

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
        let (differences, live) = (self.differences.clone(), live.refusal.clone());
        tokio::spawn(async move {
            let decision = inquiry.decide(&about.to).await;
            told(
                &differences,
                live.as_ref(),
                decision.refusal.as_ref(),
                &about,
            );
            drop(slot);
        });
    }

    /// Decides on the same message.
    pub fn message(&self, message: &[u8], live: &Decision, about: &About) {
        let decision = header::check(&self.ruling.policy.rules.headers, message);
        if decision.refusal != live.refusal {
            let (live, shadow) = (live.refusal.as_ref(), decision.refusal.as_ref());
            told(&self.differences, live, shadow, about);
        }
    }
}

/// What a second policy's decision is to the first one's, and by which rule.
pub fn difference(live: Option<Reason>, shadow: Option<Reason>) -> (&'static str, &'static str) {
    match (live, shadow) {
        (None, None) => ("same", ""),
        (Some(live), Some(shadow)) if live == shadow => ("same", shadow.label()),
        (None, Some(shadow)) => ("would_refuse", shadow.label()),
        (Some(live), None) => ("would_accept", live.label()),
        (Some(_), Some(shadow)) => ("other_reason", shadow.label()),
    }
}

fn told(counter: &IntCounterVec, live: Option<&Finding>, shadow: Option<&Finding>, about: &About) {
    let reason = |finding: Option<&Finding>| finding.map(|finding| finding.reason);
    let (outcome, rule) = difference(reason(live), reason(shadow));
    counter.with_label_values(&[outcome, rule]).inc();
    if outcome == "same" {
        return;
    }
    info!(
        event = "shadow",
        session = %about.session,
        from = %about.from,
        to = %about.to,
        known_client = about.known,
        outcome,
        live = live.map_or("", |finding| finding.reason.label()),
        shadow = shadow.map_or("", |finding| finding.reason.label()),
        evidence = shadow.or(live).map_or("", |finding| finding.evidence.as_str()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        use Reason::{HeloName, Listed};
        for (live, shadow, expected) in [
            (None, None, ("same", "")),
            (Some(Listed), Some(Listed), ("same", "dnsbl")),
            (None, Some(HeloName), ("would_refuse", "helo_name")),
            (Some(Listed), None, ("would_accept", "dnsbl")),
            (Some(Listed), Some(HeloName), ("other_reason", "helo_name")),
        ] {
            assert_eq!(difference(live, shadow), expected, "{live:?} {shadow:?}");
        }
    }
}
