//! A spool whose process is dead is read without changing a byte of it, however damaged; what is damaged is named and hides nothing
//! else.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shared::*;
use spool::embedded::offline::{Offline, Report};
use spool::{Action, HoldId, Pattern, Predicate, Spool};

const MESSAGES: usize = 200;

/// Messages of 2 KB, in several small segments.
async fn filled(folder: &Path) -> PathBuf {
    let spool = open(folder);
    for number in 0..MESSAGES {
        let now = mail::Timestamp::now();
        let to = format!("to{number}@x.org");
        let body = format!("{}{to}", "y".repeat(2000));
        let batches = simple(now, &to).batches;
        spool
            .accept(message(now, &body, batches), None)
            .await
            .unwrap();
    }
    spool.close().await;
    folder.join("spool")
}

fn check(path: &Path) -> (Report, usize) {
    let work = tempfile::tempdir().unwrap();
    let offline = Offline::open(path, work.path()).unwrap();
    let mut whole = 0;
    offline
        .messages(|stored| {
            if let (Ok(body), [Ok(batch)]) = (&stored.body, stored.batches.as_slice()) {
                let to = batch.recipients[0].address.to_string();
                whole += usize::from(body.ends_with(to.as_bytes()) && stored.head.is_ok());
            }
            Ok(())
        })
        .unwrap();
    (offline.check().unwrap(), whole)
}

fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for folder in [path.to_owned(), path.join("journal"), path.join("corrupt")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    all
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = contents(path)
        .into_keys()
        .filter(|path| path.extension().is_some_and(|name| name == "segment"))
        .collect();
    all.sort();
    all
}

fn find(segments: &[PathBuf], what: &str) -> (PathBuf, u64) {
    let found = segments.iter().find_map(|path| {
        let bytes = std::fs::read(path).unwrap();
        let mut windows = bytes.windows(what.len());
        let at = windows.position(|window| window == what.as_bytes())?;
        Some((path.clone(), at as u64))
    });
    found.unwrap()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[tokio::test]
async fn a_whole_spool_is_read_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    assert!(segments(&path).len() > 1);
    let before = contents(&path);
    let (report, whole) = check(&path);
    assert!(report.is_whole() && !report.format_lost, "{report:?}");
    assert_eq!((report.messages, whole), (MESSAGES as u64, MESSAGES));
    assert_eq!((report.batches, report.recipients), (200, 200));
    assert_eq!(contents(&path), before);
}

#[tokio::test]
async fn the_account_is_shown_and_misses_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    let spool = open(folder.path());
    let some = |pattern| Predicate {
        recipient: Some(Pattern::new(pattern)),
        ..Predicate::default()
    };
    // to1, to10..to19, to100..to199; to2, to20..to29.
    let dropped = spool.select(&some("to1*"), Action::Drop).await.unwrap();
    let to2 = some("to2*");
    let held = spool.select(&to2, Action::Hold(HoldId(1)));
    assert_eq!(
        (dropped.recipients, held.await.unwrap().recipients),
        (111, 11)
    );
    let leases = claim_all(&spool).await;
    let done: Vec<_> = leases.iter().take(5).map(delivered).collect();
    assert_eq!(spool.settle(done).await.unwrap(), 5);
    let online = spool.ledger().await.unwrap();
    spool.close().await;
    let (report, _) = check(&path);
    assert_eq!(report.ledger, online);
    let (ledger, ends) = (report.ledger, report.ledger.ends);
    assert_eq!(
        (ledger.accepted, ends.dropped, ends.delivered),
        (200, 111, 5)
    );
    assert_eq!((ledger.waiting, ledger.held), (84, 11));
    assert_eq!((ledger.unaccounted, ledger.difference()), (0, 0));

    // The start of a group in which one of those stands that wait.
    let (segment, at) = find(&segments(&path), "yyyyto50@x.org");
    overwrite(&segment, at / 4096 * 4096 - 4096, &[0xff; 4096]);
    let (report, _) = check(&path);
    assert!(!report.is_whole());
    assert!(report.ledger.difference() >= 1, "{report:?}");
}

#[tokio::test]
async fn nothing_but_the_segments_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    for file in contents(&path).into_keys() {
        if file.extension().is_none_or(|name| name != "segment") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let (report, whole) = check(&path);
    assert!(report.is_whole() && report.format_lost, "{report:?}");
    assert_eq!(whole, MESSAGES);
}

#[tokio::test]
async fn damage_is_named_and_hides_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path()).await;
    let all = segments(&path);
    // One bit of one body.
    let (segment, at) = find(&all, "yyyyto3@x.org");
    overwrite(&segment, at, b"z");
    let (report, whole) = check(&path);
    assert_eq!((report.corrupt_bodies.len(), whole), (1, MESSAGES - 1));
    assert!(report.damage.is_empty(), "{report:?}");
    // The start of a group in the middle of the journal.
    let (segment, at) = find(&all, "yyyyto50@x.org");
    overwrite(&segment, at / 4096 * 4096 - 4096, &[0xff; 4096]);
    let (report, whole) = check(&path);
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert!(report.damage[0].groups >= 1);
    assert!((MESSAGES - 10..MESSAGES - 1).contains(&whole), "{whole}");
    assert!(!report.is_whole());
}

#[tokio::test]
async fn a_spool_in_use_and_a_folder_without_one_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let work = tempfile::tempdir().unwrap();
    let refused = |path: &Path| Offline::open(path, work.path()).unwrap_err().to_string();
    let in_use = refused(&folder.path().join("spool"));
    assert!(in_use.contains("running process"), "{in_use}");
    spool.close().await;
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("journal")).unwrap();
    let none = refused(empty.path());
    assert!(none.contains("no spool"), "{none}");
}
