//! Lanes: the order of service, derived from what a batch is, never stored.

use std::time::Duration;

use mail::Timestamp;

use crate::Class;

/// The order of service, derived at claim, never stored (design section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// [`Class::Urgent`], first attempts.
    Urgent,
    /// First attempts of messages younger than an hour.
    Live,
    /// First attempts of older ones, oldest first.
    Backlog,
    /// All later attempts.
    Retry,
}

impl Lane {
    /// All lanes, in the order of their weights.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Live, Self::Backlog, Self::Retry];

    /// The lane of a batch at `now`.
    pub fn of(class: Class, arrival: Timestamp, attempts: u32, now: Timestamp) -> Self {
        match (attempts, class) {
            (1.., _) => Self::Retry,
            (0, Class::Urgent) => Self::Urgent,
            (0, Class::Ordinary) if now.since(arrival) < Duration::from_secs(3600) => Self::Live,
            (0, Class::Ordinary) => Self::Backlog,
        }
    }
}
