//! Whether a session may go on as it would: what admission says of its client, at each thing that is counted; and how it is told no.

use mail::Reply;
use smtp::server::Facts;

use super::Session;
use crate::admission::rates::Of;
use crate::admission::{Refused, Standing};
use crate::reason::Reason;
use crate::seen::No;

impl Session {
    pub(super) fn is_check(&self) -> bool {
        matches!(self.entry.standing, Standing::Check)
    }

    /// Counts what the client does, unless it does too much of it.
    pub(super) fn count(&self, of: Of, facts: &Facts) -> Result<(), Refused> {
        let Self { edge, rules, .. } = self;
        let client = facts.client.ip();
        let admission = &edge.admission;
        admission.count(&rules.door, &self.entry.standing, of, client)
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
        let reply = reason.reply(evidence);
        let no = No {
            stage,
            from,
            to,
            reason: *reason,
            evidence,
            reply: &self.rules.words.told(reply.clone(), &facts.session),
        };
        self.seen.refused(facts, &no);
        reply
    }
}
