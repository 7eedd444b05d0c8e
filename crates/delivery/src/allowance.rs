//! The allowance: how many attempts on what is old (backlog and retries) may be under way at once, so that whoever has something to do
//! gets a processor soon. Live mail takes some thirty turns from its acceptance to its delivery, and each waits behind all that
//! is ready to run; with hundreds of attempts of a backlog at work that is most of its delay, and adds nothing to the rate.
//!
//! A pure value. What a turn waits for is measured by `turns`; the clock is not looked at.

use std::time::Duration;

/// Attempts on what is old that are always allowed, for each processor: enough to keep it busy while peers answer at once, and some
/// progress where others take the processors.
const LEAST_EACH: usize = 16;
/// From one measurement to the next it changes by these factors at most: half, or a quarter more.
const SHRINK_MOST: f64 = 0.5;
const GROW_MOST: f64 = 1.25;

/// See the module.
#[derive(Debug)]
pub(crate) struct Allowance {
    least: usize,
    most: usize,
    /// What a turn may wait for.
    target: Duration,
    now: usize,
}

impl Allowance {
    /// The least at first: hundreds of attempts that begin at once would make turns late before that is measured. `processors`: those
    /// this process may use; `most`: attempts at once at most; a target of zero: no limit but that.
    pub(crate) fn new(target: Duration, processors: usize, most: usize) -> Self {
        let most = most.max(1);
        let least = most.min(LEAST_EACH * processors.max(1));
        Self {
            least,
            most,
            target,
            now: if target.is_zero() { most } else { least },
        }
    }

    /// Attempts on what is old that may be under way.
    pub(crate) fn allowed(&self) -> usize {
        self.now
    }

    /// So long a turn waited just now, with so many attempts on what is old under way. The wait grows with their number, so the
    /// number that fits the target follows from both.
    pub(crate) fn measured(&mut self, wait: Duration, running: usize) {
        if self.target.is_zero() {
            return;
        }
        let fitting = self.target.as_secs_f64() / wait.as_secs_f64().max(1e-9);
        let from = match fitting < 1.0 {
            // What was forbidden just now may not have ended yet; it must not be forbidden twice.
            true => running.min(self.most),
            // It is not used up: that turns come soon says nothing about more.
            false if running < self.now => return,
            false => self.now,
        };
        let wanted = from as f64 * fitting.clamp(SHRINK_MOST, GROW_MOST);
        self.now = match fitting < 1.0 {
            true => wanted as usize,
            false => wanted.ceil() as usize,
        };
        self.now = self.now.clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(1);

    fn check(allowance: &mut Allowance, steps: &[(u64, usize, usize)]) {
        for (step, (micros, running, allowed)) in steps.iter().enumerate() {
            allowance.measured(Duration::from_micros(*micros), *running);
            assert_eq!(allowance.allowed(), *allowed, "step {step}");
        }
    }

    #[test]
    fn late_turns_lower_it_and_early_ones_raise_it_within_its_bounds() {
        let mut allowance = Allowance::new(TARGET, 2, 500);
        assert_eq!(allowance.allowed(), 32);
        for _ in 0..13 {
            let running = allowance.allowed();
            allowance.measured(Duration::ZERO, running);
        }
        assert_eq!(allowance.allowed(), 500, "within some seconds");
        check(
            &mut allowance,
            &[
                (900, 300, 500),    // soon enough, and not used up
                (10_000, 480, 240), // never below half at once
                (8_000, 480, 240),  // those of before have not ended: not twice
                (2_000, 240, 120),
                (1_250, 120, 96),
                (1_000, 96, 96),
                (900, 80, 96), // not used up
                (900, 96, 107),
                (0, 107, 134),
                (90_000, 134, 67),
                (90_000, 67, 33),
                (90_000, 33, 32), // the least
                (90_000, 32, 32),
            ],
        );
        for _ in 0..20 {
            let running = allowance.allowed();
            allowance.measured(Duration::ZERO, running);
        }
        assert_eq!(allowance.allowed(), 500);
    }

    #[test]
    fn it_settles_where_turns_wait_as_long_as_they_may() {
        let mut allowance = Allowance::new(TARGET, 2, 500);
        for _ in 0..20 {
            let running = allowance.allowed();
            // 20 us of each attempt that is ready to run.
            allowance.measured(Duration::from_micros(20) * running as u32, running);
        }
        assert_eq!(allowance.allowed(), 50);
    }

    #[test]
    fn few_attempts_and_no_target_know_no_other_limit() {
        for (target, most) in [(TARGET, 5), (Duration::ZERO, 500)] {
            let mut allowance = Allowance::new(target, 2, most);
            check(&mut allowance, &[(90_000, most, most); 3]);
        }
    }
}
