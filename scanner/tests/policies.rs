//! Claims about recipients' policies: one message, and what each domain wants done with it.

#![allow(clippy::unwrap_used)]

mod common;

use common::edge::{code, live, message};
use common::list_host::ListHost;
use common::stubs::Stub;
use common::{Scanner, Setup};
use mail::Reply;
use mail::verdict::{Action, Class, Verdict};

fn codes(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(code).collect()
}

#[tokio::test]
async fn a_domain_has_a_policy_of_its_own() {
    let (spamd, clamd) = (Stub::spamd().await, Stub::clamd().await);
    let list_host = ListHost::start().await;
    let setup = Setup {
        spamd: spamd.address.to_string(),
        clamd: clamd.address.to_string(),
        list_host: Some(list_host.address),
        more: "domains.'mild.example' = { kill = 2000, tag2 = 5 }\n\
         domains.'keeps.example' = { spam = 'quarantine', malware = 'quarantine' }\n\
         domains.'waits.example' = { spam = 'defer' }"
            .into(),
    };
    let scanner = Scanner::ready(&setup).await;
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
