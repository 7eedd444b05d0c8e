//! What became of one message, in one event: counted, logged and recorded, whoever said the reply.

use mail::Reply;
use serde_json::json;
use smtp::server::Facts;
use tracing::info;

use crate::facts::MessageFacts;
use crate::heard;
use crate::receive::Edge;
use crate::spf;

/// See the module.
pub struct Told<'a> {
    /// The session's facts.
    pub facts: &'a Facts,
    /// The reverse-path.
    pub from: &'a str,
    /// The forward-paths that waited for it.
    pub to: &'a [Box<str>],
    /// Where a rule sent it instead.
    pub redirected: Option<&'a str>,
    /// How its author names it; empty without, and when it was not read.
    pub message_id: &'a str,
    /// Its name here; none for one that was refused without one.
    pub named: Option<&'a MessageFacts>,
    /// How it went, or the reason why not.
    pub way: &'a str,
    /// As the client was told.
    pub reply: &'a Reply,
}

impl Told<'_> {
    /// Does all of it.
    pub fn tell(&self, edge: &Edge) {
        let outcome = match (self.reply.code, self.way) {
            (..400, "through") => "passed",
            (..400, "held" | "discarded") => self.way,
            (..400, _) => "spooled",
            (400..500, _) => "deferred",
            _ => "refused",
        };
        let passed =
            (self.way == "through").then(|| heard::class(std::slice::from_ref(self.reply)));
        let reason = passed.flatten().map_or(self.way, |class| class.as_str());
        let metrics = &edge.metrics;
        metrics.messages.with_label_values(&[outcome]).inc();
        let ends = metrics.path_ends.with_label_values(&[outcome, reason]);
        ends.inc_by(self.to.len() as u64);
        match self.reply.code {
            ..400 => edge.tops.taken(self.from),
            code => edge.tops.refused(self.facts.client.ip(), code),
        }
        self.record(edge, outcome);
        self.log(outcome);
    }

    fn record(&self, edge: &Edge, outcome: &str) {
        let mut line = json!({
            "event": "message",
            "session": self.facts.session,
            "client": self.facts.client.ip(),
            "helo": self.facts.helo,
            "from": self.from,
            "to": self.to,
            "message_id": self.message_id,
            "outcome": outcome,
            "way": self.way,
            "reply": self.reply.to_string(),
        });
        if let Some(to) = self.redirected {
            line["redirected"] = json!(to);
        }
        if let Some(named) = self.named {
            line["ident"] = json!(named.ident.as_str());
            line["rule"] = json!(named.held_by);
        }
        edge.trail.add(line);
    }

    fn log(&self, outcome: &str) {
        info!(
            event = "message",
            session = %self.facts.session,
            ident = self.named.map_or("", |named| named.ident.as_str()),
            message_id = self.message_id,
            client = %self.facts.client.ip(),
            helo = %self.facts.helo,
            from = self.from,
            to = self.to.join(","),
            redirected = self.redirected.unwrap_or_default(),
            spf = self.named.map_or("", |named| spf::label(named.spf)),
            rule = self.named.and_then(|named| named.held_by.as_deref()).unwrap_or_default(),
            outcome,
            way = self.way,
            reply = %self.reply
        );
    }
}
