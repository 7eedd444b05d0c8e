//! What a group changes, with places resolved: the one form in which the journal's news reach the index, alike whether they
//! were just written or are read again after a crash.

use std::collections::HashMap;

use mail::{MessageId, Timestamp};

use super::content::Stored;
use super::entry::{Entry, Hold, MessagePlace, Position, Span, Track};
use super::record::{IdentKey, Record, Stretch};
use super::replay::Group;
use crate::selection::Order;
use crate::{Batch, BatchId, Destination, Ledger};

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message stands here, with exactly these batches left.
    Message {
        /// Where.
        place: MessagePlace,
        /// Its batches.
        entries: Vec<Entry>,
        /// Remember these.
        idents: Vec<IdentKey>,
    },
    /// A batch is in this state.
    State(Entry),
    /// A batch is done.
    Finished {
        /// Its message.
        message: MessageId,
        /// The batch.
        batch: BatchId,
        /// Where the message's record stood.
        generation: u64,
    },
    /// Remember these from these times on.
    Idents(Vec<(IdentKey, Timestamp)>),
    /// A segment was carried forward.
    Carried(u64),
}

/// All that a group changed.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The segment that it stands in.
    pub generation: u64,
    /// Its number.
    pub sequence: u64,
    /// When it was written.
    pub time: Timestamp,
    /// What changed.
    pub changes: Vec<Change>,
    /// The account behind it.
    pub ledger: Option<Ledger>,
    /// From where the journal must be read again once these are in the index. Not behind this group while a transaction
    /// in parts is open.
    pub resume: Position,
}

/// Numbers for destinations.
#[derive(Debug, Default)]
pub struct Numbers {
    by_name: HashMap<Destination, u32>,
    names: HashMap<u32, Destination>,
    next: u32,
}

impl Numbers {
    /// Takes over what the index knows.
    pub fn insert(&mut self, number: u32, destination: Destination) {
        self.next = self.next.max(number + 1);
        self.names.insert(number, destination.clone());
        self.by_name.insert(destination, number);
    }

    /// The number of a destination, a new one when it has none.
    pub fn number(&mut self, destination: &Destination) -> u32 {
        if let Some(number) = self.by_name.get(destination) {
            return *number;
        }
        let number = self.next;
        self.insert(number, destination.clone());
        number
    }

    /// The number of a destination that has one.
    pub fn known(&self, destination: &Destination) -> Option<u32> {
        self.by_name.get(destination).copied()
    }

    /// The destination of a number.
    pub fn name(&self, number: u32) -> Option<&Destination> {
        self.names.get(&number)
    }
}

/// Makes the entry of a batch that stands at `span`.
pub fn entry(
    batch: &Batch,
    orders: &[Order],
    message: MessageId,
    arrival: Timestamp,
    destination: u32,
    span: Span,
    now: Timestamp,
) -> Entry {
    Entry {
        id: batch.id,
        message,
        destination,
        track: Track::of(batch, now),
        hold: Hold::of(batch, orders),
        arrival: arrival.0,
        due: batch.due.0,
        recipients: u32::try_from(batch.recipients.len()).unwrap_or(u32::MAX),
        span,
    }
}

/// A stretch of a group's records as a span of the segment.
pub fn span(generation: u64, records_at: u64, at: Stretch) -> Span {
    Span {
        generation,
        offset: u32::try_from(records_at + at.offset as u64)
            .expect("segments are below 4 GiB, Options are checked"),
        length: u32::try_from(at.length).expect("a piece is smaller than its segment"),
    }
}

/// Turns groups read again into changes. Parts wait here for their commit.
#[derive(Debug, Default)]
pub struct Reader {
    parts: HashMap<u64, Parts>,
}

#[derive(Debug)]
struct Parts {
    /// Where the first one stands.
    start: Position,
    changes: Vec<Change>,
    count: u64,
}

impl Reader {
    /// The changes of a group.
    pub fn changes(&mut self, group: Group, numbers: &mut Numbers) -> Changes {
        let start = Position {
            generation: group.header.generation,
            offset: group.offset,
            sequence: group.header.sequence - 1,
        };
        let end = group.end();
        let places = Places {
            generation: group.header.generation,
            records_at: group.records_at(),
            bodies_at: group.bodies_at(),
            time: group.header.time,
        };
        let mut changes = Vec::new();
        let mut ledger = None;
        for record in group.records {
            match record {
                Record::Ledger(all) => ledger = Some(all),
                Record::Part {
                    transaction,
                    record,
                } => {
                    let parts = self.parts.entry(transaction).or_insert_with(|| Parts {
                        start,
                        changes: Vec::new(),
                        count: 0,
                    });
                    parts.count += 1;
                    parts.changes.extend(places.change(*record, numbers));
                }
                Record::Commit { transaction, parts } => match self.parts.remove(&transaction) {
                    Some(all) if all.count == parts => changes.extend(all.changes),
                    found => tracing::error!(
                        event = "journal_damaged",
                        transaction,
                        parts,
                        found = found.map_or(0, |all| all.count),
                        "an expansion lost parts; its message is expanded again"
                    ),
                },
                record => changes.extend(places.change(record, numbers)),
            }
        }
        let resume = self.parts.values().map(|parts| parts.start).min();
        Changes {
            generation: end.generation,
            sequence: end.sequence,
            time: places.time,
            changes,
            ledger,
            resume: resume.unwrap_or(end).min(end),
        }
    }
}

struct Places {
    generation: u64,
    records_at: u64,
    bodies_at: u64,
    time: Timestamp,
}

impl Places {
    fn change(&self, record: Record, numbers: &mut Numbers) -> Option<Change> {
        let span = |at| span(self.generation, self.records_at, at);
        Some(match record {
            Record::Message {
                head,
                head_at,
                body,
                batches,
                idents,
            } => {
                let entries = batches
                    .iter()
                    .map(|(stored, at)| {
                        let number = numbers.number(&stored.batch.destination);
                        let (batch, orders) = (&stored.batch, &stored.orders);
                        let (arrival, at) = (head.arrival, span(*at));
                        entry(batch, orders, head.id, arrival, number, at, self.time)
                    })
                    .collect();
                Change::Message {
                    place: MessagePlace {
                        id: head.id,
                        head: span(head_at),
                        body_offset: self.bodies_at + body.offset,
                        body_length: body.length,
                        checksum: body.checksum,
                    },
                    entries,
                    idents,
                }
            }
            Record::State {
                message,
                arrival,
                batch,
                at,
            } => {
                let Stored { batch, orders } = *batch;
                let number = numbers.number(&batch.destination);
                let at = span(at);
                Change::State(entry(
                    &batch, &orders, message, arrival, number, at, self.time,
                ))
            }
            Record::Finished {
                message,
                batch,
                generation,
            } => Change::Finished {
                message,
                batch,
                generation,
            },
            Record::Idents(idents) => Change::Idents(idents),
            Record::Carried { generation } => Change::Carried(generation),
            // Neither stands inside a part; the record's reader refuses it.
            Record::Part { .. } | Record::Commit { .. } | Record::Ledger(_) => return None,
        })
    }
}
