//! Selections are durable: after a crash, a fault of the disk or the loss of the index all is as it was told; a selection that was cut
//! has done some of it, and done again it does the rest.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::embedded::offline::Offline;
use spool::embedded::{Embedded, Options};
use spool::{Action, Destination, HoldId, Ledger, Pattern, Predicate, Spool};

fn small(path: &Path) -> Options {
    Options {
        segment_bytes: 64 * 1024,
        ..options(path)
    }
}

fn to(pattern: &str) -> Predicate {
    Predicate {
        recipient: Some(Pattern::new(pattern)),
        ..Predicate::default()
    }
}

/// What there is: each recipient with the hold that it is under, 0 for none.
async fn holds(spool: &dyn Spool) -> BTreeMap<String, u64> {
    let all = Predicate::default();
    let found = spool.find(&all, None, 1_000_000).await.unwrap();
    let one = |found: spool::Found| {
        let hold = found.batch.held.map_or(0, |hold| hold.0);
        let recipients = found.batch.recipients.into_iter();
        recipients.map(move |to| (to.address.local().to_owned(), hold))
    };
    found.into_iter().flat_map(one).collect()
}

/// What was told of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Under this hold, or none.
    Held(u64),
    /// Ended.
    Gone,
    /// Something failed: it may be this or as it was.
    Unknown,
}

/// Selections of what waits and of what is being attempted; the attempts never end.
async fn story(spool: &dyn Spool, body_bytes: usize) -> BTreeMap<String, Told> {
    let mut told = BTreeMap::new();
    let body = "x".repeat(body_bytes);
    let now = Timestamp::now();
    for number in 0..8 {
        let names = [format!("a{number}"), format!("b{number}")];
        let [a, b] = names.each_ref().map(|name| format!("{name}@x.org"));
        let batches = vec![batch(Destination::Inside, now, &[&a, &b])];
        let accepted = spool.accept(message(now, &body, batches), None).await;
        for name in names {
            told.insert(
                name,
                accepted.as_ref().map_or(Told::Unknown, |_| Told::Held(0)),
            );
        }
    }
    let hold = |number| (Action::Hold(HoldId(number)), Told::Held(number));
    let drop = (Action::Drop, Told::Gone);
    let waiting = [
        ("a0@*", hold(1)),
        ("?1@*", drop),
        ("*2@*", hold(2)),
        ("*1@*", drop),
        ("a2@*", (Action::Release, Told::Held(0))),
    ];
    let attempted = [
        ("*3@*", hold(3)),
        ("b4@*", hold(4)),
        ("a5@*", drop),
        ("*6@*", drop),
    ];
    for (number, (pattern, (action, becomes))) in waiting.into_iter().chain(attempted).enumerate() {
        if number == waiting.len() {
            let _ = spool.claim("here", &everything()).await;
        }
        let done = spool.select(&to(pattern), action).await;
        // Of what could not be read nobody said that it was treated.
        let done = done.is_ok_and(|selected| selected.unreadable == 0);
        let [letter, digit] = [pattern.as_bytes()[0], pattern.as_bytes()[1]];
        for (name, told) in &mut told {
            let [one, other] = [name.as_bytes()[0], name.as_bytes()[1]];
            if other == digit && (letter == b'*' || letter == one) && *told != Told::Unknown {
                *told = if done { becomes } else { Told::Unknown };
            }
        }
    }
    told
}

async fn check(what: &str, spool: &dyn Spool, told: &BTreeMap<String, Told>) -> Ledger {
    let found = holds(spool).await;
    for (name, told) in told {
        let found = found.get(name).copied();
        match told {
            Told::Held(hold) => assert_eq!(found, Some(*hold), "{what}: {name}"),
            Told::Gone => assert_eq!(found, None, "{what}: {name} came back"),
            Told::Unknown => {}
        }
    }
    let ledger = spool.ledger().await.unwrap();
    assert_eq!(
        (ledger.unaccounted, ledger.difference()),
        (0, 0),
        "{what}: {ledger:?}"
    );
    assert_eq!(ledger.waiting, found.len() as u64, "{what}");
    let held = found.values().filter(|hold| **hold > 0).count();
    assert_eq!(ledger.held, held as u64, "{what}");
    ledger
}

#[tokio::test]
async fn they_survive_the_end_of_the_process_and_the_loss_of_the_index() {
    for closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path());
        let told = story(&spool, 9_000).await;
        assert!(told.values().all(|told| *told != Told::Unknown));
        if closed {
            spool.close().await;
        }
        drop(spool);
        let what = format!("closed {closed}");
        let spool = open(folder.path());
        let ledger = check(&what, &spool, &told).await;
        assert_eq!((ledger.ends.dropped, ledger.held), (5, 5));
        let free = told.values().filter(|told| **told == Told::Held(0)).count();
        let leases = claim_all(&spool).await;
        let claimed: usize = leases
            .iter()
            .map(|lease| lease.batch.recipients.len())
            .sum();
        assert_eq!(claimed, free, "what is held is not claimed");
        spool.close().await;
        drop(spool);
        let work = tempfile::tempdir().unwrap();
        let offline = Offline::open(&folder.path().join("spool"), work.path()).unwrap();
        assert_eq!(offline.check().unwrap().held, 4, "batches");
        lose_index(folder.path());
        let spool = open(folder.path());
        assert_eq!(check(&what, &spool, &told).await, ledger);
    }
}

/// A child that has not become another program yet has every lock of its parent, for a moment: nothing is opened meanwhile.
static FORKS: RwLock<()> = RwLock::new(());

fn open(folder: &Path) -> Embedded {
    let _none = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    Embedded::open(small(folder)).unwrap()
}

async fn at_each_call(fault: Fault, step: u64) {
    let mut at = 1;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(fault, at);
        let opened = Embedded::open_on(small(folder.path()), Arc::new(disk.clone()));
        let mut told = BTreeMap::new();
        if let Ok(spool) = opened {
            told = story(&spool, 9_000).await;
            drop(spool);
        }
        let what = format!("{fault:?} at call {at}, {:?}", disk.struck_call());
        let mut before = None;
        for rebuilt in [false, true] {
            if rebuilt {
                lose_index(folder.path());
            }
            let what = format!("{what}, rebuilt {rebuilt}");
            let spool = open(folder.path());
            let ledger = check(&what, &spool, &told).await;
            assert_eq!(*before.get_or_insert(ledger), ledger, "{what}");
            spool.close().await;
        }
        if !disk.struck() {
            break;
        }
        at += step;
    }
    assert!(at > 40, "the story has more calls than {at}");
}

#[tokio::test]
async fn the_process_dies_at_each_call() {
    at_each_call(Fault::Dies, 7).await;
}

#[tokio::test]
async fn each_write_tears() {
    at_each_call(Fault::Tears, 9).await;
}

#[tokio::test]
async fn each_call_fails_once() {
    at_each_call(Fault::Once(ErrorKind::Other), 7).await;
}

#[tokio::test]
async fn the_disk_is_full_at_each_call() {
    at_each_call(Fault::Once(ErrorKind::StorageFull), 9).await;
}

/// The segments in which they stood are used again, and what was counted there is still counted.
#[tokio::test]
async fn they_outlive_the_segments_that_told_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let told = story(&spool, 100).await;
    let first = segments(folder.path()).remove(0);
    // The attempts end, so that nothing stands in the way of carrying their segment forward.
    drop(spool);
    let spool = open(folder.path());
    let mut others = everything();
    others.destinations = spool::Destinations::Only(vec![domain("y.org")]);
    let body = "x".repeat(20_000);
    let mut count = 0;
    let started = Instant::now();
    while first.exists() {
        let waited = started.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "the first segment is never let go of"
        );
        // Once enough has come after it, all that is left is to wait for the sweeper.
        if count == 30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        count += 1;
        let now = Timestamp::now();
        let new = message(now, &body, vec![batch(domain("y.org"), now, &["z@y.org"])]);
        spool.accept(new, None).await.unwrap();
        for lease in spool.claim("here", &others).await.unwrap() {
            spool.settle(vec![delivered(&lease)]).await.unwrap();
        }
    }
    let ledger = check("before", &spool, &told).await;
    assert_eq!(ledger.ends.delivered, count);
    spool.close().await;
    drop(spool);
    lose_index(folder.path());
    let spool = open(folder.path());
    assert_eq!(check("after", &spool, &told).await, ledger);
}

// === kill -9 ===

const FOLDER: &str = "SPOOL_TEST_SELECTIONS";
const BATCHES: usize = 1500;

fn tell(line: &str) {
    let line = format!("{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The process to be killed; nothing when it was not started for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let spool = open(folder.as_ref());
    let held = spool.ledger().await.unwrap().held;
    let mut hold = held == 0;
    loop {
        let action = match hold {
            true => Action::Hold(HoldId(7)),
            false => Action::Release,
        };
        tell(if hold { "holding" } else { "releasing" });
        spool.select(&to("a*"), action).await.unwrap();
        tell(if hold { "held" } else { "released" });
        hold = !hold;
    }
}

fn kill_after(folder: &Path, lines: usize, moment: Duration) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    let mut child = {
        let _alone = FORKS.write().unwrap_or_else(PoisonError::into_inner);
        command.spawn().unwrap()
    };
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    while told.len() < lines {
        told.push(output.next().unwrap().unwrap());
    }
    // Somewhere in the middle of what comes next: any moment will do.
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(output.map_while(Result::ok));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selection_that_was_killed_is_done_by_doing_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let now = Timestamp::now();
    for some in 0..BATCHES / 100 {
        let batches = (0..100).map(|number| {
            let number = some * 100 + number;
            let both = [format!("a{number}@x.org"), format!("b{number}@x.org")];
            batch(Destination::Inside, now, &[&both[0], &both[1]])
        });
        let new = message(now, "x", batches.collect());
        spool.accept(new, None).await.unwrap();
    }
    spool.close().await;
    drop(spool);
    let mut halves = 0;
    for round in 0..8 {
        let moment = Duration::from_millis(round * 17 % 90);
        let told = kill_after(folder.path(), 3 + round as usize % 4, moment);
        if round % 3 == 2 {
            lose_index(folder.path());
        }
        let spool = open(folder.path());
        let ledger = spool.ledger().await.unwrap();
        assert_eq!(
            (ledger.accepted, ledger.waiting),
            (3000, 3000),
            "round {round}"
        );
        assert_eq!(ledger.difference(), 0);
        let found = holds(&spool).await;
        assert_eq!(found.len(), 2 * BATCHES, "round {round}: nobody is lost");
        let held: BTreeSet<_> = found.iter().filter(|(_, hold)| **hold == 7).collect();
        assert_eq!(ledger.held, held.len() as u64);
        assert!(held.iter().all(|(name, _)| name.starts_with('a')));
        match told.last().map(String::as_str) {
            Some("held") => assert_eq!(held.len(), BATCHES, "round {round}"),
            Some("released") => assert!(held.is_empty(), "round {round}"),
            _ => halves += usize::from(!held.is_empty() && held.len() < BATCHES),
        }
        let hold = Action::Hold(HoldId(7));
        let again = spool.select(&to("a*"), hold).await.unwrap();
        assert_eq!(again.recipients, BATCHES as u64);
        assert_eq!(spool.ledger().await.unwrap().held, BATCHES as u64);
        spool.close().await;
    }
    println!("{halves} rounds were cut in the middle");
}
