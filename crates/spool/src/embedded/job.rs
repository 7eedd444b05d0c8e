//! What the engine's threads ask of each other: jobs for the writer, and the queue they wait in.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mail::{MessageId, Timestamp};
use tokio::sync::oneshot;

use super::entry::{Entry, MessagePlace};
use super::record::IdentKey;
use super::syncs::Ticket;
use crate::{Accepted, Batch, BatchId, Ends, Error, Head};

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A batch with its packed form.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Packed.
    pub bytes: Vec<u8>,
}

/// A message to be written.
#[derive(Debug)]
pub struct AcceptJob {
    /// Its head.
    pub head: Arc<Head>,
    /// Packed.
    pub packed_head: Vec<u8>,
    /// Its body.
    pub body: Vec<Bytes>,
    /// crc32c of its body.
    pub checksum: u32,
    /// Its batches.
    pub batches: Vec<Packed>,
    /// One a recipient, in the order of the batches; empty without an ident.
    pub idents: Vec<IdentKey>,
    /// The answer.
    pub answer: Answer<Accepted>,
    /// Its place among what waits.
    pub ticket: Ticket,
}

impl AcceptJob {
    /// About how much it writes.
    pub fn size(&self) -> u64 {
        let batches: usize = self.batches.iter().map(|packed| packed.bytes.len()).sum();
        self.head.body_bytes + (self.packed_head.len() + batches + 16 * self.idents.len()) as u64
    }
}

/// What came of one lease.
#[derive(Debug)]
pub struct SettleItem {
    /// The batch.
    pub batch: BatchId,
    /// The lease's token.
    pub token: u64,
    /// Its message.
    pub message: MessageId,
    /// When that arrived.
    pub arrival: Timestamp,
    /// What takes the batch's place: itself deferred, its children, nothing.
    pub presents: Vec<Packed>,
    /// Whether the batch itself is done.
    pub finished: bool,
    /// What became of the recipients who are not left.
    pub account: Account,
}

/// What became of the recipients of a batch who are not left.
#[derive(Clone, Copy, Debug)]
pub enum Account {
    /// They ended.
    Ended(Ends),
    /// Others took their places.
    Replaced,
}

/// Leases to be ended in one commit.
#[derive(Debug)]
pub struct SettleJob {
    /// Which, and how.
    pub items: Vec<SettleItem>,
    /// The answer.
    pub answer: Answer<usize>,
}

impl SettleJob {
    /// About how much it writes.
    pub fn size(&self) -> u64 {
        let presents = self.items.iter().flat_map(|item| &item.presents);
        let bytes: usize = presents.map(|packed| packed.bytes.len() + 48).sum();
        (bytes + 64 * self.items.len()) as u64
    }
}

/// Something of an old segment that is written again.
#[derive(Debug)]
pub enum Carry {
    /// A message with all that is left of it.
    Message {
        /// Where it stood.
        old: MessagePlace,
        /// Its packed head.
        head: Vec<u8>,
        /// Its body.
        body: Bytes,
        /// Its batches, as they stood, and packed.
        batches: Vec<(Entry, Vec<u8>)>,
    },
    /// The state of a batch.
    State {
        /// As it stood.
        old: Entry,
        /// Packed.
        bytes: Vec<u8>,
    },
    /// Batches that are done: message, batch, segment of the message.
    Finished(Vec<(MessageId, BatchId, u64)>),
    /// Idents.
    Idents(Vec<(IdentKey, Timestamp)>),
    /// All idents and all that is done of this segment were written before.
    Done(u64),
}

/// A job for the writer.
#[derive(Debug)]
pub enum Job {
    /// Store a message.
    Accept(AcceptJob),
    /// End leases.
    Settle(SettleJob),
    /// Write again; answers how many were.
    Carry(Vec<Carry>, Answer<usize>),
    /// Write batches that are being attempted again, with what is to become of what is left of them.
    Order(Vec<Attempted>, Answer<()>),
}

/// A batch that is being attempted.
#[derive(Clone, Copy, Debug)]
pub struct Attempted {
    /// The batch.
    pub batch: BatchId,
    /// Its lease's token.
    pub token: u64,
}

/// A queue between threads that can be closed.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<T> Queue<T> {
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; gives it back when the queue is closed.
    pub fn push(&self, job: T) -> Result<(), T> {
        let mut inner = self.inner();
        if inner.closed {
            return Err(job);
        }
        inner.waiting.push_back(job);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes what waits, as long as `more` says so of the next one; waits for the first. `None` once closed and empty.
    pub fn take(&self, mut more: impl FnMut(&T) -> bool) -> Option<Vec<T>> {
        let mut inner = self.inner();
        while inner.waiting.is_empty() {
            if inner.closed {
                return None;
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = Vec::new();
        while let Some(job) = inner.waiting.pop_front() {
            // The first one is taken whatever it is.
            if more(&job) || taken.is_empty() {
                taken.push(job);
            } else {
                inner.waiting.push_front(job);
                break;
            }
        }
        Some(taken)
    }

    /// Takes what waits without waiting.
    pub fn take_now(&self, mut more: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut inner = self.inner();
        let mut taken = Vec::new();
        while let Some(job) = inner.waiting.pop_front() {
            if more(&job) {
                taken.push(job);
            } else {
                inner.waiting.push_front(job);
                break;
            }
        }
        taken
    }

    /// Waits until something changes, at most so long; whether it is closed.
    pub fn wait(&self, at_most: Duration) -> bool {
        let inner = self.inner();
        if inner.closed || !inner.waiting.is_empty() {
            return inner.closed;
        }
        let (inner, _) = self
            .changed
            .wait_timeout(inner, at_most)
            .unwrap_or_else(PoisonError::into_inner);
        inner.closed
    }

    /// Refuses more; what waits is still taken.
    pub fn close(&self) {
        self.inner().closed = true;
        self.changed.notify_all();
    }

    /// Refuses more and forgets what waits.
    pub fn abandon(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        inner.waiting.clear();
        drop(inner);
        self.changed.notify_all();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.inner().waiting.len()
    }
}
