//! A process under load is killed at some moment, round after round on the same spool: all that it had told is there, also of what an
//! operator holds, releases and drops meanwhile, and the account balances, before the spool is opened again and after.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mail::Timestamp;
use shared::*;
use spool::embedded::offline::Offline;
use spool::embedded::{Embedded, Options};
use spool::{Action, Destination, HoldId, Outcome, Pattern, Predicate, Seen, Spool};

const ROUNDS: u64 = 20;
const FOLDER: &str = "SPOOL_TEST_FOLDER";
const ROUND: &str = "SPOOL_TEST_ROUND";
/// Tasks whose mail an operator holds and releases, and drops.
const HELD: u64 = 4;
const DROPPED: u64 = 5;

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

/// The mail of one task of all rounds so far.
fn of_task(task: u64) -> Predicate {
    Predicate {
        recipient: Some(Pattern::new(&format!("m*-{task}-*@x.org"))),
        ..Predicate::default()
    }
}

/// What an operator does beside: holds the mail of one task, drops that of another, releases what is held.
async fn operate(spool: Arc<Embedded>, round: u64) {
    for number in 0.. {
        let hold = HoldId(round * 1_000_000 + number);
        for (task, word, action) in [
            (HELD, "hold", Action::Hold(hold)),
            (DROPPED, "drop", Action::Drop),
            (HELD, "release", Action::Release),
        ] {
            tell("begins", word);
            spool.select(&of_task(task), action).await.unwrap();
            tell("did", word);
        }
    }
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
    tokio::spawn(operate(spool.clone(), round.parse().unwrap()));
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

/// Starts it, and kills it once it has told `lines` things; every other round not before its operator has dropped something.
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
    let mut dropped = round.is_multiple_of(2);
    while (told.len() as u64) < lines || !dropped {
        let line = output.next().unwrap().unwrap();
        dropped |= line == "did drop";
        told.push(line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had told when it was killed.
    told.extend(output.map_while(Result::ok));
    told
}

/// What the killed processes told.
#[derive(Default)]
struct Told {
    /// True: it must be there; false: it may.
    expected: BTreeMap<String, bool>,
    finished: BTreeSet<String>,
    /// Accepted, in all.
    accepted: u64,
    /// What waited when a drop of it began.
    dropping: BTreeSet<String>,
    drops: u64,
    holds: u64,
    /// What an operator began last.
    under_way: String,
}

fn is_of(name: &str, task: u64) -> bool {
    name.starts_with('m') && name.split('-').nth(1) == Some(&task.to_string())
}

impl Told {
    fn hear(&mut self, line: &str) {
        let Some((word, name)) = line.split_once(' ') else {
            return;
        };
        // An operator may end it at any moment.
        let must = !is_of(name, DROPPED);
        match word {
            "accepted" => {
                self.accepted += 1;
                // It may have been claimed before its acceptance was told.
                let settled = self.expected.contains_key(name) || self.finished.contains(name);
                self.expected
                    .entry(name.to_owned())
                    .or_insert(!settled && must);
            }
            "settling" => drop(self.expected.insert(name.to_owned(), false)),
            "deferred" => drop(self.expected.insert(name.to_owned(), must)),
            "finished" => {
                self.expected.remove(name);
                self.finished.insert(name.to_owned());
            }
            "begins" => {
                self.under_way = name.to_owned();
                let these = self.expected.keys().filter(|name| is_of(name, DROPPED));
                self.dropping = these.cloned().collect();
            }
            "did" if name == "drop" => {
                self.drops += 1;
                // Also what was being attempted: what that left was treated, at the latest by the next start.
                self.expected
                    .retain(|name, _| !self.dropping.contains(name));
                self.finished.append(&mut self.dropping);
            }
            "did" => self.holds += u64::from(name == "hold"),
            _ => {}
        }
    }

    /// What is there, in a spool that was opened again. What is held is let go first.
    async fn compare(&mut self, spool: &Embedded, round: u64) {
        let held = spool.ledger().await.unwrap().held;
        let is_held = Predicate {
            held: Some(true),
            ..Predicate::default()
        };
        let all = spool.find(&is_held, None, usize::MAX).await.unwrap();
        assert_eq!(held, all.len() as u64, "round {round}");
        for found in &all {
            let name = found.batch.recipients[0].address.to_string();
            assert!(is_of(&name, HELD), "round {round}: {name} is held");
        }
        let released = spool.select(&is_held, Action::Release).await.unwrap();
        assert_eq!(released.recipients, held, "round {round}");
        let found = contents(spool).await;
        let ledger = spool.ledger().await.unwrap();
        assert_eq!(
            (ledger.unaccounted, ledger.difference()),
            (0, 0),
            "{ledger:?}"
        );
        assert_eq!((ledger.waiting, ledger.held), (found.len() as u64, 0));
        // Of each round's six accepts one may have been answered without telling it.
        let untold = ledger.accepted - self.accepted;
        assert!(untold <= 6 * (round + 1), "round {round}: {ledger:?}");
        let ended = ledger.ends.delivered + ledger.ends.dropped;
        assert!(ended >= self.finished.len() as u64, "{ledger:?}");
        for (name, must) in &self.expected {
            assert!(
                !must || found.contains_key(name),
                "round {round}: {name} is lost"
            );
        }
        for (name, (_, _, body)) in &found {
            assert!(
                !self.finished.contains(name),
                "round {round}: {name} came back"
            );
            assert!(body.starts_with(format!("Subject: test\r\n\r\n{name}").as_bytes()));
        }
        // What was open is settled by what is there.
        let found = found.into_keys().map(|name| {
            let must = !is_of(&name, DROPPED);
            (name, must)
        });
        self.expected = found.collect();
    }
}

/// The account of a spool that no process works on balances.
fn balances_offline(folder: &std::path::Path, round: u64) -> u64 {
    let work = tempfile::tempdir().unwrap();
    let offline = Offline::open(&folder.join("spool"), work.path()).unwrap();
    let report = offline.check().unwrap();
    assert!(report.is_whole(), "round {round}: {report:?}");
    let ledger = report.ledger;
    assert_eq!(
        (ledger.unaccounted, ledger.difference()),
        (0, 0),
        "{ledger:?}"
    );
    assert_eq!(ledger.waiting, report.recipients);
    ledger.accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_told_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let lines = 40 + round * 7919 % 400;
        for line in kill_after(folder.path(), round, lines) {
            told.hear(&line);
        }
        let accepted = balances_offline(folder.path(), round);
        if round % 3 == 2 {
            lose_index(folder.path());
        }
        let spool = Embedded::open(small(folder.path())).unwrap();
        assert_eq!(spool.ledger().await.unwrap().accepted, accepted);
        told.compare(&spool, round).await;
        let corrupt = folder.path().join("spool/corrupt");
        assert_eq!(folder_bytes(&corrupt), 0, "nothing was damaged");
    }
    let (finished, drops, holds) = (told.finished.len(), told.drops, told.holds);
    assert!(finished > 50, "{finished} were finished");
    assert!(drops > 5 && holds > 5, "{drops} drops, {holds} holds");
}
