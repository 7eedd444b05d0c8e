//! `accept_vs_segments`: durable accepts a second over what the same disk takes from bare loops over recycled, preallocated
//! segments, in turns in one run; and the same with 4 ms added to every sync.
//!
//! 64 producers accept messages one after the other. Two peers: `replay` is one thread that writes groups of exactly the
//! lengths that the spool wrote in its turn, each synced, and does nothing else at all; `log` is a writer that gathers what
//! the same 64 producers hand over. The figure is over `replay`. Between turns all is claimed and settled, so that the spool, too,
//! writes over segments that it used before; `accept_settle_...` does that while it is accepting.

#![allow(missing_docs)]

mod bare;
mod processor;
mod producers;
mod slow_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bare::{Bare, log_turn};
use bytes::Bytes;
use mail::{Address, MailParameters, ReversePath, Timestamp};
use mailload::figures::{Figure, Goal, is_full, is_wanted, median, report};
use processor::{processor_seconds, quiet};
use producers::{BODIES_KB, Bodies, PRODUCERS, produce};
use slow_disk::SlowDisk;
use spool::embedded::{Embedded, Options};
use spool::{
    Class, Destination, Destinations, Ends, NewBatch, NewMessage, Outcome, Settlement, Spool,
    Wanted,
};

type Failure = Box<dyn std::error::Error>;

fn message() -> Result<NewMessage, mail::address::AddressError> {
    let now = Timestamp::now();
    Ok(NewMessage {
        arrival: now,
        reverse_path: ReversePath::Address(Address::parse("sender@example.org")?),
        parameters: MailParameters::default(),
        facts: Bytes::from_static(b"{\"client\":\"192.0.2.1\"}"),
        body: Vec::new(),
        batches: vec![NewBatch {
            destination: Destination::Inside,
            class: Class::Ordinary,
            due: now,
            recipients: vec![Address::parse("someone@example.net")?.into()],
            template: Bytes::new(),
            replies: Default::default(),
        }],
    })
}

/// Claims and finishes whatever there is, until there is nothing and `over` says so.
async fn consume(spool: &Embedded, over: &AtomicBool) -> Result<(), spool::Error> {
    let wanted = Wanted {
        destinations: Destinations::Except([].into()),
        lanes: [500; 4],
    };
    loop {
        let last = over.load(Ordering::Relaxed);
        let leases = spool.claim("here", &wanted).await?;
        if leases.is_empty() {
            if last {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let finished = leases.iter().map(|lease| Settlement {
            batch: lease.batch.id,
            token: lease.token,
            outcome: Outcome::Finished,
            ends: Ends::default(),
        });
        spool.settle(finished.collect()).await?;
    }
}

async fn accept_turn(
    spool: &Arc<Embedded>,
    turn: Duration,
    new: &NewMessage,
    bodies: &Bodies,
) -> Result<(u64, f64), Failure> {
    produce(turn, || {
        let (spool, new, bodies) = (spool.clone(), new.clone(), bodies.clone());
        move || {
            let (spool, mut new) = (spool.clone(), new.clone());
            new.body = vec![bodies.next()];
            async move { spool.accept(new, None).await.is_ok() }
        }
    })
    .await
}

/// What is measured.
struct Plan {
    name: &'static str,
    slower: Duration,
    settled: bool,
    kilobytes: &'static [usize],
    goal: Goal,
}

#[derive(Default)]
struct Measured {
    replay: Vec<f64>,
    log: Vec<f64>,
    rate: Vec<f64>,
    group: Vec<f64>,
    behind: Vec<f64>,
    processor: Vec<f64>,
}

/// Rounds of spool, replay, log, in turns on the same disk.
async fn rounds(
    folder: &Path,
    plan: &Plan,
    count: usize,
    turn: Duration,
) -> Result<Measured, Failure> {
    let disk = SlowDisk::new(plan.slower);
    let bodies = Bodies::new(plan.kilobytes);
    let mut replay = Bare::new(&disk, folder, "replay")?;
    let mut log = Bare::new(&disk, folder, "log")?;
    let spool = Arc::new(Embedded::open_on(
        Options::new(folder.join("spool")),
        Arc::new(disk.clone()),
    )?);
    let new = message()?;
    let mut measured = Measured::default();
    for round in 0..=count {
        quiet().await;
        disk.noted.take();
        let over = Arc::new(AtomicBool::new(false));
        let consumer = plan.settled.then(|| {
            let (spool, over) = (spool.clone(), over.clone());
            tokio::spawn(async move { consume(&spool, &over).await })
        });
        let before = processor_seconds();
        let (accepted, seconds) = accept_turn(&spool, turn, &new, &bodies).await?;
        let groups = disk.noted.take();
        let behind = quiet().await;
        let processor = processor_seconds() - before;
        over.store(true, Ordering::Relaxed);
        match consumer {
            Some(consumer) => consumer.await??,
            None => consume(&spool, &over).await?,
        }
        quiet().await;
        let alone = replay.replay(&groups)?;
        let (back, logged) = log_turn(log, turn, &bodies).await?;
        log = back;
        // The first ones warm up: the segments are new.
        if round > 0 {
            let rate = accepted as f64 / seconds;
            measured.rate.push(rate);
            measured.replay.push(alone / seconds);
            measured.log.push(rate / logged);
            measured.group.push(accepted as f64 / groups.len() as f64);
            measured.behind.push(behind);
            measured.processor.push(processor / accepted as f64 * 1e6);
        }
    }
    spool.close().await;
    drop(spool);
    std::fs::remove_dir_all(folder)?;
    Ok(measured)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = std::env::var_os("FIGURES_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("accept_vs_segments-{}", std::process::id()));
    let (count, turn) = match is_full() {
        true => (15, Duration::from_millis(700)),
        false => (5, Duration::from_millis(700)),
    };
    let plan = |name, slower, settled, goal| Plan {
        name,
        slower: Duration::from_millis(slower),
        settled,
        kilobytes: BODIES_KB,
        goal,
    };
    let plans = [
        plan("accept_vs_segments", 0, false, Goal::AtLeast(0.7)),
        plan("accept_vs_segments_4ms", 4, false, Goal::AtLeast(0.8)),
        plan("accept_settle_vs_segments", 0, true, Goal::Stated),
        plan("accept_settle_vs_segments_4ms", 4, true, Goal::Stated),
        Plan {
            kilobytes: &[6],
            ..plan("accept_6kb_vs_segments", 0, false, Goal::Stated)
        },
    ];
    for plan in &plans {
        if !is_wanted(plan.name) {
            continue;
        }
        let measured = rounds(&folder, plan, count, turn).await?;
        report(&Figure {
            name: plan.name,
            value: median(&measured.replay),
            unit: "ratio",
            goal: plan.goal,
            peer: "the same groups over recycled segments, written and synced by one thread",
            detail: detail(plan, &measured, turn),
        })?;
    }
    Ok(())
}

fn detail(plan: &Plan, measured: &Measured, turn: Duration) -> String {
    let mean = plan.kilobytes.iter().sum::<usize>() as f64 / plan.kilobytes.len() as f64;
    format!(
        "{:.0}/s of {mean:.0} KB on average, {PRODUCERS} producers, {:.0} a group, {:.0} us of processor each; {:.2} of a bare log with the same producers; median of {} turns of {:?} ({:.2?}); index behind by {:.1} s{}",
        median(&measured.rate),
        median(&measured.group),
        median(&measured.processor),
        median(&measured.log),
        measured.replay.len(),
        turn,
        measured.replay,
        median(&measured.behind) - 0.1,
        if plan.settled {
            "; all claimed and settled meanwhile"
        } else {
            ""
        },
    )
}
