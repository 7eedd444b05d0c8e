//! When to try again: exponential with jitter and a cap, for replies that concern a recipient; dead sites have no such times.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use mail::Timestamp;

/// When to try again and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// After the first attempt [300 s].
    pub first: Duration,
    /// Never longer than this [4000 s].
    pub longest: Duration,
    /// Given up so long after acceptance here; none on an edge, where mail never expires by age [5 days].
    pub give_up: Option<Duration>,
}

impl Default for Schedule {
    /// Postfix's first and longest wait, RFC 5321 4.5.4.1's four to five days.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(300),
            longest: Duration::from_secs(4000),
            give_up: Some(Duration::from_secs(5 * 86_400)),
        }
    }
}

impl Schedule {
    /// The wait after so many attempts: doubled each time, capped, with up to a quarter of jitter off. `random` in 0.0..1.0.
    pub fn wait(&self, attempts: u32, random: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        whole.mul_f64(1.0 - 0.25 * random.clamp(0.0, 1.0))
    }

    /// Whether a message accepted here at `accepted` is too old at `now` to be tried once more.
    pub fn over(&self, accepted: Timestamp, now: Timestamp) -> bool {
        self.give_up
            .is_some_and(|after| now.since(accepted) >= after)
    }
}

/// A number in 0.0..1.0 that nobody has to be unable to guess: it only spreads waits. The standard library seeds each hasher
/// state at random, which saves a dependency.
pub(crate) fn random() -> f64 {
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attempts: u32, random: f64, expected_ms: u64) {
        let schedule = Schedule::default();
        let wait = schedule.wait(attempts, random);
        assert_eq!(
            wait.as_millis() as u64,
            expected_ms,
            "{attempts} attempts, random {random}"
        );
    }

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_only_shortens() {
        check(0, 0.0, 300_000); // a batch whose attempt did not count waits as after the first
        check(1, 0.0, 300_000);
        check(1, 1.0, 225_000);
        check(2, 0.0, 600_000);
        check(3, 0.5, 1_050_000);
        check(4, 0.0, 2_400_000);
        check(5, 0.0, 4_000_000);
        check(5, 1.0, 3_000_000);
        check(1000, 0.0, 4_000_000);
        check(u32::MAX, 0.0, 4_000_000);
        check(1, 7.0, 225_000); // nonsense is clamped
    }

    #[test]
    fn giving_up_counts_from_acceptance_here() {
        let schedule = Schedule::default();
        let accepted = Timestamp(1_000_000);
        let day = 86_400_000;
        for (now, over) in [
            (accepted.0, false),
            (accepted.0 + 5 * day - 1, false),
            (accepted.0 + 5 * day, true),
            (0, false), // the clock was set back
        ] {
            assert_eq!(schedule.over(accepted, Timestamp(now)), over, "{now}");
        }
        let edge = Schedule {
            give_up: None,
            ..schedule
        };
        assert!(!edge.over(accepted, Timestamp(u64::MAX)));
    }

    #[test]
    fn random_spreads() {
        let (mut low, mut high) = (0, 0);
        for _ in 0..1000 {
            let r = random();
            assert!((0.0..1.0).contains(&r));
            if r < 0.5 { low += 1 } else { high += 1 }
        }
        assert!(low > 300 && high > 300, "{low} {high}");
    }
}
