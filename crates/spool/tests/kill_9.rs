//! A process under load is killed at some moment, round after round on the same spool: all that it had told is there.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mail::Timestamp;
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Destination, Outcome, Seen, Spool};

const ROUNDS: u64 = 20;
const FOLDER: &str = "SPOOL_TEST_FOLDER";
const ROUND: &str = "SPOOL_TEST_ROUND";

fn small(path: &std::path::Path) -> Options {
    Options {
        segment_bytes: 128 * 1024,
        ..options(path)
    }
}

/// One line in one write: either the parent has it or not.
fn tell(word: &str, name: &str) {
    let line = format!("{word} {name}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// What the killed process does: accepts in six tasks, settles in one, tells of each.
async fn load(folder: std::path::PathBuf, round: String) {
    let spool = Arc::new(Embedded::open(small(&folder)).unwrap());
    for task in 0..6 {
        let spool = spool.clone();
        let round = round.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let name = format!("m{round}-{task}-{number}@x.org");
                let now = Timestamp::now();
                let body = format!("{name} {}", "x".repeat(number * 911 % 9000));
                let new = message(now, &body, vec![batch(Destination::Inside, now, &[&name])]);
                spool
                    .accept(new, Some(&format!("e.{round}{task}.{number:x}")))
                    .await
                    .unwrap();
                tell("accepted", &name);
            }
        });
    }
    let mut wanted = everything();
    wanted.lanes = [8; 4];
    let mut seen = Seen::default();
    loop {
        spool.ready(&mut seen).await;
        let leases = spool.claim("here", &wanted).await.unwrap();
        for (number, lease) in leases.iter().enumerate() {
            let name = lease.batch.recipients[0].address.to_string();
            tell("settling", &name);
            let settled = match number % 4 {
                0 => settlement(lease, deferred(lease, Timestamp::now())),
                _ => delivered(lease),
            };
            let done = matches!(settled.outcome, Outcome::Finished);
            assert_eq!(spool.settle(vec![settled]).await.unwrap(), 1);
            tell(if done { "finished" } else { "deferred" }, &name);
        }
    }
}

/// The process to be killed; nothing when it was not started for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        load(folder.into(), round).await;
    }
}

/// Starts it, and kills it once it has told `lines` things.
fn kill_after(folder: &std::path::Path, round: u64, lines: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    while (told.len() as u64) < lines {
        told.push(output.next().unwrap().unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had told when it was killed.
    told.extend(output.map_while(Result::ok));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    // True: it must be there; false: it may.
    let mut expected: BTreeMap<String, bool> = BTreeMap::new();
    let mut finished = BTreeSet::new();
    for round in 0..ROUNDS {
        let lines = 40 + round * 7919 % 400;
        for line in kill_after(folder.path(), round, lines) {
            let Some((word, name)) = line.split_once(' ') else {
                continue;
            };
            match word {
                "accepted" => {
                    // It may have been claimed before its acceptance was told.
                    let settled = expected.contains_key(name) || finished.contains(name);
                    expected.entry(name.to_owned()).or_insert(!settled);
                }
                "settling" => drop(expected.insert(name.to_owned(), false)),
                "deferred" => drop(expected.insert(name.to_owned(), true)),
                "finished" => {
                    expected.remove(name);
                    finished.insert(name.to_owned());
                }
                _ => {}
            }
        }
        expected.retain(|name, _| !finished.contains(name));
        if round % 3 == 2 {
            lose_index(folder.path());
        }
        let spool = Embedded::open(small(folder.path())).unwrap();
        let found = contents(&spool).await;
        let ledger = spool.ledger().await.unwrap();
        assert_eq!(
            (ledger.unaccounted, ledger.difference()),
            (0, 0),
            "{ledger:?}"
        );
        assert_eq!(ledger.waiting, found.len() as u64);
        assert!(ledger.ends.delivered >= finished.len() as u64, "{ledger:?}");
        for (name, must) in &expected {
            assert!(
                !must || found.contains_key(name),
                "round {round}: {name} is lost"
            );
        }
        for (name, (_, _, body)) in &found {
            assert!(!finished.contains(name), "round {round}: {name} came back");
            assert!(body.starts_with(format!("Subject: test\r\n\r\n{name}").as_bytes()));
        }
        // What was open is settled by what is there.
        expected = found.into_keys().map(|name| (name, true)).collect();
        let corrupt = folder.path().join("spool/corrupt");
        assert_eq!(folder_bytes(&corrupt), 0, "nothing was damaged");
    }
    assert!(finished.len() > 50, "{} were finished", finished.len());
}
