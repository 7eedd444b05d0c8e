//! The tally: what waits, counted as it changes, never by looking at all of it.

use mail::Timestamp;

use crate::{Class, Destination};

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
    /// Arrival of the oldest message among them.
    pub oldest: Timestamp,
    /// When the next one that is not held is due; the present when some are due or leased already, or all are held.
    pub next_due: Timestamp,
}
