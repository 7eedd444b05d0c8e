//! What the engine holds in memory: the scheduler's heads, leases, counts, and everything that the journal has and the index
//! does not have yet. Changed only by what is durable already; under one lock, which is never held across a disk call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mail::MessageId;

use super::change::{Change, Changes, Numbers};
use super::counts::Counts;
use super::entry::{Entry, Hold, MessagePlace, Position, Row, Track};
use super::fronts::VIEWS;
use super::heads::Heads;
use super::index::Line;
use super::leases::{Leased, Leases, Stage};
use super::record::IdentKey;
use super::window::Place;
use crate::selection::Selection;
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
    /// The last group that the index has.
    pub indexed: u64,
    /// The journal's durable end.
    pub end: Position,
    /// Messages being carried forward that nothing else has changed meanwhile.
    pub carrying: HashSet<MessageId>,
    batches: HashMap<BatchId, Unindexed>,
    messages: HashMap<MessageId, UnindexedMessage>,
    idents: HashMap<IdentKey, u64>,
    /// What is borrowed.
    pub leases: Leases,
    /// Selections under way: what comes of an expansion meanwhile is treated by them, wherever they have got to.
    pub selecting: Vec<Arc<Selection>>,
    content_kept: usize,
    content_max: usize,
    /// Of each view of the heads.
    left_out: [Arc<[Destination]>; VIEWS],
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
            indexed: 0,
            end: Position::default(),
            carrying: HashSet::new(),
            batches: HashMap::new(),
            messages: HashMap::new(),
            idents: HashMap::new(),
            leases: Leases::new(first_token),
            selecting: Vec::new(),
            content_kept: 0,
            content_max,
            left_out: std::array::from_fn(|_| [].into()),
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

    /// What is known of a batch that the index does not have in its present state; nothing in it when it is done.
    pub fn unindexed_state(&self, batch: BatchId) -> Option<(Option<&Entry>, Option<&Arc<Batch>>)> {
        let unindexed = self.batches.get(&batch)?;
        Some((unindexed.entry.as_ref(), unindexed.content.as_ref()))
    }

    /// Head and place of a message that the index does not have at its present place.
    fn unindexed_message(&self, message: MessageId) -> Option<(Option<Arc<Head>>, MessagePlace)> {
        let unindexed = self.messages.get(&message)?;
        Some((unindexed.head.clone(), unindexed.place))
    }

    /// Whether this batch is done and the index does not know.
    pub fn is_done(&self, batch: BatchId) -> bool {
        let unindexed = self.batches.get(&batch);
        unindexed.is_some_and(|unindexed| unindexed.entry.is_none())
    }

    /// Whether what the index says of this batch holds and nobody has it.
    pub fn is_idle(&self, batch: BatchId) -> bool {
        !self.is_unindexed(batch) && self.leases.of(batch).is_none()
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
    /// last time, or as in one of [`VIEWS`] sets that are named in turn.
    pub fn leave_out(&mut self, these: &Arc<[Destination]>) {
        let mut views = self.left_out.iter();
        if let Some(view) = views.position(|kept| Arc::ptr_eq(kept, these)) {
            self.heads.see(view);
            return;
        }
        let numbers = these.iter().map(|one| self.numbers.number(one));
        let view = self.heads.leave_out(numbers.collect());
        self.left_out[view] = these.clone();
    }

    // === Leases ===

    /// Borrows a batch that was taken out of the heads.
    pub fn lease(&mut self, entry: Entry) -> Leased {
        let known = self.batches.get(&entry.id);
        let batch = known.and_then(|unindexed| unindexed.content.clone());
        let message = self.unindexed_message(entry.message);
        self.counts.of(&entry).leased += 1;
        self.leases.add(entry, batch, message)
    }

    /// Borrows a batch wherever it waits.
    pub fn reserve(&mut self, entry: Entry) -> Leased {
        self.heads.remove(&entry);
        let id = entry.id;
        let mut leased = self.lease(entry);
        leased.stage = Stage::Reserved;
        if let Some(kept) = self.leases.of_mut(id) {
            kept.stage = leased.stage;
        }
        leased
    }

    /// Keeps what was read for a lease.
    pub fn keep(&mut self, message: MessageId, place: MessagePlace, head: Option<&Arc<Head>>) {
        let place = self.place(message).map_or(place, |moved| moved);
        self.leases.keep(message, place, head);
    }

    /// Ends a lease without a settlement; the batch waits again.
    pub fn unlease(&mut self, batch: BatchId) {
        let Some(entry) = self.end_lease(batch) else {
            return;
        };
        self.serve(entry.clone());
        if !self.is_unindexed(batch) {
            // It may have been taken from behind what is kept in memory.
            self.heads.indexed(&entry);
        }
        self.news += 1;
    }

    fn end_lease(&mut self, batch: BatchId) -> Option<Entry> {
        let entry = self.leases.remove(batch)?;
        self.counts.of(&entry).leased -= 1;
        Some(entry)
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
        if let Some(leased) = self.leases.of_mut(old.id) {
            leased.entry = new;
        } else {
            self.heads.remove(old);
            self.serve(new);
        }
    }

    /// A batch being attempted was written again, with orders; its attempt goes on.
    pub fn ordered(&mut self, sequence: u64, new: Entry) {
        self.carrying.remove(&new.message);
        if let Some(leased) = self.leases.of_mut(new.id) {
            leased.entry = new.clone();
        }
        self.put(
            new.id,
            Unindexed {
                sequence,
                entry: Some(new),
                content: None,
            },
        );
    }

    /// A message was written again elsewhere.
    pub fn message_moved(&mut self, sequence: u64, place: MessagePlace) {
        self.leases.message_moved(place);
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
        self.indexed = all.last().map_or(self.indexed, |changes| changes.sequence);
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
        self.shed(None);
    }

    /// Lets go of heads beyond what may be in memory, of all windows but this one.
    pub fn shed(&mut self, except: Option<Place>) {
        let batches = &self.batches;
        let unindexed = (batches.len(), |id| batches.contains_key(&id));
        self.heads.shed(unindexed, except);
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
