//! Hands the spool over to a sibling while a drain says so: claims what waits, sends it, and ends what the sibling has made durable.
//! What it does not take stays and is tried again; a crash in between sends it again, and the sibling takes it once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use delivery::Copy;
use delivery::attempt::{Connections, Route};
use mail::{Reply, Severity, Timestamp};
use serde_json::{Value, json};
use service::shutdown::Shutdown;
use service::tls::{Identity, Role};
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::{Action, Destinations, Ends, Lease, Outcome, Predicate, Settlement, Spool, Wanted};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Label, Place};
use crate::facts::MessageFacts;
use crate::forward;
use crate::held;
use crate::metrics::Metrics;
use crate::trail::Trail;

/// Batches that are claimed from a lane at once: no more than are sent soon.
const CLAIM_MAX: usize = 16;
/// Transactions at once.
const CONNECTIONS_MAX: usize = 8;
/// Messages over one connection.
const TRANSACTIONS_MAX: usize = 1000;
/// For one message.
const DEADLINE: Duration = Duration::from_secs(120);
/// After a message was not taken, it waits for so long.
const PAUSE: Duration = Duration::from_secs(2);
/// While nothing is due, it is looked again after this time.
const LOOK: Duration = Duration::from_millis(500);
/// What is due later is made due that often.
const RETRY: Duration = Duration::from_secs(10);

/// The part of a drain that hands over.
pub struct Giver {
    /// What is handed over.
    pub spool: Arc<dyn Spool>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What happened, for those who ask.
    pub trail: Arc<Trail>,
    /// This node's certificate.
    pub identity: Option<Identity>,
    /// What this host calls itself.
    pub helo: Box<str>,
    target: watch::Sender<Option<String>>,
    turns: Semaphore,
    trouble: Mutex<Option<String>>,
}

impl Giver {
    /// To nobody yet.
    pub fn new(
        spool: Arc<dyn Spool>,
        metrics: Arc<Metrics>,
        trail: Arc<Trail>,
        identity: Option<Identity>,
        helo: &str,
    ) -> Self {
        Self {
            spool,
            metrics,
            trail,
            identity,
            helo: helo.into(),
            target: watch::Sender::new(None),
            turns: Semaphore::new(CONNECTIONS_MAX),
            trouble: Mutex::default(),
        }
    }

    /// Hands over to this `host:port` from now on, or no more.
    pub fn set(&self, target: Option<String>) -> Result<(), String> {
        if let Some(target) = &target {
            self.check(target)?;
        }
        // One that goes on already is left to it.
        let changed = self.target.send_if_modified(|to| {
            let changed = *to != target;
            *to = target;
            changed
        });
        if changed {
            self.say(None);
        }
        Ok(())
    }

    /// Tells when that changes.
    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.target.subscribe()
    }

    /// To whom.
    pub fn target(&self) -> Option<String> {
        self.target.borrow().clone()
    }

    /// What went wrong last, if something did since it went well.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For `/status`.
    pub fn status(&self) -> Value {
        let done = &self.metrics.done;
        json!({
            "to": self.target(),
            "handed_over": done.with_label_values(&["handed_over"]).get(),
            "trouble": self.trouble(),
        })
    }

    fn say(&self, trouble: Option<String>) {
        let mut last = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(why), false) = (&trouble, *last == trouble) {
            warn!(event = "handover", outcome = "deferred", reason = %why);
        }
        *last = trouble;
    }

    fn check(&self, target: &str) -> Result<(), String> {
        let wrong =
            || format!("{target:?} is no HOST:PORT; give the handover.listen of the sibling");
        let (host, port) = target.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let here = address.is_some_and(|address| address.is_loopback());
        match self.identity.is_none() && !here {
            true => Err(format!(
                "mail would go to {target} in plain; set [inside] certificate, key and authority"
            )),
            false => Ok(()),
        }
    }

    /// Until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut target = self.target.subscribe();
        loop {
            let to = target.borrow_and_update().clone();
            tokio::select! {
                () = shutdown.wait() => return,
                changed = target.changed() => if changed.is_err() { return },
                () = async {
                    match to {
                        Some(to) => self.give(&to).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    async fn give(self: &Arc<Self>, to: &str) {
        let connections = Arc::new(Connections::new(self.route(to)));
        let wanted = Wanted {
            destinations: Destinations::Only(Place::ALL.map(Place::destination).to_vec()),
            lanes: [CLAIM_MAX; 4],
        };
        let mut retried: Option<Instant> = None;
        loop {
            if retried.is_none_or(|at| at.elapsed() >= RETRY) {
                let waiting = Predicate {
                    held: Some(false),
                    ..Predicate::default()
                };
                if let Err(error) = self.spool.select(&waiting, Action::Retry).await {
                    self.say(Some(error.to_string()));
                }
                retried = Some(Instant::now());
            }
            // A task of its own: a drain that ends leaves nothing claimed, and cuts no batch off between the sibling's reply and its
            // settlement.
            let round = Arc::clone(self).round(wanted.clone(), Arc::clone(&connections));
            let wait = tokio::spawn(round).await.unwrap_or(PAUSE);
            tokio::time::sleep(wait).await;
        }
    }

    /// Claims batches, sends and settles them; how long to wait before the next round.
    async fn round(self: Arc<Self>, wanted: Wanted, connections: Arc<Connections>) -> Duration {
        let leases = match self.spool.claim("handover", &wanted).await {
            Ok(leases) if leases.is_empty() => return LOOK,
            Ok(leases) => leases,
            Err(error) => {
                self.say(Some(error.to_string()));
                return PAUSE;
            }
        };
        let mut sending = JoinSet::new();
        for lease in leases {
            let (this, connections) = (Arc::clone(&self), Arc::clone(&connections));
            sending.spawn(async move { this.send(lease, &connections).await });
        }
        let mut settlements = Vec::new();
        let mut trouble = None;
        let (mut given, mut lines) = (0, Vec::new());
        while let Some(sent) = sending.join_next().await {
            let Ok(sent) = sent else { continue };
            given += sent.settlement.ends.delivered;
            trouble = sent.trouble.or(trouble);
            lines.extend(sent.line);
            settlements.push(sent.settlement);
        }
        if let Err(error) = self.spool.settle(settlements).await {
            trouble = Some(error.to_string());
            given = 0;
            lines.clear();
        }
        lines.into_iter().for_each(|line| self.trail.add(line));
        let done = &self.metrics.done;
        done.with_label_values(&["handed_over"]).inc_by(given);
        let wait = match &trouble {
            Some(_) => PAUSE,
            None => Duration::ZERO,
        };
        self.say(trouble);
        wait
    }

    async fn send(&self, lease: Lease, connections: &Connections) -> Sent {
        // Before the message is in memory.
        let _turn = self.turns.acquire().await;
        let replies = match self.spool.body(lease.head.id).await {
            Err(error) => Err(error.to_string()),
            Ok(body) => match copy(&lease, body) {
                Err(why) => Err(why),
                Ok(copy) => {
                    let passed = connections.pass(&copy, Instant::now() + DEADLINE).await;
                    passed.map_err(|trouble| trouble.to_string())
                }
            },
        };
        match replies {
            Ok((replies, remote)) => settled(lease, &replies, &remote),
            Err(why) => {
                let why = format!("message {}: {why}", lease.head.id);
                settled(lease, &[], &why)
            }
        }
    }

    fn route(&self, to: &str) -> Route {
        let wait = Duration::from_secs(30);
        Route {
            hosts: vec![to.to_owned()],
            options: Options {
                protocol: Protocol::Lmtp,
                helo: self.helo.clone(),
                tls: match &self.identity {
                    Some(identity) => {
                        TlsPolicy::Required(identity.client(), Role::MxEdge.server_name())
                    }
                    None => TlsPolicy::Never,
                },
                timeouts: Timeouts {
                    connect: wait,
                    greeting: wait,
                    helo: wait,
                    mail: wait,
                    rcpt: wait,
                    data_start: wait,
                    data_block: DEADLINE,
                    data_end: DEADLINE,
                    rest: Duration::from_secs(5),
                },
                source: None,
                chunking: true,
            },
            transactions_max: TRANSACTIONS_MAX,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// What came of a batch.
struct Sent {
    settlement: Settlement,
    /// What is recorded of it.
    line: Option<Value>,
    /// Why some of it stays.
    trouble: Option<String>,
}

/// The batch as it travels.
fn copy(lease: &Lease, body: Bytes) -> Result<Copy, String> {
    let (head, batch) = (&lease.head, &lease.batch);
    let facts = MessageFacts::from_bytes(&head.facts)
        .map_err(|why| format!("its facts cannot be read: {why}"))?;
    let place = Place::of(&batch.destination).ok_or("it waits where no edge's mail waits")?;
    let label = Label {
        key: format!("{}.{}.{:032x}", facts.ident, head.id, batch.id.0),
        place,
        session: facts.session.to_string(),
        rule: held::rule(&facts, batch).map(Into::into),
    };
    let copies = forward::copies(true, head, batch, &body).map_err(|reply| reply.to_string())?;
    let mut copy = copies
        .into_iter()
        .next()
        .ok_or("there is nothing to send")?;
    copy.parts.insert(0, Bytes::from(label.header()));
    Ok(copy)
}

/// Ends the recipients that were taken; the others stay as they were.
fn settled(lease: Lease, replies: &[Reply], said: &str) -> Sent {
    let batch = lease.batch;
    let taken = |at: usize| {
        let reply = replies.get(at);
        reply.is_some_and(|reply| reply.severity() == Severity::Positive)
    };
    let (mut left, mut places, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for (at, recipient) in batch.recipients.iter().enumerate() {
        match taken(at) {
            true => given.push(recipient.address.to_string()),
            false => {
                left.push(recipient.clone());
                places.push(at);
            }
        }
    }
    let delivered = given.len() as u64;
    let facts = MessageFacts::from_bytes(&lease.head.facts).ok();
    let line = (delivered > 0).then(|| {
        let ident = facts.as_ref().map(|facts| facts.ident.as_str());
        json!({ "event": "handed_over", "ident": ident, "to": given, "remote": said })
    });
    if delivered > 0 {
        info!(event = "handed_over", direction = "out", message = %lease.head.id, recipients = delivered, remote = said);
    }
    let trouble = (!left.is_empty()).then(|| {
        let refusal = (0..batch.recipients.len()).find(|at| !taken(*at));
        match refusal.and_then(|at| replies.get(at)) {
            Some(reply) => format!("{said} said: {reply}"),
            None => said.to_owned(),
        }
    });
    let outcome = match left.is_empty() {
        true => Outcome::Finished,
        false => Outcome::Deferred {
            until: Timestamp::now().after(PAUSE),
            replies: batch.replies.at(places),
            note: batch.note,
            recipients: left,
            attempted: false,
            moved: Vec::new(),
        },
    };
    Sent {
        settlement: Settlement {
            batch: batch.id,
            token: lease.token,
            outcome,
            ends: Ends {
                delivered,
                ..Ends::default()
            },
        },
        line,
        trouble,
    }
}
