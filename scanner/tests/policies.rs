//! Claims about recipients' policies: one message, and what each domain wants done with it.

#![allow(clippy::unwrap_used)]

mod common;

use common::edge::{codes, live, message};
use common::stubs::Stubbed;
use mail::verdict::{Action, Class, Verdict};

#[tokio::test]
async fn a_domain_has_a_policy_of_its_own() {
    let Stubbed {
        scanner,
        list_host,
        spamd: _spamd,
        clamd: _clamd,
    } = Stubbed::with(
        "domains.'mild.example' = { kill = 2000, tag2 = 5 }\n\
         domains.'keeps.example' = { spam = 'quarantine', malware = 'quarantine' }\n\
         domains.'waits.example' = { spam = 'defer' }",
    )
    .await;
    let mut attempt = live(message("GTUBE", "Buy."));
    let domains = ["lists", "mild", "keeps", "waits"];
    attempt.recipients = domains.map(|d| format!("dev@{d}.example")).into();
    let replies = attempt.send(&scanner).await;
    assert_eq!(
        codes(&replies),
        ["550 5.7.1", "250 2.0.0", "250 2.0.0", "451 4.7.1"]
    );
    let arrived = list_host.arrived();
    let verdicts: Vec<Verdict> = arrived.iter().map(|a| a.opened().1).collect();
    let seen: Vec<_> = verdicts.iter().map(|v| (v.class, v.action)).collect();
    assert_eq!(
        seen,
        [
            (Class::Spammy, Action::Tag),
            (Class::Spam, Action::Quarantine)
        ]
    );
    let malware = live(message("EICAR", "Bad.")).send(&scanner).await;
    assert_eq!(codes(&malware), ["550 5.7.1"]);
}
