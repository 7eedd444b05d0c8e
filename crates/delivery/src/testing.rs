//! For tests only: a spool in memory, a transport that answers as it is told, an owner that writes down what it hears.
//! All of them live on the paused clock.

pub(crate) mod peer;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mail::{
    Address, Domain, Envelope, MailParameters, MessageId, Recipient, Reply, ReversePath, Timestamp,
};
use smtp::client::{Cause, Phase, Trouble};
use spool::*;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::attempt::{Attempted, Copy, Result as Outcome_};
use crate::engine::{Clock, Owner};
use crate::pool::Stopped;
use crate::seat::Key;
use crate::site::Site;
use crate::transport::Transport;

/// The wall clock at the start of every test.
pub(crate) const EPOCH: Timestamp = Timestamp(1_800_000_000_000);

/// A wall clock that follows the paused one.
pub(crate) fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || EPOCH.after(start.elapsed()))
}

/// A reply from three digits and text; the enhanced status follows the first digit.
pub(crate) fn reply(code: u16, text: &str) -> Reply {
    Reply::new(code, ((code / 100) as u8, 0, 0), text)
}

// === the spool ===

pub(crate) struct Memory {
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
    next: AtomicU64,
    pub(crate) claims: AtomicUsize,
    /// Every claim and every settle is refused while true.
    pub(crate) refuses: AtomicBool,
    /// Takes no more, and is unhealthy while true; what it has can be worked off.
    pub(crate) full: AtomicBool,
    /// Settlements in each commit.
    pub(crate) groups: Mutex<Vec<usize>>,
    /// How recipients ended, and settlements whose account does not balance.
    pub(crate) ends: Mutex<Ends>,
    pub(crate) unbalanced: Mutex<Vec<String>>,
}

#[derive(Default)]
struct State {
    heads: HashMap<MessageId, (Arc<Head>, Bytes)>,
    batches: HashMap<BatchId, (MessageId, Batch, Option<u64>)>,
    corrupt: HashSet<MessageId>,
    news: u64,
}

impl Memory {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
            changed: Notify::new(),
            next: AtomicU64::new(1),
            claims: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
            full: AtomicBool::new(false),
            groups: Mutex::default(),
            ends: Mutex::default(),
            unbalanced: Mutex::default(),
        })
    }

    /// One message with one batch for these recipients.
    pub(crate) fn add(&self, destination: Destination, recipients: &[&str]) -> MessageId {
        self.add_of(Class::Ordinary, (self.clock)(), destination, recipients)
    }

    pub(crate) fn add_of(
        &self,
        class: Class,
        arrival: Timestamp,
        destination: Destination,
        recipients: &[&str],
    ) -> MessageId {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let id = MessageId(u128::from(n));
        let body = Bytes::from(format!("Subject: {n}\r\n\r\nx\r\n"));
        let head = Head {
            id,
            arrival,
            accepted: (self.clock)(),
            reverse_path: ReversePath::parse("from@sender.example").unwrap(),
            parameters: MailParameters::default(),
            facts: Bytes::new(),
            body_bytes: body.len() as u64,
        };
        let batch = Batch {
            id: BatchId(u128::from(n) << 64),
            destination,
            class,
            due: (self.clock)(),
            attempts: 0,
            recipients: recipients.iter().map(|r| recipient(r)).collect(),
            template: Bytes::new(),
            note: Bytes::new(),
            reply: Box::default(),
            held: None,
        };
        let mut state = self.state.lock().unwrap();
        state.heads.insert(id, (Arc::new(head), body));
        state.batches.insert(batch.id, (id, batch, None));
        state.news += 1;
        self.changed.notify_waiters();
        id
    }

    pub(crate) fn corrupt(&self, id: MessageId) {
        self.state.lock().unwrap().corrupt.insert(id);
    }

    /// All batches that are not finished, in order.
    pub(crate) fn left(&self) -> Vec<Batch> {
        let state = self.state.lock().unwrap();
        let mut left: Vec<_> = state.batches.values().map(|(_, b, _)| b.clone()).collect();
        left.sort_by_key(|batch| batch.id);
        left
    }

    /// What a restart of the process does: nobody holds a lease any more.
    pub(crate) fn forget_leases(&self) {
        let mut state = self.state.lock().unwrap();
        state.batches.values_mut().for_each(|b| b.2 = None);
        state.news += 1;
    }

    fn next_due(&self, after: Timestamp) -> Option<Timestamp> {
        let state = self.state.lock().unwrap();
        let unheld = state.batches.values().filter(|(.., token)| token.is_none());
        unheld
            .map(|(_, b, _)| b.due)
            .filter(|due| *due > after)
            .min()
    }
}

#[async_trait::async_trait]
impl Spool for Memory {
    async fn accept(&self, _: NewMessage, _: Option<&str>) -> Result<Accepted, Error> {
        Err(Error::Closed)
    }

    async fn claim(&self, _host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::Poisoned("told to".into()));
        }
        self.claims.fetch_add(1, Ordering::Relaxed);
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let (named, list): (bool, HashSet<_>) = match &wanted.destinations {
            Destinations::Except(list) => (false, list.iter().collect()),
            Destinations::Only(list) => (true, list.iter().collect()),
        };
        let mut due: Vec<_> = state
            .batches
            .values_mut()
            .filter(|(_, batch, token)| {
                token.is_none() && batch.due <= now && list.contains(&batch.destination) == named
            })
            .collect();
        due.sort_by_key(|(_, batch, _)| (batch.due, batch.id));
        let mut room = wanted.lanes;
        let mut leases = Vec::new();
        for (message, batch, token) in due {
            let (head, _) = &state.heads[message];
            let lane = Lane::of(batch.class, head.arrival, batch.attempts, now);
            let room = &mut room[crate::lane::index(lane)];
            if *room == 0 {
                continue;
            }
            *room -= 1;
            let fence = self.next.fetch_add(1, Ordering::Relaxed);
            *token = Some(fence);
            leases.push(Lease {
                head: head.clone(),
                batch: batch.clone(),
                token: fence,
            });
        }
        Ok(leases)
    }

    async fn ready(&self, seen: &mut Seen) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let news = self.state.lock().unwrap().news;
            let now = (self.clock)();
            let due = self.next_due(seen.at);
            if news != seen.news || due.is_some_and(|due| due <= now) {
                *seen = Seen { news, at: now };
                return;
            }
            match due {
                Some(due) => {
                    if tokio::time::timeout(due.since(now), changed).await.is_err() {
                        *seen = Seen { news, at: now };
                        return;
                    }
                }
                None => changed.await,
            }
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(Error::Poisoned("told to".into()));
        }
        self.groups.lock().unwrap().push(settlements.len());
        let mut state = self.state.lock().unwrap();
        let mut took = 0;
        for Settlement {
            batch,
            token,
            outcome,
            ends,
        } in settlements
        {
            let Some((_, held, fence)) = state.batches.get_mut(&batch) else {
                continue;
            };
            if *fence != Some(token) {
                continue;
            }
            took += 1;
            let left = match &outcome {
                Outcome::Deferred { recipients, .. } => recipients.len() as u64,
                Outcome::Finished | Outcome::Replaced(_) => 0,
            };
            if held.recipients.len() as u64 != left + ends.sum() {
                let before = held.recipients.len();
                let line = format!("{before} before, {left} left, {ends:?}");
                self.unbalanced.lock().unwrap().push(line);
            }
            *self.ends.lock().unwrap() += ends;
            match outcome {
                Outcome::Finished => {
                    state.batches.remove(&batch);
                }
                Outcome::Deferred {
                    until,
                    reply,
                    note,
                    recipients,
                    attempted,
                } => {
                    *fence = None;
                    held.due = until;
                    held.reply = reply;
                    held.note = note;
                    held.recipients = recipients;
                    held.attempts += u32::from(attempted);
                }
                Outcome::Replaced(_) => panic!("the engine replaces nothing"),
            }
        }
        state.news += 1;
        self.changed.notify_waiters();
        Ok(took)
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        let state = self.state.lock().unwrap();
        if state.corrupt.contains(&message) {
            return Err(Error::Corrupt(message, "aside".into()));
        }
        let (_, body) = state.heads.get(&message).ok_or(Error::Unknown(message))?;
        Ok(body.clone())
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        Ok(Vec::new())
    }

    async fn select(&self, _: &Predicate, _: Action) -> Result<Selected, Error> {
        Err(Error::Closed)
    }

    async fn find(&self, _: &Predicate, _: After, _: usize) -> Result<Vec<Found>, Error> {
        Err(Error::Closed)
    }

    async fn ledger(&self) -> Result<Ledger, Error> {
        Err(Error::Closed)
    }

    async fn backup(&self, to: &std::path::Path) -> Result<u64, Error> {
        Err(Error::Io {
            path: to.to_owned(),
            source: Arc::new(std::io::ErrorKind::Unsupported.into()),
        })
    }

    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    fn unhealthy(&self) -> Option<String> {
        let told = [(&self.refuses, "told to"), (&self.full, "full")];
        let why = told.iter().find(|(is, _)| is.load(Ordering::Relaxed));
        why.map(|(_, why)| (*why).to_owned())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            survives_power_cut: false,
            survives_host_loss: false,
            message_bytes_max: u64::MAX,
            ident_memory: Duration::ZERO,
        }
    }

    async fn close(&self) {}
}

// === the world ===

/// What the world answers to one copy.
pub(crate) type Answers = Box<dyn Fn(&Key, &Copy) -> Vec<Reply> + Send + Sync>;

/// Sites by scripts instead of sockets.
pub(crate) struct World {
    pub(crate) answers: Answers,
    /// How long a transaction takes.
    pub(crate) takes: Duration,
    pub(crate) ceiling: usize,
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

    fn ceiling(&self, key: &Key) -> Result<usize, Reply> {
        match key {
            Key::Route(name) if &**name == "missing" => Err(reply(451, "no such route")),
            _ => Ok(self.ceiling),
        }
    }

    async fn pass(&self, key: &Key, copy: &Copy) -> Result<(Vec<Reply>, Box<str>), Stopped> {
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
        Ok((replies, key.to_string().into()))
    }
}

// === the owner ===

/// One copy a batch, or one a recipient; remembers what was concluded.
#[derive(Default)]
pub(crate) struct Clerk {
    pub(crate) verp: bool,
    pub(crate) refuses: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// Message, recipient, code, of each result told.
    pub(crate) told: Mutex<Vec<(MessageId, String, &'static str, u16)>>,
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
            told.push((lease.head.id, one.recipient.address.to_string(), kind, code));
        }
        Ok(Bytes::from_static(b"noted"))
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
