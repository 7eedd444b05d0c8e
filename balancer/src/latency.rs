//! How long a node's connections last: a moving average that follows the last few and forgets with time. Pure; time comes as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Share of a new sample: some eight samples make the average.
const SHARE: f64 = 0.125;

/// After so long half of what was known is forgotten. A node that was slow once must get mail again to show that it no longer is.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// The moving average. One sample says little, many say much, and old ones ever less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency(Option<Average>);

#[derive(Clone, Copy, Debug)]
struct Average {
    seconds: f64,
    /// What its samples weigh together, up to 1.
    weight: f64,
    at: Instant,
}

impl Latency {
    /// A connection has lasted so long.
    pub fn observe(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        let known = self.certainty(now) * (1.0 - SHARE);
        let weight = known + SHARE;
        let seconds = self.seconds().unwrap_or(sample);
        self.0 = Some(Average {
            seconds: (seconds * known + sample * SHARE) / weight,
            weight,
            at: now,
        });
    }

    /// The average, seconds; `None` before the first sample.
    pub fn seconds(&self) -> Option<f64> {
        self.0.map(|average| average.seconds)
    }

    /// How much it says, from 0 to nearly 1.
    pub fn certainty(&self, now: Instant) -> f64 {
        let weight = |average: Average| average.weight * kept(average.at, now);
        self.0.map_or(0.0, weight)
    }
}

fn kept(at: Instant, now: Instant) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64();
    0.5_f64.powf(age / HALF_LIFE.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_forgets() {
        let (mut latency, mut now) = (Latency::default(), Instant::now());
        assert_eq!((latency.seconds(), latency.certainty(now)), (None, 0.0));
        let second = Duration::from_secs(1);
        latency.observe(second, now);
        assert_eq!(
            (latency.seconds(), latency.certainty(now)),
            (Some(1.0), SHARE)
        );
        for _ in 0..40 {
            latency.observe(second, now);
        }
        assert!(latency.certainty(now) > 0.99);
        latency.observe(9 * second, now);
        let seconds = latency.seconds().unwrap();
        assert!((1.99..2.01).contains(&seconds), "{seconds}");
        now += HALF_LIFE;
        let certainty = latency.certainty(now);
        assert!((0.49..0.51).contains(&certainty), "{certainty}");
        // What is half forgotten is sooner replaced.
        latency.observe(9 * second, now);
        assert!(latency.seconds().unwrap() > 3.0);
    }
}
