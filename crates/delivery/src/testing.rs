//! For tests only: a spool in memory; in `world` a transport that answers as it is told and an owner that writes down what it
//! hears. All of them live on the paused clock.

pub(crate) mod peer;
mod world;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mail::{MailParameters, MessageId, Reply, ReversePath, Timestamp};
use spool::*;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub(crate) use self::world::{Clerk, World, accepted, copy, recipient};
use crate::engine::{Clock, Settings};

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

/// An engine's settings: every domain by its exchangers.
pub(crate) fn settings(paused: watch::Receiver<bool>) -> Settings {
    Settings {
        host: "test".to_owned(),
        serves: Destinations::Except([Destination::Expand].into()),
        routes: Default::default(),
        pinned: Default::default(),
        default_route: None,
        exchangers: None,
        options: smtp::client::Options {
            protocol: smtp::Protocol::Smtp,
            helo: "test.example".into(),
            tls: smtp::client::TlsPolicy::Never,
            timeouts: Default::default(),
            source: None,
            chunking: false,
        },
        egresses: Default::default(),
        tls: None,
        sink: false,
        attempts_max: 500,
        bodies_bytes_max: crate::engine::BODIES_BYTES_MAX,
        turn_target: crate::engine::TURN_TARGET,
        site_connections_max: 20,
        schedule: Default::default(),
        expiry: Default::default(),
        rules: Arc::default(),
        paused,
    }
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
    lost: HashSet<MessageId>,
    /// Number of the last batch that came of another.
    last: u128,
    news: u64,
}

impl State {
    /// Batches that come of one.
    fn put(&mut self, parent: BatchId, message: MessageId, new: Vec<NewBatch>) {
        for new in new {
            self.last += 1;
            let child = new.named(BatchId(parent.0 + self.last));
            self.batches.insert(child.id, (message, child, None));
        }
    }
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
        let from = ReversePath::parse("from@sender.example").unwrap();
        self.add_all(class, arrival, from, destination, recipients)
    }

    /// From this reverse-path.
    pub(crate) fn add_from(
        &self,
        from: &str,
        destination: Destination,
        recipients: &[&str],
    ) -> MessageId {
        let (now, from) = ((self.clock)(), ReversePath::parse(from).unwrap());
        self.add_all(Class::Ordinary, now, from, destination, recipients)
    }

    fn add_all(
        &self,
        class: Class,
        arrival: Timestamp,
        reverse_path: ReversePath,
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
            reverse_path,
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
            replies: Default::default(),
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

    /// Its body is not there any more.
    pub(crate) fn lose(&self, id: MessageId) {
        self.state.lock().unwrap().lost.insert(id);
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
            let Some((message, held, fence)) = state.batches.get_mut(&batch) else {
                continue;
            };
            let message = *message;
            if *fence != Some(token) {
                continue;
            }
            took += 1;
            let left = match &outcome {
                Outcome::Deferred {
                    recipients, moved, ..
                } => {
                    let moved = moved.iter().map(|one| one.recipients.len());
                    (recipients.len() + moved.sum::<usize>()) as u64
                }
                Outcome::Finished => 0,
                Outcome::Replaced(new) => new.iter().map(|b| b.recipients.len() as u64).sum(),
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
                    replies,
                    note,
                    recipients,
                    attempted,
                    moved,
                } => {
                    *fence = None;
                    held.due = until;
                    held.replies = replies;
                    held.note = note;
                    held.recipients = recipients;
                    held.attempts += u32::from(attempted);
                    if held.recipients.is_empty() {
                        state.batches.remove(&batch);
                    }
                    state.put(batch, message, moved);
                }
                Outcome::Replaced(new) => {
                    state.batches.remove(&batch);
                    state.put(batch, message, new);
                }
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
        if state.lost.contains(&message) {
            return Err(Error::Unknown(message));
        }
        let (_, body) = state.heads.get(&message).ok_or(Error::Unknown(message))?;
        Ok(body.clone())
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        Ok(Vec::new())
    }

    async fn ages(&self) -> Result<Vec<spool::Aged>, Error> {
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
