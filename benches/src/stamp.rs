//! The header field by which a sink knows a source's message again, whatever hosts lie between: of what kind it is, which of which
//! run, and when it was sent.
//!
//! `X-Mailload: KIND RUN NUMBER MICROSECONDS`, the time since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::memmem;

/// The field's name with what follows it.
const NAME: &[u8] = b"X-Mailload: ";

/// What the field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// What it is to be counted under: `live`, `backlog`.
    pub kind: &'a str,
    /// Tells runs apart that the same sink sees.
    pub run: u64,
    /// The message's number in its run.
    pub number: u64,
    /// When it was sent.
    pub sent: Time,
}

/// Microseconds since 1970 by the wall clock, which all processes of a machine share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// Now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or_default())
    }

    /// From an earlier one to this; zero when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl<'a> Stamp<'a> {
    /// Appends the field.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME);
        out.extend_from_slice(self.kind.as_bytes());
        for number in [self.run, self.number, self.sent.0] {
            out.push(b' ');
            push_number(number, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Finds the field in a message's header; none when there is none, or when it says something else.
    pub fn find(header: &'a [u8]) -> Option<Self> {
        let at = memmem::find_iter(header, NAME).find(|&at| at == 0 || header[at - 1] == b'\n')?;
        let value = &header[at + NAME.len()..];
        let value = &value[..memchr::memchr(b'\r', value)?];
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(Self {
            kind,
            run: number()?,
            number: number()?,
            sent: Time(number()?),
        })
    }
}

/// Appends a decimal number.
pub fn push_number(number: u64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_behind_other_fields() {
        let stamp = Stamp {
            kind: "live",
            run: 0,
            number: u64::MAX,
            sent: Time(1_700_000_000_000_000),
        };
        let mut header = b"Received: X-Mailload: no\r\nSubject: a\r\n".to_vec();
        stamp.write(&mut header);
        header.extend_from_slice(b"\r\nX-Mailload: in body\r\n");
        assert_eq!(Stamp::find(&header), Some(stamp));
        let at = header.windows(10).position(|w| w == b"X-Mailload").unwrap();
        let at = at
            + header[at + 10..]
                .windows(10)
                .position(|w| w == b"X-Mailload")
                .unwrap()
            + 10;
        assert_eq!(Stamp::find(&header[at..]), Some(stamp));
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for header in [
            "",
            "Subject: a\r\n",
            "X-Mailload: live 1 2 3",
            "X-Mailload: live 1 2\r\n",
            "X-Mailload: live 1 x 3\r\n",
            "Subject: X-Mailload: live 1 2 3\r\n",
        ] {
            assert_eq!(Stamp::find(header.as_bytes()), None, "{header:?}");
        }
    }

    #[test]
    fn time_does_not_run_backwards() {
        assert_eq!(Time(5).since(Time(3)), Duration::from_micros(2));
        assert_eq!(Time(3).since(Time(5)), Duration::ZERO);
    }
}
