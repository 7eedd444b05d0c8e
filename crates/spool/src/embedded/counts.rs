//! What waits, counted as it changes: by destination and class for the tally, in all for the ledger.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::index::Line;
use crate::Class;

/// What waits for a destination in a class.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Batches.
    pub batches: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Of the batches, those borrowed.
    pub leased: u64,
    /// Of the batches, those held.
    pub held: u64,
    /// Of the recipients, those held.
    pub recipients_held: u64,
    /// The oldest arrival, when it is known.
    pub oldest: Option<u64>,
    /// How often it changed.
    pub changes: u64,
}

/// All lines.
#[derive(Debug, Default)]
pub struct Counts {
    /// By destination and class.
    pub lines: BTreeMap<(u32, Class), Count>,
    /// Recipients in all.
    pub waiting: u64,
    /// Of these, those held.
    pub held: u64,
}

impl Counts {
    /// Takes over what the index counted.
    pub fn insert(&mut self, destination: u32, class: Class, held: bool, line: Line) {
        let (batches, recipients) = (line.batches as u64, line.recipients as u64);
        let count = self.lines.entry((destination, class)).or_default();
        count.batches += batches;
        count.recipients += recipients;
        self.waiting += recipients;
        if held {
            count.held += batches;
            count.recipients_held += recipients;
            self.held += recipients;
        }
    }

    /// The line of a batch.
    pub fn of(&mut self, entry: &Entry) -> &mut Count {
        self.lines
            .entry((entry.destination, entry.class()))
            .or_default()
    }

    /// A batch waits.
    pub fn add(&mut self, entry: &Entry) {
        let recipients = u64::from(entry.recipients);
        self.waiting += recipients;
        let held = if entry.is_held() { recipients } else { 0 };
        self.held += held;
        let count = self.of(entry);
        count.recipients_held += held;
        let first = count.batches == 0;
        count.changes += 1;
        count.batches += 1;
        count.recipients += recipients;
        count.held += u64::from(entry.is_held());
        count.oldest = match count.oldest {
            Some(oldest) => Some(oldest.min(entry.arrival)),
            None if first => Some(entry.arrival),
            None => None,
        };
    }

    /// A batch is gone, or goes elsewhere.
    pub fn subtract(&mut self, entry: &Entry) {
        let recipients = u64::from(entry.recipients);
        self.waiting -= recipients;
        let held = if entry.is_held() { recipients } else { 0 };
        self.held -= held;
        let count = self.of(entry);
        count.recipients_held -= held;
        count.changes += 1;
        count.batches -= 1;
        count.recipients -= recipients;
        count.held -= u64::from(entry.is_held());
        if count.oldest == Some(entry.arrival) {
            count.oldest = None;
        }
        if count.batches == 0 {
            self.lines.remove(&(entry.destination, entry.class()));
        }
    }
}
