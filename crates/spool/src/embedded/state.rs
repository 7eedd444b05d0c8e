//! What the engine holds in memory: the scheduler's heads, leases, counts, and everything that the journal has and the index
//! does not have yet. Changed only by what is durable already; under one lock, which is never held across a disk call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mail::MessageId;

use super::change::{Change, Changes, Numbers};
use super::counts::Counts;
use super::entry::{Entry, Hold, MessagePlace, Position, Row, Track};
use super::heads::Heads;
use super::index::Line;
use super::record::IdentKey;
use crate::{Batch, BatchId, Class, Destination, Head, Ledger};

/// A batch that the index does not have in its present state.
#[derive(Debug)]
struct Unindexed {
    sequence: u64,
    /// `None` when it is done.
    entry: Option<Entry>,
    /// Its content, when there was room to keep it.
    content: Option<Arc<Batch>>,
}

/// A message that the index does not have at its present place.
#[derive(Debug)]
struct UnindexedMessage {
    sequence: u64,
    place: MessagePlace,
    head: Option<Arc<Head>>,
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
    /// A settlement is being written.
    pub settling: bool,
}

/// A message of which batches are borrowed.
#[derive(Debug)]
struct LeasedMessage {
    place: Option<MessagePlace>,
    head: Option<Arc<Head>>,
    leases: usize,
}

/// A new state of a batch with its content.
pub type Present = (Entry, Arc<Batch>);

/// All of it.
#[derive(Debug)]
pub struct State {
    /// The scheduler's heads.
    pub heads: Heads,
    /// Numbers of destinations.
    pub numbers: Numbers,
    /// Counts.
    pub counts: Counts,
    /// The account, all but what waits.
    pub ledger: Ledger,
    /// How many changes there were by which a claim may find more; never 0, which is what one has seen who has seen nothing.
    pub news: u64,
    /// How often the index has caught up. What was read from it and from here at the same number fits together.
    pub commits: u64,
    /// The journal's durable end.
    pub end: Position,
    /// Messages being carried forward that nothing else has changed meanwhile.
    pub carrying: HashSet<MessageId>,
    batches: HashMap<BatchId, Unindexed>,
    messages: HashMap<MessageId, UnindexedMessage>,
    idents: HashMap<IdentKey, u64>,
    leases: HashMap<BatchId, Leased>,
    leased_messages: HashMap<MessageId, LeasedMessage>,
    content_kept: usize,
    content_max: usize,
    last_token: u64,
    left_out: Arc<[Destination]>,
}

impl State {
    /// As the index knows it.
    pub fn new(
        mut heads: Heads,
        numbers: Numbers,
        lines: Vec<(u32, Row, Line)>,
        content_max: usize,
        first_token: u64,
    ) -> Self {
        let mut counts = Counts::default();
        for (destination, row, line) in lines {
            let Some(track) = row.track() else { continue };
            counts.insert(destination, track.class(), row.is_held(), line);
            if row == Row(track as u8) {
                heads.unknown(destination, track);
            }
        }
        Self {
            heads,
            numbers,
            counts,
            ledger: Ledger::default(),
            news: 1,
            commits: 0,
            end: Position::default(),
            carrying: HashSet::new(),
            batches: HashMap::new(),
            messages: HashMap::new(),
            idents: HashMap::new(),
            leases: HashMap::new(),
            leased_messages: HashMap::new(),
            content_kept: 0,
            content_max,
            last_token: first_token,
            left_out: [].into(),
        }
    }

    /// Changes that the index does not have yet.
    pub fn unindexed(&self) -> usize {
        self.batches.len() + self.messages.len() + self.idents.len()
    }

    /// Whether the index has an older state of this batch.
    pub fn is_unindexed(&self, batch: BatchId) -> bool {
        self.batches.contains_key(&batch)
    }

    /// Whether this batch is done and the index does not know.
    pub fn is_done(&self, batch: BatchId) -> bool {
        let unindexed = self.batches.get(&batch);
        unindexed.is_some_and(|unindexed| unindexed.entry.is_none())
    }

    /// Whether what the index says of this batch holds and nobody has it.
    pub fn is_idle(&self, batch: BatchId) -> bool {
        !self.is_unindexed(batch) && !self.leases.contains_key(&batch)
    }

    /// Whether an ident was accepted and is not indexed.
    pub fn has_ident(&self, key: &IdentKey) -> bool {
        self.idents.contains_key(key)
    }

    /// Where a message stands, when the index does not know.
    pub fn place(&self, message: MessageId) -> Option<MessagePlace> {
        self.messages.get(&message).map(|message| message.place)
    }

    /// The unindexed states of the batches of a message.
    pub fn unindexed_of(&self, message: MessageId) -> Vec<Entry> {
        self.batches
            .values()
            .filter_map(|unindexed| unindexed.entry.clone())
            .filter(|entry| entry.message == message)
            .collect()
    }

    /// Arrivals of unindexed batches, by destination and class: the oldest of each.
    pub fn oldest_unindexed(&self) -> HashMap<(u32, Class), u64> {
        let mut oldest = HashMap::new();
        for entry in self.batches.values().filter_map(|one| one.entry.as_ref()) {
            let least = oldest
                .entry((entry.destination, entry.class()))
                .or_insert(entry.arrival);
            *least = entry.arrival.min(*least);
        }
        oldest
    }

    /// From now on these destinations are left out where all others are served. Costs nothing when they are the same ones as
    /// last time.
    pub fn leave_out(&mut self, these: &Arc<[Destination]>) {
        if Arc::ptr_eq(&self.left_out, these) {
            return;
        }
        let numbers = these.iter().map(|one| self.numbers.number(one));
        self.heads.leave_out(numbers.collect());
        self.left_out = these.clone();
    }

    // === Leases ===

    /// Borrows a batch that was taken out of the heads.
    pub fn lease(&mut self, entry: Entry) -> Leased {
        self.last_token += 1;
        let batch = self
            .batches
            .get(&entry.id)
            .and_then(|unindexed| unindexed.content.clone());
        let unindexed = self.messages.get(&entry.message);
        let message = self
            .leased_messages
            .entry(entry.message)
            .or_insert_with(|| LeasedMessage {
                place: None,
                head: None,
                leases: 0,
            });
        message.leases += 1;
        if let Some(unindexed) = unindexed {
            message.place = Some(unindexed.place);
            message.head = message.head.take().or_else(|| unindexed.head.clone());
        }
        self.counts.of(&entry).leased += 1;
        let leased = Leased {
            token: self.last_token,
            entry,
            batch,
            settling: false,
        };
        self.leases.insert(leased.entry.id, leased.clone());
        leased
    }

    /// The lease of a batch.
    pub fn leased(&mut self, batch: BatchId) -> Option<&mut Leased> {
        self.leases.get_mut(&batch)
    }

    /// Whether batches of a message are borrowed.
    pub fn is_leased(&self, message: MessageId) -> bool {
        self.leased_messages.contains_key(&message)
    }

    /// Head and place of a message of which batches are borrowed.
    pub fn leased_message(&self, message: MessageId) -> (Option<Arc<Head>>, Option<MessagePlace>) {
        match self.leased_messages.get(&message) {
            Some(leased) => (leased.head.clone(), leased.place),
            None => (None, None),
        }
    }

    /// Keeps what was read for a lease.
    pub fn keep(&mut self, message: MessageId, place: MessagePlace, head: &Arc<Head>) {
        let moved = self.place(message);
        if let Some(leased) = self.leased_messages.get_mut(&message) {
            leased.place = Some(moved.or(leased.place).unwrap_or(place));
            leased.head.get_or_insert_with(|| head.clone());
        }
    }

    /// Ends a lease without a settlement; the batch waits again.
    pub fn unlease(&mut self, batch: BatchId) {
        if let Some(entry) = self.end_lease(batch) {
            self.serve(entry);
            self.news += 1;
        }
    }

    fn end_lease(&mut self, batch: BatchId) -> Option<Entry> {
        let leased = self.leases.remove(&batch)?;
        self.counts.of(&leased.entry).leased -= 1;
        if let Some(message) = self.leased_messages.get_mut(&leased.entry.message) {
            message.leases -= 1;
            if message.leases == 0 {
                self.leased_messages.remove(&leased.entry.message);
            }
        }
        Some(leased.entry)
    }

    // === Durable changes ===

    /// A message was accepted.
    pub fn accepted(
        &mut self,
        sequence: u64,
        place: MessagePlace,
        head: Arc<Head>,
        batches: Vec<Present>,
        idents: &[IdentKey],
    ) {
        let kept = head.facts.len() + 200;
        let head = (self.content_kept + kept <= self.content_max).then_some(head);
        self.content_kept += head.as_ref().map_or(0, |head| head.facts.len() + 200);
        self.messages.insert(
            place.id,
            UnindexedMessage {
                sequence,
                place,
                head,
            },
        );
        for ident in idents {
            self.idents.insert(*ident, sequence);
        }
        for (entry, batch) in batches {
            self.add(sequence, entry, Some(batch));
        }
        self.news += 1;
    }

    /// A lease was settled: these take the batch's place.
    pub fn settled(&mut self, sequence: u64, batch: BatchId, presents: Vec<Present>) {
        let Some(old) = self.end_lease(batch) else {
            return;
        };
        self.counts.subtract(&old);
        self.carrying.remove(&old.message);
        self.put(
            batch,
            Unindexed {
                sequence,
                entry: None,
                content: None,
            },
        );
        for (entry, batch) in presents {
            self.add(sequence, entry, Some(batch));
        }
        self.news += 1;
    }

    /// A batch was written again elsewhere; it counts as before.
    pub fn moved(&mut self, sequence: u64, old: &Entry, new: Entry) {
        self.put(
            new.id,
            Unindexed {
                sequence,
                entry: Some(new.clone()),
                content: None,
            },
        );
        if let Some(leased) = self.leases.get_mut(&old.id) {
            leased.entry = new;
        } else {
            self.heads.remove(old);
            self.serve(new);
        }
    }

    /// A message was written again elsewhere.
    pub fn message_moved(&mut self, sequence: u64, place: MessagePlace) {
        if let Some(leased) = self.leased_messages.get_mut(&place.id) {
            leased.place = Some(place);
        }
        self.messages.insert(
            place.id,
            UnindexedMessage {
                sequence,
                place,
                head: None,
            },
        );
    }

    fn add(&mut self, sequence: u64, entry: Entry, content: Option<Arc<Batch>>) {
        self.counts.add(&entry);
        let content = content.filter(|batch| self.content_kept + weight(batch) <= self.content_max);
        self.put(
            entry.id,
            Unindexed {
                sequence,
                entry: Some(entry.clone()),
                content,
            },
        );
        self.serve(entry);
    }

    /// Puts a batch among those to be served, if it may be.
    fn serve(&mut self, entry: Entry) {
        if entry.hold == Hold::Free {
            self.heads.insert(entry);
        }
    }

    fn put(&mut self, batch: BatchId, unindexed: Unindexed) {
        self.content_kept += unindexed.content.as_deref().map_or(0, weight);
        if let Some(old) = self.batches.insert(batch, unindexed) {
            self.content_kept -= old.content.as_deref().map_or(0, weight);
        }
    }

    // === The index has caught up ===

    /// The index has these; what is older or as old is let go of.
    pub fn indexed(&mut self, all: &[Changes]) {
        self.commits += 1;
        let mut touched: HashMap<(u32, Track), Entry> = HashMap::new();
        for changes in all {
            for change in &changes.changes {
                match change {
                    Change::Message {
                        place,
                        entries,
                        idents,
                    } => {
                        self.message_indexed(place.id, changes.sequence);
                        for ident in idents {
                            if self
                                .idents
                                .get(ident)
                                .is_some_and(|at| *at <= changes.sequence)
                            {
                                self.idents.remove(ident);
                            }
                        }
                        for entry in entries {
                            self.batch_indexed(entry.id, changes.sequence, &mut touched);
                        }
                    }
                    Change::State(entry) => {
                        self.batch_indexed(entry.id, changes.sequence, &mut touched);
                    }
                    Change::Finished { batch, .. } => {
                        self.batch_indexed(*batch, changes.sequence, &mut touched);
                    }
                    Change::Idents(_) | Change::Carried(_) => {}
                }
            }
        }
        let batches = &self.batches;
        for entry in touched.values() {
            self.heads.trim(entry, |id| batches.contains_key(&id));
        }
    }

    fn message_indexed(&mut self, message: MessageId, sequence: u64) {
        if self
            .messages
            .get(&message)
            .is_some_and(|unindexed| unindexed.sequence <= sequence)
            && let Some(gone) = self.messages.remove(&message)
        {
            self.content_kept -= gone.head.map_or(0, |head| head.facts.len() + 200);
        }
    }

    fn batch_indexed(
        &mut self,
        batch: BatchId,
        sequence: u64,
        touched: &mut HashMap<(u32, Track), Entry>,
    ) {
        if self
            .batches
            .get(&batch)
            .is_none_or(|unindexed| unindexed.sequence > sequence)
        {
            return;
        }
        let Some(gone) = self.batches.remove(&batch) else {
            return;
        };
        self.content_kept -= gone.content.as_deref().map_or(0, weight);
        if let Some(entry) = gone.entry {
            self.heads.indexed(&entry);
            touched.insert((entry.destination, entry.track), entry);
        }
    }

    /// Moves the border between live and backlog on.
    pub fn age(&mut self, young_from: u64) {
        let batches = &self.batches;
        self.heads.age(young_from, |id| batches.contains_key(&id));
    }
}

/// About what a batch's content takes in memory.
fn weight(batch: &Batch) -> usize {
    200 + batch.template.len() + batch.note.len() + 100 * batch.recipients.len()
}
