//! A large expansion is written in parts over several groups. The process may die at any call: it has happened as a whole or not
//! at all, and live mail does not wait for it.

#![allow(clippy::unwrap_used)]

mod shared;

use std::sync::Arc;

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::embedded::Embedded;
use spool::{Destination, NewBatch, Outcome, Spool};

const BATCHES: usize = 3_000;

/// Some 1.5 MiB when packed.
fn children() -> Vec<NewBatch> {
    let now = Timestamp::now();
    (0..BATCHES)
        .map(|number| {
            let site = format!("site-{}.example", number % 50);
            let names: Vec<String> = (0..20)
                .map(|member| format!("member-{number}-{member}-{}@{site}", "x".repeat(10)))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            batch(domain(&site), now, &names)
        })
        .collect()
}

async fn check(at: u64) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Fault::Tears, at);
    let mut told = false;
    if let Ok(spool) = Embedded::open_on(options(folder.path()), Arc::new(disk.clone())) {
        let now = Timestamp::now();
        let post = message(
            now,
            "post",
            vec![batch(Destination::Expand, now, &["list@x.org"])],
        );
        if spool.accept(post, None).await.is_ok() {
            let lease = claim_all(&spool).await.remove(0);
            let outcome = settlement(&lease, Outcome::Replaced(children()));
            told = spool.settle(vec![outcome]).await.is_ok();
        }
    }
    for rebuilt in [false, true] {
        if rebuilt {
            lose_index(folder.path());
        }
        let spool = open(folder.path());
        let found: u64 = spool
            .tally()
            .await
            .unwrap()
            .iter()
            .map(|line| line.batches)
            .sum();
        let whole = found == BATCHES as u64;
        assert!(
            whole || (found <= 1 && !told),
            "call {at}: {found} batches, told {told}"
        );
        if whole {
            assert_eq!(claim_all(&spool).await.len(), BATCHES);
        }
    }
    disk.struck()
}

#[tokio::test]
async fn never_half() {
    let mut at = 1;
    while check(at).await {
        at += 2;
    }
    assert!(at > 20, "the story has more calls than {at}");
}

#[tokio::test]
async fn live_mail_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(open(folder.path()));
    let now = Timestamp::now();
    let post = message(
        now,
        "post",
        vec![batch(Destination::Expand, now, &["list@x.org"])],
    );
    spool.accept(post, None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let mut large = children();
    for _ in 0..3 {
        large.extend(children());
    }
    let outcome = settlement(&lease, Outcome::Replaced(large));
    let settling = {
        let spool = spool.clone();
        tokio::spawn(async move { spool.settle(vec![outcome]).await.unwrap() })
    };
    let mut between = 0;
    while !settling.is_finished() {
        spool.accept(simple(now, "live@x.org"), None).await.unwrap();
        between += 1;
    }
    assert_eq!(settling.await.unwrap(), 1);
    assert!(between > 3, "{between} messages were accepted meanwhile");
    let batches: u64 = spool
        .tally()
        .await
        .unwrap()
        .iter()
        .map(|line| line.batches)
        .sum();
    assert_eq!(batches, 4 * BATCHES as u64 + between);
}
