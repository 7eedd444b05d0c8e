//! Places that are taken and given back, with a most that the asker names: sessions in all, and those that wait for their greeting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<AtomicUsize>);

/// Held while one is taken.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Places {
    /// Takes one, unless so many are taken.
    pub fn take(&self, most: usize) -> Option<Place> {
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Place(Arc::clone(&self.0)))
    }

    /// Takes one, however many are taken.
    pub fn take_anyway(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(&self.0))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_given_back() {
        let places = Places::default();
        let first = places.take(2).unwrap();
        let second = places.take(2);
        assert!(second.is_some() && places.take(2).is_none());
        assert!(places.take(1).is_none(), "the most may have become less");
        let third = places.take_anyway();
        assert_eq!(places.taken(), 3);
        drop((first, second, third));
        assert_eq!(places.taken(), 0);
    }
}
