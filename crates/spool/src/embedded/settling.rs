//! Leases being ended: one group when it is small, parts over several groups and a commit when it is large, so that a large
//! expansion does not make live mail wait. Until the last part is durable nothing of it counts.

use mail::Timestamp;

use super::change::Change;
use super::entry::Position;
use super::group::Draft;
use super::job::{Account, Answer, Packed, SettleItem, SettleJob};
use super::record::Stretch;
use super::staged::{Written, present};
use super::state::{Present, State};
use super::writer::answer;
use crate::{Error, Ledger};

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
    /// Recipients that there are in what takes its place.
    left: u64,
}

impl Settling {
    /// Takes over the leases that are still valid; answers at once when none is.
    pub fn begin(job: SettleJob, transaction: u64, state: &mut State) -> Option<Self> {
        let large = job.size() > PART_BYTES_MAX;
        let mut items = Vec::new();
        for mut item in job.items {
            let Some(leased) = state.leased(item.batch) else {
                continue;
            };
            if leased.token != item.token || leased.settling {
                continue;
            }
            leased.settling = true;
            let before = u64::from(leased.entry.recipients);
            let left = (item.presents.iter()).map(|packed| packed.batch.recipients.len() as u64);
            let left = left.sum();
            let place = state.leased_message(item.message).1;
            // Taken from the end.
            item.presents.reverse();
            items.push(Item {
                item,
                generation: place.map_or(0, |place| place.generation()),
                presents: Vec::new(),
                before,
                left,
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
            if let Some(leased) = state.leased(item.item.batch) {
                leased.settling = false;
            }
        }
        answer(self.answer, Err(error.clone()));
    }
}
