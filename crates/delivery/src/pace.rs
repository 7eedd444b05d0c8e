//! How many messages a second: a token bucket without a burst, whose tokens may be reserved a little ahead.
//!
//! One stands for a site: unlimited until the site asks for less, then additive up and multiplicative down. One stands for the
//! drain of the backlog as an operator limits it. It never waits itself; the clock is passed in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// No site is made slower than this by its push-back, messages a second: one in ten seconds still finds out that it has relented.
pub const RATE_MIN: f64 = 0.1;
/// The rate is halved at most once in this time: all attempts under way are told to slow down by the same event.
const CUT_INTERVAL: Duration = Duration::from_secs(1);
/// The rate grows by a step once in this time, if the site took something since the last.
const GROW_INTERVAL: Duration = Duration::from_secs(5);
/// A step, as a share of the rate at which the site pushed back: that rate is reached again in about a minute.
const GROW_SHARE: f64 = 0.05;
/// At so many times the rate at which it pushed back a site is without limit again.
const FORGOTTEN: f64 = 2.0;
/// The present rate is measured over this time.
const MEASURE: Duration = Duration::from_secs(5);
/// A free token so little ahead is as good as one now: waking for each alone would cost more.
const AHEAD: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Pace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As configured, or set by an operator.
    max: Option<f64>,
    /// As learnt.
    learnt: Option<Learnt>,
    /// By a provider's rule, until then.
    ordered: Option<(f64, Instant)>,
    /// The next free token.
    next: Instant,
    meter: Meter,
}

#[derive(Debug)]
struct Learnt {
    rate: f64,
    /// The rate at which the site pushed back.
    from: f64,
    cut: Instant,
    grown: Instant,
}

/// Counts what went in the present and the last span of [`MEASURE`].
#[derive(Debug)]
struct Meter {
    since: Instant,
    count: f64,
    last: f64,
}

impl Pace {
    /// At most `max` a second, none for no limit.
    pub fn new(max: Option<f64>, now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                max,
                learnt: None,
                ordered: None,
                next: now,
                meter: Meter {
                    since: now,
                    count: 0.0,
                    last: 0.0,
                },
            }),
        }
    }

    /// Sets the limit; what was reserved stays reserved.
    pub(crate) fn set(&self, max: Option<f64>, now: Instant) {
        let mut state = self.lock();
        state.max = max;
        state.next = state.next.min(now + Duration::from_secs(1));
    }

    /// Reserves tokens and says when they are free; or, when that is farther ahead than `ahead`, reserves none and says when to
    /// ask again.
    pub fn reserve(&self, count: usize, ahead: Duration, now: Instant) -> Result<Instant, Instant> {
        if count == 0 {
            return Ok(now);
        }
        let mut state = self.lock();
        state.meter.roll(now);
        let rate = state.rate(now);
        let slot = state.next.max(now);
        let Some(rate) = rate else {
            state.meter.count += count as f64;
            return Ok(now);
        };
        if slot > now + ahead {
            return Err(slot);
        }
        state.meter.count += count as f64;
        state.next = slot + seconds(count as f64 / rate);
        Ok(slot)
    }

    /// Reserves one token, however far ahead it is free.
    pub(crate) fn pay(&self, now: Instant) {
        let _ = self.reserve(1, Duration::from_secs(86_400), now);
    }

    /// When the next token is free, if that is not now.
    pub(crate) fn free_at(&self, now: Instant) -> Option<Instant> {
        let state = self.lock();
        (state.next > now + AHEAD && state.rate(now).is_some()).then_some(state.next)
    }

    /// Messages a second at most, now.
    pub(crate) fn rate(&self, now: Instant) -> Option<f64> {
        self.lock().rate(now)
    }

    /// The site asked for less: half of what it got.
    pub fn cut(&self, now: Instant) {
        let mut state = self.lock();
        state.meter.roll(now);
        let measured = state.meter.rate(now);
        let from = state.rate(now).map_or(measured, |rate| rate.min(measured));
        let from = from.max(RATE_MIN);
        match &mut state.learnt {
            Some(learnt) if now < learnt.cut + CUT_INTERVAL => {}
            Some(learnt) => {
                // While it is slow already, what it got is what it was given.
                learnt.from = learnt.rate.min(learnt.from);
                learnt.rate = (learnt.rate / 2.0).max(RATE_MIN);
                (learnt.cut, learnt.grown) = (now, now);
            }
            none => {
                *none = Some(Learnt {
                    rate: (from / 2.0).max(RATE_MIN),
                    from,
                    cut: now,
                    grown: now,
                });
            }
        }
    }

    /// The site took something.
    pub fn took(&self, now: Instant) {
        let mut state = self.lock();
        let Some(learnt) = &mut state.learnt else {
            return;
        };
        if now < learnt.grown + GROW_INTERVAL {
            return;
        }
        learnt.grown = now;
        learnt.rate += (learnt.from * GROW_SHARE).max(RATE_MIN);
        if learnt.rate >= learnt.from * FORGOTTEN {
            state.learnt = None;
        }
    }

    /// A provider's rule: at most so many a second until then.
    pub(crate) fn order(&self, rate: f64, until: Instant) {
        self.lock().ordered = Some((rate, until));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rate(&self, now: Instant) -> Option<f64> {
        let ordered = self.ordered.filter(|(_, until)| *until > now);
        let all = [
            self.max,
            self.learnt.as_ref().map(|learnt| learnt.rate),
            ordered.map(|(rate, _)| rate),
        ];
        all.into_iter().flatten().reduce(f64::min)
    }
}

impl Meter {
    fn roll(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.since);
        if since < MEASURE {
            return;
        }
        self.last = match since < 2 * MEASURE {
            true => self.count / since.as_secs_f64(),
            false => 0.0,
        };
        self.count = 0.0;
        self.since = now;
    }

    fn rate(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.since).as_secs_f64();
        self.last.max(self.count / since.max(1.0))
    }
}

/// A day for what is no time at all.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// How many go within so many seconds, asked every ten milliseconds.
    fn flow(pace: &Pace, from: Instant, time: u32) -> usize {
        let mut count = 0;
        for tick in 0..time * 100 {
            let now = from + Duration::from_millis(10) * tick;
            while pace.reserve(1, Duration::ZERO, now).is_ok() && pace.rate(now).is_some() {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_limit_is_kept_without_bursts() {
        let now = Instant::now();
        for (rate, expected) in [(10.0, 100), (1.0, 10), (0.5, 5), (250.0, 1000)] {
            let pace = Pace::new(Some(rate), now);
            let got = flow(&pace, now, 10);
            // Polled every 10 ms a second of 250 gives 100: one a poll, since nothing is saved up.
            assert!(got >= expected - 1 && got <= expected + 1, "{rate}: {got}");
        }
        let pace = Pace::new(Some(10.0), now);
        let later = now + 100 * S;
        assert_eq!(pace.reserve(1, Duration::ZERO, later), Ok(later));
        let next = pace.reserve(1, S, later).unwrap();
        assert_eq!(
            next - later,
            Duration::from_millis(100),
            "idle time saves nothing up"
        );
        assert!(pace.reserve(5, Duration::ZERO, later).is_err());
        assert_eq!(pace.free_at(later), Some(next + Duration::from_millis(100)));
        pace.set(None, later);
        assert_eq!(pace.reserve(1000, Duration::ZERO, later), Ok(later));
        assert_eq!(pace.free_at(later), None);
    }

    #[test]
    fn push_back_halves_the_rate_and_success_gives_it_back() {
        let start = Instant::now();
        let pace = Pace::new(None, start);
        for tick in 0..400 {
            let now = start + Duration::from_millis(25) * tick;
            assert_eq!(pace.reserve(1, Duration::ZERO, now), Ok(now));
        }
        let now = start + 10 * S;
        pace.cut(now);
        let halved = pace.rate(now).unwrap();
        assert!((halved - 20.0).abs() < 1.0, "half of 40 a second: {halved}");
        pace.cut(now + S / 2);
        assert_eq!(pace.rate(now + S / 2), Some(halved), "the same event");
        for n in 1..20 {
            pace.cut(now + 2 * n * S);
        }
        assert_eq!(pace.rate(now + 40 * S), Some(RATE_MIN), "never slower");
        let mut at = now + 40 * S;
        let mut steps = 0;
        while pace.rate(at).is_some() {
            at += GROW_INTERVAL;
            pace.took(at);
            pace.took(at);
            steps += 1;
            assert!(steps < 100);
        }
        assert!(steps >= 1);
    }

    #[test]
    fn growth_is_additive_and_in_the_end_the_limit_is_gone() {
        let start = Instant::now();
        let pace = Pace::new(None, start);
        for _ in 0..100 {
            let _ = pace.reserve(1, Duration::ZERO, start);
        }
        let now = start + S;
        pace.cut(now);
        assert_eq!(pace.rate(now), Some(50.0));
        pace.took(now + S);
        assert_eq!(pace.rate(now + S), Some(50.0));
        let mut at = now;
        for n in 1..30 {
            at += GROW_INTERVAL;
            pace.took(at);
            assert_eq!(pace.rate(at), Some(50.0 + 5.0 * f64::from(n)));
        }
        at += GROW_INTERVAL;
        pace.took(at);
        assert_eq!(pace.rate(at), None);
    }

    #[test]
    fn the_lowest_limit_counts_and_an_order_ends() {
        let now = Instant::now();
        let pace = Pace::new(Some(5.0), now);
        pace.order(0.5, now + 60 * S);
        assert_eq!(pace.rate(now), Some(0.5));
        assert_eq!(pace.rate(now + 61 * S), Some(5.0));
    }
}
