//! Taking one message: names it, puts Received and trace on, tries to pass it through, spools what is left, and says the one
//! reply (design, invariants 2 and 7). Each path ends in bounded time: budget plus spool deadline.

use std::sync::Arc;

use bytes::Bytes;
use delivery::Copy;
use mail::trace::{self, Custody, Spf};
use mail::{Envelope, Ident, Reply, Timestamp, header};
use smtp::server::{Facts, Presence};
use tracing::{info, warn};

use crate::authres::Results;
use crate::ended::{Kind, Line};
use crate::facts::MessageFacts;
use crate::heard;
use crate::keep::Kept;
use crate::names::ClientName;
use crate::policy::decide::Finding;
use crate::reason::Reason;
use crate::receive::Edge;
use crate::received;
use crate::replies::{self, Plan};
use crate::rules::Rules;
use crate::through::Tried;
use crate::told::Told;

/// The message below our field. One that does not begin with a field, nor with the blank line that ends a header, gets that line
/// first: its text would read as a header, or go on with ours.
fn below(received: String, message: Bytes) -> Vec<Bytes> {
    let text = header::fields(&message).next().is_none();
    let blank = if text && !message.starts_with(b"\r\n") && !message.is_empty() {
        Bytes::from_static(b"\r\n")
    } else {
        Bytes::new()
    };
    vec![Bytes::from(received), blank, message]
}

/// One message being taken.
pub struct Take<'a> {
    /// The edge.
    pub edge: &'a Arc<Edge>,
    /// The session's rules.
    pub rules: &'a Rules,
    /// The session's facts.
    pub facts: &'a Facts,
    /// From a network of our own.
    pub exempt: bool,
    /// The message's octets.
    pub bytes: u64,
    /// The forward-paths that its client named, when a rule sends it elsewhere.
    pub redirected: Vec<Box<str>>,
    /// Whole header fields that rules put on.
    pub prepended: String,
    /// How its author names it; empty without.
    pub message_id: String,
}

/// A message's Message-ID, as far as records keep it.
pub fn message_id(message: &Bytes) -> String {
    let field = header::fields(message).find(|field| field.is("Message-ID"));
    let id = field.map(|field| field.text()).unwrap_or_default();
    id.chars().take(MESSAGE_ID_MAX).collect()
}

/// Characters of a Message-ID that are kept.
const MESSAGE_ID_MAX: usize = 250;

/// What is known of a message's sender.
pub struct Sender {
    /// SPF; none where it was not checked.
    pub spf: Option<Spf>,
    /// The client's name, where it was asked for.
    pub client_name: Option<ClientName>,
}

/// A message with its name: everything a pass or the spool needs.
struct Named {
    facts: MessageFacts,
    arrival: Timestamp,
    envelope: Envelope,
    /// Received field, message.
    body: Vec<Bytes>,
}

impl Take<'_> {
    /// Says no to a message in this edge's own words.
    pub fn refuse(&self, envelope: &Envelope, finding: &Finding) -> Reply {
        let Finding { reason, evidence } = finding;
        let reply = reason.reply(evidence);
        self.told(envelope, None, &reply, reason.label());
        reply
    }

    /// Through, else spool.
    pub async fn take(
        &self,
        envelope: &Envelope,
        message: Bytes,
        sender: Sender,
        presence: &Presence,
    ) -> Reply {
        let named = self.name(envelope, message, &sender);
        let copy = self.copy(&named);
        let insist = self.edge.keeper.refuses().is_some();
        let (reply, way) = match self.edge.through.pass(&copy, insist).await {
            Tried::Answered(replies, remote) => {
                self.answered(&named, &replies, &remote, presence).await
            }
            Tried::NotTried(why) => (self.spool_instead(&named, presence).await, why),
            Tried::Trouble(why) => {
                warn!(event = "through", ident = %named.facts.ident, outcome = "trouble", reason = %why);
                (self.spool_instead(&named, presence).await, "trouble")
            }
        };
        self.told(&named.envelope, Some(&named.facts), &reply, way);
        reply
    }

    /// Takes a message to its end here, because this rule says so: listed and counted, and nobody gets it.
    pub fn discard(&self, envelope: &Envelope, rule: &str) -> Reply {
        let ident = self.edge.idents.next();
        let said = format!("discarded by the rule {rule}");
        self.list(Kind::Discarded, &ident, envelope, &said, Timestamp::now());
        let (metrics, paths) = (&self.edge.metrics, envelope.recipients.len() as u64);
        let taken = metrics.taken.with_label_values(&["discard"]);
        taken.inc_by(paths);
        let done = metrics.done.with_label_values(&["discarded"]);
        done.inc_by(paths);
        let reply = Reply::new(250, (2, 0, 0), format!("taken as {ident}"));
        self.told(envelope, None, &reply, "discarded");
        reply
    }

    /// Keeps a message for an operator, because this rule says so. The inside is not asked.
    pub async fn hold(
        &self,
        envelope: &Envelope,
        message: Bytes,
        sender: Sender,
        presence: &Presence,
        rule: Box<str>,
    ) -> Reply {
        let mut named = self.name(envelope, message, &sender);
        named.facts.held_by = Some(rule.clone());
        let (reply, way) = match self.spool_all(&named, presence).await {
            Ok(reply) => {
                let said = format!("held by the rule {rule}");
                let (ident, envelope) = (&named.facts.ident, &named.envelope);
                self.list(Kind::Held, ident, envelope, &said, named.arrival);
                let held = self.edge.metrics.held.with_label_values(&["rule"]);
                held.inc_by(envelope.recipients.len() as u64);
                (reply, "held")
            }
            Err(reason) => (reason.reply(""), reason.label()),
        };
        self.told(&named.envelope, Some(&named.facts), &reply, way);
        reply
    }

    fn name(&self, envelope: &Envelope, message: Bytes, sender: &Sender) -> Named {
        let ident = self.edge.idents.next();
        let arrival = Timestamp::now();
        let host = &self.rules.hostname;
        let received = received::field(self.facts, envelope, host, &ident, arrival);
        let fields = self.results(envelope, sender) + &received + &self.prepended;
        // Our fields go in front, and an mbox separator below them would end the header.
        let message = message.slice(header::mbox_line(&message)..);
        let message = header::without(&message, |field| {
            field.is(trace::NAME) || mail::authres::claims(field, host)
        });
        let mut envelope = envelope.clone();
        for recipient in &mut envelope.recipients {
            recipient.address = self.edge.recipients.inner(&recipient.address);
        }
        Named {
            facts: MessageFacts {
                ident,
                session: self.facts.session.clone(),
                client: self.facts.client,
                helo: self.facts.helo.clone(),
                extended: self.facts.extended,
                spf: sender.spf.unwrap_or_default(),
                exempt: self.exempt,
                held_by: None,
            },
            arrival,
            envelope,
            body: below(fields, message),
        }
    }

    /// Ours stands above the Received field of the host that checked (RFC 8601 4.1).
    fn results(&self, envelope: &Envelope, sender: &Sender) -> String {
        let results = Results {
            spf: sender.spf,
            client_name: sender.client_name.as_ref(),
            reverse_path: &envelope.reverse_path,
            helo: &self.facts.helo,
        };
        let field = results.field(&self.rules.hostname);
        field
            .filter(|_| self.rules.results_header)
            .unwrap_or_default()
    }

    fn copy(&self, named: &Named) -> Copy {
        let mut parts = Vec::with_capacity(3);
        if self.edge.trace {
            let trace = named.facts.trace(Custody::Live, named.arrival, None);
            parts.push(Bytes::from(trace.header()));
        }
        parts.extend(named.body.iter().cloned());
        Copy {
            envelope: named.envelope.clone(),
            indices: (0..named.envelope.recipients.len()).collect(),
            parts,
            xforward: Some(named.facts.xforward()),
        }
    }

    /// The inside has spoken: for each recipient it owns the message, or has refused it, or wants it later.
    async fn answered(
        &self,
        named: &Named,
        replies: &[Reply],
        remote: &str,
        presence: &Presence,
    ) -> (Reply, &'static str) {
        let count = named.envelope.recipients.len();
        heard::count(replies, &self.edge.metrics);
        match replies::plan(replies, count) {
            Plan::Passed { refused } => {
                self.count_passed(count - refused.len());
                self.list_refused(named, &refused, replies);
                (self.passed(named), "through")
            }
            Plan::Refuse(reply) => (reply, "through"),
            Plan::Spool {
                kept,
                refused,
                accepted,
                token,
            } => {
                info!(
                    event = "through",
                    ident = %named.facts.ident,
                    outcome = "deferred",
                    remote,
                    recipients = kept.len(),
                    reply = %kept.iter().find_map(|index| replies.get(*index)).map(ToString::to_string).unwrap_or_default()
                );
                let kept_count = kept.len();
                let due = named.arrival.after(self.edge.deferred_pause);
                match self
                    .spool(named, kept, due, token, accepted, presence)
                    .await
                {
                    Ok(()) => {
                        self.count_passed(accepted);
                        self.count_spooled(kept_count);
                        self.list_refused(named, &refused, replies);
                        (self.spooled(named), "deferred")
                    }
                    Err(reason) => (reason.reply(""), reason.label()),
                }
            }
        }
    }

    async fn spool_instead(&self, named: &Named, presence: &Presence) -> Reply {
        let spooled = self.spool_all(named, presence).await;
        spooled.unwrap_or_else(|reason| reason.reply(""))
    }

    async fn spool_all(&self, named: &Named, presence: &Presence) -> Result<Reply, Reason> {
        let all: Vec<usize> = (0..named.envelope.recipients.len()).collect();
        let count = all.len();
        self.spool(named, all, named.arrival, None, 0, presence)
            .await?;
        self.count_spooled(count);
        Ok(self.spooled(named))
    }

    /// A client that is gone reads no 250 and sends again; with nothing accepted inside, keeping its message would make two of
    /// it for sure.
    async fn spool(
        &self,
        named: &Named,
        kept: Vec<usize>,
        due: Timestamp,
        token: Option<String>,
        accepted: usize,
        presence: &Presence,
    ) -> Result<(), Reason> {
        if accepted == 0 && presence.gone() {
            return Err(Reason::ClientGone);
        }
        let recipients = &named.envelope.recipients;
        let kept = Kept {
            arrival: named.arrival,
            envelope: Envelope {
                recipients: kept
                    .into_iter()
                    .map(|index| recipients[index].clone())
                    .collect(),
                ..named.envelope.clone()
            },
            facts: named.facts.to_bytes(),
            body: named.body.clone(),
            due,
            token,
            held: named.facts.held_by.is_some(),
        };
        self.edge.keeper.keep(kept).await
    }

    fn passed(&self, named: &Named) -> Reply {
        Reply::new(
            250,
            (2, 0, 0),
            format!("passed in as {}", named.facts.ident),
        )
    }

    fn spooled(&self, named: &Named) -> Reply {
        Reply::new(250, (2, 0, 0), format!("kept as {}", named.facts.ident))
    }

    fn count_passed(&self, recipients: usize) {
        let metrics = &self.edge.metrics;
        let outcome = if self.exempt { "exempt" } else { "passed" };
        metrics
            .taken
            .with_label_values(&["through"])
            .inc_by(recipients as u64);
        metrics
            .done
            .with_label_values(&[outcome])
            .inc_by(recipients as u64);
    }

    fn count_spooled(&self, recipients: usize) {
        let taken = &self.edge.metrics.taken;
        taken
            .with_label_values(&["spool"])
            .inc_by(recipients as u64);
    }

    /// Those that were refused beside others that were taken: the client has its 250 for them too, so they are listed.
    fn list_refused(&self, named: &Named, refused: &[usize], replies: &[Reply]) {
        let from = named.envelope.reverse_path.to_string();
        let texts: Vec<(String, String)> = refused
            .iter()
            .map(|index| {
                let to = named.envelope.recipients[*index].address.to_string();
                (to, replies[*index].to_string())
            })
            .collect();
        let mut lines = Vec::with_capacity(texts.len());
        for (to, reply) in &texts {
            info!(event = "ended", ident = %named.facts.ident, from = %from, to = %to, reply = %reply);
            lines.push(Line {
                kind: Kind::Refused,
                ident: named.facts.ident.as_str(),
                session: &self.facts.session,
                from: &from,
                to,
                reply,
            });
        }
        let metrics = &self.edge.metrics;
        metrics
            .taken
            .with_label_values(&["through"])
            .inc_by(lines.len() as u64);
        metrics
            .done
            .with_label_values(&["ended"])
            .inc_by(lines.len() as u64);
        self.edge.ended.add(named.arrival, &lines);
    }

    /// Lists those that nobody inside knows of.
    fn list(&self, kind: Kind, ident: &Ident, envelope: &Envelope, said: &str, now: Timestamp) {
        let from = envelope.reverse_path.to_string();
        let recipients = envelope.recipients.iter();
        let to: Vec<String> = recipients.map(|to| to.address.to_string()).collect();
        let line = |to| Line {
            kind,
            ident: ident.as_str(),
            session: &self.facts.session,
            from: &from,
            to,
            reply: said,
        };
        let lines: Vec<Line<'_>> = to.iter().map(|to| line(to)).collect();
        self.edge.ended.add(now, &lines);
    }

    /// Tells what became of it, in the words that the client gets.
    fn told(&self, envelope: &Envelope, named: Option<&MessageFacts>, reply: &Reply, way: &str) {
        let reply = self.rules.words.told(reply.clone(), &self.facts.session);
        if reply.is_positive() {
            self.edge.metrics.accepted_bytes.inc_by(self.bytes);
        }
        let to = envelope.recipients.iter();
        let mut to: Vec<Box<str>> = to.map(|one| one.address.to_string().into()).collect();
        let mut redirected = None;
        if !self.redirected.is_empty() {
            redirected = to.pop();
            to.clone_from(&self.redirected);
        }
        let told = Told {
            facts: self.facts,
            from: &envelope.reverse_path.to_string(),
            to: &to,
            redirected: redirected.as_deref(),
            message_id: &self.message_id,
            named,
            way,
            reply: &reply,
        };
        told.tell(self.edge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_a_header_does_not_become_one() {
        for (message, expected) in [
            ("Subject: x\r\n\r\ny\r\n", "R: r\r\nSubject: x\r\n\r\ny\r\n"),
            ("\r\ny\r\n", "R: r\r\n\r\ny\r\n"),
            ("just text\r\n", "R: r\r\n\r\njust text\r\n"),
            (" folded\r\n", "R: r\r\n\r\n folded\r\n"),
            ("", "R: r\r\n"),
        ] {
            let parts = below("R: r\r\n".into(), Bytes::from_static(message.as_bytes()));
            assert_eq!(parts.concat(), expected.as_bytes(), "{message:?}");
        }
    }
}
