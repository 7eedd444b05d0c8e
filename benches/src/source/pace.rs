//! When the next message is due: at a rate that may rise and fall, whether or not the last one was answered (an open loop). Pure.
//!
//! `100` a second for ever, `100@30s` for half a minute, `100..2000@60s` rising evenly; steps are separated by commas.

use std::str::FromStr;
use std::time::Duration;

/// Steps at most.
const STEPS_MAX: usize = 1000;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace(Vec<Step>);

/// Rates in messages a second; no end: for ever.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    from: f64,
    to: f64,
    seconds: Option<f64>,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps = text.split(',').map(|step| {
            Step::parse(step).ok_or_else(|| {
                format!(
                    "{step:?} is no rate; write 100, 100@30s or 100..2000@60s, separated by commas"
                )
            })
        });
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        let endless = steps.iter().position(|step| step.seconds.is_none());
        if endless.is_some_and(|at| at + 1 < steps.len()) {
            return Err(format!(
                "a step of {text:?} before the last has no duration"
            ));
        }
        match steps.len() <= STEPS_MAX {
            true => Ok(Self(steps)),
            false => Err(format!("more than {STEPS_MAX} steps")),
        }
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (rates, seconds) = match text.split_once('@') {
            Some((rates, duration)) => {
                let duration = service::config::duration::parse(duration).ok();
                let duration = duration.filter(|duration| !duration.is_zero())?;
                (rates, Some(duration.as_secs_f64()))
            }
            None => (text, None),
        };
        let rate = |text: &str| text.parse().ok().filter(|rate| (0.0..=1e9).contains(rate));
        let (from, to) = match rates.split_once("..") {
            // Between two rates there must be a time.
            Some((from, to)) => (rate(from)?, seconds.and_then(|_| rate(to))?),
            None => (rate(rates)?, rate(rates)?),
        };
        let goes_on = seconds.is_some() || from > 0.0;
        goes_on.then_some(Self { from, to, seconds })
    }

    /// Messages of the whole step.
    fn count(&self) -> f64 {
        self.seconds.map_or(f64::INFINITY, |seconds| {
            (self.from + self.to) / 2.0 * seconds
        })
    }

    /// Seconds until so many of its messages are due: where the area under the rate is that.
    fn seconds_until(&self, count: f64) -> f64 {
        let rise = self
            .seconds
            .map_or(0.0, |seconds| (self.to - self.from) / seconds);
        if rise == 0.0 {
            return count / self.from;
        }
        let root = (self.from * self.from + 2.0 * rise * count).max(0.0).sqrt();
        2.0 * count / (self.from + root)
    }
}

impl Pace {
    /// The same rate for ever.
    pub fn steady(rate: f64) -> Self {
        Self(vec![Step {
            from: rate,
            to: rate,
            seconds: None,
        }])
    }

    /// When the message of this number, from 0, is due after the start; none when the last step is over before.
    pub fn due(&self, number: u64) -> Option<Duration> {
        let mut left = number as f64;
        let mut began = 0.0;
        for step in &self.0 {
            let count = step.count();
            if left < count {
                let seconds = if left > 0.0 {
                    step.seconds_until(left)
                } else {
                    0.0
                };
                return Duration::try_from_secs_f64(began + seconds).ok();
            }
            left -= count;
            began += step.seconds.unwrap_or_default();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_the_rate() {
        for (pace, number, due) in [
            ("100", 0, Some(0.0)),
            ("100", 50, Some(0.5)),
            ("0.5", 10, Some(20.0)),
            ("100@2s", 199, Some(1.99)),
            ("100@2s", 200, None),
            ("100@2s,10@1s", 205, Some(2.5)),
            ("0@3s,10", 5, Some(3.5)),
            // Half of the time is a quarter of the messages.
            ("0..100@10s", 125, Some(5.0)),
            ("0..100@10s", 499, Some(9.989_995)),
            ("100..0@10s", 375, Some(5.0)),
            ("10..30@10s", 75, Some(5.0)),
        ] {
            let due_at = pace.parse::<Pace>().unwrap().due(number);
            let due_at = due_at.map(|due| (due.as_secs_f64() * 1e6).round() / 1e6);
            assert_eq!(due_at, due, "{pace} {number}");
        }
        assert_eq!("7".parse(), Ok(Pace::steady(7.0)));
    }

    #[test]
    fn wrong_rates_are_explained() {
        for pace in [
            "", "x", "-1", "0", "1..2", "1@x", "1@0s", "1,2", "nan", "1..x@1s",
        ] {
            assert!(pace.parse::<Pace>().is_err(), "{pace}");
        }
    }
}
