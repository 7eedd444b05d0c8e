//! When to try again, for replies that concern a recipient; dead sites have no such times. A formula or a list, with jitter.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use service::program::Complaint;

/// Waits in a list at most: more are a mistake, and the last one is used from there on anyway.
const DELAYS_MAX: usize = 100;
/// A wait is at most this; nothing is given up as late.
const WAIT_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Off a wait at most, in percent: more would leave next to nothing of it.
const JITTER_PERCENT_MAX: u32 = 90;
/// A wait is at most so many times the one before, in percent.
const FACTOR_PERCENT_MAX: u32 = 1000;

/// When to try again.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    waits: Waits,
    /// The part of a wait that chance takes off, 0.0..=0.9.
    jitter: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Waits {
    Growing {
        first: Duration,
        factor: f64,
        longest: Duration,
    },
    /// The last one again and again.
    Listed(Arc<[Duration]>),
}

/// The keys of a program's configuration that make a schedule, `retry_*` each.
#[derive(Clone, Debug)]
pub struct Keys<'c> {
    /// `retry_first`: the wait after the first attempt [5 min, Postfix's minimal_backoff_time].
    pub first: Duration,
    /// `retry_factor_percent`: each wait is so many percent of the one before [200].
    pub factor_percent: u32,
    /// `retry_longest`: no wait is longer [4000 s, Postfix's maximal_backoff_time].
    pub longest: Duration,
    /// `retry_jitter_percent`: chance takes up to so much off each wait [25].
    pub jitter_percent: u32,
    /// `retry_delays`: the waits one by one, in place of the first, the factor and the longest; empty: those.
    pub delays: &'c [Duration],
}

impl Keys<'_> {
    /// What is wrong with them; `table` is where they stand.
    pub fn check(&self, table: &str) -> Vec<Complaint> {
        let wrong = [
            (
                "retry_first",
                self.first.is_zero() || self.first > self.longest,
                format!("{:?}", self.first),
                "a wait of nothing asks again and again; the first one is the shortest",
                "give more than 0s and at most retry_longest",
            ),
            (
                "retry_longest",
                self.longest > WAIT_MAX,
                format!("{:?}", self.longest),
                "hardly any mail waits for a week",
                "give at most 7d",
            ),
            (
                "retry_factor_percent",
                !(100..=FACTOR_PERCENT_MAX).contains(&self.factor_percent),
                self.factor_percent.to_string(),
                "waits that shrink press on a host that wants peace",
                "give 100 (all waits alike) to 1000",
            ),
            (
                "retry_jitter_percent",
                self.jitter_percent > JITTER_PERCENT_MAX,
                self.jitter_percent.to_string(),
                "next to nothing would be left of a wait",
                "give at most 90",
            ),
            (
                "retry_delays",
                self.delays.len() > DELAYS_MAX
                    || self.delays.iter().any(|d| d.is_zero() || *d > WAIT_MAX),
                format!("{:?}", self.delays),
                "a wait of nothing asks again and again, one of weeks is none",
                "give at most 100 waits of more than 0s and at most 7d",
            ),
        ];
        let complaint = |(key, _, what, why, remedy): (&str, bool, String, &str, &str)| Complaint {
            key: format!("{table}.{key}"),
            what,
            why: why.into(),
            remedy: remedy.into(),
        };
        wrong
            .into_iter()
            .filter(|wrong| wrong.1)
            .map(complaint)
            .collect()
    }

    /// The schedule; what [`Self::check`] complains of is put right.
    pub fn schedule(&self) -> Schedule {
        let within = |wait: Duration| wait.clamp(Duration::from_millis(1), WAIT_MAX);
        let waits = match self.delays {
            [] => {
                let longest = within(self.longest);
                Waits::Growing {
                    first: within(self.first).min(longest),
                    factor: f64::from(self.factor_percent.clamp(100, FACTOR_PERCENT_MAX)) / 100.0,
                    longest,
                }
            }
            delays => Waits::Listed(delays.iter().map(|delay| within(*delay)).collect()),
        };
        Schedule {
            waits,
            jitter: f64::from(self.jitter_percent.min(JITTER_PERCENT_MAX)) / 100.0,
        }
    }
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(300),
            factor_percent: 200,
            longest: Duration::from_secs(4000),
            jitter_percent: 25,
            delays: &[],
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Keys::default().schedule()
    }
}

impl Schedule {
    /// The wait after so many attempts, with jitter off. `random` in 0.0..1.0.
    pub fn wait(&self, attempts: u32, random: f64) -> Duration {
        let before = attempts.saturating_sub(1);
        let whole = match &self.waits {
            Waits::Growing {
                first,
                factor,
                longest,
            } => {
                let grown = first.as_secs_f64() * factor.powi(before.min(1000) as i32);
                match grown < longest.as_secs_f64() {
                    true => Duration::from_secs_f64(grown),
                    false => *longest,
                }
            }
            Waits::Listed(waits) => {
                let at = usize::try_from(before).unwrap_or(usize::MAX);
                let last = waits.last().copied().unwrap_or(WAIT_MAX);
                waits.get(at).copied().unwrap_or(last)
            }
        };
        whole.mul_f64(1.0 - self.jitter * random.clamp(0.0, 1.0))
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

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn check(keys: &Keys<'_>, attempts: u32, random: f64, expected_ms: u64) {
        let wait = keys.schedule().wait(attempts, random);
        assert_eq!(
            wait.as_millis() as u64,
            expected_ms,
            "{keys:?} {attempts} attempts, random {random}"
        );
    }

    #[test]
    fn waits_grow_up_to_the_cap_and_jitter_only_shortens() {
        let keys = Keys::default();
        check(&keys, 0, 0.0, 300_000); // a batch whose attempt did not count waits as after the first
        check(&keys, 1, 0.0, 300_000);
        check(&keys, 1, 1.0, 225_000);
        check(&keys, 2, 0.0, 600_000);
        check(&keys, 3, 0.5, 1_050_000);
        check(&keys, 4, 0.0, 2_400_000);
        check(&keys, 5, 0.0, 4_000_000);
        check(&keys, 5, 1.0, 3_000_000);
        check(&keys, 1000, 0.0, 4_000_000);
        check(&keys, u32::MAX, 0.0, 4_000_000);
        check(&keys, 1, 7.0, 225_000); // nonsense is clamped
        let slow = Keys {
            factor_percent: 150,
            jitter_percent: 0,
            ..keys.clone()
        };
        check(&slow, 2, 1.0, 450_000);
        check(&slow, 3, 1.0, 675_000);
        let flat = Keys {
            factor_percent: 100,
            ..keys
        };
        check(&flat, u32::MAX, 0.0, 300_000);
    }

    #[test]
    fn a_list_says_each_wait_and_its_last_one_repeats() {
        let delays = [seconds(60), seconds(60), seconds(900)];
        let keys = Keys {
            delays: &delays,
            jitter_percent: 50,
            ..Keys::default()
        };
        for (attempts, expected_ms) in [(0, 60), (1, 60), (2, 60), (3, 900), (4, 900), (99, 900)] {
            check(&keys, attempts, 0.0, expected_ms * 1000);
            check(&keys, attempts, 1.0, expected_ms * 500);
        }
    }

    #[test]
    fn nonsense_is_refused_by_key() {
        let complaints = |keys: Keys<'_>| -> Vec<String> {
            let complaints = keys.check("delivery");
            complaints.into_iter().map(|c| c.key).collect()
        };
        assert!(complaints(Keys::default()).is_empty());
        let (zero, week) = ([seconds(60), Duration::ZERO], [seconds(8 * 86_400)]);
        let keys = Keys::default;
        #[rustfmt::skip]
        let table = [
            (Keys { first: Duration::ZERO, ..keys() }, "retry_first"),
            (Keys { first: seconds(4001), ..keys() }, "retry_first"),
            (Keys { longest: seconds(8 * 86_400), ..keys() }, "retry_longest"),
            (Keys { factor_percent: 99, ..keys() }, "retry_factor_percent"),
            (Keys { factor_percent: 1001, ..keys() }, "retry_factor_percent"),
            (Keys { jitter_percent: 91, ..keys() }, "retry_jitter_percent"),
            (Keys { delays: &zero, ..keys() }, "retry_delays"),
            (Keys { delays: &week, ..keys() }, "retry_delays"),
        ];
        for (keys, key) in table {
            assert_eq!(complaints(keys), [format!("delivery.{key}")]);
        }
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
