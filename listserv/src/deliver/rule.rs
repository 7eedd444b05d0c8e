//! The rule of who gets a report: nobody who did not prove that the mail was his (design, invariant 6). Pure.

use mail::ReversePath;

use crate::facts::{Facts, SpfWord};

/// What the rule says of one message's reverse-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A report may go.
    Send,
    /// A report may go while the day's allowance of that address lasts.
    Limited,
    /// No report.
    Suppress(Why),
}

/// Why a report is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The reverse-path is null.
    NullSender,
    /// The sender asked for none (NOTIFY=NEVER).
    NotAsked,
    /// SPF says that the sender is somebody else.
    SpfFail,
    /// Nothing says that the sender is who he says.
    Unverified,
    /// No policy is published, and the message is not clean.
    NotClean,
    /// The day's allowance is used up.
    RateLimited,
}

impl Why {
    /// The word in logs, metrics and the list of suppressed reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NullSender => "null-sender",
            Self::NotAsked => "not-asked",
            Self::SpfFail => "spf-fail",
            Self::Unverified => "unverified",
            Self::NotClean => "not-clean",
            Self::RateLimited => "rate-limited",
        }
    }
}

/// The rule. `ours`: the reverse-path is an address of our own directory.
pub fn decide(reverse_path: &ReversePath, ours: bool, facts: &Facts) -> Decision {
    if *reverse_path == ReversePath::Null {
        return Decision::Suppress(Why::NullSender);
    }
    match facts.spf {
        SpfWord::Pass => Decision::Send,
        _ if facts.own || facts.exempt => Decision::Send,
        SpfWord::Fail => Decision::Suppress(Why::SpfFail),
        _ if ours => Decision::Send,
        // Neutral is treated exactly as none (RFC 7208 8.2).
        SpfWord::None | SpfWord::Neutral if facts.clean() => Decision::Limited,
        SpfWord::None | SpfWord::Neutral => Decision::Suppress(Why::NotClean),
        SpfWord::SoftFail | SpfWord::TempError | SpfWord::PermError => {
            Decision::Suppress(Why::Unverified)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_bounced_to_who_did_not_prove_himself() {
        use Decision::*;
        let joe = "joe@one.example";
        let table = [
            (
                "",
                false,
                SpfWord::Pass,
                Some("clean"),
                Suppress(Why::NullSender),
            ),
            (joe, false, SpfWord::Pass, Some("clean"), Send),
            (joe, false, SpfWord::Pass, Some("spam"), Send),
            (
                joe,
                false,
                SpfWord::Fail,
                Some("clean"),
                Suppress(Why::SpfFail),
            ),
            (
                joe,
                true,
                SpfWord::Fail,
                Some("clean"),
                Suppress(Why::SpfFail),
            ),
            (joe, true, SpfWord::None, None, Send),
            (joe, false, SpfWord::None, Some("clean"), Limited),
            (joe, false, SpfWord::Neutral, Some("clean"), Limited),
            (
                joe,
                false,
                SpfWord::None,
                Some("spammy"),
                Suppress(Why::NotClean),
            ),
            (joe, false, SpfWord::None, None, Suppress(Why::NotClean)),
            (
                joe,
                false,
                SpfWord::SoftFail,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
            (
                joe,
                false,
                SpfWord::TempError,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
            (
                joe,
                false,
                SpfWord::PermError,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
        ];
        for (reverse_path, ours, spf, class, expected) in table {
            let facts = Facts {
                spf,
                class: class.map(str::to_owned),
                ..Facts::default()
            };
            let got = decide(&ReversePath::parse(reverse_path).unwrap(), ours, &facts);
            assert_eq!(got, expected, "{reverse_path} {ours} {spf:?} {class:?}");
        }
        let exempt = Facts {
            exempt: true,
            ..Facts::default()
        };
        let from = ReversePath::parse(joe).unwrap();
        assert_eq!(decide(&from, false, &exempt), Send);
    }
}
