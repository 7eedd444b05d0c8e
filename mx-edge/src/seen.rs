//! What a session has shown, for its record: whom it was refused, and by what. Bounded, so that a dictionary attack costs a line a
//! session and not one an address.

use mail::{Envelope, Recipient};
use serde_json::{Value, json};
use smtp::server::Facts;

use crate::reason::Reason;
use crate::trail::Trail;

/// Refusals that are named; more are counted.
const NAMED_MAX: usize = 10;

/// See the module.
#[derive(Default)]
pub struct Seen {
    /// What was refused without asking.
    pub objections: u32,
    helo: Box<str>,
    refused: Vec<Value>,
    more: u64,
    turned_away: Option<&'static str>,
}

impl Seen {
    /// A recipient was refused.
    pub fn refused(
        &mut self,
        facts: &Facts,
        (envelope, recipient): (&Envelope, &Recipient),
        reason: Reason,
        evidence: &str,
    ) {
        if self.refused.len() >= NAMED_MAX {
            self.more += 1;
            return;
        }
        self.helo.clone_from(&facts.helo);
        self.refused.push(json!({
            "from": envelope.reverse_path.to_string(),
            "to": recipient.address.to_string(),
            "reason": reason.label(),
            "evidence": evidence,
        }));
    }

    /// It was not even greeted.
    pub fn turned_away(&mut self, reason: Reason) {
        self.turned_away = Some(reason.label());
    }

    /// The session is over: recorded, unless it came, sent and went as it should.
    pub fn record(&self, trail: &Trail, session: &str, client: std::net::IpAddr, outcome: &str) {
        let Self {
            objections,
            helo,
            refused,
            more,
            turned_away,
        } = self;
        if refused.is_empty() && *objections == 0 && outcome == "quit" {
            return;
        }
        let mut line = json!({
            "event": "session",
            "session": session,
            "client": client,
            "outcome": outcome,
            "objections": objections,
        });
        if let Some(reason) = turned_away {
            line["reason"] = json!(reason);
        }
        if !refused.is_empty() {
            line["helo"] = json!(helo);
            line["refused"] = json!(refused);
            line["refused_more"] = json!(more);
        }
        trail.add(line);
    }
}
