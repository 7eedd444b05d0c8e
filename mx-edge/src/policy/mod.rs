//! Decisions on recipients and messages, as pure functions of what is known. Looks nothing up and answers nobody.

pub mod content;
pub mod decide;
pub mod evidence;
pub mod pattern;
pub mod tables;

use mail::header as fields;

use crate::reason::Reason;
use crate::recipients::Known;

/// Under which policy a recipient's mail is scanned. Recipients of different ones never share a message (one message gets one
/// verdict and one reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanning {
    /// Tag and kill levels apply.
    Ordinary,
    /// postmaster, abuse, security: no kill level (RFC 5321 4.5.1).
    Role,
}

/// A transaction as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transaction {
    /// `MAIL FROM:<>`.
    pub null_sender: bool,
    /// Recipients accepted so far.
    pub accepted: usize,
    /// How they are scanned; none yet before the first.
    pub scanning: Option<Scanning>,
}

/// Decides on one more recipient. What never changes comes first, so that a client learns of an unknown recipient at once.
pub fn recipient(
    known: Known,
    transaction: &Transaction,
    null_sender_recipients_max: usize,
) -> Result<Scanning, Reason> {
    let scanning = match known {
        Known::Ordinary => Scanning::Ordinary,
        Known::Role => Scanning::Role,
        Known::Unknown => return Err(Reason::UnknownRecipient),
        Known::NotOurs => return Err(Reason::RelayDenied),
        Known::NotLoaded => return Err(Reason::DirectoryNotLoaded),
    };
    if transaction.null_sender && transaction.accepted >= null_sender_recipients_max {
        return Err(Reason::NullSenderRecipients);
    }
    if transaction.scanning.is_some_and(|first| first != scanning) {
        return Err(Reason::OtherPolicy);
    }
    Ok(scanning)
}

/// Refuses a message that has come through too many hosts (RFC 5321 6.3).
pub fn hops(message: &[u8], hops_max: usize) -> Result<(), Reason> {
    let received = fields::fields(message)
        .filter(|field| field.is("Received"))
        .take(hops_max)
        .count();
    if received >= hops_max {
        return Err(Reason::Loop);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        known: Known,
        null_sender: bool,
        accepted: usize,
        scanning: Option<Scanning>,
        expected: Result<Scanning, Reason>,
    ) {
        let transaction = Transaction {
            null_sender,
            accepted,
            scanning,
        };
        assert_eq!(
            recipient(known, &transaction, 1),
            expected,
            "{known:?} in {transaction:?}"
        );
    }

    #[test]
    fn recipients() {
        use Reason::*;
        use Scanning::{Ordinary, Role};
        check(Known::Ordinary, false, 0, None, Ok(Ordinary));
        check(Known::Ordinary, false, 99, Some(Ordinary), Ok(Ordinary));
        check(Known::Role, false, 0, None, Ok(Role));
        check(Known::Role, false, 1, Some(Role), Ok(Role));
        check(Known::Role, false, 1, Some(Ordinary), Err(OtherPolicy));
        check(Known::Ordinary, false, 1, Some(Role), Err(OtherPolicy));
        check(Known::Unknown, false, 0, None, Err(UnknownRecipient));
        check(Known::NotOurs, false, 0, None, Err(RelayDenied));
        check(Known::NotLoaded, false, 0, None, Err(DirectoryNotLoaded));
        check(Known::Ordinary, true, 0, None, Ok(Ordinary));
        check(
            Known::Ordinary,
            true,
            1,
            Some(Ordinary),
            Err(NullSenderRecipients),
        );
        // An unknown recipient is told so, whatever else is wrong.
        check(
            Known::Unknown,
            true,
            1,
            Some(Ordinary),
            Err(UnknownRecipient),
        );
    }

    #[test]
    fn a_loop_is_counted_in_the_header_alone() {
        let received = "Received: from a by b; Fri, 20 Nov 2026 12:04:05 +0000\r\n";
        for (header, body, expected) in [
            (0, 0, Ok(())),
            (49, 0, Ok(())),
            (50, 0, Err(Reason::Loop)),
            (51, 0, Err(Reason::Loop)),
            (1, 60, Ok(())),
        ] {
            let message = format!("{}\r\n{}", received.repeat(header), received.repeat(body));
            assert_eq!(
                hops(message.as_bytes(), 50),
                expected,
                "{header} in the header, {body} in the body"
            );
        }
    }
}
