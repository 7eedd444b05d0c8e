//! The tally: what waits, counted as it changes, never by looking at all of it.

use std::time::Duration;

use mail::Timestamp;

use crate::{Class, Destination, Lane};

/// A line of the tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Batches waiting or leased.
    pub batches: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Of the batches, those leased.
    pub leased: u64,
    /// Of the batches, those held.
    pub held: u64,
    /// Their recipients.
    pub held_recipients: u64,
    /// Arrival of the oldest message among them.
    pub oldest: Timestamp,
    /// When the next one that is not held is due; the present when some are due or leased already, or all are held.
    pub next_due: Timestamp,
}

/// What waits of one kind and arrived within the same [`Aged::GRAIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aged {
    /// How urgent.
    pub class: Class,
    /// Whether it was attempted.
    pub attempted: bool,
    /// Whether it is held.
    pub held: bool,
    /// It arrived then, or less than a grain later.
    pub from: Timestamp,
    /// Batches waiting or leased.
    pub batches: u64,
    /// Their recipients.
    pub recipients: u64,
}

impl Aged {
    /// So exactly is it told when something arrived.
    pub const GRAIN: Duration = Duration::from_secs(10);

    /// The first moment of the grain of an arrival.
    pub fn grain(arrival: Timestamp) -> Timestamp {
        Timestamp(arrival.0 - arrival.0 % Self::GRAIN.as_millis() as u64)
    }

    /// The lane at `now`, of all of it as of what arrived first.
    pub fn lane(&self, now: Timestamp) -> Lane {
        Lane::of(self.class, self.from, self.attempted.into(), now)
    }
}
