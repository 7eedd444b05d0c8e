//! The disk's syncs take long: what comes beyond a bound is refused and not kept waiting, the spool says so, and all passes by
//! itself. What was accepted is there.

#![allow(clippy::unwrap_used)]

mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::Timestamp;
use shared::faults::{Fault, FaultyDisk};
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Destination, Error, Spool};

const WAITING_MAX: Duration = Duration::from_millis(400);
const BODY_BYTES: usize = 10_000;

fn slow(path: &std::path::Path, disk: &FaultyDisk) -> Arc<Embedded> {
    let options = Options {
        waiting_max: WAITING_MAX,
        waiting_bytes_max: 50_000,
        ..options(path)
    };
    Arc::new(Embedded::open_on(options, Arc::new(disk.clone())).unwrap())
}

/// Waits until the spool is as wanted.
async fn until(spool: &Embedded, what: &str, is: impl Fn(&Embedded) -> bool) {
    let start = Instant::now();
    while !is(spool) {
        assert!(start.elapsed() < Duration::from_secs(30), "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn accept(spool: &Embedded, name: &str) -> Result<(), Error> {
    let now = Timestamp::now();
    let batches = vec![batch(Destination::Inside, now, &[name])];
    let new = message(now, &"x".repeat(BODY_BYTES), batches);
    spool.accept(new, None).await.map(drop)
}

/// Accepts until told to stop, in some tasks; what was accepted, how many were refused, and the longest wait for an answer.
async fn load(spool: &Arc<Embedded>, tasks: usize, time: Duration) -> (Vec<String>, u64, Duration) {
    let start = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        let spool = spool.clone();
        running.push(tokio::spawn(async move {
            let (mut there, mut refused, mut longest) = (Vec::new(), 0, Duration::ZERO);
            while start.elapsed() < time {
                let name = format!("m{task}-{}@x.org", there.len());
                let began = Instant::now();
                match accept(&spool, &name).await {
                    Ok(()) => there.push(name),
                    Err(Error::Slow(_)) => {
                        refused += 1;
                        // As a client does, only sooner.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
                longest = longest.max(began.elapsed());
            }
            (there, refused, longest)
        }));
    }
    let mut all = (Vec::new(), 0, Duration::ZERO);
    for task in running {
        let (there, refused, longest) = task.await.unwrap();
        all.0.extend(there);
        all.1 += refused;
        all.2 = all.2.max(longest);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_shed_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let spool = slow(folder.path(), &disk);
    accept(&spool, "before@x.org").await.unwrap();
    assert_eq!(spool.unhealthy(), None);

    disk.set_slower(Duration::from_millis(250));
    let (there, refused, longest) = load(&spool, 20, Duration::from_secs(3)).await;
    assert!(
        refused > 0,
        "twenty clients are more than the bytes that may wait"
    );
    assert!(there.len() >= 8, "some get through: {}", there.len());
    // It waits for the group under way, then for its own: each somewhat more than a sync, whatever this machine does.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    let vitals = spool.vitals();
    assert!(
        vitals.slow && vitals.sync_worst >= Duration::from_millis(250),
        "{vitals:?}"
    );
    let why = spool.unhealthy().unwrap();
    assert!(why.starts_with("slow: "), "{why}");

    disk.set_slower(Duration::ZERO);
    until(&spool, "well again", |spool| {
        spool.vitals().waiting_bytes == 0
    })
    .await;
    // The average needs to hear of it.
    for number in 0.. {
        assert!(number < 100, "{:?}", spool.vitals());
        accept(&spool, &format!("after{number}@x.org"))
            .await
            .unwrap();
        if spool.unhealthy().is_none() {
            break;
        }
    }
    drop(spool);
    let found = contents(&open(folder.path())).await;
    for name in there
        .iter()
        .map(String::as_str)
        .chain(["before@x.org", "after0@x.org"])
    {
        assert!(found.contains_key(name), "{name} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_sync_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Fault::Dies, 0);
    let spool = slow(folder.path(), &disk);
    disk.set_slower(Duration::from_secs(2));
    let stuck = tokio::spawn({
        let spool = spool.clone();
        async move { accept(&spool, "stuck@x.org").await }
    });
    until(&spool, "refusing", |spool| spool.refuses().is_some()).await;
    let began = Instant::now();
    let refused = accept(&spool, "later@x.org").await;
    assert!(matches!(refused, Err(Error::Slow(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "at once");
    until(&spool, "telling of the sync under way", |spool| {
        spool.vitals().sync_worst >= WAITING_MAX
    })
    .await;
    assert!(!stuck.is_finished(), "it is under way");
    // What is there can be claimed meanwhile.
    assert_eq!(claim_all(spool.as_ref()).await.len(), 0);
    stuck.await.unwrap().unwrap();
    disk.set_slower(Duration::ZERO);
    until(&spool, "accepting", |spool| spool.refuses().is_none()).await;
    accept(&spool, "later@x.org").await.unwrap();
}
