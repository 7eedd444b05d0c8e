//! Wall-clock time as it is stored and signed: milliseconds since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// 9999-12-31T23:59:59.999Z: no calendar form goes further (RFC 3339 1).
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// RFC 5322 3.3, always in UTC.
const RFC5322: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour]:[minute]:[second] +0000"
);

/// RFC 3339 with milliseconds, always in UTC.
const RFC3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

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
        self.format(RFC5322)
    }

    /// `2026-11-20T12:04:05.123Z`, for logs and JSON (RFC 3339).
    pub fn rfc3339(self) -> String {
        self.format(RFC3339)
    }

    /// The reverse of [`rfc3339`](Self::rfc3339), any offset and precision; none for other text and for times before the epoch.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = time.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(millis).ok().map(Self)
    }

    fn format(self, form: &[BorrowedFormatItem<'_>]) -> String {
        let millis = self.0.min(LAST_MILLIS);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .format(form)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_read_back() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-20T12:04:05.123Z", Some(1_795_176_245_123)),
            ("2026-11-20T13:04:05+01:00", Some(1_795_176_245_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-20", None),
            ("tomorrow", None),
        ] {
            assert_eq!(
                Timestamp::parse_rfc3339(text),
                millis.map(Timestamp),
                "{text}"
            );
        }
    }

    #[test]
    fn forms() {
        fn check(millis: u64, rfc5322: &str, rfc3339: &str) {
            assert_eq!(Timestamp(millis).rfc5322(), rfc5322);
            assert_eq!(Timestamp(millis).rfc3339(), rfc3339);
        }
        check(
            0,
            "Thu, 1 Jan 1970 00:00:00 +0000",
            "1970-01-01T00:00:00.000Z",
        );
        check(
            1_795_176_245_123,
            "Fri, 20 Nov 2026 12:04:05 +0000",
            "2026-11-20T12:04:05.123Z",
        );
        check(
            1_709_164_800_007,
            "Thu, 29 Feb 2024 00:00:00 +0000",
            "2024-02-29T00:00:00.007Z",
        );
        let end = (
            "Fri, 31 Dec 9999 23:59:59 +0000",
            "9999-12-31T23:59:59.999Z",
        );
        check(LAST_MILLIS, end.0, end.1);
        check(u64::MAX, end.0, end.1);
    }

    #[test]
    fn arithmetic_saturates() {
        let second = Duration::from_secs(1);
        assert_eq!(Timestamp(1500).seconds(), 1);
        assert_eq!(Timestamp(5).after(second), Timestamp(1005));
        assert_eq!(Timestamp(u64::MAX).after(second), Timestamp(u64::MAX));
        assert_eq!(Timestamp(1005).since(Timestamp(5)), second);
        assert_eq!(Timestamp(5).since(Timestamp(1005)), Duration::ZERO);
    }
}
