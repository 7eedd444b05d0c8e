//! A transport that answers as it is told, and an owner that writes down what it hears.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mail::{
    Address, Domain, Envelope, MailParameters, MessageId, Recipient, Reply, ReversePath, Timestamp,
};
use smtp::client::{Answer, Cause, Phase, Trouble};
use spool::{Batch, Destination, Error, Head, Lease, NewBatch};
use tokio::time::Instant;

use super::reply;
use crate::attempt::{Attempted, Copy, Result as Outcome_};
use crate::engine::Owner;
use crate::pool::{Passed, Stopped};
use crate::seat::{Ceiling, Key};
use crate::site::Site;
use crate::transport::{Transport, Way};

// === the world ===

/// What the world answers to one copy.
pub(crate) type Answers = Box<dyn Fn(&Key, &Copy) -> Vec<Reply> + Send + Sync>;

/// Sites by scripts instead of sockets.
pub(crate) struct World {
    pub(crate) answers: Answers,
    /// How long a transaction takes.
    pub(crate) takes: Duration,
    pub(crate) ceiling: usize,
    /// Messages a second at most that a site allows.
    pub(crate) rate: Option<f64>,
    /// Hosts that do not take connections, and how long it takes to find out.
    dead: Mutex<HashSet<Box<str>>>,
    /// The reply of the DNS about these domains.
    pub(crate) lookups: Mutex<HashMap<Domain, Reply>>,
    /// Site, recipients, and when, of each transaction that began.
    pub(crate) seen: Mutex<Vec<(String, Vec<String>, Instant)>>,
    pub(crate) tries: AtomicUsize,
    now: AtomicUsize,
    /// The most transactions at once.
    pub(crate) most: AtomicUsize,
}

impl World {
    /// Everything is accepted at once; each domain is its own exchanger.
    pub(crate) fn kind() -> Self {
        Self::that(|_, copy| accepted(copy))
    }

    pub(crate) fn that(
        answers: impl Fn(&Key, &Copy) -> Vec<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self {
            answers: Box::new(answers),
            takes: Duration::from_millis(1),
            ceiling: 20,
            rate: None,
            dead: Mutex::default(),
            lookups: Mutex::default(),
            seen: Mutex::default(),
            tries: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    pub(crate) fn kill(&self, host: &str) {
        self.dead.lock().unwrap().insert(host.into());
    }

    pub(crate) fn revive(&self, host: &str) {
        self.dead.lock().unwrap().remove(host);
    }

    /// Recipients that were offered, in order.
    pub(crate) fn recipients(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().flat_map(|(_, to, _)| to.clone()).collect()
    }

    fn is_dead(&self, key: &Key) -> bool {
        self.dead.lock().unwrap().contains(&*key.to_string())
    }
}

pub(crate) fn accepted(copy: &Copy) -> Vec<Reply> {
    vec![reply(250, "ok"); copy.envelope.recipients.len()]
}

#[async_trait::async_trait]
impl Transport for World {
    async fn site(&self, domain: &Domain) -> Result<Site, Reply> {
        tokio::time::sleep(self.takes).await;
        match self.lookups.lock().unwrap().get(domain) {
            Some(reply) => Err(reply.clone()),
            None => Ok(Site::new(vec![(0, domain.as_str().into())])),
        }
    }

    fn ceiling(&self, key: &Key) -> Result<Ceiling, Reply> {
        match key {
            Key::Route(name) if &**name == "missing" => Err(reply(451, "no such route")),
            _ => Ok(Ceiling {
                attempts: self.ceiling,
                rate: self.rate,
            }),
        }
    }

    async fn pass(&self, way: &Way, copy: &Copy) -> Result<Passed, Stopped> {
        let key = &*way.key;
        self.tries.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let began = Instant::now();
        tokio::time::sleep(self.takes).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        if self.is_dead(key) {
            return Err(Stopped {
                trouble: Trouble {
                    phase: Phase::Connect,
                    cause: Cause::TimedOut,
                },
                remote: None,
            });
        }
        let to = copy.envelope.recipients.iter();
        let to = to.map(|r| r.address.to_string()).collect();
        self.seen.lock().unwrap().push((key.to_string(), to, began));
        let replies = (self.answers)(key, copy);
        // 599 says: hang up in the middle of the message.
        if replies.iter().any(|reply| reply.code == 599) {
            return Err(Stopped {
                trouble: Trouble {
                    phase: Phase::Data,
                    cause: Cause::Closed,
                },
                remote: Some(key.to_string().into()),
            });
        }
        let answer = |reply| Answer {
            phase: Phase::End,
            reply,
        };
        Ok(Passed {
            answers: replies.into_iter().map(answer).collect(),
            remote: key.to_string().into(),
            dsn: false,
        })
    }
}

// === the owner ===

/// One copy a batch, or one a recipient; remembers what was concluded.
#[derive(Default)]
pub(crate) struct Clerk {
    pub(crate) verp: bool,
    pub(crate) refuses: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// From this age on somebody is to hear once that a batch waits.
    pub(crate) overdue_after: Option<Duration>,
    /// Only of what goes to recipients whose local part begins so.
    pub(crate) overdue_of: &'static str,
    /// What is left after replies goes on to this route.
    pub(crate) moves_to: Option<&'static str>,
    /// The route where those wait who are refused for good.
    pub(crate) keeps_refused: Option<&'static str>,
    /// Message, recipient, code, of each result told.
    pub(crate) told: Mutex<Vec<(MessageId, String, &'static str, u16)>>,
    /// Recipients of results that are nobody's to blame.
    pub(crate) blameless: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Owner for Clerk {
    fn render(&self, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        let copy = |indices: Vec<usize>| Copy {
            envelope: Envelope {
                reverse_path: head.reverse_path.clone(),
                parameters: MailParameters::default(),
                recipients: indices
                    .iter()
                    .map(|&i| batch.recipients[i].clone())
                    .collect(),
            },
            indices,
            parts: vec![body.clone()],
            xforward: None,
        };
        let all = 0..batch.recipients.len();
        Ok(match self.verp {
            true => all.map(|i| copy(vec![i])).collect(),
            false => vec![copy(all.collect())],
        })
    }

    async fn conclude(&self, lease: &Lease, attempted: &[Attempted]) -> Result<Bytes, Error> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::Full("told to".into()));
        }
        let mut told = self.told.lock().unwrap();
        for one in attempted {
            assert_eq!(lease.batch.recipients[one.index], one.recipient);
            let kind = match one.result {
                Outcome_::Delivered(_) => "delivered",
                Outcome_::Deferred(_) => "deferred",
                Outcome_::Failed(_) => "failed",
                Outcome_::Expired(_) => "expired",
            };
            let code = one.result.reply().code;
            if one.policy {
                let mut blameless = self.blameless.lock().unwrap();
                blameless.push(one.recipient.address.to_string());
            }
            told.push((lease.head.id, one.recipient.address.to_string(), kind, code));
        }
        Ok(Bytes::from_static(b"noted"))
    }

    fn is_overdue(&self, head: &Head, batch: &Batch, now: Timestamp) -> bool {
        let over = |after: Duration| now.since(head.accepted) >= after;
        let of = batch.recipients.iter();
        let mut of = of.filter(|to| to.address.local().starts_with(self.overdue_of));
        self.overdue_after.is_some_and(over) && batch.note.is_empty() && of.next().is_some()
    }

    fn keeps_refused(&self, batch: &Batch) -> Option<(Destination, Bytes)> {
        let place = Destination::Route(self.keeps_refused?.into());
        Some((place, batch.template.clone()))
    }

    fn moves(&self, lease: &Lease, recipients: &[Recipient], note: &Bytes) -> Option<NewBatch> {
        let destination = Destination::Route(self.moves_to?.into());
        (lease.batch.destination != destination).then(|| NewBatch {
            destination,
            class: lease.batch.class,
            due: lease.batch.due,
            recipients: recipients.to_vec(),
            template: note.clone(),
            replies: Default::default(),
        })
    }
}

impl Clerk {
    /// `recipient kind` of each result told, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter()
            .map(|(_, to, kind, _)| format!("{to} {kind}"))
            .collect()
    }
}

pub(crate) fn recipient(text: &str) -> Recipient {
    Address::parse(text).unwrap().into()
}

/// An empty message to one recipient.
pub(crate) fn copy(to: &str) -> Copy {
    Copy {
        envelope: Envelope {
            reverse_path: ReversePath::Null,
            parameters: MailParameters::default(),
            recipients: vec![recipient(to)],
        },
        indices: vec![0],
        parts: Vec::new(),
        xforward: None,
    }
}
