//! Refusals: each is logged as one event when it is said, and named in its session's record, which `why` reads. Bounded, so that a
//! dictionary attack costs a line a session and not one an address.

use serde::Serialize;
use serde_json::json;
use smtp::server::{Facts, Refusal};
use tracing::info;

use crate::reason::Reason;
use crate::report::Tops;
use crate::trail::Trail;
use mail::Reply;

/// Refusals of a session that are named; more are counted. `limits.errors_max` ends a session long before, if they are for good.
const NAMED_MAX: usize = 100;
/// Forward-paths that are named of one refusal; more are counted.
const PATHS_MAX: usize = 10;

/// Something that was refused, with what is known of it.
pub struct No<'a> {
    /// Where in the dialogue: `connect`, `helo`, `mail`, `rcpt`, `session`. What is said of a message is its own event.
    pub stage: &'static str,
    /// The reverse-path; empty where there is none yet.
    pub from: &'a str,
    /// Forward-paths that it is about.
    pub to: &'a [Box<str>],
    /// Why.
    pub reason: Reason,
    /// By what.
    pub evidence: &'a str,
    /// As the client was told.
    pub reply: &'a Reply,
}

impl<'a> No<'a> {
    /// Of the session's own.
    pub fn of(refusal: &'a Refusal) -> Self {
        use smtp::server::Objection::{Announced, Recipient, Recipients, Sender};
        Self {
            stage: match refusal.objection {
                Sender | Announced => "mail",
                Recipient | Recipients => "rcpt",
                _ => "session",
            },
            from: &refusal.from,
            to: &refusal.to,
            reason: Reason::Session(refusal.objection),
            evidence: &refusal.said,
            reply: &refusal.reply,
        }
    }

    fn log(&self, facts: &Facts) {
        info!(
            event = "refused",
            stage = self.stage,
            session = %facts.session,
            client = %facts.client.ip(),
            helo = %facts.helo,
            from = self.from,
            to = self.to.join(","),
            reason = self.reason.label(),
            evidence = self.evidence,
            reply = %self.reply
        );
    }
}

/// A refusal as the record names it. Most sessions that are refused anything are refused a lot.
#[derive(Serialize)]
struct Refused {
    stage: &'static str,
    from: Box<str>,
    to: Box<[Box<str>]>,
    to_more: usize,
    reason: &'static str,
    evidence: Box<str>,
    reply: Box<str>,
}

/// What a session has shown, for its record.
#[derive(Default)]
pub struct Seen {
    /// What was refused without asking.
    pub objections: u32,
    helo: Box<str>,
    refused: Vec<Refused>,
    more: u64,
    ended_by: Option<&'static str>,
}

impl Seen {
    /// Something was refused, and is no message.
    pub fn refused(&mut self, tops: &Tops, facts: &Facts, no: &No<'_>) {
        no.log(facts);
        tops.refused(facts.client.ip(), no.reply.code);
        if !facts.helo.is_empty() {
            self.helo.clone_from(&facts.helo);
        }
        // RFC 5321 3.8, RFC 7504 3: behind these comes nothing.
        if matches!(no.reply.code, 421 | 521) || no.stage == "connect" {
            self.ended_by = Some(no.reason.label());
        }
        if self.refused.len() >= NAMED_MAX {
            self.more += 1;
            return;
        }
        self.refused.push(Refused {
            stage: no.stage,
            from: no.from.into(),
            to: no.to[..no.to.len().min(PATHS_MAX)].into(),
            to_more: no.to.len().saturating_sub(PATHS_MAX),
            reason: no.reason.label(),
            evidence: no.evidence.into(),
            reply: no.reply.to_string().into(),
        });
    }

    /// The reason for which the session was ended on our side, if it was.
    pub fn ended_by(&self) -> &'static str {
        self.ended_by.unwrap_or_default()
    }

    /// Whether there is nothing to tell of it.
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.objections == 0
    }

    /// The session is over: recorded, unless it came, sent and went as it should.
    pub fn record(&self, trail: &Trail, session: &str, client: std::net::IpAddr, outcome: &str) {
        if self.is_empty() && outcome == "quit" {
            return;
        }
        let mut line = json!({
            "event": "session",
            "session": session,
            "client": client,
            "outcome": outcome,
            "objections": self.objections,
        });
        if let Some(reason) = self.ended_by {
            line["reason"] = json!(reason);
        }
        if !self.helo.is_empty() {
            line["helo"] = json!(self.helo);
        }
        if !self.refused.is_empty() {
            line["refused"] = json!(self.refused);
            line["refused_more"] = json!(self.more);
        }
        trail.add(line);
    }
}
