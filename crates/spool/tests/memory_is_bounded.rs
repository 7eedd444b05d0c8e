//! However many destinations there are, so many batches are in memory and no more; the others come when it is their turn.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::HashSet;
use std::time::Duration;

use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Destinations, Outcome, Spool, Wanted};

const HEADS_MAX: usize = 200;
const DOMAINS: usize = 1500;
const MESSAGES: usize = 8;

async fn until_indexed(spool: &Embedded) {
    for _ in 0..2000 {
        if spool.vitals().index_behind == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the index lags: {:?}", spool.vitals());
}

fn check(spool: &Embedded) {
    let vitals = spool.vitals();
    let bound = HEADS_MAX as u64 + vitals.index_behind + 1;
    assert!(vitals.heads <= bound, "{vitals:?}");
}

/// Claims and finishes some, and says whom they were for.
async fn work_off(spool: &Embedded, limit: usize) -> Vec<(u64, String)> {
    let wanted = Wanted {
        destinations: Destinations::Except([].into()),
        lanes: [limit; 4],
    };
    let leases = spool.claim("here", &wanted).await.unwrap();
    let finished = leases.iter().map(|one| settlement(one, Outcome::Finished));
    let settled = spool.settle(finished.collect()).await.unwrap();
    assert_eq!(settled, leases.len());
    let arrivals = leases.iter().map(|lease| lease.head.arrival.0);
    arrivals.zip(names(&leases)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_all_destinations_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    let options = Options {
        heads_max: HEADS_MAX,
        clock: clock.clock(),
        ..options(folder.path())
    };
    let mut spool = Embedded::open(options.clone()).unwrap();
    for number in 0..MESSAGES {
        let batches = (0..DOMAINS).map(|at| {
            let to = format!("u{number}@d{at}.example");
            batch(domain(&format!("d{at}.example")), clock.now(), &[&to])
        });
        let new = message(clock.now(), "body", batches.collect());
        spool.accept(new, None).await.unwrap();
        check(&spool);
        clock.advance(1000);
    }
    until_indexed(&spool).await;
    check(&spool);
    let mut done = HashSet::new();
    let mut last = 0;
    for round in 0.. {
        if round == 10 {
            spool.close().await;
            drop(spool);
            spool = Embedded::open(options.clone()).unwrap();
            assert_eq!(spool.vitals().heads, 0, "none before it is asked for");
        }
        let some = work_off(&spool, 100).await;
        check(&spool);
        if some.is_empty() {
            break;
        }
        for (arrival, name) in some {
            assert!(arrival >= last, "{name} was overtaken");
            last = arrival;
            assert!(done.insert(name.clone()), "{name} came twice");
        }
    }
    assert_eq!(done.len(), MESSAGES * DOMAINS);
    assert!(spool.tally().await.unwrap().is_empty());
    until_indexed(&spool).await;
    assert_eq!(spool.vitals().heads, 0);
}
