//! Whether and when the next claim is made: after news, not in a busy loop, and rarely while the spool refuses.

use std::time::Duration;

use tokio::time::Instant;

/// After a claim that found nothing though the spool had promised more: doubled each time up to the longest.
/// The longest is what it may cost live mail that comes in just then.
const EMPTY_FIRST: Duration = Duration::from_millis(1);
const EMPTY_LONGEST: Duration = Duration::from_millis(32);
/// After a claim that failed; doubled each time.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_LONGEST: Duration = Duration::from_secs(30);

/// Whether and when to claim.
pub(crate) struct Claims {
    /// By lane: a claim may find more than the last one.
    pub(crate) more: [bool; 4],
    /// Not before, after a claim that found nothing or failed.
    pub(crate) not_before: Option<Instant>,
    empty: u32,
    failed: u32,
}

impl Default for Claims {
    /// Nothing is known of the spool yet: a claim may find something in every lane.
    fn default() -> Self {
        Self {
            more: [true; 4],
            not_before: None,
            empty: 0,
            failed: 0,
        }
    }
}

impl Claims {
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

    /// So many batches came of all that was asked just now.
    pub(crate) fn pace(&mut self, leases: usize) {
        let now = Instant::now();
        // Doubling is for claims in a row; after a quiet time the first news are followed at once.
        let in_a_row = self
            .not_before
            .is_some_and(|at| now < at + 2 * EMPTY_LONGEST);
        self.empty = match (leases, in_a_row) {
            (0, true) => self.empty.saturating_add(1),
            (0, false) => 1,
            _ => 0,
        };
        self.not_before = match self.empty {
            0 => None,
            empty => Some(now + (EMPTY_FIRST * (1 << empty.min(16))).min(EMPTY_LONGEST)),
        };
    }

    /// Said once, until a claim succeeds.
    pub(crate) fn refused(&mut self, error: &spool::Error) {
        if self.failed == 0 {
            tracing::error!(event = "spool", state = "shut", %error, "the spool gives no work");
        }
        let wait = (FAILED_FIRST * (1 << self.failed.min(8))).min(FAILED_LONGEST);
        self.failed = self.failed.saturating_add(1);
        self.not_before = Some(Instant::now() + wait);
    }
}
