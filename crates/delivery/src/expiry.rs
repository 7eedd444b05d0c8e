//! When mail is too old to be tried once more: by age since its acceptance here, never by attempts.

use std::time::Duration;

use mail::{ReversePath, Timestamp};
use spool::{Destination, Head};

/// How long mail waits for its recipients' hosts before it is given up; none: for ever. What goes inside never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Mail that somebody sent [5 days, RFC 5321 4.5.4.1].
    pub mail: Option<Duration>,
    /// Mail from the null reverse-path: reports and answers, whose end nobody is told of [2 days].
    pub null_sender: Option<Duration>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self {
            mail: Some(Duration::from_secs(5 * 86_400)),
            null_sender: Some(Duration::from_secs(2 * 86_400)),
        }
    }
}

impl Expiry {
    /// Nothing ever expires, as on an edge (design, invariant 9).
    pub const NEVER: Self = Self {
        mail: None,
        null_sender: None,
    };

    /// How long this message waits for that destination.
    pub fn after(&self, head: &Head, destination: &Destination) -> Option<Duration> {
        match (destination, &head.reverse_path) {
            (Destination::Inside | Destination::Expand, _) => None,
            (_, ReversePath::Null) => self.null_sender,
            (_, ReversePath::Address(_)) => self.mail,
        }
    }

    /// After how long it was too old at `now` to be tried once more; none when it is not.
    pub fn over(&self, head: &Head, destination: &Destination, now: Timestamp) -> Option<Duration> {
        self.after(head, destination)
            .filter(|after| now.since(head.accepted) >= *after)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mail::{Domain, MailParameters, MessageId};

    use super::*;

    const DAY: u64 = 86_400_000;
    const ACCEPTED: Timestamp = Timestamp(100 * DAY);

    fn check(expiry: Expiry, from: &str, destination: Destination, table: &[(u64, bool)]) {
        let head = Head {
            id: MessageId(1),
            // Ten days on an edge before count nothing.
            arrival: Timestamp(90 * DAY),
            accepted: ACCEPTED,
            reverse_path: ReversePath::parse(from).unwrap(),
            parameters: MailParameters::default(),
            facts: Bytes::new(),
            body_bytes: 0,
        };
        for (now, over) in table {
            let found = expiry.over(&head, &destination, Timestamp(*now));
            assert_eq!(found.is_some(), *over, "{from} {destination:?} {now}");
        }
    }

    #[test]
    fn age_counts_from_acceptance_here_and_reports_have_less_time() {
        let domain = || Destination::Domain(Domain::parse("one.example").unwrap());
        let (default, at) = (Expiry::default(), ACCEPTED.0);
        let five = [
            (0, false), // the clock was set back
            (at, false),
            (at + 5 * DAY - 1, false),
            (at + 5 * DAY, true),
        ];
        check(default, "joe@one.example", domain(), &five);
        check(
            default,
            "joe@one.example",
            Destination::Route("smarthost".into()),
            &five,
        );
        let two = [(at + 2 * DAY - 1, false), (at + 2 * DAY, true)];
        check(default, "", domain(), &two);
        let never = [(u64::MAX, false)];
        check(default, "", Destination::Inside, &never);
        check(default, "joe@one.example", Destination::Inside, &never);
        check(Expiry::NEVER, "", domain(), &never);
    }
}
