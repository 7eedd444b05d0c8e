//! The gate of a site: open, limited to so many attempts at once, or shut until the next probe.
//!
//! A pure value: the clock is passed in, nothing waits here. It knows attempts only by how far they got; it never sees a
//! message, so that one message cannot shut a gate.

use std::time::Duration;

use tokio::time::Instant;

/// How gates behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connection failures in a row that shut a gate [5]. One would let a single lost packet stop a site; many would hold
    /// that many attempts for a connect timeout each.
    pub failures: u32,
    /// From one probe of a shut site to the next, at most [`crate::engine::PROBE_INTERVAL_MAX`] [30 s: a site that is back has all its
    /// mail within a minute].
    pub probe_interval: Duration,
    /// Attempts at once to a site not met before [5, Postfix's initial_destination_concurrency].
    pub start: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: 5,
            probe_interval: Duration::from_secs(30),
            start: 5,
        }
    }
}

/// The window is halved at most once in this time: all attempts under way are told to slow down by the same event.
const HALVING_INTERVAL: Duration = Duration::from_secs(1);

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The site answered MAIL, whatever it said to the recipients.
    Reached,
    /// It answered, and asked for less: 421 or 4.7.x.
    PushedBack,
    /// It refused to talk: 421 or 554 instead of a greeting, say. With several attempts at once that asks for fewer; with
    /// one alone it is as good as no connection.
    TurnedAway,
    /// No connection, no greeting, no EHLO, or no answer to MAIL.
    Unreached,
    /// Nothing was learnt: the attempt ended for a reason of our own.
    Nothing,
}

/// A change of a gate's state that is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// It was shut; the next probe is then.
    Shut,
    /// It was shut and lets mail through again.
    Opened,
    /// It was asked to slow down to so many attempts at once.
    Limited(usize),
}

/// A site's gate.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    ceiling: usize,
    /// By a provider's rule: at most so many at once until then.
    capped: Option<(usize, Instant)>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Open, or limited while `window` is below the ceiling.
    Flowing {
        window: usize,
        /// Below it the window doubles with every full round, above it grows by one.
        threshold: usize,
        /// Attempts that reached the site since the window last grew.
        reached: usize,
        failures: u32,
        halved: Option<Instant>,
    },
    Shut {
        until: Instant,
    },
    /// One attempt is under way to find out whether the site is back.
    Probing,
}

impl Gate {
    /// The gate of a site not met before; never lets more than `ceiling` attempts through at once.
    pub fn new(limits: Limits, ceiling: usize) -> Self {
        let ceiling = ceiling.max(1);
        let window = limits.start.clamp(1, ceiling);
        Self {
            limits,
            ceiling,
            capped: None,
            state: State::Flowing {
                window,
                threshold: ceiling,
                reached: 0,
                failures: 0,
                halved: None,
            },
        }
    }

    /// Whether one more attempt may go, with `running` under way.
    pub fn admits(&self, now: Instant, running: usize) -> bool {
        match self.state {
            State::Flowing { .. } => running < self.window(now),
            State::Shut { until } => now >= until,
            State::Probing => false,
        }
    }

    /// One more attempt goes. Shut => Probing.
    pub fn go(&mut self) {
        if let State::Shut { .. } = self.state {
            self.state = State::Probing;
        }
    }

    /// An attempt has ended.
    pub fn ended(&mut self, signal: Signal, now: Instant) -> Option<Crossing> {
        match signal {
            Signal::Reached => self.reached(),
            Signal::PushedBack => self.pushed_back(now),
            Signal::TurnedAway if !self.is_shut() && self.window(now) > 1 => self.pushed_back(now),
            Signal::TurnedAway | Signal::Unreached => self.unreached(now),
            // A probe that told nothing leaves the question open: Probing => Shut, to be probed at once.
            Signal::Nothing => {
                if let State::Probing = self.state {
                    self.state = State::Shut { until: now };
                }
                None
            }
        }
    }

    /// Shut | Probing => Flowing at one attempt, doubling. An attempt that began before the gate was shut is as good a sign
    /// of life as a probe.
    fn reached(&mut self) -> Option<Crossing> {
        match &mut self.state {
            State::Flowing {
                window,
                threshold,
                reached,
                failures,
                ..
            } => {
                *failures = 0;
                *reached += 1;
                if *reached >= *window {
                    *reached = 0;
                    let grown = if *window < *threshold {
                        (*window * 2).min(*threshold)
                    } else {
                        *window + 1
                    };
                    *window = grown.min(self.ceiling);
                }
                None
            }
            State::Shut { .. } | State::Probing => {
                self.state = State::Flowing {
                    window: 2.min(self.ceiling),
                    threshold: self.ceiling,
                    reached: 0,
                    failures: 0,
                    halved: None,
                };
                Some(Crossing::Opened)
            }
        }
    }

    /// Flowing => Flowing at half the window. A shut site that answers is back, slow as it may be.
    fn pushed_back(&mut self, now: Instant) -> Option<Crossing> {
        let State::Flowing {
            window,
            threshold,
            reached,
            failures,
            halved,
        } = &mut self.state
        else {
            return self.reached();
        };
        *failures = 0;
        if halved.is_some_and(|at| now < at + HALVING_INTERVAL) {
            return None;
        }
        let before = *window;
        *window = (*window / 2).max(1);
        *threshold = *window;
        *reached = 0;
        *halved = Some(now);
        (*window < before).then_some(Crossing::Limited(*window))
    }

    /// Flowing => Shut at the last of so many failures in a row; Probing => Shut until the next probe.
    fn unreached(&mut self, now: Instant) -> Option<Crossing> {
        let until = now + self.limits.probe_interval;
        match &mut self.state {
            State::Flowing { failures, .. } => {
                *failures += 1;
                if *failures < self.limits.failures {
                    return None;
                }
                self.state = State::Shut { until };
                Some(Crossing::Shut)
            }
            State::Probing => {
                self.state = State::Shut { until };
                None
            }
            // A straggler from before the gate was shut tells nothing new.
            State::Shut { .. } => None,
        }
    }

    /// Lets a shut site be probed at once; returns whether it was waiting.
    pub fn nudge(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Shut { until } if *until > now => {
                *until = now;
                true
            }
            _ => false,
        }
    }

    /// When the next probe may go, while shut.
    pub fn shut_until(&self) -> Option<Instant> {
        match self.state {
            State::Shut { until } => Some(until),
            _ => None,
        }
    }

    /// Shut, or shut with a probe under way.
    pub fn is_shut(&self) -> bool {
        !matches!(self.state, State::Flowing { .. })
    }

    /// It was asked for less, or was shut, and has not come back to where a new one begins.
    pub fn is_limited(&self) -> bool {
        match self.state {
            State::Flowing {
                window, threshold, ..
            } => {
                let first = self.limits.start.clamp(1, self.ceiling);
                window < self.ceiling && (threshold < self.ceiling || window < first)
            }
            State::Shut { .. } | State::Probing => true,
        }
    }

    /// How many attempts it lets through at once.
    pub fn window(&self, now: Instant) -> usize {
        let capped = self.capped.filter(|(_, until)| *until > now);
        match self.state {
            State::Flowing { window, .. } => window.min(capped.map_or(window, |(max, _)| max)),
            State::Shut { .. } | State::Probing => 1,
        }
    }

    /// A provider's rule: no more than so many at once until then.
    pub fn cap(&mut self, max: usize, until: Instant) {
        self.capped = Some((max.max(1), until));
    }

    /// A provider's rule: Flowing | Probing => Shut until then. One that is shut for longer stays so.
    pub fn shut(&mut self, until: Instant) -> Option<Crossing> {
        let before = self.is_shut();
        if self.shut_until().is_none_or(|at| at < until) {
            self.state = State::Shut { until };
        }
        (!before).then_some(Crossing::Shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Signal::{Nothing, PushedBack, Reached, TurnedAway, Unreached};

    const S: u64 = 1000;

    fn limits() -> Limits {
        Limits {
            failures: 3,
            probe_interval: Duration::from_secs(60),
            start: 4,
        }
    }

    /// One row: at so many milliseconds, this is told; then the crossing, the window, and whether one more may go.
    type Row = (u64, Signal, Option<Crossing>, usize, bool);

    /// Feeds a gate with a ceiling of 10; nothing is under way when admission is asked. An admitted probe goes.
    fn check(rows: &[Row]) {
        let start = Instant::now();
        let mut gate = Gate::new(limits(), 10);
        for (at, row) in rows.iter().enumerate() {
            let &(ms, signal, crossing, window, admits) = row;
            let now = start + Duration::from_millis(ms);
            if gate.is_shut() && gate.admits(now, 0) {
                gate.go();
            }
            assert_eq!(gate.ended(signal, now), crossing, "row {at}: {row:?}");
            assert_eq!(gate.window(now), window, "row {at}: {row:?}");
            assert_eq!(gate.admits(now, 0), admits, "row {at}: {row:?}");
        }
    }

    #[test]
    fn failures_in_a_row_shut_it_and_one_success_between_does_not() {
        check(&[
            (0, Unreached, None, 4, true),
            (0, Unreached, None, 4, true),
            (0, Reached, None, 4, true),
            (0, Unreached, None, 4, true),
            (0, Unreached, None, 4, true),
            (0, Unreached, Some(Crossing::Shut), 1, false),
            (1, Unreached, None, 1, false), // a straggler
            (59 * S, Nothing, None, 1, false),
        ]);
    }

    #[test]
    fn one_probe_a_minute_and_slow_start_on_return() {
        check(&[
            (0, Unreached, None, 4, true),
            (0, Unreached, None, 4, true),
            (0, Unreached, Some(Crossing::Shut), 1, false),
            (60 * S, Unreached, None, 1, false), // the probe failed
            (119 * S, Unreached, None, 1, false),
            (120 * S, Reached, Some(Crossing::Opened), 2, true), // the probe succeeded
            (120 * S, Reached, None, 2, true),
            (120 * S, Reached, None, 4, true), // doubled after a full round
            (120 * S, Reached, None, 4, true),
            (120 * S, Reached, None, 4, true),
            (120 * S, Reached, None, 4, true),
            (120 * S, Reached, None, 8, true),
        ]);
    }

    #[test]
    fn while_a_probe_is_under_way_nothing_else_goes() {
        let now = Instant::now();
        let mut gate = Gate::new(limits(), 10);
        for _ in 0..3 {
            gate.ended(Unreached, now);
        }
        let later = now + Duration::from_secs(60);
        assert!(gate.admits(later, 0));
        gate.go();
        assert!(!gate.admits(later, 1));
        assert!(gate.is_shut());
        assert_eq!(gate.ended(Nothing, later), None);
        assert!(
            gate.admits(later, 0),
            "a probe that told nothing is asked again"
        );
    }

    #[test]
    fn push_back_halves_once_a_second_and_growth_is_then_by_one() {
        check(&[
            (0, PushedBack, Some(Crossing::Limited(2)), 2, true),
            (10, PushedBack, None, 2, true), // the same event, told by another attempt
            (10, Reached, None, 2, true),
            (10, Reached, None, 3, true), // two of two reached it: by one
            (S, PushedBack, Some(Crossing::Limited(1)), 1, true),
            (2 * S, PushedBack, None, 1, true), // never below one
            (3 * S, Reached, None, 2, true),
        ]);
    }

    #[test]
    fn being_turned_away_narrows_and_then_shuts() {
        check(&[
            (0, TurnedAway, Some(Crossing::Limited(2)), 2, true),
            (10, TurnedAway, None, 2, true),
            (2 * S, TurnedAway, Some(Crossing::Limited(1)), 1, true),
            (3 * S, TurnedAway, None, 1, true),
            (4 * S, TurnedAway, None, 1, true),
            (5 * S, TurnedAway, Some(Crossing::Shut), 1, false),
            (65 * S, TurnedAway, None, 1, false),
            (125 * S, PushedBack, Some(Crossing::Opened), 2, true),
        ]);
    }

    #[test]
    fn the_window_never_exceeds_the_ceiling() {
        let now = Instant::now();
        for ceiling in [0, 1, 2, 7] {
            let mut gate = Gate::new(limits(), ceiling);
            for _ in 0..500 {
                gate.ended(Reached, now);
            }
            assert_eq!(gate.window(now), ceiling.max(1));
            assert!(!gate.admits(now, ceiling.max(1)));
        }
    }

    #[test]
    fn rules_cap_and_shut_for_a_time() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut gate = Gate::new(limits(), 10);
        gate.cap(1, later(60));
        assert_eq!((gate.window(now), gate.window(later(60))), (1, 4));
        assert!(gate.admits(now, 0) && !gate.admits(now, 1));
        assert_eq!(gate.shut(later(7200)), Some(Crossing::Shut));
        assert_eq!(gate.shut(later(60)), None);
        assert_eq!(gate.shut_until(), Some(later(7200)), "the longer one holds");
        assert!(!gate.admits(later(7199), 0));
        assert!(gate.admits(later(7200), 0), "then it is probed");
    }

    #[test]
    fn a_nudge_lets_a_shut_site_be_probed_at_once() {
        let now = Instant::now();
        let mut gate = Gate::new(limits(), 10);
        assert!(!gate.nudge(now));
        for _ in 0..3 {
            gate.ended(Unreached, now);
        }
        assert!(!gate.admits(now, 0));
        assert!(gate.nudge(now));
        assert!(gate.admits(now, 0));
        assert_eq!(gate.shut_until(), Some(now));
    }
}
