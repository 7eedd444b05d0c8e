//! A batch's record or its message's head is damaged, or the disk refuses to read it: that batch alone rests, comes back when the disk
//! does, or is set aside with what is known of it. Claims, selections, the next start and the account go on.

#![allow(clippy::unwrap_used)]

mod shared;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::embedded::offline::Offline;
use spool::embedded::{Embedded, Options};
use spool::{Action, Destination, HoldId, Pattern, Predicate, Seen, Spool};

/// What stands in a batch for the recipient b@x.org, and in a head for the sender: counted local part and domain.
const RECIPIENT: &[u8] = b"\x01b\x05x.org";
const SENDER: &[u8] = b"\x06sender\x0bexample.org";

/// A spool with a message each for a, b and c, a group each, and closed; its only segment.
async fn three(folder: &Path) -> PathBuf {
    let spool = open(folder);
    for name in ["a@x.org", "b@x.org", "c@x.org"] {
        let now = Timestamp::now();
        spool.accept(simple(now, name), None).await.unwrap();
    }
    spool.close().await;
    segments(folder).remove(0)
}

/// Flips a bit of what stands at `of` in the group of this number.
fn flip(segment: &Path, group: usize, of: &[u8]) {
    let mut bytes = std::fs::read(segment).unwrap();
    let start = groups(&bytes)[group];
    let mut windows = bytes[start..].windows(of.len());
    let at = start + windows.position(|window| window == of).unwrap();
    bytes[at + 1] ^= 4;
    std::fs::write(segment, &bytes).unwrap();
}

fn on(folder: &Path, patience: Duration) -> (Embedded, FaultyDisk) {
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let options = Options {
        read_patience: patience,
        ..options(folder)
    };
    let spool = Embedded::open_on(options, Arc::new(disk.clone())).unwrap();
    (spool, disk)
}

/// The page that the second of three groups stands in.
fn second(segment: &Path) -> std::ops::Range<u64> {
    let start = groups(&std::fs::read(segment).unwrap())[1] as u64;
    start..start + 4096
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: never");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn corrupt(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder.join("spool/corrupt")).unwrap();
    let mut names: Vec<_> = all
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn text(folder: &Path, ending: &str) -> String {
    let names = corrupt(folder);
    let name = names.iter().find(|name| name.ends_with(ending));
    let name = name.unwrap_or_else(|| panic!("no {ending} among {names:?}"));
    String::from_utf8_lossy(&std::fs::read(folder.join("spool/corrupt").join(name)).unwrap()).into()
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_alone() {
    // Rows: what is damaged, what the envelope can still say.
    for (of, known) in [
        (RECIPIENT, "reverse-path <sender@example.org>"),
        (SENDER, "forward-path <b@x.org>"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let segment = three(folder.path()).await;
        flip(&segment, 1, of);
        let spool = open(folder.path());
        let leases = claim_all(&spool).await;
        assert_eq!(names(&leases), ["a@x.org", "c@x.org"]);
        until("set aside", || spool.vitals().batches_set_aside == 1).await;
        assert_eq!(spool.vitals().unreadable, 0);
        let ledger = spool.ledger().await.unwrap();
        assert_eq!((ledger.ends.set_aside, ledger.waiting), (1, 2));
        assert_eq!(ledger.difference(), 0);
        let said = text(folder.path(), ".envelope");
        assert!(said.contains(known), "{said}");
        assert!(said.contains("1 recipients, to Inside"), "{said}");
        assert!(
            said.contains("stood in journal/0000000000000001.segment"),
            "{said}"
        );
        assert_eq!(text(folder.path(), ".eml"), "Subject: test\r\n\r\nb@x.org");
        assert!(!text(folder.path(), ".record").is_empty());
        assert_eq!(finish(&spool, &leases).await, 2);
        spool.close().await;
        // It does not come back, and whoever checks hears of it.
        for rebuilt in [false, true] {
            if rebuilt {
                lose_index(folder.path());
            }
            let spool = open(folder.path());
            assert!(claim_all(&spool).await.is_empty());
            spool.close().await;
        }
        let work = tempfile::tempdir().unwrap();
        let offline = Offline::open(&folder.path().join("spool"), work.path()).unwrap();
        let report = offline.check().unwrap();
        let about = report
            .set_aside
            .iter()
            .find(|name| name.starts_with("batch-"));
        assert!(about.is_some(), "{:?}", report.set_aside);
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    }
}

#[tokio::test]
async fn what_the_disk_gives_again_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let segment = three(folder.path()).await;
    let (spool, disk) = on(folder.path(), Duration::from_secs(3600));
    disk.refuse(&segment, second(&segment));
    // Selections treat all others, and say of how many they cannot tell.
    let of_sender = Predicate {
        sender: Some(Pattern::new("sender@example.org")),
        ..Predicate::default()
    };
    let counted = spool.select(&of_sender, Action::Count).await.unwrap();
    assert_eq!((counted.batches, counted.unreadable), (2, 1));
    let held = spool
        .select(&of_sender, Action::Hold(HoldId(1)))
        .await
        .unwrap();
    assert_eq!((held.batches, held.unreadable), (2, 1));
    let found = spool.find(&of_sender, None, 10).await.unwrap();
    assert_eq!(found.len(), 2);
    let released = spool.select(&of_sender, Action::Release).await.unwrap();
    assert_eq!((released.batches, released.unreadable), (2, 1));
    // Claims go on, and do not come back to it at once.
    for expected in [2, 0] {
        assert_eq!(claim_all(&spool).await.len(), expected);
    }
    assert_eq!(spool.vitals().unreadable, 1);
    assert_eq!(
        spool
            .select(&Predicate::default(), Action::Count)
            .await
            .unwrap()
            .unreadable,
        1
    );
    let mut seen = Seen::default();
    spool.ready(&mut seen).await;
    disk.heal();
    let mut found = Vec::new();
    until("read again", || spool.vitals().unreadable == 0).await;
    spool.ready(&mut seen).await;
    found.extend(claim_all(&spool).await);
    assert_eq!(names(&found), ["b@x.org"]);
    assert_eq!(finish(&spool, &found).await, 1);
    assert_eq!(spool.vitals().batches_set_aside, 0);
    assert!(corrupt(folder.path()).is_empty());
}

#[tokio::test]
async fn what_the_disk_keeps_refusing_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let segment = three(folder.path()).await;
    let (spool, disk) = on(folder.path(), Duration::from_millis(100));
    disk.refuse(&segment, second(&segment));
    let leases = claim_all(&spool).await;
    assert_eq!(names(&leases), ["a@x.org", "c@x.org"]);
    // As long as it cannot be kept elsewhere either, nothing is ended.
    disk.set_failing("set_length");
    // Each try reads the record, and what of it can be read for the file that cannot be made.
    let before = disk.failed();
    until("tried", || disk.failed() >= before + 6).await;
    assert_eq!(spool.vitals().batches_set_aside, 0);
    assert_eq!(spool.ledger().await.unwrap().waiting, 3);
    disk.set_failing("");
    until("set aside", || spool.vitals().batches_set_aside == 1).await;
    let ledger = spool.ledger().await.unwrap();
    assert_eq!(
        (ledger.ends.set_aside, ledger.waiting, ledger.difference()),
        (1, 2, 0)
    );
    assert!(text(folder.path(), ".envelope").contains("Input/output error"));
}

/// Nothing is ended because the disk is away as a whole.
#[tokio::test]
async fn a_disk_that_is_away_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for number in 0..120 {
        let name = format!("m{number}@x.org");
        spool
            .accept(simple(Timestamp::now(), &name), None)
            .await
            .unwrap();
    }
    spool.close().await;
    let (spool, disk) = on(folder.path(), Duration::from_secs(1));
    for segment in segments(folder.path()) {
        disk.refuse(&segment, 0..u64::MAX);
    }
    assert!(claim_all(&spool).await.is_empty());
    until("noticed", || spool.unhealthy().is_some()).await;
    // Each is tried again when its time is over, at least once.
    let before = disk.failed();
    until("tried again", || disk.failed() >= before + 240).await;
    assert_eq!(spool.vitals().unreadable, 120);
    assert_eq!(spool.vitals().batches_set_aside, 0);
    assert!(spool.unhealthy().unwrap().contains("120 batches"));
    disk.heal();
    until("back", || spool.vitals().unreadable == 0).await;
    assert_eq!(claim_all(&spool).await.len(), 120);
    assert_eq!(spool.unhealthy(), None);
}

#[tokio::test]
async fn a_body_that_is_refused_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let segment = three(folder.path()).await;
    // Rows: patience, whether it is set aside.
    for (patience, aside) in [(Duration::from_secs(3600), false), (Duration::ZERO, true)] {
        let (spool, disk) = on(folder.path(), patience);
        let leases = claim_all(&spool).await;
        disk.refuse(&segment, second(&segment));
        // Three that came in one millisecond have no order.
        let mut leases = leases.iter();
        let lease = leases.find(|lease| lease.batch.recipients[0].address.local() == "b");
        let id = lease.unwrap().head.id;
        let refused = spool.body(id).await.unwrap_err();
        assert_eq!(
            matches!(refused, spool::Error::Corrupt(..)),
            aside,
            "{refused}"
        );
        disk.heal();
        assert!(spool.body(id).await.is_ok());
    }
}

// === The next start ===

/// One batch of three is damaged in a group that is read again: the others and their message are there.
#[tokio::test]
async fn what_is_whole_of_a_damaged_group_counts() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let now = Timestamp::now();
    let of = |to: &str| batch(Destination::Inside, now, &[to]);
    let batches = vec![of("a@x.org"), of("b@x.org"), of("c@x.org")];
    spool
        .accept(message(now, "body", batches), Some("e.1.1"))
        .await
        .unwrap();
    spool.accept(simple(now, "d@x.org"), None).await.unwrap();
    spool.close().await;
    flip(&segments(folder.path())[0], 0, RECIPIENT);
    lose_index(folder.path());
    let spool = open(folder.path());
    let found = contents(&spool).await;
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["a@x.org", "c@x.org", "d@x.org"]
    );
    assert_eq!(corrupt(folder.path()), ["journal-0000000000000001-0"]);
    // Whoever is lost is missed.
    assert_eq!(spool.ledger().await.unwrap().difference(), 1);
}

/// The disk refuses a group: the start goes on with all others, writes over nothing, and has it again when the disk gives it.
#[tokio::test]
async fn a_refused_group_is_kept() {
    for group in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let segment = three(folder.path()).await;
        let start = groups(&std::fs::read(&segment).unwrap())[group] as u64;
        lose_index(folder.path());
        let disk = FaultyDisk::new(Fault::Dies, 0);
        disk.refuse(&segment, start..start + 4096);
        let spool = Embedded::open_on(options(folder.path()), Arc::new(disk.clone())).unwrap();
        let leases = claim_all(&spool).await;
        let expected = match group {
            1 => ["a@x.org", "c@x.org"],
            _ => ["a@x.org", "b@x.org"],
        };
        assert_eq!(names(&leases), expected);
        assert_eq!(
            corrupt(folder.path()),
            [format!("journal-{:016x}-{start}.refused", 1)]
        );
        assert_eq!(finish(&spool, &leases).await, 2);
        // Enough that a segment in which nothing is needed would be let go.
        for number in 0..30 {
            let body = "x".repeat(20_000);
            let to = batch(
                Destination::Inside,
                Timestamp::now(),
                &[&format!("n{number}@x.org")],
            );
            let new = message(Timestamp::now(), &body, vec![to]);
            spool.accept(new, None).await.unwrap();
        }
        let leases = claim_all(&spool).await;
        finish(&spool, &leases).await;
        until("let go", || segments(folder.path()).len() <= 2).await;
        spool.close().await;
        disk.heal();
        lose_index(folder.path());
        let found = contents(&open(folder.path())).await;
        let name = if group == 1 { "b@x.org" } else { "c@x.org" };
        assert_eq!(found.keys().collect::<Vec<_>>(), [name]);
    }
}
