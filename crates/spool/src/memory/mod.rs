//! The spool in plain memory: the interface in its simplest form, against which the other engines are compared. Keeps no promise
//! across the end of the process and says so in its guarantees, so no edge will answer 250 on it. Never fast with many batches:
//! it looks at all of them.

mod selecting;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mail::{MessageId, Timestamp};
use tokio::sync::Notify;

use crate::selection::Selection;
use crate::{
    Accepted, Action, After, Aged, Batch, BatchId, Clock, Destination, Destinations, Error, Found,
    Guarantees, Head, Lane, Lease, Ledger, NewBatch, NewMessage, Path, Predicate, Seen, Selected,
    Settlement, Spool, Tally, Vitals, Wanted,
};

/// The engine.
#[derive(Debug, Default)]
pub struct Memory {
    clock: Clock,
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Head, body, crc32c of the body.
    messages: HashMap<MessageId, (Arc<Head>, Bytes, u32)>,
    /// Those whose body did not match it when it was asked for.
    corrupt: HashSet<MessageId>,
    batches: BTreeMap<BatchId, Held>,
    idents: HashSet<(String, String)>,
    /// Without what waits.
    account: Ledger,
    last: u64,
    news: u64,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    message: MessageId,
    batch: Batch,
    token: Option<u64>,
    /// What is to become of what its attempt leaves.
    selections: Vec<Arc<Selection>>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One with another clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Gives all leases back, as the end of a process does.
    pub fn lapse(&self) {
        if let Ok(mut inner) = self.open() {
            let leased = inner.batches.values().filter(|held| held.token.is_some());
            let leased: Vec<BatchId> = leased.map(|held| held.batch.id).collect();
            for id in leased {
                inner.give_back(id, self.clock.now());
            }
        }
    }

    /// Flips a bit of a body, as a bad disk does.
    pub fn flip_bit(&self, message: MessageId) {
        if let Ok(mut inner) = self.open()
            && let Some((_, body, _)) = inner.messages.get_mut(&message)
        {
            let mut bytes = body.to_vec();
            if let Some(first) = bytes.first_mut() {
                *first ^= 4;
            }
            *body = bytes.into();
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.closed {
            true => Err(Error::Closed),
            false => Ok(inner),
        }
    }
}

impl Inner {
    fn add(&mut self, message: MessageId, new: NewBatch) {
        if new.recipients.is_empty() {
            return;
        }
        let batch = self.batch(new);
        self.account.accepted += batch.recipients.len() as u64;
        let held = Held {
            message,
            batch,
            token: None,
            selections: Vec::new(),
        };
        self.batches.insert(held.batch.id, held);
    }

    fn batch(&mut self, new: NewBatch) -> Batch {
        self.last += 1;
        new.named(BatchId(u128::from(self.last)))
    }

    fn lane_and_key(&self, held: &Held, now: Timestamp) -> Option<(Lane, (Timestamp, BatchId))> {
        let (head, ..) = self.messages.get(&held.message)?;
        let batch = &held.batch;
        let lane = Lane::of(batch.class, head.arrival, batch.attempts, now);
        let key = match lane {
            Lane::Live | Lane::Backlog => head.arrival,
            Lane::Urgent | Lane::Retry => batch.due,
        };
        Some((lane, (key, batch.id)))
    }
}

impl Held {
    /// Whether it may be claimed when it is due.
    fn is_free(&self) -> bool {
        self.token.is_none() && self.batch.held.is_none()
    }
}

fn serves(wanted: &Wanted, destination: &Destination) -> bool {
    match &wanted.destinations {
        Destinations::Only(these) => these.contains(destination),
        Destinations::Except(these) => !these.contains(destination),
    }
}

#[async_trait::async_trait]
impl Spool for Memory {
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error> {
        let mut inner = self.open()?;
        let body: Bytes = message.body.concat().into();
        inner.last += 1;
        let id = MessageId(u128::from(inner.last));
        let mut paths = Vec::new();
        let mut names = Vec::new();
        let mut batches = message.batches;
        for batch in &mut batches {
            batch.recipients.retain(|recipient| {
                let name = ident.map(|ident| (ident.to_owned(), recipient.address.to_string()));
                let again = name
                    .as_ref()
                    .is_some_and(|name| inner.idents.contains(name));
                names.extend(name);
                paths.push(if again { Path::Again } else { Path::New });
                !again
            });
        }
        inner.idents.extend(names);
        if batches.iter().any(|batch| !batch.recipients.is_empty()) {
            let head = Head {
                id,
                arrival: message.arrival,
                accepted: self.clock.now(),
                reverse_path: message.reverse_path,
                parameters: message.parameters,
                facts: message.facts,
                body_bytes: body.len() as u64,
            };
            let checksum = crc32c::crc32c(&body);
            inner.messages.insert(id, (Arc::new(head), body, checksum));
            for batch in batches {
                inner.add(id, batch);
            }
        }
        inner.news += 1;
        drop(inner);
        self.news.notify_waiters();
        Ok(Accepted { id, paths })
    }

    async fn claim(&self, _host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        let mut inner = self.open()?;
        let now = self.clock.now();
        let mut due: Vec<_> = inner
            .batches
            .values()
            .filter(|held| held.is_free() && held.batch.due <= now)
            .filter(|held| serves(wanted, &held.batch.destination))
            .filter_map(|held| inner.lane_and_key(held, now))
            .collect();
        due.sort();
        let mut leases = Vec::new();
        for (lane, limit) in Lane::ALL.into_iter().zip(wanted.lanes) {
            let mut of_lane: Vec<_> = due.iter().filter(|(of, _)| *of == lane).collect();
            if of_lane.len() >= limit && limit > 0 {
                inner.news += 1;
            }
            of_lane.truncate(limit);
            for (_, (_, id)) in of_lane {
                inner.last += 1;
                let token = inner.last;
                let Some(held) = inner.batches.get_mut(id) else {
                    continue;
                };
                held.token = Some(token);
                let (message, batch) = (held.message, held.batch.clone());
                if let Some((head, ..)) = inner.messages.get(&message) {
                    let head = head.clone();
                    leases.push(Lease { head, batch, token });
                }
            }
        }
        Ok(leases)
    }

    async fn ready(&self, seen: &mut Seen) {
        loop {
            let told = self.news.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let (news, now, due) = {
                let Ok(inner) = self.open() else { return };
                let waiting = inner.batches.values().filter(|held| held.is_free());
                let dues = waiting.map(|held| held.batch.due);
                let due = dues.filter(|due| *due > seen.at).min();
                (inner.news + 1, self.clock.now(), due)
            };
            if news != seen.news || due.is_some_and(|due| due <= now) {
                *seen = Seen { news, at: now };
                return;
            }
            match due {
                None => told.await,
                Some(due) => {
                    if tokio::time::timeout(due.since(now), told).await.is_err() {
                        *seen = Seen { news, at: now };
                        return;
                    }
                }
            }
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        let (mut inner, now) = (self.open()?, self.clock.now());
        let effective = settlements
            .into_iter()
            .filter_map(|settlement| inner.settle(settlement, now).then_some(()))
            .count();
        inner.news += 1;
        drop(inner);
        self.news.notify_waiters();
        Ok(effective)
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        let mut inner = self.open()?;
        match inner.messages.get(&message) {
            Some((_, body, checksum)) if crc32c::crc32c(body) == *checksum => Ok(body.clone()),
            Some(_) => {
                inner.corrupt.insert(message);
                Err(Error::Corrupt(message, "memory".into()))
            }
            None => Err(Error::Unknown(message)),
        }
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        let inner = self.open()?;
        let now = self.clock.now();
        let mut lines: BTreeMap<_, Tally> = BTreeMap::new();
        for held in inner.batches.values() {
            let batch = &held.batch;
            let arrival = inner
                .messages
                .get(&held.message)
                .map(|(head, ..)| head.arrival);
            let due = match held.token {
                Some(_) => now,
                None if batch.held.is_some() => Timestamp(u64::MAX),
                None => batch.due.max(now),
            };
            let line = lines
                .entry((batch.destination.clone(), batch.class))
                .or_insert_with(|| Tally {
                    destination: batch.destination.clone(),
                    class: batch.class,
                    batches: 0,
                    recipients: 0,
                    leased: 0,
                    held: 0,
                    held_recipients: 0,
                    oldest: Timestamp(u64::MAX),
                    next_due: Timestamp(u64::MAX),
                });
            line.batches += 1;
            line.recipients += batch.recipients.len() as u64;
            line.leased += u64::from(held.token.is_some());
            line.held += u64::from(batch.held.is_some());
            if batch.held.is_some() {
                line.held_recipients += batch.recipients.len() as u64;
            }
            line.oldest = line.oldest.min(arrival.unwrap_or(now));
            line.next_due = line.next_due.min(due);
        }
        for line in lines.values_mut().filter(|line| line.held == line.batches) {
            line.next_due = now;
        }
        Ok(lines.into_values().collect())
    }

    async fn ages(&self) -> Result<Vec<Aged>, Error> {
        let inner = self.open()?;
        let mut ages: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for held in inner.batches.values() {
            let batch = &held.batch;
            let Some((head, ..)) = inner.messages.get(&held.message) else {
                continue;
            };
            let from = Aged::grain(head.arrival);
            let kind = (batch.class, batch.attempts > 0, batch.held.is_some(), from);
            let (batches, recipients) = ages.entry(kind).or_default();
            *batches += 1;
            *recipients += batch.recipients.len() as u64;
        }
        let aged = |((class, attempted, held, from), (batches, recipients))| Aged {
            class,
            attempted,
            held,
            from,
            batches,
            recipients,
        };
        Ok(ages.into_iter().map(aged).collect())
    }

    async fn select(&self, predicate: &Predicate, action: Action) -> Result<Selected, Error> {
        let selection = Arc::new(Selection {
            predicate: predicate.clone(),
            action,
        });
        let mut inner = self.open()?;
        let selected = inner.select(&selection, self.clock.now());
        inner.news += 1;
        drop(inner);
        self.news.notify_waiters();
        Ok(selected)
    }

    async fn find(
        &self,
        predicate: &Predicate,
        after: After,
        limit: usize,
    ) -> Result<Vec<Found>, Error> {
        let inner = self.open()?;
        Ok(inner.find(predicate, after, limit, self.clock.now()))
    }

    async fn ledger(&self) -> Result<Ledger, Error> {
        let inner = self.open()?;
        let batches = || inner.batches.values().map(|held| &held.batch);
        let held = batches().filter(|batch| batch.held.is_some());
        let count = |batch: &Batch| batch.recipients.len() as u64;
        Ok(Ledger {
            waiting: batches().map(count).sum(),
            held: held.map(count).sum(),
            ..inner.account
        })
    }

    async fn backup(&self, to: &std::path::Path) -> Result<u64, Error> {
        Err(Error::Io {
            path: to.to_owned(),
            source: Arc::new(std::io::ErrorKind::Unsupported.into()),
        })
    }

    /// Nothing here ever waits for a disk.
    fn vitals(&self) -> Vitals {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = inner
            .messages
            .values()
            .map(|(_, body, _)| body.len() as u64);
        Vitals {
            bytes_used: bodies.sum(),
            set_aside: inner.corrupt.len() as u64,
            ..Vitals::default()
        }
    }

    fn unhealthy(&self) -> Option<String> {
        None
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            survives_power_cut: false,
            survives_host_loss: false,
            message_bytes_max: u64::MAX,
            ident_memory: Duration::MAX,
        }
    }

    async fn close(&self) {
        if let Ok(mut inner) = self.open() {
            inner.closed = true;
        }
        self.news.notify_waiters();
    }
}
