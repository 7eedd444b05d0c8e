//! A copy of a spool that works on holds all that was acknowledged before it was begun, nothing that was done by then, and can be
//! put in place of another.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::faults::{Fault, FaultyDisk};
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

/// Whether it is a copy now, and what adopting it came to.
async fn adopt(spool: &dyn Spool) -> (bool, Result<bool, String>) {
    let was = *spool.copy().borrow();
    assert_eq!(spool.vitals().copy, was);
    let adopted = spool.adopt().await;
    (was, adopted.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn a_copy_is_one_until_it_is_adopted_however_it_was_put_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    accept(&spool, "one").await;
    let copy = folder.path().join("copy");
    spool.backup(&copy).await.unwrap();
    assert_eq!(adopt(&spool).await, (false, Ok(false)));
    spool.close().await;
    drop(spool);
    let plain = folder.path().join("spool");
    let restored = folder.path().join("restored");
    // What is no copy becomes one when it is restored: a dead host may have sent on what this disk still has.
    restore(&plain, &restored, false).unwrap();
    for (path, name) in [(&copy, "renamed"), (&restored, "restored")] {
        let place = folder.path().join(format!("place-{name}"));
        std::fs::rename(path, place).unwrap();
        let opened = || {
            Embedded::open(Options {
                path: folder.path().join(format!("place-{name}")),
                ..options(folder.path())
            })
            .unwrap()
        };
        let spool = opened();
        assert!(*spool.copy().borrow(), "{name}");
        // It takes mail, and stays what it is over a crash.
        accept(&spool, "two").await;
        drop(spool);
        let spool = opened();
        let mut watched = spool.copy();
        assert_eq!(adopt(&spool).await, (true, Ok(true)), "{name}");
        assert!(watched.has_changed().unwrap() && !*watched.borrow_and_update());
        drop(spool);
        let spool = opened();
        assert_eq!(adopt(&spool).await, (false, Ok(false)), "{name}");
        assert_eq!(waiting(&spool).await.len(), 2);
        spool.close().await;
    }
}

#[tokio::test]
async fn a_copy_that_could_not_be_adopted_durably_is_one_still() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let copy = folder.path().join("copy");
    spool.backup(&copy).await.unwrap();
    spool.close().await;
    drop(spool);
    restore(&copy, &folder.path().join("spool"), true).unwrap();
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let spool = Embedded::open_on(options(folder.path()), Arc::new(disk.clone())).unwrap();
    for fails in ["remove", "sync_folder"] {
        disk.set_failing(fails);
        let (was, adopted) = adopt(&spool).await;
        assert!(was && adopted.unwrap_err().contains("fails as told"));
        assert!(*spool.copy().borrow(), "{fails}");
    }
    disk.set_failing("");
    assert_eq!(adopt(&spool).await, (true, Ok(true)));
}
