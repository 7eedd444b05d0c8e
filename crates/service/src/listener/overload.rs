//! Overload as two states, each with one log line when it begins and one when it is over: all sessions in use, and no
//! descriptors or memory left. They decide and never log.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait when descriptors or memory have run out; doubles to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait when descriptors or memory have run out.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// So long after the last failure it is over; longer than any wait between two tries.
const RECOVERY: Duration = Duration::from_secs(2);

/// Running out of descriptors or memory, as a state: one log line when it begins and one when it is over, though accepting
/// succeeds now and then in between.
#[derive(Debug, Default)]
pub(super) struct Starvation(Option<(Instant, Duration)>);

impl Starvation {
    /// Whether it begins, and how long to wait before the next try.
    pub(super) fn failed(&mut self, now: Instant) -> (bool, Duration) {
        let wait = match self.0 {
            None => BACKOFF_MIN,
            Some((_, wait)) => (wait * 2).min(BACKOFF_MAX),
        };
        let crossing = self.0.replace((now, wait)).is_none();
        (crossing, wait)
    }

    /// After an accept that succeeded: whether it is over.
    pub(super) fn over(&mut self, now: Instant) -> bool {
        let over = self.0.is_some_and(|(last, _)| now - last >= RECOVERY);
        if over {
            self.0 = None;
        }
        over
    }
}

/// One log line when all sessions are taken, and one when a tenth of them is free again.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// Sessions when it was full last; 0 when it is not.
    high: i64,
}

impl Watermark {
    /// Whether this is the crossing.
    pub(super) fn full(&mut self, sessions: i64) -> bool {
        let crossing = self.high == 0;
        self.high = self.high.max(sessions).max(1);
        crossing
    }

    /// Whether this is the crossing back.
    pub(super) fn below(&mut self, sessions: i64) -> bool {
        let crossing = self.high > 0 && sessions * 10 <= self.high * 9;
        if crossing {
            self.high = 0;
        }
        crossing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crossings_are_told_once_with_hysteresis() {
        let mut watermark = Watermark::default();
        assert!(!watermark.below(0));
        assert!(watermark.full(100));
        assert!(!watermark.full(100));
        assert!(!watermark.below(99));
        assert!(!watermark.full(100));
        assert!(watermark.below(90));
        assert!(!watermark.below(10));
        assert!(watermark.full(100));
    }

    #[test]
    fn starvation_is_told_once_and_waited_out_longer_each_time() {
        let mut starvation = Starvation::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!starvation.over(at(0)));
        assert_eq!(starvation.failed(at(0)), (true, BACKOFF_MIN));
        assert_eq!(starvation.failed(at(1)), (false, BACKOFF_MIN * 2));
        assert!(!starvation.over(at(2)), "a lucky one in between");
        for second in 2..20 {
            assert!(!starvation.failed(at(second)).0);
        }
        assert_eq!(starvation.failed(at(20)), (false, BACKOFF_MAX));
        assert!(starvation.over(at(22)));
        assert!(!starvation.over(at(23)));
        assert_eq!(starvation.failed(at(24)), (true, BACKOFF_MIN));
    }
}
