//! Which lane is served next: weighted-fair shares of what can be worked on now (design section 4).
//!
//! Owns the credits of the four lanes and nothing else. It never looks at a clock or at a batch.

use spool::Lane;

/// The share of each lane, in the order of [`Lane::ALL`]: urgent, live, backlog, retry. Live mail gets eight of twenty turns
/// however much backlog waits; no lane gets none.
pub const WEIGHTS: [i64; 4] = [8, 8, 3, 1];

/// Smooth weighted round-robin: each pick gives every lane that has work its weight in credit and serves the richest, which
/// pays for all of them. The share of a lane without work is thereby borrowed by the others and never owed to it later.
#[derive(Debug, Default)]
pub struct Shares {
    credit: [i64; 4],
}

impl Shares {
    /// The lane whose turn it is among those that have work; none when none has.
    pub fn pick(&mut self, able: [bool; 4]) -> Option<Lane> {
        let mut best: Option<usize> = None;
        let mut paid = 0;
        for lane in 0..4 {
            if !able[lane] {
                // An idle lane keeps no claim on turns it had no use for, and no debt either.
                self.credit[lane] = 0;
                continue;
            }
            self.credit[lane] += WEIGHTS[lane];
            paid += WEIGHTS[lane];
            if best.is_none_or(|b| self.credit[lane] > self.credit[b]) {
                best = Some(lane);
            }
        }
        let best = best?;
        self.credit[best] -= paid;
        Some(Lane::ALL[best])
    }
}

/// The place of a lane in [`Lane::ALL`].
pub(crate) fn index(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Live => 1,
        Lane::Backlog => 2,
        Lane::Retry => 3,
    }
}

/// What people wait for, and what has waited already: claimed apart, and the old never takes all of a site, so that what is fresh finds
/// room wherever a backlog is worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Urgent and live mail.
    Fresh,
    /// Backlog and retries.
    Old,
}

impl Age {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Fresh, Self::Old];

    /// Of the lane at this place in [`Lane::ALL`].
    pub(crate) fn of(lane: usize) -> Self {
        match lane {
            0 | 1 => Self::Fresh,
            _ => Self::Old,
        }
    }
}

/// The lane as a metric label.
pub(crate) fn label(lane: Lane) -> &'static str {
    ["urgent", "live", "backlog", "retry"][index(lane)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `turns` turns and compares how many each lane got.
    fn check(able: [bool; 4], turns: usize, expected: [usize; 4]) {
        let mut shares = Shares::default();
        let mut got = [0; 4];
        for _ in 0..turns {
            if let Some(lane) = shares.pick(able) {
                got[index(lane)] += 1;
            }
        }
        assert_eq!(got, expected, "{able:?}");
    }

    #[test]
    fn turns_follow_the_weights_and_idle_shares_are_borrowed() {
        check([true; 4], 200, [80, 80, 30, 10]);
        check([false, true, true, true], 120, [0, 80, 30, 10]);
        check([false, false, true, true], 400, [0, 0, 300, 100]);
        check([false, false, false, true], 7, [0, 0, 0, 7]);
        check([false; 4], 5, [0; 4]);
    }

    #[test]
    fn a_lane_that_comes_back_is_served_at_once_and_owes_nothing() {
        let mut shares = Shares::default();
        for _ in 0..1000 {
            assert_eq!(
                shares.pick([false, false, true, false]),
                Some(Lane::Backlog)
            );
        }
        assert_eq!(shares.pick([false, true, true, false]), Some(Lane::Live));
        let live = (0..110)
            .filter(|_| shares.pick([false, true, true, false]) == Some(Lane::Live))
            .count();
        assert_eq!(live, 80, "no burst after an idle time, no starvation");
    }
}
