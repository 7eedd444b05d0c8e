//! Whether a session may go on as it would: what admission says of its client, at each thing that is counted; how it is told no, and
//! what is remembered of how it went.

use mail::Reply;
use smtp::server::{Ending, Facts};
use tracing::info;

use super::Session;
use crate::admission::rates::Of;
use crate::admission::{Refused, Standing};
use crate::reason::Reason;
use crate::seen::No;

impl Session {
    pub(super) fn is_check(&self) -> bool {
        matches!(self.entry.standing, Standing::Check)
    }

    /// Lets a client in, and finds it a place where it can wait, if it has to.
    pub(super) fn come_in(&mut self, facts: &Facts) -> Result<(), Refused> {
        if self.edge.is_draining() {
            return Err(Reason::Draining.into());
        }
        let client = facts.client.ip();
        let admission = &self.edge.admission;
        let mut entry = admission.admit(&self.rules.door, client)?;
        for refused in std::mem::take(&mut entry.warned) {
            self.warn(&refused, facts);
        }
        self.entry = entry;
        if self.entry.standing.is_exempt() {
            return Ok(());
        }
        let stressed = admission.pressure.is_stressed();
        let seated = self
            .caller
            .seat(&self.rules, client, stressed, &admission.screening);
        seated.map_err(Refused::from)
    }

    /// What would have been refused, if it were enforced.
    fn warn(&self, refused: &Refused, facts: &Facts) {
        let Refused { reason, evidence } = refused;
        let warned = &self.edge.metrics.warned_sessions;
        warned.with_label_values(&[reason.label()]).inc();
        info!(
            event = "admission",
            session = %facts.session,
            client = %facts.client.ip(),
            outcome = "warned",
            reason = reason.label(),
            evidence
        );
    }

    /// Turned away instead of being greeted.
    pub(super) fn turn_away(&mut self, refused: &Refused, facts: &Facts) -> Reply {
        let turned_away = &self.edge.metrics.turned_away;
        turned_away
            .with_label_values(&[refused.reason.label()])
            .inc();
        self.no(("connect", facts), "", &[], refused)
    }

    /// Counts what the client does, unless it does too much of it.
    pub(super) fn count(&self, of: Of, facts: &Facts) -> Result<(), Refused> {
        let Self { edge, rules, .. } = self;
        let client = facts.client.ip();
        let admission = &edge.admission;
        let counted = admission.count(&rules.door, &self.entry.standing, of, client);
        if let (Some(shadow), Some(visit)) = (&rules.shadow, &self.visit) {
            let live = counted.as_ref().err().map(|refused| refused.reason);
            shadow.door.count(visit, of, facts, live);
        }
        if let Some(refused) = counted? {
            self.warn(&refused, facts);
        }
        Ok(())
    }

    /// Shows a client that came in, or did not, to the second policy.
    pub(super) fn shadow_door(&mut self, facts: &Facts, come: &Result<(), Refused>) {
        let Some(shadow) = &self.rules.shadow else {
            return;
        };
        let live = come.as_ref().err().map(|refused| refused.reason);
        self.visit = shadow.door.connect(facts, live);
        if let (Ok(()), Some(visit)) = (come, &self.visit) {
            shadow.door.waits(visit, facts, self.caller.waits());
        }
    }

    /// A session is over: who behaved is spared under stress for a while, and who spoke out of turn or another language must show
    /// itself anew.
    pub(super) fn remember(&self, ending: Ending) {
        let client = self.client.ip();
        let passes = &self.edge.passes;
        match ending {
            Ending::Pipelined | Ending::Foreign => passes.forget(client),
            Ending::Quit if self.sent && self.seen.objections == 0 => {
                let waits = !self.entry.standing.is_exempt() && self.caller.waited_in_silence();
                if let (true, Some(screen)) = (waits, &self.rules.screen) {
                    screen.behaved(client);
                }
            }
            _ => {}
        }
    }

    /// Whether a message may come at all.
    pub(super) fn may_send(&self, facts: &Facts) -> Result<(), Refused> {
        if self.edge.is_draining() {
            return Err(Reason::Draining.into());
        }
        if self.is_check() {
            return Err(Reason::NoClient.into());
        }
        // Neither way in is open: better said before the message is sent.
        if let Some(reason) = self.edge.keeper.refuses()
            && self.edge.through.is_shut()
        {
            return Err(reason.into());
        }
        self.count(Of::Messages, facts)
    }

    /// Says no to anything but a message: the reply, told and kept for the record.
    pub(super) fn no(
        &mut self,
        (stage, facts): (&'static str, &Facts),
        from: &str,
        to: &[Box<str>],
        refused: &Refused,
    ) -> Reply {
        let Refused { reason, evidence } = refused;
        let reply = match self.rules.ruling.policy.drops.contains(reason) {
            true => reason.dismissal(evidence),
            false => reason.reply(evidence),
        };
        let no = No {
            stage,
            from,
            to,
            reason: *reason,
            evidence,
            reply: &self.rules.words.told(reply.clone(), &facts.session),
        };
        self.seen.refused(&self.edge.tops, facts, &no);
        reply
    }
}

/// A decision, as a label.
pub(super) fn decided(decision: &Result<(), Refused>) -> &'static str {
    match decision {
        Ok(()) => "accepted",
        Err(refused) => refused.reason.label(),
    }
}
