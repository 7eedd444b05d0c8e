//! Windows: of one destination and one way of being served the batches that come next, in order, up to a horizon. Pure.

use std::collections::BTreeMap;

use super::entry::{Entry, Track};
use crate::{BatchId, Class, Lane};

/// How a window sorts: by the track's key; ties by id.
pub type Key = (u64, BatchId);

/// The windows of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// [`Track::Urgent`].
    Urgent,
    /// The young part of [`Track::Ripe`], and those of [`Track::Waiting`] that became due.
    Live,
    /// The old part.
    Backlog,
    /// [`Track::Waiting`].
    Waiting,
    /// [`Track::Retry`].
    Retry,
    /// [`Track::UrgentRetry`].
    UrgentRetry,
}

impl Window {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Urgent,
        Self::Live,
        Self::Backlog,
        Self::Waiting,
        Self::Retry,
        Self::UrgentRetry,
    ];

    /// The windows from which a lane is served.
    pub fn of_lane(lane: Lane) -> &'static [Self] {
        match lane {
            Lane::Urgent => &[Self::Urgent],
            Lane::Live => &[Self::Live],
            Lane::Backlog => &[Self::Backlog],
            Lane::Retry => &[Self::Retry, Self::UrgentRetry],
        }
    }

    /// The windows of a class.
    pub fn of_class(class: Class) -> &'static [Self] {
        match class {
            Class::Urgent => &[Self::Urgent, Self::UrgentRetry],
            Class::Ordinary => &[Self::Live, Self::Backlog, Self::Waiting, Self::Retry],
        }
    }

    /// The track that its missing batches are in.
    pub fn track(self) -> Track {
        match self {
            Self::Urgent => Track::Urgent,
            Self::Live | Self::Backlog => Track::Ripe,
            Self::Waiting => Track::Waiting,
            Self::Retry => Track::Retry,
            Self::UrgentRetry => Track::UrgentRetry,
        }
    }

    /// Whether it sorts by due time.
    pub fn by_due(self) -> bool {
        !matches!(self, Self::Live | Self::Backlog)
    }
}

/// What must be read from the index before service goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of which destination.
    pub destination: u32,
    /// For which window.
    pub window: Window,
    /// Behind this.
    pub after: Key,
    /// Below this.
    pub below: u64,
}

/// A window of a destination.
pub type Place = (u32, Window);

/// What waits in a window.
#[derive(Debug, Default)]
pub struct Queue {
    /// What is in memory of it. Boxed: a node has room for eleven, and most destinations have but a few.
    pub map: BTreeMap<Key, Box<Entry>>,
    /// All up to here are in memory, behind it only those that the index does not have yet; without it all are.
    pub horizon: Option<Key>,
    /// What stands in the fronts.
    pub front: Option<u64>,
    /// How many the heads have counted.
    pub counted: usize,
    /// Under what it stands among those that have batches in memory.
    pub filled: Option<(bool, u64)>,
}

impl Queue {
    /// The first one in memory.
    pub fn first(&self) -> Option<Key> {
        self.map.keys().next().copied()
    }

    /// The horizon, when what comes next must be read first.
    pub fn blind(&self) -> Option<Key> {
        let horizon = self.horizon?;
        let is_blind = self.first().is_none_or(|first| first > horizon);
        is_blind.then_some(horizon)
    }

    /// What comes next has this key, or a later one.
    pub fn front_key(&self) -> Option<u64> {
        match (self.horizon, self.first()) {
            (Some(horizon), Some(first)) => Some(horizon.min(first).0),
            (Some(key), None) | (None, Some(key)) => Some(key.0),
            (None, None) => None,
        }
    }

    /// Lets go of what may be dropped behind the first `keep`: it is read again when its turn comes. Returns how many that were.
    pub fn keep(&mut self, keep: usize, may_drop: impl Fn(&Entry) -> bool) -> usize {
        let Some(cut) = self.map.keys().nth(keep).copied() else {
            return 0;
        };
        let mut behind = self.map.split_off(&cut);
        let before = behind.len();
        let mut first = None;
        behind.retain(|key, entry| {
            let drop = may_drop(entry);
            first = first.or(drop.then_some(*key));
            !drop
        });
        let dropped = before - behind.len();
        self.map.append(&mut behind);
        if let Some(first) = first {
            // Below the old horizon all were in memory, above it none but new ones: the lower one holds.
            let known = just_below(first);
            self.horizon = Some(self.horizon.map_or(known, |horizon| horizon.min(known)));
        }
        dropped
    }
}

/// The last key below one; no batch has the very first one.
fn just_below((key, BatchId(id)): Key) -> Key {
    match id {
        0 => (key.saturating_sub(1), BatchId(u128::MAX)),
        _ => (key, BatchId(id - 1)),
    }
}
