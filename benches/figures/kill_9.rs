//! `kill9_rounds`, `kill9_lost`, `kill9_duplicates`: a process under load (accepts with idents, claims, settlements of every kind,
//! bodies that need a segment of their own) is killed at a random moment, round after round on the same spool. After each round all is
//! looked at: what was told is there, whole and once, what was told to be done does not come back, idents are remembered, the
//! ledger balances.
//!
//! A duplicate is a batch that is attempted again although an attempt began whose settlement was not answered: its recipients
//! may get the mail twice. The window is what two workers have in hand: so many batches a round at most.

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::{Address, MailParameters, ReversePath, Timestamp};
use mailload::figures::{Figure, Goal, is_full, is_wanted, report};
use spool::embedded::{Embedded, Options};
use spool::{
    Class, Destination, Destinations, Ends, Lease, NewBatch, NewMessage, Outcome, Seen, Settlement,
    Spool, Wanted,
};

type Failure = Box<dyn Error>;

const FIGURES: [&str; 3] = ["kill9_rounds", "kill9_lost", "kill9_duplicates"];

/// Rounds; the goal names the smaller number.
const ROUNDS: u64 = 200;
const ROUNDS_FULL: u64 = 600;
/// A round lasts at most so long after its first message, milliseconds.
const ROUND_MS: u64 = 400;
const PRODUCERS: u64 = 6;
const WORKERS: usize = 2;
/// Batches that a worker has in hand.
const HAND: usize = 16;
/// What waits is worked off between rounds down to this.
const BACKLOG_MAX: usize = 1500;
const FOLDER: &str = "KILL_9_FOLDER";
const ROUND: &str = "KILL_9_ROUND";

fn options(folder: &Path) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..Options::new(folder.join("spool"))
    }
}

/// The same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*, which is random enough to be anywhere.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn new_batch(destination: Destination, name: &str) -> Result<NewBatch, Failure> {
    Ok(NewBatch {
        destination,
        class: Class::Ordinary,
        due: Timestamp::now(),
        recipients: vec![Address::parse(name)?.into()],
        template: Bytes::from_static(b"template"),
    })
}

fn new_message(name: &str, body_bytes: usize) -> Result<NewMessage, Failure> {
    let destination = match name.starts_with('e') {
        true => Destination::Expand,
        false => Destination::Inside,
    };
    Ok(NewMessage {
        arrival: Timestamp::now(),
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        facts: Bytes::new(),
        body: vec![
            Bytes::from(format!("{name} {body_bytes}\r\n")),
            Bytes::from(vec![b'x'; body_bytes]),
        ],
        batches: vec![new_batch(destination, name)?],
    })
}

fn name(lease: &Lease) -> String {
    let first = lease.batch.recipients.first();
    first.map_or_else(String::new, |first| first.address.to_string())
}

/// A name of an expansion's child.
fn child(name: &str) -> String {
    format!("c-{name}")
}

// === The process that is killed ===

/// One line in one write: either the parent has it or not.
fn tell(word: &str, name: &str) -> std::io::Result<()> {
    let line = format!("{word} {name}\n");
    std::io::stdout().lock().write_all(line.as_bytes())
}

async fn produce(spool: Arc<Embedded>, round: u64, producer: u64) -> Result<(), Failure> {
    let mut random = Random((round + 1) * 1000 + producer);
    for number in 0_u64.. {
        let kind = if random.below(3) == 0 { 'e' } else { 'm' };
        let name = format!("{kind}{round}-{producer}-{number}@x.org");
        let body_bytes = match random.below(40) {
            0 => 300_000,
            _ => random.below(12_000) as usize,
        };
        let message = new_message(&name, body_bytes)?;
        spool.accept(message, Some(&name)).await?;
        tell("accepted", &name)?;
    }
    Ok(())
}

fn outcome(lease: &Lease, random: &mut Random) -> Result<(&'static str, Outcome), Failure> {
    if lease.batch.destination == Destination::Expand {
        let children = vec![new_batch(Destination::Inside, &child(&name(lease)))?];
        return Ok(("replaced", Outcome::Replaced(children)));
    }
    Ok(match random.below(4) {
        0 => {
            let deferred = Outcome::Deferred {
                until: Timestamp::now(),
                reply: "450 4.2.1 later".into(),
                note: Bytes::new(),
                recipients: lease.batch.recipients.clone(),
                attempted: true,
            };
            ("deferred", deferred)
        }
        _ => ("finished", Outcome::Finished),
    })
}

fn wanted(limit: usize) -> Wanted {
    Wanted {
        destinations: Destinations::Except(Vec::new().into()),
        lanes: [limit / 4; 4],
    }
}

fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    let delivered = u64::from(matches!(outcome, Outcome::Finished));
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome,
        ends: Ends {
            delivered,
            ..Ends::default()
        },
    }
}

async fn work(spool: Arc<Embedded>, seed: u64) -> Result<(), Failure> {
    let mut random = Random(seed);
    let mut seen = Seen::default();
    loop {
        spool.ready(&mut seen).await;
        let leases = spool.claim("here", &wanted(HAND)).await?;
        let (mut settlements, mut words) = (Vec::new(), Vec::new());
        for lease in &leases {
            // As a delivery: from here on the next hop may have it.
            let what = format!("{} {}", name(lease), lease.batch.attempts);
            tell("attempts", &what)?;
            let (word, outcome) = outcome(lease, &mut random)?;
            words.push((word, what));
            settlements.push(settlement(lease, outcome));
        }
        let count = settlements.len();
        if spool.settle(settlements).await? != count {
            return Err("a settlement had no effect".into());
        }
        for (word, what) in words {
            tell(word, &what)?;
        }
    }
}

async fn load(folder: &Path, round: u64) -> Result<(), Failure> {
    let spool = Arc::new(Embedded::open(options(folder))?);
    tell("open", "spool")?;
    let mut tasks = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move {
            let made = produce(spool, round, producer).await;
            made.map_err(|error| error.to_string())
        });
    }
    for worker in 0..WORKERS as u64 {
        let spool = Arc::clone(&spool);
        tasks.spawn(async move {
            let worked = work(spool, 77 + 2 * round + worker).await;
            worked.map_err(|error| error.to_string())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

// === The process that looks ===

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
                        self.there.insert(name.clone(), true);
                    }
                    self.accepted.push(name);
                }
                "attempts" => {
                    let open = self.open.insert(name.clone(), number);
                    duplicates += u64::from(open == Some(number));
                    self.last.insert(name.clone(), number);
                    self.there.insert(name, false);
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
        if word == "deferred" {
            self.there.insert(name, true);
            return;
        }
        if word == "replaced" {
            let child = child(&name);
            if !self.there.contains_key(&child) && !self.gone.contains(&child) {
                self.there.insert(child, true);
            }
        }
        self.there.remove(&name);
        self.gone.insert(name);
    }

    /// Compares with what a claim of everything finds; settles what is more than the next round needs.
    async fn compare(&mut self, spool: &Embedded, round: u64) -> Result<(), Failure> {
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
        if ledger.difference() != 0 || ledger.waiting != leases.len() as u64 {
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
        self.there = found.into_iter().map(|name| (name, true)).collect();
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
        "{} messages accepted, {} batches done, {:.0} s, seed 20261125",
        known.accepted.len(),
        known.gone.len(),
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
