//! How long a node's connections last: a moving average that follows the last few and forgets with time. Pure; time comes as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Share of a new sample, when the last one was a moment ago: some eight samples make the average.
const SHARE: f64 = 0.125;

/// After so long half of what was known is forgotten; rspamd's half-life.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// The moving average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency(Option<(f64, Instant)>);

impl Latency {
    /// A connection has lasted so long.
    pub fn observe(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        let seconds = match self.0 {
            None => sample,
            Some((seconds, at)) => {
                let age = now.saturating_duration_since(at).as_secs_f64();
                let forgotten = 1.0 - 0.5_f64.powf(age / HALF_LIFE.as_secs_f64());
                seconds + (sample - seconds) * SHARE.max(forgotten)
            }
        };
        self.0 = Some((seconds, now));
    }

    /// The average, seconds; `None` before the first sample.
    pub fn seconds(&self) -> Option<f64> {
        self.0.map(|(seconds, _)| seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_forgets() {
        let (mut latency, mut now) = (Latency::default(), Instant::now());
        assert_eq!(latency.seconds(), None);
        latency.observe(Duration::from_secs(1), now);
        assert_eq!(latency.seconds(), Some(1.0));
        latency.observe(Duration::from_secs(9), now);
        assert_eq!(latency.seconds(), Some(2.0));
        now += HALF_LIFE;
        latency.observe(Duration::from_secs(4), now);
        assert_eq!(latency.seconds(), Some(3.0));
    }
}
