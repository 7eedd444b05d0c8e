//! What is borrowed: by claims until it is settled, by selections for a moment. Lives in memory; what the process leaves waits again.

use std::collections::HashMap;
use std::sync::Arc;

use mail::MessageId;

use super::entry::{Entry, MessagePlace};
use crate::selection::{Order, Selection};
use crate::{Batch, BatchId, Head};

/// How far a lease has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Taken by a claim, and not handed on yet: it may still go back.
    Taken,
    /// Taken by a selection, for a moment.
    Reserved,
    /// Whoever claimed it has it.
    HandedOn,
    /// A settlement is being written.
    Settling,
    /// It cannot be read: nobody has it, it rests (`unreadable.rs`).
    Unreadable,
}

/// A borrowed batch.
#[derive(Clone, Debug)]
pub struct Leased {
    /// Its fencing token.
    pub token: u64,
    /// Where it stands.
    pub entry: Entry,
    /// Its content, once it was read.
    pub batch: Option<Arc<Batch>>,
    /// How far it has got.
    pub stage: Stage,
    /// What is to become of what its attempt leaves.
    pub selections: Vec<Arc<Selection>>,
}

impl Leased {
    /// Its selections as they are kept.
    pub fn orders(&self) -> Vec<Order> {
        let selections = self.selections.iter();
        selections.map(|selection| selection.order()).collect()
    }
}

/// A message of which batches are borrowed.
#[derive(Debug)]
struct LeasedMessage {
    place: Option<MessagePlace>,
    head: Option<Arc<Head>>,
    leases: usize,
}

/// All leases.
#[derive(Debug)]
pub struct Leases {
    batches: HashMap<BatchId, Leased>,
    messages: HashMap<MessageId, LeasedMessage>,
    last_token: u64,
}

impl Leases {
    /// None yet; tokens come behind this one.
    pub fn new(last_token: u64) -> Self {
        Self {
            batches: HashMap::new(),
            messages: HashMap::new(),
            last_token,
        }
    }

    /// Borrows a batch; `message` is what memory knows of its message.
    pub fn add(
        &mut self,
        entry: Entry,
        batch: Option<Arc<Batch>>,
        message: Option<(Option<Arc<Head>>, MessagePlace)>,
    ) -> Leased {
        self.last_token += 1;
        let leased = self
            .messages
            .entry(entry.message)
            .or_insert_with(|| LeasedMessage {
                place: None,
                head: None,
                leases: 0,
            });
        leased.leases += 1;
        if let Some((head, place)) = message {
            leased.place = Some(place);
            leased.head = leased.head.take().or(head);
        }
        let leased = Leased {
            token: self.last_token,
            entry,
            batch,
            stage: Stage::Taken,
            selections: Vec::new(),
        };
        self.batches.insert(leased.entry.id, leased.clone());
        leased
    }

    /// Gives one up.
    pub fn remove(&mut self, batch: BatchId) -> Option<Entry> {
        let leased = self.batches.remove(&batch)?;
        if let Some(message) = self.messages.get_mut(&leased.entry.message) {
            message.leases -= 1;
            if message.leases == 0 {
                self.messages.remove(&leased.entry.message);
            }
        }
        Some(leased.entry)
    }

    /// The lease of a batch.
    pub fn of(&self, batch: BatchId) -> Option<&Leased> {
        self.batches.get(&batch)
    }

    /// The lease of a batch, to be changed.
    pub fn of_mut(&mut self, batch: BatchId) -> Option<&mut Leased> {
        self.batches.get_mut(&batch)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Leased> {
        self.batches.values()
    }

    /// Whether batches of a message are borrowed.
    pub fn has_message(&self, message: MessageId) -> bool {
        self.messages.contains_key(&message)
    }

    /// Head and place of a message of which batches are borrowed.
    pub fn message(&self, message: MessageId) -> (Option<Arc<Head>>, Option<MessagePlace>) {
        match self.messages.get(&message) {
            Some(leased) => (leased.head.clone(), leased.place),
            None => (None, None),
        }
    }

    /// Keeps what was read.
    pub fn keep(&mut self, message: MessageId, place: MessagePlace, head: Option<&Arc<Head>>) {
        if let Some(leased) = self.messages.get_mut(&message) {
            // What is known already was told by the writer, and is later.
            leased.place.get_or_insert(place);
            leased.head = leased.head.take().or_else(|| head.cloned());
        }
    }

    /// A message was written again elsewhere.
    pub fn message_moved(&mut self, place: MessagePlace) {
        if let Some(leased) = self.messages.get_mut(&place.id) {
            leased.place = Some(place);
        }
    }
}
