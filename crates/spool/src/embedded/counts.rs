//! What waits, counted as it changes: by destination and class for the tally, in all for the ledger.

use std::collections::BTreeMap;

use mail::Timestamp;

use super::entry::{Entry, Row, Track};
use super::index::Line;
use crate::{Aged, Class};

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
    /// By what tells the lane and by age, in grains.
    ages: BTreeMap<(Kind, u64), Line>,
}

/// What tells the lane of a batch, with its arrival: its class, whether it was attempted; and whether it is held.
type Kind = (Class, bool, bool);

fn kind(row: Row) -> Option<Kind> {
    let track = row.track()?;
    let attempted = matches!(track, Track::Retry | Track::UrgentRetry);
    Some((track.class(), attempted, row.is_held()))
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

    /// Takes over what the index counted by age.
    pub fn insert_aged(&mut self, row: Row, from: u64, line: Line) {
        if let Some(kind) = kind(row) {
            self.change_aged((kind, from), line);
        }
    }

    /// By age.
    pub fn ages(&self) -> impl Iterator<Item = Aged> {
        let ages = self.ages.iter();
        ages.map(|(((class, attempted, held), from), line)| Aged {
            class: *class,
            attempted: *attempted,
            held: *held,
            from: Timestamp(*from),
            batches: line.batches as u64,
            recipients: line.recipients as u64,
        })
    }

    fn age(&mut self, entry: &Entry, sign: i64) {
        let by = Line {
            batches: sign,
            recipients: sign * i64::from(entry.recipients),
        };
        self.insert_aged(entry.row(), entry.grain(), by);
    }

    fn change_aged(&mut self, key: (Kind, u64), by: Line) {
        let line = self.ages.entry(key).or_default();
        line.batches += by.batches;
        line.recipients += by.recipients;
        if line.batches == 0 {
            self.ages.remove(&key);
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
        self.age(entry, 1);
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
        self.age(entry, -1);
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
