//! Leases being ended: one group when it is small, parts over several groups and a commit when it is large, so that a large
//! expansion does not make live mail wait. Until the last part is durable nothing of it counts.

use std::sync::Arc;

use mail::Timestamp;

use super::change::Change;
use super::entry::Position;
use super::group::Draft;
use super::job::{Account, Answer, Packed, SettleItem, SettleJob};
use super::leases::Stage;
use super::prepare::{packed, split_id};
use super::record::Stretch;
use super::staged::{Written, present};
use super::state::{Present, State};
use super::writer::answer;
use crate::selection::{Selection, Treated, treat};
use crate::{Batch, BatchId, Error, Head, Ledger};

/// A settlement above this many bytes is written in parts of about this size.
pub const PART_BYTES_MAX: u64 = 1024 * 1024;

/// A settlement under way.
#[derive(Debug)]
pub struct Settling {
    items: Vec<Item>,
    /// Its number, when it is written in parts.
    transaction: Option<u64>,
    parts: u64,
    /// What is being written in the present group: which item, what, where.
    unresolved: Vec<(usize, Packed, Stretch)>,
    start: Option<Position>,
    complete: bool,
    answer: Answer<usize>,
}

#[derive(Debug)]
struct Item {
    item: SettleItem,
    /// The segment of its message.
    generation: u64,
    /// Written, with places.
    presents: Vec<Present>,
    /// Recipients that there were.
    before: u64,
    /// Recipients that are left of them, or took their places.
    left: u64,
    /// Of these, those that were dropped at once.
    dropped: u64,
    /// How far its lease had got.
    stage: Stage,
    /// What was ordered meanwhile.
    treating: Option<Treating>,
}

/// What is to become of what takes a batch's place.
#[derive(Debug)]
struct Treating {
    head: Arc<Head>,
    /// While it was attempted.
    selections: Vec<Arc<Selection>>,
    /// And what is being selected just now, which may have passed by where a new batch will stand.
    selecting: Vec<Arc<Selection>>,
}

fn recipients(item: &SettleItem) -> u64 {
    let presents = item.presents.iter();
    presents
        .map(|packed| packed.batch.recipients.len() as u64)
        .sum()
}

impl Settling {
    /// Takes over the leases that are still valid; answers at once when none is. What was ordered for them until now is followed
    /// by [`Self::treat`], what is ordered later must wait for what is left.
    pub fn begin(job: SettleJob, transaction: u64, state: &mut State) -> Option<Self> {
        let large = job.size() > PART_BYTES_MAX;
        let mut items = Vec::new();
        for item in job.items {
            let Some(leased) = state.leases.of_mut(item.batch) else {
                continue;
            };
            if leased.token != item.token || leased.stage == Stage::Settling {
                continue;
            }
            let stage = std::mem::replace(&mut leased.stage, Stage::Settling);
            let selections = leased.selections.clone();
            let before = u64::from(leased.entry.recipients);
            let (head, place) = state.leases.message(item.message);
            let mut presents = item.presents.iter();
            let selecting = match presents.any(|present| present.batch.id != item.batch) {
                true => state.selecting.to_vec(),
                false => Vec::new(),
            };
            items.push(Item {
                left: recipients(&item),
                stage,
                treating: head
                    .filter(|_| !selections.is_empty() || !selecting.is_empty())
                    .map(|head| Treating {
                        head,
                        selections,
                        selecting,
                    }),
                item,
                generation: place.map_or(0, |place| place.generation()),
                presents: Vec::new(),
                before,
                dropped: 0,
            });
        }
        if items.is_empty() {
            answer(job.answer, Ok(0));
            return None;
        }
        Some(Self {
            items,
            transaction: large.then_some(transaction),
            parts: 0,
            unresolved: Vec::new(),
            start: None,
            complete: false,
            answer: job.answer,
        })
    }

    /// Treats what takes the batches' places by what was ordered meanwhile. Outside the lock: there may be a million of them.
    pub fn treat(&mut self, transaction: u64, now: Timestamp) {
        let mut count = 0;
        for item in &mut self.items {
            if let Some(treating) = item.treating.take() {
                let (message, parent) = (item.item.message, item.item.batch);
                item.dropped = treating.treat(&mut item.item, now, &mut || {
                    count += 1;
                    split_id(message, parent, transaction, count)
                });
            }
            // Taken from the end.
            item.item.presents.reverse();
        }
    }

    /// Whether it is written in parts.
    pub fn is_large(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether all of it was written.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Puts it to account.
    pub fn count(&self, ledger: &mut Ledger) {
        for item in &self.items {
            match item.item.account {
                Account::Ended(ends) => ledger.settle(item.before, item.left, ends),
                Account::Replaced => ledger.replace(item.before, item.left),
            }
            ledger.ends.dropped += item.dropped;
        }
    }

    /// Where its first part stands.
    pub fn start(&self) -> Option<Position> {
        self.start
    }

    /// Adds what fits to the group.
    pub fn stage(&mut self, draft: &mut Draft) {
        let mut room = PART_BYTES_MAX;
        for (number, item) in self.items.iter_mut().enumerate() {
            while let Some(packed) = item.item.presents.pop() {
                let size = packed.bytes.len() as u64;
                let at = draft.records.state(
                    self.transaction,
                    item.item.message,
                    item.item.arrival,
                    &packed.bytes,
                );
                self.parts += 1;
                self.unresolved.push((number, packed, at));
                if self.transaction.is_some() && size >= room {
                    return;
                }
                room = room.saturating_sub(size);
            }
        }
        for item in self.items.iter().filter(|item| item.item.finished) {
            let (message, batch) = (item.item.message, item.item.batch);
            draft
                .records
                .finished(self.transaction, message, batch, item.generation);
            self.parts += 1;
        }
        if let Some(transaction) = self.transaction {
            draft.records.commit(transaction, self.parts);
        }
        self.complete = true;
    }

    /// The group is durable: its places are known.
    pub fn resolve(&mut self, written: Written, state: &mut State) {
        self.start.get_or_insert(Position {
            sequence: written.start.sequence - 1,
            ..written.start
        });
        for (number, packed, at) in self.unresolved.drain(..) {
            if let Some(item) = self.items.get_mut(number) {
                let (message, arrival): (_, Timestamp) = (&item.item.message, item.item.arrival);
                item.presents
                    .push(present(&packed.batch, message, arrival, written, at, state));
            }
        }
    }

    /// All of it is durable: it counts. Returns the answer to be given.
    pub fn finish(
        self,
        written: Written,
        state: &mut State,
        changes: &mut Vec<Change>,
    ) -> Box<dyn FnOnce() + Send> {
        let count = self.items.len();
        let sequence = written.start.sequence;
        let mut finished = Vec::new();
        for item in self.items {
            let states = item.presents.iter().map(|(entry, _)| entry.clone());
            changes.extend(states.map(Change::State));
            if item.item.finished {
                finished.push(Change::Finished {
                    message: item.item.message,
                    batch: item.item.batch,
                    generation: item.generation,
                });
            }
            state.settled(sequence, item.item.batch, item.presents);
        }
        // Behind what takes its place: a message is done only when nothing is left of it.
        changes.extend(finished);
        let to = self.answer;
        Box::new(move || answer(to, Ok(count)))
    }

    /// It was not written: the leases go on.
    pub fn fail(self, state: &mut State, error: &Error) {
        for item in &self.items {
            if let Some(leased) = state.leases.of_mut(item.item.batch) {
                leased.stage = item.stage;
            }
        }
        answer(self.answer, Err(error.clone()));
    }
}

// === impl Treating ===

impl Treating {
    /// Treats what is left of a batch by its orders, what comes of an expansion as far as it is meant; returns how many
    /// recipients were dropped.
    fn treat(
        &self,
        item: &mut SettleItem,
        now: Timestamp,
        new_id: &mut impl FnMut() -> BatchId,
    ) -> u64 {
        let orders: Vec<_> = (self.selections.iter()).map(|one| one.order()).collect();
        let mut dropped = 0;
        let mut presents = Vec::with_capacity(item.presents.len());
        for present in std::mem::take(&mut item.presents) {
            let batch = Batch::clone(&present.batch);
            let is_new = batch.id != item.batch;
            let mut treated = match item.account {
                Account::Ended(_) => treat(&orders, batch, now, new_id),
                Account::Replaced => self.treat_new(&self.selections, batch, now, new_id),
            };
            if is_new {
                treated = treated.then(|batch| self.treat_new(&self.selecting, batch, now, new_id));
            }
            dropped += treated.dropped;
            match treated.changed {
                true => presents.extend(treated.batches.into_iter().map(packed)),
                false => presents.push(present),
            }
        }
        // Its record says that it is done, unless it still stands.
        item.finished |= presents.iter().all(|one| one.batch.id != item.batch);
        item.presents = presents;
        dropped
    }

    fn treat_new(
        &self,
        selections: &[Arc<Selection>],
        batch: Batch,
        now: Timestamp,
        new_id: &mut impl FnMut() -> BatchId,
    ) -> Treated {
        let start = Treated::left_alone(batch);
        selections.iter().fold(start, |before, selection| {
            before.then(|batch| selection.treat_new(&self.head, batch, now, new_id))
        })
    }
}
