//! The second policy's door: its access list, rates and wait before the same clients. It counts apart, keeps nobody out, and tells
//! where it would have.

use std::net::IpAddr;

use prometheus::IntCounterVec;
use smtp::server::Facts;
use tracing::info;

use crate::admission::rates::Of;
use crate::admission::{Admission, Door, Entry, Refused, Standing};
use crate::policy::decide::{Decision, Finding};
use crate::reason::Reason;
use crate::screen::Screen;

/// See the module.
pub struct ShadowDoor {
    /// Who may come in, and how often.
    pub door: Door,
    /// What it has counted.
    pub admission: Admission,
    /// Its wait, if it has one.
    pub screen: Option<Screen>,
    /// Differences.
    pub differences: IntCounterVec,
}

/// A client that it let in; its place is given back with it.
pub struct Visit(Entry);

impl ShadowDoor {
    /// A client has connected, and was turned away for this or let in. None when this door would have turned it away.
    pub fn connect(&self, facts: &Facts, live: Option<Reason>) -> Option<Visit> {
        let entry = self.admission.admit(&self.door, facts.client.ip());
        self.told("connect", facts, live, entry.as_ref().err());
        entry.ok().map(Visit)
    }

    /// One that was let in does what is counted, and was refused that or not.
    pub fn count(&self, visit: &Visit, of: Of, facts: &Facts, live: Option<Reason>) {
        let Visit(entry) = visit;
        let client = facts.client.ip();
        let counted = self
            .admission
            .count(&self.door, &entry.standing, of, client);
        let reached = counted.err();
        if live != reached.as_ref().map(|refused| refused.reason) {
            self.told(of.as_str(), facts, live, reached.as_ref());
        }
    }

    /// One that was let in was made to wait or not.
    pub fn waits(&self, visit: &Visit, facts: &Facts, live: bool) {
        let client: IpAddr = facts.client.ip();
        let stressed = self.admission.pressure.is_stressed();
        let wait = |screen: &Screen| screen.wait(client, stressed).is_some();
        let waits = !visit.0.standing.is_exempt() && self.screen.as_ref().is_some_and(wait);
        let outcome = match (live, waits) {
            (false, true) => "would_wait",
            (true, false) => "would_not_wait",
            _ => return,
        };
        self.differences.with_label_values(&[outcome, ""]).inc();
    }

    fn told(&self, stage: &str, facts: &Facts, live: Option<Reason>, refused: Option<&Refused>) {
        let shadow = refused.map(|refused| refused.reason);
        let (outcome, reason) = match (live, shadow) {
            (None, None) => ("same", None),
            (Some(live), Some(shadow)) if live == shadow => ("same", shadow.into()),
            (None, Some(shadow)) => ("would_refuse", shadow.into()),
            (Some(live), None) => ("would_accept", live.into()),
            (Some(_), Some(shadow)) => ("other_reason", shadow.into()),
        };
        let label = reason.map_or("", Reason::label);
        self.differences.with_label_values(&[outcome, label]).inc();
        if outcome != "same" {
            info!(
                event = "shadow",
                session = %facts.session,
                client = %facts.client.ip(),
                stage,
                outcome,
                live = live.map_or("", Reason::label),
                shadow = shadow.map_or("", Reason::label),
                evidence = refused.map_or("", |refused| refused.evidence.as_str()),
            );
        }
    }
}

impl Visit {
    /// What its access list alone says of the client's recipients; none when that is the rules' affair.
    pub fn decision(&self) -> Option<Decision> {
        match &self.0.standing {
            Standing::Exempt => Some(Decision::default()),
            Standing::Rejected(note) => Some(Decision {
                refusal: Some(Finding {
                    reason: Reason::Access,
                    evidence: note.to_string(),
                }),
                ..Decision::default()
            }),
            _ => None,
        }
    }

    /// Whether no test would meet the client.
    pub fn is_exempt(&self) -> bool {
        self.0.standing.is_exempt()
    }
}
