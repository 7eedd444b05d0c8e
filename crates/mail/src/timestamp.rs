//! Wall-clock time as it is stored and signed: milliseconds since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch. Deadlines inside a process use the monotonic clock instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self(since.as_millis() as u64)
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This moment and `by` later; saturates.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_millis() as u64))
    }

    /// How long `earlier` is past; zero when it lies ahead (the clock was set back).
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `Fri, 20 Nov 2026 12:04:05 +0000`, as RFC 5322 3.3 writes a date in a header.
    pub fn rfc5322(self) -> String {
        todo!()
    }

    /// `2026-11-20T12:04:05.123Z`, for logs and JSON (RFC 3339).
    pub fn rfc3339(self) -> String {
        todo!()
    }
}
