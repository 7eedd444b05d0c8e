//! A copy of a spool that works on holds all that was acknowledged before it was begun, nothing that was done by then, and can be
//! put in place of another.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::*;
use spool::embedded::backup::restore;
use spool::embedded::offline::Offline;
use spool::embedded::{Embedded, Options};
use spool::{Outcome, Spool};

async fn accept(spool: &dyn Spool, name: &str) {
    let now = mail::Timestamp::now();
    let body = "x".repeat(3000);
    let mut message = message(now, &body, simple(now, &format!("{name}@x.org")).batches);
    message.body.push(name.to_owned().into());
    spool.accept(message, Some(name)).await.unwrap();
}

async fn waiting(spool: &dyn Spool) -> BTreeSet<String> {
    let leases = claim_all(spool).await;
    for lease in &leases {
        let body = spool.body(lease.head.id).await.unwrap();
        let name = lease.batch.recipients[0].address.local().to_owned();
        assert!(body.ends_with(name.as_bytes()), "{name}");
    }
    names(&leases).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_consistent_while_mail_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(open(folder.path()));
    for number in 0..300 {
        accept(spool.as_ref(), &format!("before{number}")).await;
    }
    // Every second one is done before the copy is begun.
    let mut done = BTreeSet::new();
    let mut left = BTreeSet::new();
    for (at, lease) in claim_all(spool.as_ref()).await.iter().enumerate() {
        let name = lease.batch.recipients[0].address.to_string();
        let outcome = match at % 2 {
            0 => {
                done.insert(name);
                Outcome::Finished
            }
            _ => {
                left.insert(name);
                deferred(lease, lease.batch.due)
            }
        };
        spool
            .settle(vec![settlement(lease, outcome)])
            .await
            .unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = tokio::spawn({
        let (spool, stop) = (spool.clone(), stop.clone());
        async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                accept(spool.as_ref(), &format!("during{number}")).await;
                number += 1;
            }
            number
        }
    });
    let copy = folder.path().join("copy");
    let bytes = spool.backup(&copy).await.unwrap();
    assert!(bytes > 300 * 3000 / 2, "{bytes}");
    assert!(
        spool.backup(&copy).await.is_err(),
        "a copy is never overwritten"
    );
    stop.store(true, Ordering::Relaxed);
    let during = traffic.await.unwrap();
    assert!(during > 0);
    spool.close().await;

    let work = tempfile::tempdir().unwrap();
    let report = Offline::open(&copy, work.path()).unwrap().check().unwrap();
    assert!(report.is_whole(), "{report:?}");
    for with_index in [true, false] {
        let place = folder.path().join(format!("restored-{with_index}"));
        assert_eq!(restore(&copy, &place, false).unwrap(), None);
        if !with_index {
            std::fs::remove_file(place.join("index.sqlite")).unwrap();
        }
        let restored = Embedded::open(Options {
            path: place.clone(),
            ..options(folder.path())
        })
        .unwrap();
        let waits = waiting(&restored).await;
        assert!(left.is_subset(&waits));
        assert!(done.is_disjoint(&waits));
        assert_eq!(waits.len() as u64, report.batches);
        let idents = restored.accept(
            simple(mail::Timestamp::now(), "before7@x.org"),
            Some("before7"),
        );
        assert_eq!(idents.await.unwrap().paths, [spool::Path::Again]);
        restored.close().await;
    }
}

#[tokio::test]
async fn a_copy_takes_the_place_of_a_spool_only_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    accept(&spool, "one").await;
    let copy = folder.path().join("copy");
    spool.backup(&copy).await.unwrap();
    let place = folder.path().join("spool");
    let in_use = restore(&copy, &place, true).unwrap_err().to_string();
    assert!(in_use.contains("running process"), "{in_use}");
    accept(&spool, "two").await;
    spool.close().await;
    drop(spool);
    let there = restore(&copy, &place, false).unwrap_err().to_string();
    assert!(there.contains("is there already"), "{there}");
    let aside = restore(&copy, &place, true).unwrap().unwrap();
    let restored = open(folder.path());
    assert_eq!(
        waiting(&restored).await,
        BTreeSet::from(["one@x.org".into()])
    );
    let work = tempfile::tempdir().unwrap();
    assert_eq!(
        Offline::open(&aside, work.path())
            .unwrap()
            .report()
            .messages,
        2
    );
    let no_copy = restore(folder.path(), &place, true)
        .unwrap_err()
        .to_string();
    assert!(no_copy.contains("no complete copy"), "{no_copy}");
}
