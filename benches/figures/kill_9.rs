//! `kill9_rounds`, `kill9_lost`, `kill9_duplicates`: a process under load (accepts with idents, claims, settlements of every kind,
//! bodies that need a segment of their own; an operator who holds, releases and drops) is killed at a random moment, round after round on
//! the same spool. After each round all is looked at: what was told is there, whole and once, what was told to be done does not come back,
//! idents are remembered, the ledger balances, read offline and by the next start.
//!
//! A duplicate is a batch that is attempted again although an attempt began whose settlement was not answered: its recipients
//! may get the mail twice. The window is what two workers have in hand: so many batches a round at most.

#![allow(missing_docs)]

mod killed;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use killed::{
    DROPPED, HAND, HELD, Random, WORKERS, child, is_of, load, name, new_message, options,
    settlement, wanted,
};
use mailload::figures::{Figure, Goal, is_full, is_wanted, report};
use spool::embedded::Embedded;
use spool::embedded::offline::Offline;
use spool::{Action, Outcome, Predicate, Spool};

type Failure = Box<dyn Error>;

const FIGURES: [&str; 3] = ["kill9_rounds", "kill9_lost", "kill9_duplicates"];

/// Rounds; the goal names the smaller number.
const ROUNDS: u64 = 200;
const ROUNDS_FULL: u64 = 600;
/// A round lasts at most so long after its first message, milliseconds.
const ROUND_MS: u64 = 400;
/// What waits is worked off between rounds down to this.
const BACKLOG_MAX: usize = 1500;
const FOLDER: &str = "KILL_9_FOLDER";
const ROUND: &str = "KILL_9_ROUND";

/// Starts it and kills it some time after it has opened the spool; what it had told.
fn kill(folder: &Path, round: u64, after: Duration) -> Result<Vec<String>, Failure> {
    let mut process = Command::new(std::env::current_exe()?)
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = process.stdout.take().ok_or("no output")?;
    let (opened, is_open) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut told = Vec::new();
        // The last line may be cut: then it was not told.
        let mut lines = BufReader::new(output);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.starts_with("open") {
                let _ = opened.send(());
            } else if line.ends_with('\n') {
                told.push(line.trim_end().to_owned());
            }
            line.clear();
        }
        told
    });
    let open = is_open.recv_timeout(Duration::from_secs(60));
    std::thread::sleep(after);
    let ended = process.try_wait()?;
    process.kill()?;
    process.wait()?;
    open.map_err(|_| format!("round {round}: the spool did not open"))?;
    if let Some(status) = ended {
        return Err(format!("round {round}: it ended by itself: {status}").into());
    }
    reader.join().map_err(|_| "the reader panicked".into())
}

/// What is known of all batches.
#[derive(Default)]
struct Known {
    /// True: it must be there. False: an attempt began and was not answered, so it may.
    there: BTreeMap<String, bool>,
    gone: BTreeSet<String>,
    /// Whose last attempt, the one of this number, was not answered.
    open: BTreeMap<String, u32>,
    /// The number of the last attempt.
    last: BTreeMap<String, u32>,
    /// Names of accepted messages, for their idents.
    accepted: Vec<String>,
    /// What was there, and may be dropped, when the last selection began.
    dropping: Vec<String>,
    selections: u64,
    lost: u64,
    duplicates: u64,
    duplicates_most: u64,
}

impl Known {
    fn hear(&mut self, told: &[String]) {
        let mut duplicates = 0;
        for line in told {
            let mut words = line.split(' ');
            let (Some(word), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let name = name.to_owned();
            let number = words.next().and_then(|number| number.parse().ok());
            let number = number.unwrap_or(0);
            match word {
                "accepted" => {
                    // It may have been claimed before its acceptance was told.
                    let settled = self.there.contains_key(&name) || self.gone.contains(&name);
                    if !settled {
                        self.there.insert(name.clone(), !is_of(&name, DROPPED));
                    }
                    self.accepted.push(name);
                }
                "attempts" => {
                    let open = self.open.insert(name.clone(), number);
                    duplicates += u64::from(open == Some(number));
                    self.last.insert(name.clone(), number);
                    self.there.insert(name, false);
                }
                "begins" => {
                    let these = self.there.keys().filter(|name| is_of(name, DROPPED));
                    self.dropping = these.cloned().collect();
                }
                "did" => {
                    self.selections += 1;
                    let dropped = std::mem::take(&mut self.dropping);
                    for name in dropped.into_iter().filter(|_| *name == *"drop") {
                        // Also what was being attempted: the next start has treated what that left.
                        self.there.remove(&name);
                        self.gone.insert(name);
                    }
                }
                _ => {
                    // What was deferred may be attempted by the other worker before this one has told.
                    if self.last.get(&name) == Some(&number) {
                        self.open.remove(&name);
                        self.settled(word, name);
                    }
                }
            }
        }
        self.duplicates += duplicates;
        self.duplicates_most = self.duplicates_most.max(duplicates);
    }

    fn settled(&mut self, word: &str, name: String) {
        let must = !is_of(&name, DROPPED);
        if word == "deferred" {
            self.there.insert(name, must);
            return;
        }
        if word == "replaced" {
            let child = child(&name);
            if !self.there.contains_key(&child) && !self.gone.contains(&child) {
                self.there.insert(child, must);
            }
        }
        self.there.remove(&name);
        self.gone.insert(name);
    }

    /// Lets go what is held, compares with what a claim of everything finds; settles what is more than the next round needs.
    async fn compare(&mut self, spool: &Embedded, round: u64) -> Result<(), Failure> {
        release(spool, round).await?;
        let leases = spool.claim("here", &wanted(4_000_000)).await?;
        let mut found = BTreeSet::new();
        for lease in &leases {
            let name = name(lease);
            let body = spool.body(lease.head.id).await?;
            let of = name.strip_prefix("c-").unwrap_or(&name);
            if !body.starts_with(of.as_bytes()) || body.len() as u64 != lease.head.body_bytes {
                return Err(format!("round {round}: {name} has another's body").into());
            }
            if self.gone.contains(&name) || !found.insert(name.clone()) {
                return Err(format!("round {round}: {name} came back, or is there twice").into());
            }
        }
        let ledger = spool.ledger().await?;
        let ended = ledger.difference() == 0 && ledger.unaccounted == 0;
        if !ended || ledger.waiting != leases.len() as u64 || ledger.held > 0 {
            return Err(format!("round {round}: the account does not balance: {ledger:?}").into());
        }
        for (name, must) in &self.there {
            if *must && !found.contains(name) {
                self.lost += 1;
                eprintln!("round {round}: {name} is lost");
            }
        }
        // An attempt that was answered without its answer being told left nothing: it was no duplicate.
        self.open.retain(|name, _| found.contains(name));
        self.last.retain(|name, _| found.contains(name));
        let surplus = leases.len().saturating_sub(BACKLOG_MAX);
        let mut settlements = Vec::new();
        for lease in leases.iter().take(surplus) {
            found.remove(&name(lease));
            self.open.remove(&name(lease));
            self.gone.insert(name(lease));
            settlements.push(settlement(lease, Outcome::Finished));
        }
        if spool.settle(settlements).await? != surplus {
            return Err("a settlement had no effect".into());
        }
        let must = |name: String| (name.clone(), !is_of(&name, DROPPED));
        self.there = found.into_iter().map(must).collect();
        Ok(())
    }

    /// Some of what was accepted comes again.
    async fn repeat(&self, spool: &Embedded, random: &mut Random) -> Result<(), Failure> {
        for _ in 0..20.min(self.accepted.len()) {
            let at = random.below(self.accepted.len() as u64) as usize;
            let Some(name) = self.accepted.get(at) else {
                continue;
            };
            let again = spool.accept(new_message(name, 10)?, Some(name)).await?;
            if again.paths != [spool::Path::Again] {
                return Err(format!("the ident of {name} was forgotten").into());
            }
        }
        Ok(())
    }
}

/// Lets go what is held, and no other than should be.
async fn release(spool: &Embedded, round: u64) -> Result<(), Failure> {
    let held = Predicate {
        held: Some(true),
        ..Predicate::default()
    };
    let found = spool.find(&held, None, usize::MAX).await?;
    let wrong = |batch: &spool::Batch| {
        let first = batch.recipients.first();
        !first.is_some_and(|first| is_of(&first.address.to_string(), HELD))
    };
    let ledger = spool.ledger().await?;
    if ledger.held != found.len() as u64 || found.iter().any(|found| wrong(&found.batch)) {
        return Err(format!("round {round}: something else is held: {ledger:?}").into());
    }
    let released = spool.select(&held, Action::Release).await?;
    match released.recipients == ledger.held {
        true => Ok(()),
        false => Err(format!("round {round}: not all that is held was released").into()),
    }
}

/// The account as it is read without opening the spool; whether all is whole.
fn check_offline(folder: &Path, round: u64) -> Result<(), Failure> {
    let work = tempfile::tempdir()?;
    let report = Offline::open(&folder.join("spool"), work.path())?.check()?;
    let ledger = report.ledger;
    let balances = ledger.difference() == 0 && ledger.unaccounted == 0;
    match report.is_whole() && balances && ledger.waiting == report.recipients {
        true => Ok(()),
        false => Err(format!("round {round}: offline: {report:?}").into()),
    }
}

async fn look(folder: &Path, rounds: u64) -> Result<Known, Failure> {
    let mut known = Known::default();
    let mut random = Random(20_261_125);
    for round in 0..rounds {
        let after = Duration::from_millis(random.below(ROUND_MS));
        known.hear(&kill(folder, round, after)?);
        if round % 5 == 4 {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(folder.join(format!("spool/index.sqlite{suffix}")));
            }
        }
        check_offline(folder, round)?;
        let spool = Embedded::open(options(folder))?;
        known.compare(&spool, round).await?;
        known.repeat(&spool, &mut random).await?;
        let corrupt = std::fs::read_dir(folder.join("spool/corrupt"))?.count();
        if corrupt > 0 {
            return Err(format!("round {round}: {corrupt} files were set aside").into());
        }
        // Every other time without closing: as by another kill.
        if round % 2 == 0 {
            spool.close().await;
        }
    }
    Ok(known)
}

fn state(known: &Known, rounds: u64, took: Duration) -> std::io::Result<()> {
    let detail = format!(
        "{} messages accepted, {} batches done, {} selections, the account whole each time, {:.0} s, seed 20261125",
        known.accepted.len(),
        known.gone.len(),
        known.selections,
        took.as_secs_f64()
    );
    let window = (WORKERS * HAND) as f64;
    for (name, value, unit, goal, detail) in [
        (
            "kill9_rounds",
            rounds as f64,
            "rounds",
            Goal::AtLeast(ROUNDS as f64),
            detail,
        ),
        (
            "kill9_lost",
            known.lost as f64,
            "batches",
            Goal::AtMost(0.0),
            String::from("told as accepted or deferred and not there"),
        ),
        (
            "kill9_duplicates",
            known.duplicates as f64,
            "batches",
            Goal::AtMost(window * rounds as f64),
            format!(
                "attempted again, {} in one round at most; the window is {window} a round",
                known.duplicates_most
            ),
        ),
    ] {
        report(&Figure {
            name,
            value,
            unit,
            goal,
            peer: "",
            detail,
        })?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        return runtime.block_on(load(Path::new(&folder), round.parse()?));
    }
    if !FIGURES.iter().any(|name| is_wanted(name)) {
        return Ok(());
    }
    let rounds = if is_full() { ROUNDS_FULL } else { ROUNDS };
    let folder = tempfile::tempdir()?;
    let start = Instant::now();
    let known = runtime.block_on(look(folder.path(), rounds))?;
    state(&known, rounds, start.elapsed())?;
    if known.lost > 0 || known.duplicates_most > (WORKERS * HAND) as u64 {
        return Err("mail was lost, or repeated beyond the window".into());
    }
    Ok(())
}
