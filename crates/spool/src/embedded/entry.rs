//! What the scheduler and the index know of a batch and of a message: where it stands in the journal and when it is to be
//! served. Never its content.

use mail::{MessageId, Timestamp};

use crate::selection::Order;
use crate::{Aged, Batch, BatchId, Class, HoldId};

/// A place in the journal that is read back alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The use of the segment.
    pub generation: u64,
    /// Where, in the segment.
    pub offset: u32,
    /// How much.
    pub length: u32,
}

/// A place between two groups: all before it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The use of the segment; 0 is before the first.
    pub generation: u64,
    /// Where the next group would start.
    pub offset: u64,
    /// The number of the last group before it.
    pub sequence: u64,
}

/// The order in which a batch waits. Stored with it in the index; it changes only when the batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Track {
    /// Urgent, never attempted; by due time.
    Urgent = 0,
    /// Ordinary, never attempted, due when it was recorded; by arrival.
    Ripe = 1,
    /// Ordinary, never attempted, due later; by due time, until it is.
    Waiting = 2,
    /// Ordinary, attempted; by due time.
    Retry = 3,
    /// Urgent, attempted; by due time.
    UrgentRetry = 4,
}

impl Track {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Urgent,
        Self::Ripe,
        Self::Waiting,
        Self::Retry,
        Self::UrgentRetry,
    ];

    /// The track of a batch recorded at `now`.
    pub fn of(batch: &Batch, now: Timestamp) -> Self {
        match (batch.class, batch.attempts) {
            (Class::Urgent, 0) => Self::Urgent,
            (Class::Urgent, _) => Self::UrgentRetry,
            (Class::Ordinary, 0) if batch.due <= now => Self::Ripe,
            (Class::Ordinary, 0) => Self::Waiting,
            (Class::Ordinary, _) => Self::Retry,
        }
    }

    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|track| *track as u8 == number)
    }

    /// The class of its batches.
    pub fn class(self) -> Class {
        match self {
            Self::Urgent | Self::UrgentRetry => Class::Urgent,
            Self::Ripe | Self::Waiting | Self::Retry => Class::Ordinary,
        }
    }
}

/// Whether a batch may be served when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Yes.
    Free,
    /// It is held.
    By(HoldId),
    /// There are orders for when its attempt ends: it may be served when they have been followed.
    Ordered,
}

impl Hold {
    /// Of a batch with these orders.
    pub fn of(batch: &Batch, orders: &[Order]) -> Self {
        match batch.held {
            _ if !orders.is_empty() => Self::Ordered,
            Some(hold) => Self::By(hold),
            None => Self::Free,
        }
    }
}

/// A batch as the scheduler knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The batch.
    pub id: BatchId,
    /// Its message.
    pub message: MessageId,
    /// The number of its destination.
    pub destination: u32,
    /// Its order.
    pub track: Track,
    /// What keeps it from being served.
    pub hold: Hold,
    /// Arrival of its message.
    pub arrival: u64,
    /// Not before.
    pub due: u64,
    /// Recipients.
    pub recipients: u32,
    /// Its packed state.
    pub span: Span,
}

impl Entry {
    /// What its track sorts by.
    pub fn key(&self) -> (u64, BatchId) {
        let key = match self.track {
            Track::Ripe => self.arrival,
            _ => self.due,
        };
        (key, self.id)
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.track.class()
    }

    /// The grain of its arrival.
    pub fn grain(&self) -> u64 {
        Aged::grain(Timestamp(self.arrival)).0
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        matches!(self.hold, Hold::By(_))
    }

    /// Its track as the index has it: what may not be served must not stand in the way of what may.
    pub fn row(&self) -> Row {
        let hold = match self.hold {
            Hold::Free => 0,
            Hold::By(_) => HELD,
            Hold::Ordered => ORDERED,
        };
        Row(self.track as u8 | hold)
    }
}

const HELD: u8 = 8;
const ORDERED: u8 = 16;

/// A track, with whether its batches are held or wait for orders to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row(pub u8);

impl Row {
    /// All of a track.
    pub fn all(track: Track) -> [Self; 3] {
        [0, HELD, ORDERED].map(|hold| Self(track as u8 | hold))
    }

    /// The track.
    pub fn track(self) -> Option<Track> {
        Track::from_number(self.0 & !(HELD | ORDERED))
    }

    /// Whether its batches are held.
    pub fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Whether orders must be followed before its batches are served.
    pub fn is_ordered(self) -> bool {
        self.0 & ORDERED != 0
    }
}

/// Where the parts of a message stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagePlace {
    /// The message.
    pub id: MessageId,
    /// Its packed head; its generation is the body's, too.
    pub head: Span,
    /// Where its body starts in the same segment.
    pub body_offset: u64,
    /// Length of its body.
    pub body_length: u64,
    /// crc32c of its body.
    pub checksum: u32,
}

impl MessagePlace {
    /// The segment that it stands in.
    pub fn generation(&self) -> u64 {
        self.head.generation
    }
}
