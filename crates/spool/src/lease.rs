//! Leases: which batches are wanted, borrowed work, and what came of it.

use std::sync::Arc;

use bytes::Bytes;
use mail::{Recipient, Timestamp};

use crate::{Batch, BatchId, Destination, Ends, Head, NewBatch, Replies};

/// Which batches are wanted, and how many from each lane at most (in the order of [`Lane::ALL`]).
#[derive(Clone, Debug)]
pub struct Wanted {
    /// From which destinations.
    pub destinations: Destinations,
    /// At most so many from each lane.
    pub lanes: [usize; 4],
}

/// A set of destinations.
#[derive(Clone, Debug)]
pub enum Destinations {
    /// All of them but these (whose gates are shut, or who have enough in hand). Keep it as long as it stays the same: then a
    /// claim costs the same however many they are.
    Except(Arc<[Destination]>),
    /// Only these.
    Only(Vec<Destination>),
}

/// Borrowed work. Dropping it without settling gives the batch back only when the process ends or the lease lapses;
/// whoever cannot work on it settles it as deferred.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub head: Arc<Head>,
    /// The batch.
    pub batch: Batch,
    /// The fencing token: a settlement with another one has no effect.
    pub token: u64,
}

/// What came of a lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The batch.
    pub batch: BatchId,
    /// The lease's token.
    pub token: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// How those of its recipients ended who are not left; none for a batch that is replaced.
    pub ends: Ends,
}

/// What came of a batch: its full new state.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every recipient that was left is done, well or badly; what had to be told about it was accepted before.
    Finished,
    /// Not done for these recipients; try again.
    Deferred {
        /// Not before.
        until: Timestamp,
        /// Why, in one line for each.
        replies: Replies,
        /// Kept for the next attempt.
        note: Bytes,
        /// Who is left.
        recipients: Vec<Recipient>,
        /// Whether this counts as an attempt (a dead site does not).
        attempted: bool,
        /// Those of its recipients who go on elsewhere, in batches of their own; in the account they stay the same recipients.
        moved: Vec<NewBatch>,
    },
    /// Other batches of the same message take its place, all or none of them, with other recipients.
    Replaced(Vec<NewBatch>),
}

/// What one claiming task has seen of the spool; the default has seen nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many changes there had been.
    pub news: u64,
    /// And when: what became due since then is new too.
    pub at: mail::Timestamp,
}
