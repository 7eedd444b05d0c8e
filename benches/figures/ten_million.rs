//! Ten million recipients in one spool (`--full`; 300,000 otherwise): what an expansion takes, what settling takes beside the
//! same with ten thousand, what waits in memory and on the disk, how soon a killed process is at work again, and what an operator's
//! selections take.
//!
//! The spool is filled by a process of its own that is killed (SIGKILL) while it accepts; another one starts with cold caches and claims;
//! then both spools are drained in turns.

#![allow(missing_docs)]

mod backlog;
mod footprint;
mod processor;
mod scattered;
mod selecting;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use backlog::{MEMBERS, POST_BYTES, batches, expand, post, settlement};
use footprint::{drop_caches, memory, room};
use mailload::figures::{Figure, Goal, is_full, is_wanted, median, report};
use processor::{processor_seconds, quiet};
use spool::embedded::{Embedded, Options};
use spool::{Destination, Destinations, Ends, Outcome, Spool, Wanted};

type Failure = Box<dyn std::error::Error>;

/// Settled at once, as the delivery engine does.
const SETTLED_AT_ONCE: usize = 256;
/// Batches claimed at once.
const CLAIMED_AT_ONCE: usize = 500;

/// Goals are set for ten million; a smaller run states what it finds.
fn at_full_size(goal: Goal) -> Goal {
    if is_full() { goal } else { Goal::Stated }
}

/// Without what waits to be expanded.
fn deliverable() -> Wanted {
    Wanted {
        destinations: Destinations::Except([Destination::Expand].into()),
        lanes: [CLAIMED_AT_ONCE; 4],
    }
}

fn open(folder: &Path) -> Result<Arc<Embedded>, spool::Error> {
    Embedded::open(Options::new(folder)).map(Arc::new)
}

// === The processes that are killed ===

/// Fills a spool, tells what that took, and accepts until it is killed.
async fn fill(folder: &Path, posts: usize) -> Result<(), Failure> {
    let spool = open(folder)?;
    let idle = memory("RssAnon");
    let mut seconds = Vec::new();
    let start = Instant::now();
    for list in 0..posts {
        seconds.push(expand(spool.as_ref(), batches(list)?).await?);
    }
    let all = start.elapsed().as_secs_f64();
    println!(
        "filled {} {} {} {}",
        median(&seconds),
        all,
        idle,
        memory("VmHWM")
    );
    loop {
        spool.accept(post()?, None).await?;
    }
}

/// Opens a spool, claims, tells when it has a batch, and what the process takes once every destination was claimed from.
async fn first(folder: &Path) -> Result<(), Failure> {
    let spool = open(folder)?;
    let opened = spool.claim("here", &deliverable()).await?;
    let first = opened.first().ok_or("nothing to claim")?;
    println!("claimed {}", first.batch.recipients.len());
    for _ in 0..20 {
        spool.claim("here", &deliverable()).await?;
    }
    let tally = spool.tally().await?;
    let waiting: u64 = tally.iter().map(|line| line.recipients).sum();
    println!("rss {} {waiting} {}", memory("VmHWM"), memory("RssAnon"));
    std::future::pending().await
}

/// This program in another role.
fn start(role: &str, folder: &Path, posts: usize) -> Result<(Child, impl BufRead), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([role, &folder.to_string_lossy(), &posts.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    Ok((child, BufReader::new(out)))
}

/// The numbers of the next line, which must start with this word.
fn numbers(out: &mut impl BufRead, word: &str) -> Result<Vec<f64>, Failure> {
    let mut line = String::new();
    out.read_line(&mut line)?;
    let rest = line
        .strip_prefix(word)
        .ok_or_else(|| format!("{word}: the other process said {line:?}"))?;
    Ok(rest
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

// === Draining ===

/// What draining took, seconds a recipient.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    claim: f64,
    settle: f64,
    processor: f64,
}

/// Claims and finishes so many recipients.
async fn drain(spool: &dyn Spool, recipients: usize) -> Result<Cost, Failure> {
    let mut cost = Cost::default();
    let mut done = 0;
    let processor = processor_seconds();
    while done < recipients {
        let start = Instant::now();
        let leases = spool.claim("here", &deliverable()).await?;
        cost.claim += start.elapsed().as_secs_f64();
        if leases.is_empty() {
            return Err("drained too early".into());
        }
        let start = Instant::now();
        for group in leases.chunks(SETTLED_AT_ONCE) {
            let settlements = group.iter().map(|lease| {
                let delivered = lease.batch.recipients.len() as u64;
                done += delivered as usize;
                let ends = Ends {
                    delivered,
                    ..Ends::default()
                };
                settlement(lease, Outcome::Finished, ends)
            });
            spool.settle(settlements.collect()).await?;
        }
        cost.settle += start.elapsed().as_secs_f64();
    }
    // What is left to the index belongs to it.
    quiet().await;
    let each = 1.0 / done as f64;
    Ok(Cost {
        claim: cost.claim * each,
        settle: cost.settle * each,
        processor: (processor_seconds() - processor) * each,
    })
}

/// What a tally takes, seconds.
async fn tally(spool: &dyn Spool) -> Result<f64, Failure> {
    let mut seconds = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        spool.tally().await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(median(&seconds))
}

/// Ten thousand recipients of each in turns, small and large.
async fn turns(
    small: &dyn Spool,
    large: &dyn Spool,
    count: usize,
) -> Result<Vec<[(Cost, f64); 2]>, Failure> {
    let mut turns = Vec::new();
    for turn in 0..=count {
        let mut both = [(Cost::default(), 0.0); 2];
        // Ten thousand wait while ten thousand are drained; what is new is in the index before.
        expand(small, batches(1_000_000 + turn)?).await?;
        expand(large, batches(1_000_000 + turn)?).await?;
        quiet().await;
        for (spool, one) in [small, large].into_iter().zip(&mut both) {
            let tally = tally(spool).await?;
            *one = (drain(spool, MEMBERS).await?, tally);
        }
        // The first one fills the windows.
        if turn > 0 {
            turns.push(both);
        }
    }
    Ok(turns)
}

fn ratio(turns: &[[(Cost, f64); 2]], of: impl Fn(&(Cost, f64)) -> f64) -> f64 {
    let ratios: Vec<f64> = turns
        .iter()
        .map(|[small, large]| of(large) / of(small))
        .collect();
    median(&ratios)
}

async fn draining(folder: &Path, waiting: f64) -> Result<(), Failure> {
    let large = open(&folder.join("large"))?;
    let small = open(&folder.join("small"))?;
    expand(small.as_ref(), batches(0)?).await?;
    let count = if is_full() { 15 } else { 5 };
    let turns = turns(small.as_ref(), large.as_ref(), count).await?;
    let wall = ratio(&turns, |(cost, _)| cost.claim + cost.settle);
    let micro = |of: &dyn Fn(&(Cost, f64)) -> f64| {
        median(
            &turns
                .iter()
                .map(|[_, large]| of(large) * 1e6)
                .collect::<Vec<_>>(),
        )
    };
    report(&Figure {
        name: "drain_10m_vs_10k",
        value: wall,
        unit: "ratio",
        goal: at_full_size(Goal::AtMost(1.2)),
        peer: "the same with 10,000 recipients waiting, in turns",
        detail: format!(
            "{waiting:.0} waiting; claim {:.2}, settle {:.2}, processor (with the index) {:.2}, tally {:.2}; a recipient costs {:.1} us, {:.1} us of processor, a tally {:.0} us; medians of {count} turns",
            ratio(&turns, |(cost, _)| cost.claim),
            ratio(&turns, |(cost, _)| cost.settle),
            ratio(&turns, |(cost, _)| cost.processor),
            ratio(&turns, |(_, tally)| *tally),
            micro(&|(cost, _)| cost.claim + cost.settle),
            micro(&|(cost, _)| cost.processor),
            micro(&|(_, tally)| *tally),
        ),
    })?;
    small.close().await;
    large.close().await;
    Ok(())
}

// === The whole ===

/// The figures of the one large spool; made by one story.
const LARGE: [&str; 7] = [
    "expand_recipients_per_second",
    "restart_10m_seconds",
    "memory_per_recipient_bytes",
    "disk_per_recipient_bytes",
    "drain_10m_vs_10k",
    "select_count_seconds",
    "select_recipients_per_second",
];

async fn measure(folder: &Path, posts: usize) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    if is_wanted("memory_per_scattered_recipient_bytes") {
        scattered::measure(folder, posts, at_full_size(Goal::AtMost(100.0)))?;
    }
    match LARGE.into_iter().any(is_wanted) {
        true => measure_large(folder, posts).await,
        false => Ok(()),
    }
}

async fn measure_large(folder: &Path, posts: usize) -> Result<(), Failure> {
    let large = folder.join("large");
    let (mut filler, mut out) = start("fill", &large, posts)?;
    let filled = numbers(&mut out, "filled");
    filler.kill()?;
    filler.wait()?;
    let filled = filled?;
    let &[settle, all, idle, peak] = filled.as_slice() else {
        return Err("the filling process said something else".into());
    };
    let recipients = (posts * MEMBERS) as f64;
    report(&Figure {
        name: "expand_recipients_per_second",
        value: MEMBERS as f64 / settle,
        unit: "1/s",
        goal: Goal::Stated,
        peer: "",
        detail: format!(
            "one settlement of {MEMBERS} recipients, durable: {:.1} ms, median of {posts}; with accepting, claiming and making the batches {:.0}/s",
            settle * 1e3,
            recipients / all
        ),
    })?;
    let cold = drop_caches(&large, is_full())?;
    let begun = Instant::now();
    let (mut starter, mut out) = start("first", &large, posts)?;
    let claimed = numbers(&mut out, "claimed");
    let seconds = begun.elapsed().as_secs_f64();
    let said = claimed.and_then(|_| numbers(&mut out, "rss"));
    starter.kill()?;
    starter.wait()?;
    let said = said?;
    let &[after, waiting, anonymous] = said.as_slice() else {
        return Err("the starting process said something else".into());
    };
    if waiting < recipients {
        return Err(format!("{waiting} wait, {recipients} were expanded").into());
    }
    report(&Figure {
        name: "restart_10m_seconds",
        value: seconds,
        unit: "s",
        goal: at_full_size(Goal::AtMost(10.0)),
        peer: "",
        detail: format!(
            "kill -9 while accepting, {cold}; process start to the first claimed batches, {waiting:.0} recipients waiting"
        ),
    })?;
    report(&Figure {
        name: "memory_per_recipient_bytes",
        value: (peak.max(after) - idle) / recipients,
        unit: "bytes",
        goal: at_full_size(Goal::AtMost(100.0)),
        peer: "",
        detail: format!(
            "{recipients:.0} waiting: peak RSS {:.0} MB while they were expanded, {:.0} MB after the restart and 10,000 claimed batches ({:.0} MB of it anonymous); idle {:.0} MB",
            peak / 1e6,
            after / 1e6,
            anonymous / 1e6,
            idle / 1e6
        ),
    })?;
    let in_use = |path: &Path| path.extension().is_none_or(|extension| extension != "free");
    let used = room(&large, &in_use)?;
    let journal = room(&large.join("journal"), &in_use)?;
    let bodies = (posts * POST_BYTES) as f64;
    report(&Figure {
        name: "disk_per_recipient_bytes",
        value: (used as f64 - bodies) / recipients,
        unit: "bytes",
        goal: at_full_size(Goal::AtMost(200.0)),
        peer: "",
        detail: format!(
            "beyond bodies of {:.1} MB: segments {:.0} MB, index {:.0} MB",
            bodies / 1e6,
            journal as f64 / 1e6,
            used.saturating_sub(journal) as f64 / 1e6
        ),
    })?;
    if is_wanted("drain_10m_vs_10k") {
        draining(folder, waiting).await?;
    }
    if is_wanted("select_count_seconds") || is_wanted("select_recipients_per_second") {
        let spool = open(&large)?;
        selecting::measure(spool.clone(), at_full_size(Goal::AtMost(1.0))).await?;
        spool.close().await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, folder, posts] = arguments.as_slice() {
        let folder = Path::new(folder);
        match role.as_str() {
            "fill" => return fill(folder, posts.parse()?).await,
            "first" => return first(folder).await,
            "scatter" => return scattered::scatter(folder, posts.parse()?).await,
            _ => {}
        }
    }
    let folder = std::env::var_os("FIGURES_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("ten_million-{}", std::process::id()));
    let posts = if is_full() { 1000 } else { 30 };
    let measured = measure(&folder, posts).await;
    std::fs::remove_dir_all(&folder)?;
    measured
}
