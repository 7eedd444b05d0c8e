//! The disk fails at each call in turn, in every way. After a new start on a good disk all that was acknowledged is there.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk, VolatileDisk};
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Destination, Error, Outcome, Spool};

fn small(path: &std::path::Path) -> Options {
    Options {
        segment_bytes: 64 * 1024,
        ..options(path)
    }
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Told {
    /// Accepted and not settled as done: must be there.
    there: BTreeSet<String>,
    /// Settled as done: must not be there.
    gone: BTreeSet<String>,
}

/// Enough to begin several segments and release some.
async fn work(spool: &dyn Spool, told: &mut Told) {
    let body = "x".repeat(20_000);
    for number in 0..12 {
        let name = format!("m{number}@x.org");
        let now = Timestamp::now();
        let new = message(now, &body, vec![batch(Destination::Expand, now, &[&name])]);
        if spool
            .accept(new, Some(&format!("e.1.{number}")))
            .await
            .is_ok()
        {
            told.there.insert(name);
        }
        if number % 3 == 2 {
            let Ok(leases) = spool.claim("here", &everything()).await else {
                continue;
            };
            for lease in leases {
                let name = lease.batch.recipients[0].address.to_string();
                let (outcome, becomes) = match number {
                    2 | 8 => (Outcome::Finished, None),
                    5 => (deferred(&lease, now), Some(name.clone())),
                    _ => {
                        let child = format!("child-{name}");
                        let children = vec![batch(domain("x.org"), now, &[&child])];
                        (Outcome::Replaced(children), Some(child))
                    }
                };
                // Unanswered, it may be either.
                told.there.remove(&name);
                if spool
                    .settle(vec![settlement(&lease, outcome)])
                    .await
                    .is_ok_and(|n| n == 1)
                {
                    if becomes.as_ref() != Some(&name) {
                        told.gone.insert(name);
                    }
                    told.there.extend(becomes);
                }
            }
        }
    }
}

async fn check(fault: Fault, at: u64) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(fault, at);
    let mut told = Told::default();
    let opened = Embedded::open_on(small(folder.path()), Arc::new(disk.clone()));
    if let Ok(spool) = opened {
        work(&spool, &mut told).await;
        drop(spool);
    }
    let what = format!("{fault:?} at call {at}, {:?}", disk.struck_call());
    for rebuilt in [false, true] {
        if rebuilt {
            lose_index(folder.path());
        }
        let spool = Embedded::open(small(folder.path()))
            .unwrap_or_else(|error| panic!("{what}, rebuilt {rebuilt}: {error}"));
        let found: BTreeSet<_> = contents(&spool).await.into_keys().collect();
        let lost: Vec<_> = told.there.difference(&found).collect();
        let back: Vec<_> = told.gone.intersection(&found).collect();
        assert!(
            lost.is_empty() && back.is_empty(),
            "{what}, rebuilt {rebuilt}: lost {lost:?}, came back {back:?}"
        );
        spool
            .accept(simple(Timestamp::now(), "after@x.org"), None)
            .await
            .unwrap();
        let lease = claim_all(&spool).await;
        assert_eq!(names(&lease), ["after@x.org"]);
        finish(&spool, &lease).await;
    }
    disk.struck()
}

async fn at_each_call(fault: Fault, step: u64) {
    let mut at = 1;
    while check(fault, at).await {
        at += step;
    }
    assert!(at > 100, "the story has more calls than {at}");
}

#[tokio::test]
async fn the_process_dies_at_each_call() {
    at_each_call(Fault::Dies, 3).await;
}

#[tokio::test]
async fn each_write_tears() {
    at_each_call(Fault::Tears, 4).await;
}

#[tokio::test]
async fn each_call_fails_once() {
    at_each_call(Fault::Once(ErrorKind::Other), 4).await;
}

#[tokio::test]
async fn the_disk_is_full_at_each_call() {
    at_each_call(Fault::Once(ErrorKind::StorageFull), 4).await;
}

#[tokio::test]
async fn each_call_is_short() {
    at_each_call(Fault::IsShort, 5).await;
}

/// Nothing that was acknowledged was only in the system's memory.
#[tokio::test]
async fn the_power_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let spool = Embedded::open_on(small(folder.path()), Arc::new(VolatileDisk)).unwrap();
    work(&spool, &mut told).await;
    drop(spool);
    lose_index(folder.path());
    let found: BTreeSet<_> = contents(&open(folder.path())).await.into_keys().collect();
    assert_eq!(found, told.there);
}

/// The second message is on disk within so many calls.
const CALLS_TRIED: u64 = 100;

#[tokio::test]
async fn a_failed_sync_poisons() {
    let folder = tempfile::tempdir().unwrap();
    // Finds the sync of the second message by trying; the sweeper's calls come between, so that one round may miss it.
    for attempt in 0.. {
        let at = attempt % CALLS_TRIED + 1;
        let folder = folder.path().join(attempt.to_string());
        std::fs::create_dir(&folder).unwrap();
        let disk = FaultyDisk::new(Fault::Once(ErrorKind::Other), at);
        let Ok(spool) = Embedded::open_on(small(&folder), Arc::new(disk.clone())) else {
            continue;
        };
        let now = Timestamp::now();
        let first = spool.accept(simple(now, "a@x.org"), None).await;
        let second = spool.accept(simple(now, "b@x.org"), None).await;
        if first.is_err() || second.is_ok() || disk.struck_call() != Some("sync") {
            assert!(attempt < 10 * CALLS_TRIED, "no sync found");
            continue;
        }
        assert!(matches!(second, Err(Error::Poisoned(_))), "{second:?}");
        assert!(spool.unhealthy().unwrap().contains("poisoned"));
        // The disk is well again; nothing is acknowledged all the same.
        let third = spool.accept(simple(now, "c@x.org"), None).await;
        assert!(matches!(third, Err(Error::Poisoned(_))), "{third:?}");
        // Reads go on.
        spool.body(first.unwrap().id).await.unwrap();
        assert_eq!(spool.tally().await.unwrap()[0].batches, 1);
        // What would be done with a lease could not be settled, and would be done again.
        let claimed = spool.claim("here", &everything()).await;
        assert!(matches!(claimed, Err(Error::Poisoned(_))), "{claimed:?}");
        drop(spool);
        let found = contents(&open(&folder)).await;
        assert!(found.contains_key("a@x.org") && !found.contains_key("c@x.org"));
        return;
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let wanting = Options {
        free_bytes_min: 1000,
        free_inodes_min: 10,
        ..small(folder.path())
    };
    let spool = Embedded::open_on(wanting, Arc::new(disk.clone())).unwrap();
    // Rows: free bytes, free inodes, whether there is room. It comes back a little above the mark.
    for (bytes, inodes, room) in [
        (1000, 10, true),
        (999, 10, false),
        (1000, 10, false),
        (1063, 11, true),
        (5000, 9, false),
        (5000, 50, true),
    ] {
        disk.set_free(bytes, inodes);
        let accepted = spool
            .accept(simple(Timestamp::now(), "a@x.org"), None)
            .await;
        match room {
            true => assert!(accepted.is_ok(), "{bytes} {inodes}: {accepted:?}"),
            false => assert!(matches!(accepted, Err(Error::Full(_))), "{bytes} {inodes}"),
        }
        assert_eq!(spool.unhealthy().is_none(), room);
        // What is there can be worked off.
        let leases = claim_all(&spool).await;
        assert_eq!(finish(&spool, &leases).await, usize::from(room));
    }
}
