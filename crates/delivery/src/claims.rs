//! Whether and when the next claim is made: after news, not in a busy loop, and rarely while the spool refuses.

use std::time::Duration;

use tokio::time::Instant;

use crate::lane::Age;

/// After a claim that found nothing though the spool had promised more: doubled each time up to the longest.
const EMPTY_FIRST: Duration = Duration::from_millis(1);
/// The longest for what is fresh is what it may cost live mail that comes in just then; a claim that finds nothing is cheap.
const EMPTY_LONGEST: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(32)];
/// After a claim that failed; doubled each time.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_LONGEST: Duration = Duration::from_secs(30);

/// Whether and when to claim.
pub(crate) struct Claims {
    /// By lane: a claim may find more than the last one.
    pub(crate) more: [bool; 4],
    /// By [`Age`]: not before, after a claim that found nothing or failed.
    not_before: [Option<Instant>; 2],
    empty: [u32; 2],
    failed: u32,
}

impl Default for Claims {
    /// Nothing is known of the spool yet: a claim may find something in every lane.
    fn default() -> Self {
        Self {
            more: [true; 4],
            not_before: [None; 2],
            empty: [0; 2],
            failed: 0,
        }
    }
}

impl Claims {
    /// Until when nothing of an age is claimed, if that is not over.
    pub(crate) fn rests(&self, age: Age, now: Instant) -> Option<Instant> {
        self.not_before[age as usize].filter(|at| *at > now)
    }

    /// Nothing of an age is claimed until then.
    pub(crate) fn rest(&mut self, age: Age, until: Instant) {
        self.not_before[age as usize] = Some(until);
    }

    /// Claims may be made at once.
    pub(crate) fn rest_no_more(&mut self) {
        self.not_before = [None; 2];
    }

    /// The spool answered.
    pub(crate) fn answered(&mut self) {
        if std::mem::take(&mut self.failed) > 0 {
            tracing::info!(
                event = "spool",
                state = "open",
                "the spool gives work again"
            );
        }
    }

    /// So many batches of an age came just now.
    pub(crate) fn pace(&mut self, age: Age, leases: usize) {
        let now = Instant::now();
        let (index, longest) = (age as usize, EMPTY_LONGEST[age as usize]);
        // Doubling is for claims in a row; after a quiet time the first news are followed at once.
        let in_a_row = self.not_before[index].is_some_and(|at| now < at + 2 * longest);
        let empty = match (leases, in_a_row) {
            (0, true) => self.empty[index].saturating_add(1),
            (0, false) => 1,
            _ => 0,
        };
        self.empty[index] = empty;
        self.not_before[index] = match empty {
            0 => None,
            empty => Some(now + (EMPTY_FIRST * (1 << empty.min(16))).min(longest)),
        };
    }

    /// Said once, until a claim succeeds.
    pub(crate) fn refused(&mut self, error: &spool::Error) {
        if self.failed == 0 {
            tracing::error!(event = "spool", state = "shut", %error, "the spool gives no work");
        }
        self.failed(Instant::now());
    }

    /// The next ones are made after a while; what they would find nobody knows.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.more = [true; 4];
        let wait = (FAILED_FIRST * (1 << self.failed.min(8))).min(FAILED_LONGEST);
        self.failed = self.failed.saturating_add(1);
        self.not_before = [Some(now + wait); 2];
    }
}
