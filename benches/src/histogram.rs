//! A histogram of durations in fixed memory: from one microsecond to an hour, each value within 3 % of what is told of it.
//! Any number of threads add to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Steps between one power of two and the next; 32 keep a value within 3 %.
const STEPS: u64 = 32;
/// The largest value that is told apart, microseconds: an hour and some.
const LARGEST: u64 = (1 << 32) - 1;
const BUCKETS: usize = place(LARGEST) + 1;

/// See the module.
#[derive(Debug)]
pub struct Histogram(Box<[AtomicU64]>);

/// What a histogram held at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<u64>);

/// The bucket of a value.
const fn place(micros: u64) -> usize {
    if micros < 2 * STEPS {
        return micros as usize;
    }
    let power = micros.ilog2() - STEPS.ilog2();
    (power as u64 * STEPS + (micros >> power)) as usize
}

/// The largest value of a bucket, microseconds.
fn largest_in(place: usize) -> u64 {
    let place = place as u64;
    if place < 2 * STEPS {
        return place;
    }
    let power = place / STEPS - 1;
    (((place % STEPS + STEPS) + 1) << power) - 1
}

impl Default for Histogram {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    /// Adds one; what is longer than an hour counts as an hour.
    pub fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(LARGEST);
        self.0[place(micros.min(LARGEST))].fetch_add(1, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Snapshot(counts.collect())
    }
}

impl Snapshot {
    /// What came after an earlier one.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.0.iter().zip(&earlier.0);
        Self(
            counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        )
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The duration that this share of all (0 to 1) does not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (place, here) in self.0.iter().enumerate() {
            seen += here;
            if seen >= rank {
                return Duration::from_micros(largest_in(place));
            }
        }
        Duration::ZERO
    }

    /// Milliseconds of the usual shares, as reports give them.
    pub fn json(&self) -> Value {
        let milliseconds = |share| (self.quantile(share).as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "count": self.count(),
            "p50_ms": milliseconds(0.5),
            "p90_ms": milliseconds(0.9),
            "p99_ms": milliseconds(0.99),
            "p999_ms": milliseconds(0.999),
            "max_ms": milliseconds(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for micros in (0..100_000).chain([1 << 20, (1 << 20) + 1, LARGEST - 1, LARGEST]) {
            let largest = largest_in(place(micros));
            assert!(largest >= micros, "{micros} is told as {largest}");
            assert!(
                largest - micros <= micros / 32,
                "{micros} is told as {largest}"
            );
            assert_eq!(place(largest), place(micros));
            assert_eq!(place(largest + 1), place(micros) + 1, "after {largest}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), Duration::ZERO);
        for milliseconds in 1..=1000 {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let all = histogram.snapshot();
        for (share, wanted) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.0, 1.0)] {
            let told = all.quantile(share).as_secs_f64() * 1e3;
            assert!((wanted..wanted * 1.04).contains(&told), "{share}: {told}");
        }
        histogram.add(Duration::from_secs(1 << 40));
        let later = histogram.snapshot().since(&all);
        assert_eq!(later.count(), 1);
        assert!(later.quantile(0.5) > Duration::from_secs(3600));
    }
}
