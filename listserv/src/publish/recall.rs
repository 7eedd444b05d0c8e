//! What changed between the last versions, so that an edge that is a little behind is told the difference alone. In memory, and
//! bounded; after a restart an edge that missed something gets the whole once.

use std::collections::VecDeque;

use mail::directory::{Change, Version};

/// So many changes are kept: at one a minute, those of two thirds of a day.
const CHANGES_MAX: usize = 1024;
/// Memory for them, in bytes: some hundred thousand names.
const BYTES_MAX: usize = 8 << 20;

/// The last changes, oldest first, each leading to the next one's start.
#[derive(Debug, Default)]
pub struct Recall {
    changes: VecDeque<(Version, Change)>,
    bytes: usize,
}

impl Recall {
    /// Keeps the change that was made to this version, the newest until then.
    pub fn keep(&mut self, from: Version, change: Change) {
        self.bytes += change.bytes();
        self.changes.push_back((from, change));
        while self.changes.len() > CHANGES_MAX || self.bytes > BYTES_MAX {
            let Some((_, gone)) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= gone.bytes();
        }
    }

    /// All that changed since this version as one change; none when that is not remembered.
    pub fn since(&self, version: Version) -> Option<Change> {
        let start = self.changes.iter().position(|(from, _)| *from == version)?;
        let mut sum = Change::default();
        for (_, change) in self.changes.range(start..) {
            sum.then(change.clone());
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(serial: u64) -> Version {
        Version { epoch: 1, serial }
    }

    fn adds(names: impl IntoIterator<Item = String>) -> Change {
        let mut change = Change::default();
        change.add.addresses = names.into_iter().map(Into::into).collect();
        change
    }

    #[test]
    fn changes_are_summed_from_where_an_edge_is() {
        let mut recall = Recall::default();
        for serial in 1..=3 {
            recall.keep(version(serial), adds([format!("u{serial}@a.example")]));
        }
        assert_eq!(recall.since(version(1)).unwrap().len(), 3);
        assert_eq!(recall.since(version(3)).unwrap().len(), 1);
        assert_eq!(recall.since(version(4)), None);
        assert_eq!(recall.since(version(0)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut recall = Recall::default();
        for serial in 0..5000 {
            recall.keep(version(serial), adds([format!("u{serial}@a.example")]));
        }
        assert_eq!(recall.changes.len(), CHANGES_MAX);
        assert!(recall.since(version(5000 - CHANGES_MAX as u64)).is_some());
        assert!(recall.since(version(4999 - CHANGES_MAX as u64)).is_none());
        let many = (0..100_000).map(|n| format!("another{n}@a.example"));
        recall.keep(version(5000), adds(many));
        assert!(recall.since(version(5000)).is_some());
        // One that is too large for itself is not kept at all.
        let too_many = (0..400_000).map(|n| format!("another{n}@a.example"));
        recall.keep(version(5001), adds(too_many));
        assert_eq!((recall.changes.len(), recall.bytes), (0, 0));
    }
}
