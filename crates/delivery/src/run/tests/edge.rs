//! The engine as an edge uses it: a gate before the scanners, and one before the list hosts behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mail::Reply;
use spool::Destination;
use tokio::time::Instant;

use super::{Bench, MINUTE};
use crate::testing::{Clerk, World, accepted};

/// Scans, tries at the list host.
type Counts = Arc<(AtomicUsize, AtomicUsize)>;

/// Scanners that are there, and a list host behind them that is there or not.
fn world(away: &Arc<AtomicBool>, counts: &Counts) -> World {
    let (away, counts) = (away.clone(), counts.clone());
    let mut world = World::that(move |key, copy| {
        let count = match key.to_string().as_str() {
            "inside" => &counts.0,
            _ => &counts.1,
        };
        count.fetch_add(1, Ordering::Relaxed);
        match away.load(Ordering::Relaxed) {
            true => vec![
                Reply::new(
                    451,
                    (4, 4, 1),
                    "list host cannot be reached, scanned as clean"
                );
                copy.envelope.recipients.len()
            ],
            false => accepted(copy),
        }
    });
    world.takes = Duration::from_millis(50);
    world
}

#[tokio::test(start_paused = true)]
async fn mail_is_scanned_while_the_list_host_is_away_and_its_return_is_no_stampede() {
    const MAILS: usize = 1000;
    let away = Arc::new(AtomicBool::new(true));
    let counts = Counts::default();
    let clerk = Clerk {
        moves_to: Some("list"),
        ..Clerk::default()
    };
    let bench = Bench::edge(world(&away, &counts), clerk, 100).start();
    for n in 0..MAILS {
        bench
            .spool
            .add(Destination::Inside, &[&format!("u{n}@lists.example")]);
    }
    bench.pass(15 * MINUTE).await;
    assert_eq!(
        counts.0.load(Ordering::Relaxed),
        MAILS,
        "each was scanned once"
    );
    let left = bench.spool.left();
    assert_eq!(left.len(), MAILS);
    let list = Destination::Route("list".into());
    assert!(
        left.iter()
            .all(|batch| batch.destination == list && &batch.template[..] == b"noted")
    );
    let before = counts.1.load(Ordering::Relaxed);
    bench.pass(60 * MINUTE).await;
    let probes = counts.1.load(Ordering::Relaxed) - before;
    assert!(probes <= 61, "one probe a minute: {probes}");
    // More comes in meanwhile: it is scanned, though what was scanned waits.
    bench
        .spool
        .add(Destination::Inside, &["late@lists.example"]);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(counts.0.load(Ordering::Relaxed), MAILS + 1);

    away.store(false, Ordering::Relaxed);
    bench.world.seen.lock().unwrap().clear();
    let back = Instant::now();
    while !bench.spool.left().is_empty() {
        bench.pass(Duration::from_millis(100)).await;
        assert!(back.elapsed() <= MINUTE + Duration::from_secs(20));
    }
    assert_eq!(bench.ends(), [MAILS as u64 + 1, 0, 0, 0]);
    assert_eq!(
        counts.0.load(Ordering::Relaxed),
        MAILS + 1,
        "none was scanned again"
    );
    let seen = bench.world.seen.lock().unwrap();
    let first = seen[0].2;
    let within = |span: Duration| seen.iter().filter(|(_, _, at)| *at - first < span).count();
    let growth = [
        within(Duration::from_millis(50)),
        within(Duration::from_millis(100)),
    ];
    assert!(
        growth[0] == 1 && growth[1] <= 3,
        "one, then two: {growth:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn scanners_that_are_away_keep_the_gate_before_them_shut() {
    let away = Arc::new(AtomicBool::new(false));
    let counts = Counts::default();
    let bench = Bench::edge(world(&away, &counts), Clerk::default(), 100).start();
    bench.world.kill("inside");
    for n in 0..100 {
        bench
            .spool
            .add(Destination::Inside, &[&format!("u{n}@lists.example")]);
    }
    bench
        .spool
        .add(Destination::Route("list".into()), &["one@lists.example"]);
    bench.pass(MINUTE).await;
    assert_eq!(bench.world.recipients(), ["one@lists.example"]);
    bench.world.revive("inside");
    bench.pass(MINUTE + Duration::from_secs(10)).await;
    assert_eq!(bench.ends(), [101, 0, 0, 0]);
}
