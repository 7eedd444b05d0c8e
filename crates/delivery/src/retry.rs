//! When to try again: exponential with jitter and a cap, for replies that concern a recipient; dead sites have no such times.

use std::time::Duration;

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

impl Schedule {
    /// The wait after so many attempts: doubled each time, capped, with up to a quarter of jitter off. `random` in 0.0..1.0.
    pub fn wait(&self, attempts: u32, random: f64) -> Duration {
        todo!("{attempts} {random}")
    }
}
