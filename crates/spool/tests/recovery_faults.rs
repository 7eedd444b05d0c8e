//! A spool with many messages, settlements, holds and segments is opened, copied and put in place, and each of the calls to the disk in
//! turn fails, finds no room, is short, tears, or is the last one. Then it is opened on a good disk: all that was acknowledged is there.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::embedded::backup::{restore, restore_on};
use spool::embedded::{Embedded, Options};
use spool::{Action, Destination, HoldId, Ledger, Outcome, Pattern, Predicate, Spool};

type Contents = BTreeMap<String, (u32, usize, Bytes)>;

const FAULTS: [Fault; 6] = [
    Fault::Eio,
    Fault::Once(ErrorKind::Other),
    Fault::Once(ErrorKind::StorageFull),
    Fault::IsShort,
    Fault::Tears,
    Fault::Dies,
];

fn small(path: &Path) -> Options {
    Options {
        segment_bytes: 64 * 1024,
        ..options(path)
    }
}

fn of(name: &str) -> Predicate {
    Predicate {
        recipient: Some(Pattern::new(name)),
        ..Predicate::default()
    }
}

/// Fills a spool, and leaves it as a crash does. What there is: all that waits, and the account.
async fn filled(folder: &Path) -> (Contents, Ledger) {
    let spool = Embedded::open(small(folder)).unwrap();
    let now = Timestamp::now();
    for number in 0..40 {
        let bytes = [200, 3_000, 9_000, 100_000][number % 4];
        let body = format!("{number} {}", "x".repeat(bytes));
        let to = [format!("a{number}@x.org"), format!("b{number}@x.org")];
        let batches = vec![
            batch(Destination::Inside, now, &[&to[0]]),
            batch(domain("y.org"), now, &[&to[1]]),
        ];
        let ident = format!("e.1.{number}");
        let new = message(now, &body, batches);
        spool.accept(new, Some(&ident)).await.unwrap();
    }
    for (at, lease) in claim_all(&spool).await.iter().enumerate() {
        let outcome = match at % 5 {
            0 => continue,
            1 => {
                let to = &lease.batch.recipients[0].address;
                let children = (0..20).map(|n| format!("{n}-{to}")).collect::<Vec<_>>();
                let of = |to: &String| batch(domain("z.org"), now, &[to]);
                Outcome::Replaced(children.iter().map(of).collect())
            }
            2 => deferred(lease, now),
            _ => Outcome::Finished,
        };
        let settled = match outcome {
            Outcome::Finished => delivered(lease),
            outcome => settlement(lease, outcome),
        };
        assert_eq!(spool.settle(vec![settled]).await.unwrap(), 1);
    }
    drop(spool);
    let spool = Embedded::open(small(folder)).unwrap();
    let hold = Action::Hold(HoldId(7));
    let held = spool.select(&of("1*@z.org"), hold).await.unwrap();
    assert_eq!(
        held.batches, 0,
        "the children are named after their parents"
    );
    let held = spool.select(&of("1-a*@x.org"), hold).await.unwrap();
    assert!(held.batches > 5, "{held:?}");
    let ledger = spool.ledger().await.unwrap();
    drop(spool);
    let expected = all(folder).await;
    assert!(expected.len() > 100, "{}", expected.len());
    (expected, ledger)
}

/// All that is in a spool, also what is held; the spool stays as it is.
async fn all(folder: &Path) -> Contents {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder, copy.path());
    let spool = Embedded::open(small(copy.path())).unwrap();
    spool
        .select(&Predicate::default(), Action::Release)
        .await
        .unwrap();
    contents(&spool).await
}

async fn holds_all(what: &str, folder: &Path, expected: &(Contents, Ledger)) {
    let found = all(folder).await;
    let names = |all: &Contents| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected.0), "{what}");
    assert!(found == expected.0, "{what}: bodies or attempts are others");
    let spool = Embedded::open(small(folder)).unwrap();
    assert_eq!(spool.ledger().await.unwrap(), expected.1, "{what}");
}

/// A fault at each `step`-th call of an opening, after a crash or with the index lost.
async fn opening(fault: Fault, step: u64) {
    let master = tempfile::tempdir().unwrap();
    let expected = filled(master.path()).await;
    let mut tried = 0;
    for lost in [false, true] {
        let mut at = 1;
        loop {
            let folder = tempfile::tempdir().unwrap();
            copy_folder(master.path(), folder.path());
            if lost {
                lose_index(folder.path());
            }
            let disk = FaultyDisk::new(fault, at);
            let opened = Embedded::open_on(small(folder.path()), Arc::new(disk.clone()));
            let within = disk.struck();
            let what = format!(
                "{fault:?} at call {at}, {:?}, index lost {lost}, opened {}",
                disk.struck_call(),
                opened.is_ok()
            );
            // Its threads end; they may meet the fault as well.
            drop(opened);
            holds_all(&what, folder.path(), &expected).await;
            tried += 1;
            if !within {
                break;
            }
            at += step;
        }
    }
    assert!(tried > 10, "an opening makes more calls than {tried}");
}

#[tokio::test]
async fn an_opening_meets_a_bad_sector() {
    opening(Fault::Eio, 7).await;
}

#[tokio::test]
async fn an_opening_meets_an_error() {
    opening(Fault::Once(ErrorKind::Other), 7).await;
}

#[tokio::test]
async fn an_opening_finds_no_room() {
    opening(Fault::Once(ErrorKind::StorageFull), 7).await;
}

#[tokio::test]
async fn an_opening_reads_and_writes_short() {
    opening(Fault::IsShort, 5).await;
}

#[tokio::test]
async fn an_opening_ends_in_the_middle() {
    opening(Fault::Dies, 7).await;
    opening(Fault::Tears, 11).await;
}

/// A copy that fails is not there, harms nothing, and can be made again.
#[tokio::test]
async fn a_copy_fails_at_each_call() {
    let master = tempfile::tempdir().unwrap();
    let expected = filled(master.path()).await;
    for fault in FAULTS {
        let mut at = 1;
        let mut failed = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            copy_folder(master.path(), folder.path());
            let to = folder.path().join("copy");
            let disk = FaultyDisk::new(fault, 0);
            let opened = Embedded::open_on(small(folder.path()), Arc::new(disk.clone()));
            let spool = opened.unwrap();
            disk.strike_in(at);
            let copied = spool.backup(&to).await;
            let struck = disk.struck();
            let what = format!(
                "{fault:?} at call {at}, {:?}: {copied:?}",
                disk.struck_call()
            );
            drop(spool);
            if copied.is_err() {
                failed += 1;
                // Who dies after it was put in place leaves a whole one.
                let died = matches!(fault, Fault::Dies | Fault::Tears);
                assert!(died || !to.exists(), "{what}: half a copy is there");
                let spool = Embedded::open(small(folder.path())).unwrap();
                if !to.exists() {
                    spool.backup(&to).await.unwrap();
                }
            }
            let place = tempfile::tempdir().unwrap();
            restore(&to, &place.path().join("spool"), false).unwrap();
            holds_all(&format!("{what}, the copy"), place.path(), &expected).await;
            holds_all(&what, folder.path(), &expected).await;
            if !struck {
                break;
            }
            at += 31;
        }
        assert!(
            failed > 2 || fault == Fault::IsShort,
            "{fault:?}: {failed} failed"
        );
    }
}

/// A copy that cannot be put in place leaves what was there, in its place or aside, and can be put in place again.
#[tokio::test]
async fn putting_a_copy_in_place_fails_at_each_call() {
    let master = tempfile::tempdir().unwrap();
    let expected = filled(master.path()).await;
    let from = master.path().join("spool");
    for fault in FAULTS {
        let mut at = 1;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let to = folder.path().join("spool");
            let old = open(folder.path());
            old.accept(simple(Timestamp::now(), "old@x.org"), None)
                .await
                .unwrap();
            old.close().await;
            drop(old);
            let disk = FaultyDisk::new(fault, at);
            let restored = restore_on(&disk, &from, &to, true);
            let what = format!(
                "{fault:?} at call {at}, {:?}: {restored:?}",
                disk.struck_call()
            );
            let aside = folder.path().join("spool.replaced-1");
            if restored.is_err() {
                // It is the old one, or the old one is aside and there is none, or the copy whole.
                if !aside.exists() {
                    assert_eq!(all(folder.path()).await.len(), 1, "{what}");
                }
                restore(&from, &to, true).unwrap();
            }
            holds_all(&what, folder.path(), &expected).await;
            let kept = tempfile::tempdir().unwrap();
            copy_folder(&aside, &kept.path().join("spool"));
            let name = all(kept.path()).await.into_keys().next().unwrap();
            assert_eq!(name, "old@x.org", "{what}");
            if !disk.struck() {
                break;
            }
            at += 41;
        }
    }
}
