//! What a scanner's verdict means for one recipient. Pure.

use mail::Reply;
use mail::trace::{Custody, Trace};
use mail::verdict::{Action, Class, Verdict};

/// What is done with a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// On its way.
    Deliver,
    /// To the quarantine, and why.
    Quarantine(String),
    /// Refused or deferred.
    Reply(Reply),
}

/// The rule. `role`: the recipient is postmaster@, abuse@ or security@, which meet no kill level. `required`: mail that nobody
/// vouches for is deferred, so that it is scanned before it comes again.
pub fn admit(
    trace: Option<&Trace>,
    verdict: Option<&Verdict>,
    role: bool,
    required: bool,
) -> Admission {
    let exempt = trace.is_some_and(|trace| trace.exempt);
    let Some(verdict) = verdict else {
        return if required && !exempt {
            Admission::Reply(Reply::new(
                451,
                (4, 7, 0),
                "no valid verdict came with this message",
            ))
        } else {
            Admission::Deliver
        };
    };
    match verdict.action {
        Action::Pass | Action::Tag => Admission::Deliver,
        // Spam alone is not kept from them, whatever a scanner decided.
        Action::Quarantine | Action::Refuse if role && verdict.class == Class::Spam => {
            Admission::Deliver
        }
        Action::Quarantine => Admission::Quarantine(reason(verdict)),
        // The scanner does these itself; should it pass such mail on, its sender waits, or the edge keeps it.
        Action::Defer => Admission::Reply(Reply::new(
            451,
            (4, 7, 1),
            format!("deferred as {}", verdict.class.as_str()),
        )),
        Action::Refuse if trace.is_none_or(|trace| trace.custody == Custody::Live) => {
            let text = format!("refused as {}", verdict.class.as_str());
            Admission::Reply(Reply::new(550, (5, 7, 1), text))
        }
        Action::Refuse => Admission::Quarantine(reason(verdict)),
    }
}

/// Why it is quarantined: class, and what made it.
fn reason(verdict: &Verdict) -> String {
    let class = verdict.class.as_str();
    match (&*verdict.reason, verdict.score_hundredths) {
        ("", Some(score)) => format!("{class} {:.2}", f64::from(score) / 100.0),
        ("", None) => class.to_owned(),
        (reason, _) => format!("{class} {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{Ident, Timestamp};

    fn trace(custody: Custody, exempt: bool) -> Trace {
        Trace {
            ident: Ident::parse("mx1.a.b").unwrap(),
            custody,
            arrival: Timestamp(1),
            client: "192.0.2.1".parse().unwrap(),
            helo: "c.example".into(),
            spf: mail::trace::Spf::None,
            exempt,
            verdict: None,
        }
    }

    fn verdict(action: Action, class: Class, reason: &str) -> Verdict {
        Verdict {
            class,
            found: [class].into_iter().collect(),
            action,
            score_hundredths: Some(1234),
            required_hundredths: 500,
            tests: Vec::new(),
            reason: reason.into(),
            rules: "1".into(),
            signatures: "1".into(),
            time: Timestamp(1),
        }
    }

    fn word(admission: Admission) -> String {
        match admission {
            Admission::Deliver => "deliver".into(),
            Admission::Quarantine(reason) => format!("quarantine {reason}"),
            Admission::Reply(reply) => reply.code.to_string(),
        }
    }

    #[test]
    fn rule() {
        use Action::*;
        use Class::*;
        use Custody::*;
        let table = [
            (Live, Pass, Clean, "", false, "deliver"),
            (Spooled, Tag, Spammy, "", false, "deliver"),
            (Spooled, Tag, Banned, "a.exe", false, "deliver"),
            (
                Spooled,
                Quarantine,
                Spam,
                "",
                false,
                "quarantine spam 12.34",
            ),
            (Live, Quarantine, Spam, "", false, "quarantine spam 12.34"),
            (
                Spooled,
                Refuse,
                Malware,
                "Eicar",
                false,
                "quarantine malware Eicar",
            ),
            (
                Spooled,
                Quarantine,
                Unscanned,
                "too deep",
                false,
                "quarantine unscanned too deep",
            ),
            (Live, Refuse, Spam, "", false, "550"),
            (Live, Refuse, Malware, "Eicar", true, "550"),
            (Live, Defer, Unscanned, "encrypted", false, "451"),
            (Live, Refuse, Spam, "", true, "deliver"),
            (Spooled, Quarantine, Spam, "", true, "deliver"),
            (
                Spooled,
                Quarantine,
                Malware,
                "Eicar",
                true,
                "quarantine malware Eicar",
            ),
        ];
        for (custody, action, class, reason, role, expected) in table {
            let trace = trace(custody, false);
            let verdict = verdict(action, class, reason);
            let got = admit(Some(&trace), Some(&verdict), role, true);
            assert_eq!(word(got), expected, "{custody:?} {class:?} {role}");
        }
    }

    #[test]
    fn unscanned() {
        let table = [
            (Some(false), true, "451"),
            (Some(true), true, "deliver"),
            (None, true, "451"),
            (None, false, "deliver"),
            (Some(false), false, "deliver"),
        ];
        for (exempt, required, expected) in table {
            let trace = exempt.map(|exempt| trace(Custody::Live, exempt));
            let got = admit(trace.as_ref(), None, false, required);
            assert_eq!(word(got), expected, "{exempt:?} {required}");
        }
    }
}
