//! Spooled mail on its way inside: what a copy looks like, and what an end means. The engine of crates/delivery does the rest.
//!
//! Mail never expires here (design, invariant 9). What the inside refuses for good although it was spooled cannot be told to its
//! sender, since an edge sends nothing outward, and it is not thrown away: it is *held*, a batch of its own of the same message for a
//! destination that nobody serves, listed and counted, until an operator releases or drops it. (Bad mail does not come to this
//! end with listserv behind: that quarantines it.)

use std::sync::Arc;

use bytes::Bytes;
use delivery::rules::{Rules, Table};
use delivery::{Attempted, Copy, Engine, Owner};
use mail::trace::Custody;
use mail::{Envelope, Recipient, Reply, Timestamp};
use serde_json::json;
use service::shutdown::Shutdown;
use spool::{Batch, Destination, Head, Lease, NewBatch};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::ended::{Ended, Kind, Line};
use crate::facts::MessageFacts;
use crate::heard;
use crate::metrics::Metrics;
use crate::receive::Edge;
use crate::replies;
use crate::trail::Trail;

/// The destination of held batches; no engine serves it.
pub fn held() -> Destination {
    Destination::Route("held".into())
}

/// The destination of batches that were scanned, or need not be: the gate `list` is before it. While no list host can be reached it
/// waits there as a whole, and mail that was not scanned yet goes on to be scanned through the gate before
/// [`Destination::Inside`].
pub fn scanned() -> Destination {
    Destination::Route(LIST.into())
}

/// The route of [`scanned`].
pub const LIST: &str = "list";

/// What the inside means by its replies, beside what is common. That no list host is there concerns all that is scanned; a list host
/// without room asks for less.
pub fn rules() -> Rules {
    let own = Table::parse(RULES).expect("a constant table is right");
    Rules::with(own).expect("a constant table is right")
}

const RULES: &str = r#"
[[rule]]
name = "list-host-away"
sites = ["list"]
enhanced = ["4.4.1"]
action = "away"

[[rule]]
name = "list-host-busy"
sites = ["inside", "list"]
codes = [421, 451, 452]
enhanced = ["4.3.1", "4.3.2"]
action = "slow"
"#;

/// Lets the engine try at once when live mail has found the inside back, until shutdown.
pub async fn wake(edge: Arc<Edge>, engine: Engine, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = edge.through.reopened() => engine.nudge(),
            () = shutdown.wait() => return,
        }
    }
}

/// Runs the engine while mail goes inside. While it is handed over to a sibling (`target`) the engine rests, having given back what it
/// had in hand: else it would keep a message to try the inside with.
pub async fn deliver(
    engine: Engine,
    mut target: watch::Receiver<Option<String>>,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            inside = target.wait_for(Option::is_none) => if inside.is_err() { return },
            () = shutdown.wait() => return,
        }
        let stop = Shutdown::new();
        let run = engine.clone().run(stop.clone());
        tokio::pin!(run);
        tokio::select! {
            () = &mut run => return,
            _ = target.wait_for(Option::is_some) => {}
            () = shutdown.wait() => {}
        }
        stop.begin();
        run.await;
    }
}

/// The engine's owner on an edge.
pub struct Forward {
    /// The list of what was not passed in.
    ended: Arc<Ended>,
    /// What is counted.
    metrics: Arc<Metrics>,
    /// What happened, for those who ask.
    trail: Arc<Trail>,
    /// Whether the next hop gets the trace field.
    trace: bool,
}

/// The copy in which a batch goes inside, with the trace field where the next hop is ours.
pub fn copies(trace: bool, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
    let facts = MessageFacts::from_bytes(&head.facts).map_err(|why| {
        error!(event = "facts_unreadable", message = %head.id, reason = %why);
        Reply::new(
            554,
            (5, 3, 0),
            format!("the facts of this message cannot be read: {why}"),
        )
    })?;
    let mut parts = Vec::with_capacity(2);
    if trace {
        let field = facts.trace(Custody::Spooled, head.arrival, token(batch));
        parts.push(Bytes::from(field.header()));
    }
    parts.push(body.clone());
    Ok(vec![Copy {
        envelope: Envelope {
            reverse_path: head.reverse_path.clone(),
            parameters: head.parameters.clone(),
            recipients: batch.recipients.clone(),
        },
        indices: (0..batch.recipients.len()).collect(),
        parts,
        xforward: Some(facts.xforward()),
    }])
}

#[async_trait::async_trait]
impl Owner for Forward {
    fn render(&self, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
        copies(self.trace, head, batch, body)
    }

    fn ident(&self, head: &Head) -> Option<String> {
        let facts = MessageFacts::from_bytes(&head.facts).ok()?;
        Some(facts.ident.to_string())
    }

    async fn conclude(
        &self,
        lease: &Lease,
        attempted: &[Attempted],
    ) -> Result<Bytes, spool::Error> {
        let facts = MessageFacts::from_bytes(&lease.head.facts).ok();
        let mut sorted = Sorted::default();
        for one in attempted {
            sorted.add(one);
        }
        if !sorted.failed.is_empty() {
            self.list_held(lease, facts.as_ref(), &sorted.failed);
        }
        let fresh = replies::token(sorted.deferred.iter().copied());
        // Scanned for the first time; what is scanned and not yet taken brings its verdict along the next time.
        let told = fresh.is_some() || sorted.deferred.len() < attempted.len();
        if told && token(&lease.batch).is_none() {
            let replies = attempted.iter().map(|one| one.result.reply());
            heard::count(replies, &self.metrics);
        }
        self.record(facts.as_ref(), attempted);
        let outcome = match &facts {
            Some(facts) if facts.exempt => "exempt",
            _ => "passed",
        };
        let done = &self.metrics.done;
        done.with_label_values(&[outcome]).inc_by(sorted.delivered);
        let note = fresh.as_deref().or_else(|| token(&lease.batch));
        Ok(Bytes::copy_from_slice(note.unwrap_or_default().as_bytes()))
    }

    /// They wait for an operator.
    fn keeps_refused(&self, batch: &Batch) -> Option<(Destination, Bytes)> {
        let token = token(batch).map(str::to_owned);
        Some((held(), token.unwrap_or_default().into()))
    }

    /// What was scanned waits for the list host, not for a scanner.
    fn moves(&self, lease: &Lease, recipients: &[Recipient], note: &Bytes) -> Option<NewBatch> {
        let exempt = || MessageFacts::from_bytes(&lease.head.facts).is_ok_and(|facts| facts.exempt);
        let waits_for_list = !note.is_empty() || exempt();
        (lease.batch.destination == Destination::Inside && waits_for_list).then(|| NewBatch {
            destination: scanned(),
            class: lease.batch.class,
            due: lease.batch.due,
            recipients: recipients.to_vec(),
            template: note.clone(),
            replies: Default::default(),
        })
    }
}

impl Forward {
    /// Works with the edge's list and metrics.
    pub fn new(edge: &Edge) -> Self {
        Self {
            ended: Arc::clone(&edge.ended),
            metrics: Arc::clone(&edge.metrics),
            trail: Arc::clone(&edge.trail),
            trace: edge.trace,
        }
    }

    /// What came of an attempt, but for those that are tried again: they wait, and the spool shows it.
    fn record(&self, facts: Option<&MessageFacts>, attempted: &[Attempted]) {
        let (ident, session) = names(facts);
        for (event, is) in [("passed", true), ("held", false)] {
            let meant = |one: &&Attempted| match one.result {
                delivery::Result::Delivered(_) => is,
                delivery::Result::Deferred(_) => false,
                delivery::Result::Failed(_) | delivery::Result::Expired(_) => !is,
            };
            let meant: Vec<&Attempted> = attempted.iter().filter(meant).collect();
            let Some(first) = meant.first() else { continue };
            let to: Vec<String> = meant
                .iter()
                .map(|one| one.recipient.address.to_string())
                .collect();
            self.trail.add(json!({
                "event": event,
                "ident": ident,
                "session": session,
                "to": to,
                "remote": first.remote,
                "reply": first.result.reply().to_string(),
            }));
        }
    }

    /// Lists those who were refused; that they are held is a part of the settlement. A crash in between refuses and lists them again.
    fn list_held(
        &self,
        lease: &Lease,
        facts: Option<&MessageFacts>,
        failed: &[(&Recipient, &Reply)],
    ) {
        let from = lease.head.reverse_path.to_string();
        let (ident, session) = names(facts);
        let texts: Vec<(String, String)> = failed
            .iter()
            .map(|(recipient, reply)| (recipient.address.to_string(), reply.to_string()))
            .collect();
        let lines: Vec<Line<'_>> = texts
            .iter()
            .map(|(to, reply)| Line {
                kind: Kind::Held,
                ident,
                session,
                from: &from,
                to,
                reply,
            })
            .collect();
        for line in &lines {
            warn!(
                event = "held",
                ident,
                to = line.to,
                reply = line.reply,
                "refused inside after it was spooled; look at it and use `mx-edge queue release` or `drop`"
            );
        }
        let reason = match facts {
            Some(_) => "refused",
            None => "unreadable",
        };
        let held = &self.metrics.held;
        held.with_label_values(&[reason]).inc_by(lines.len() as u64);
        self.ended.add(Timestamp::now(), &lines);
    }
}

/// An attempt's recipients by what came of them.
#[derive(Default)]
struct Sorted<'a> {
    delivered: u64,
    deferred: Vec<&'a Reply>,
    failed: Vec<(&'a Recipient, &'a Reply)>,
}

impl<'a> Sorted<'a> {
    fn add(&mut self, one: &'a Attempted) {
        match &one.result {
            delivery::Result::Delivered(_) => self.delivered += 1,
            delivery::Result::Deferred(reply) => self.deferred.push(reply),
            delivery::Result::Failed(reply) | delivery::Result::Expired(reply) => {
                self.failed.push((&one.recipient, reply));
            }
        }
    }
}

/// The signed verdict of this batch: the newest one, or that which came with the first deferral.
fn token(batch: &Batch) -> Option<&str> {
    [&batch.note, &batch.template]
        .into_iter()
        .filter_map(|bytes| std::str::from_utf8(bytes).ok())
        .find(|text| !text.is_empty())
}

fn names(facts: Option<&MessageFacts>) -> (&str, &str) {
    facts.map_or(("", ""), |facts| (facts.ident.as_str(), &facts.session))
}
