//! What has arrived, so that what arrives twice is known: one word a delivery, in memory of a fixed size that any number of threads
//! share without waiting for each other.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::random::mix;
use crate::stamp::Stamp;

/// What is known of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its recipient and message.
    First,
    /// It was there before.
    Again,
    /// There is no memory left: not known.
    Unknown,
}

/// See the module. Two different deliveries are taken for one with a chance of about 3 in a million among ten million.
#[derive(Debug)]
pub struct Seen {
    /// Zero where nothing is. A power of two, looked through from the place that the word names.
    slots: Box<[AtomicU64]>,
    count: AtomicUsize,
    count_max: usize,
}

impl Seen {
    /// For so many deliveries; takes twelve to twenty-four bytes for each at once.
    pub fn new(count_max: usize) -> Self {
        // At most two thirds full, so that a look takes few steps.
        let slots = (count_max.max(1) * 3 / 2 + 1).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
            count_max,
        }
    }

    /// Notes a delivery.
    pub fn note(&self, recipient: &[u8], stamp: &Stamp<'_>) -> Arrival {
        let word = word(recipient, stamp);
        let mask = self.slots.len() - 1;
        let mut at = word as usize & mask;
        loop {
            let held = self.slots[at].load(Ordering::Relaxed);
            if held == word {
                return Arrival::Again;
            }
            if held == 0 {
                if self.count.load(Ordering::Relaxed) >= self.count_max {
                    return Arrival::Unknown;
                }
                let taken =
                    self.slots[at].compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
                match taken {
                    Ok(_) => {
                        self.count.fetch_add(1, Ordering::Relaxed);
                        return Arrival::First;
                    }
                    Err(other) if other == word => return Arrival::Again,
                    Err(_) => {}
                }
            }
            at = (at + 1) & mask;
        }
    }
}

/// Never zero. The recipient in lower case: the hosts between may change its letters.
fn word(recipient: &[u8], stamp: &Stamp<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut lower = [0; 64];
    for piece in recipient.chunks(lower.len()) {
        let lower = &mut lower[..piece.len()];
        lower.copy_from_slice(piece);
        lower.make_ascii_lowercase();
        hasher.write(lower);
    }
    (hasher.finish() ^ mix(stamp.run ^ mix(stamp.number))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Time;

    fn stamp(run: u64, number: u64) -> Stamp<'static> {
        Stamp {
            kind: "live",
            run,
            number,
            sent: Time(0),
        }
    }

    #[test]
    fn what_comes_twice_is_told() {
        let seen = Seen::new(10);
        for (recipient, run, number, expected) in [
            ("a@b.example", 1, 1, Arrival::First),
            ("a@b.example", 1, 1, Arrival::Again),
            ("A@b.EXAMPLE", 1, 1, Arrival::Again),
            ("a@b.example", 1, 2, Arrival::First),
            ("a@b.example", 2, 1, Arrival::First),
            ("c@b.example", 1, 1, Arrival::First),
        ] {
            let told = seen.note(recipient.as_bytes(), &stamp(run, number));
            assert_eq!(told, expected, "{recipient} {run} {number}");
        }
    }

    #[test]
    fn memory_is_bounded_and_its_end_is_told() {
        let seen = Seen::new(1000);
        let slots = seen.slots.len();
        for number in 0..1000 {
            assert_eq!(seen.note(b"a@b", &stamp(1, number)), Arrival::First);
        }
        assert_eq!(seen.note(b"a@b", &stamp(1, 1000)), Arrival::Unknown);
        assert_eq!(seen.note(b"a@b", &stamp(1, 999)), Arrival::Again);
        assert_eq!(seen.slots.len(), slots);
    }

    #[test]
    fn threads_agree_on_who_was_first() {
        let seen = Seen::new(2000);
        let firsts: usize = std::thread::scope(|scope| {
            let count = || {
                let told = (0..1000).map(|number| seen.note(b"a@b", &stamp(1, number)));
                told.filter(|arrival| *arrival == Arrival::First).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum()
        });
        assert_eq!(firsts, 1000);
    }
}
