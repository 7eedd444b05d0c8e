//! Space comes back while the spool runs: segments are used again, what is still needed of them is carried forward, and
//! nothing that was done comes back when the index is lost afterwards.

#![allow(clippy::unwrap_used)]

mod shared;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mail::Timestamp;
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::{Destination, Destinations, NewMessage, Path, Spool};

const SEGMENT_BYTES: u64 = 64 * 1024;
const BODY_BYTES: usize = 10_000;

fn small(path: &std::path::Path) -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        ..options(path)
    }
}

fn large_message(name: &str) -> NewMessage {
    let now = Timestamp::now();
    let batches = vec![batch(Destination::Expand, now, &[name])];
    message(now, &"x".repeat(BODY_BYTES), batches)
}

/// Waits until the journal takes at most so much.
async fn shrinks_to(path: &std::path::Path, bytes: u64) {
    let start = Instant::now();
    let journal = path.join("spool/journal");
    while folder_bytes(&journal) > bytes {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} bytes in {} segments, at most {bytes} wanted",
            folder_bytes(&journal),
            segments(path).len()
        );
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_stays_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Embedded::open(small(folder.path())).unwrap();
    let mut kept = BTreeSet::new();
    for round in 0..40 {
        // Six bodies fill a segment; one in forty stays, one in forty was attempted and waits.
        for number in 0..10 {
            let name = format!("m{round}-{number}@x.org");
            let ident = format!("edge.{round}.{number}");
            spool
                .accept(large_message(&name), Some(&ident))
                .await
                .unwrap();
        }
        let leases = claim_all(&spool).await;
        let mut settlements = Vec::new();
        for lease in &leases {
            let name = lease.batch.recipients[0].address.to_string();
            let done = !kept.contains(&name)
                && !(round % 4 == 0 && (name.ends_with("-3@x.org") || name.ends_with("-7@x.org")));
            if done {
                settlements.push(settlement(lease, spool::Outcome::Finished));
                continue;
            }
            kept.insert(name.clone());
            if name.ends_with("-7@x.org") {
                settlements.push(settlement(lease, deferred(lease, Timestamp::now())));
            } else {
                let mut back = deferred(lease, Timestamp::now());
                if let spool::Outcome::Deferred { attempted, .. } = &mut back {
                    *attempted = false;
                }
                settlements.push(settlement(lease, back));
            }
        }
        spool.settle(settlements).await.unwrap();
    }
    assert_eq!(kept.len(), 20);
    // 4 MB went through; 20 bodies stay. What is needed may be a fourth of what is there, and a few segments are at hand.
    let bound = 4 * 20 * (BODY_BYTES as u64 + 500) + 12 * SEGMENT_BYTES;
    assert!(bound < 40 * 10 * BODY_BYTES as u64 / 2);
    shrinks_to(folder.path(), bound).await;
    for rebuilt in [false, true] {
        if rebuilt {
            lose_index(folder.path());
        }
        let spool = match rebuilt {
            false => {
                spool.close().await;
                Embedded::open(small(folder.path())).unwrap()
            }
            true => Embedded::open(small(folder.path())).unwrap(),
        };
        let found = contents(&spool).await;
        assert_eq!(
            found.keys().cloned().collect::<BTreeSet<_>>(),
            kept,
            "rebuilt {rebuilt}"
        );
        for (name, (_, _, body)) in &found {
            assert_eq!(body.len(), BODY_BYTES + 17, "{name}");
        }
        for (round, number) in [(0, 0), (0, 3), (17, 9), (39, 9)] {
            let name = format!("m{round}-{number}@x.org");
            let ident = format!("edge.{round}.{number}");
            let paths = spool
                .accept(large_message(&name), Some(&ident))
                .await
                .unwrap()
                .paths;
            assert_eq!(paths, [Path::Again], "{ident}, rebuilt {rebuilt}");
        }
    }
}

/// With idents remembered for no time at all, a spool that was worked off takes no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        ident_memory: Duration::ZERO,
        ..small(folder.path())
    };
    let spool = Embedded::open(options).unwrap();
    for number in 0..120 {
        let name = format!("m{number}@x.org");
        let ident = format!("edge.1.{number}");
        spool
            .accept(large_message(&name), Some(&ident))
            .await
            .unwrap();
        if number % 30 == 29 {
            let leases = claim_all(&spool).await;
            finish(&spool, &leases).await;
        }
    }
    shrinks_to(folder.path(), 12 * SEGMENT_BYTES).await;
    let again = spool
        .accept(large_message("m0@x.org"), Some("edge.1.0"))
        .await
        .unwrap();
    assert_eq!(again.paths, [Path::New], "forgotten");
}

/// A body that is larger than a segment has one of its own, and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Embedded::open(small(folder.path())).unwrap();
    for number in 0..6 {
        let now = Timestamp::now();
        let name = format!("m{number}@x.org");
        let batches = vec![batch(Destination::Expand, now, &[&name])];
        let new = message(now, &"y".repeat(1_000_000), batches);
        spool.accept(new, None).await.unwrap();
    }
    let leases = claim_all(&spool).await;
    for lease in &leases {
        assert_eq!(spool.body(lease.head.id).await.unwrap().len(), 1_000_017);
    }
    finish(&spool, &leases).await;
    shrinks_to(folder.path(), 12 * SEGMENT_BYTES).await;
}

/// Accepts and finishes so many large messages for [`Destination::Expand`].
async fn traffic(spool: &dyn Spool, count: usize) {
    for _ in 0..count {
        spool
            .accept(large_message("filler@x.org"), None)
            .await
            .unwrap();
        let mut wanted = everything();
        wanted.destinations = Destinations::Only(vec![Destination::Expand]);
        let leases = spool.claim("here", &wanted).await.unwrap();
        finish(spool, &leases).await;
    }
}

/// In how many segments a text stands.
fn copies(folder: &std::path::Path, text: &str) -> usize {
    let has = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    segments(folder).iter().filter(|path| has(path)).count()
}

/// A message was carried forward and is done, its new place may be used again; but its old one is still there, held by another
/// message. With the index lost, the old copy must not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Embedded::open(small(folder.path())).unwrap();
    let now = Timestamp::now();
    for (to, destination) in [
        ("held@x.org", Destination::Inside),
        ("moved@x.org", domain("x.org")),
    ] {
        let batches = vec![batch(destination, now, &[to])];
        let body = format!("this is the body for {to}");
        spool
            .accept(message(now, &body, batches), None)
            .await
            .unwrap();
    }
    let claim = async |destination| {
        let mut wanted = everything();
        wanted.destinations = Destinations::Only(vec![destination]);
        spool.claim("here", &wanted).await.unwrap()
    };
    // What is borrowed is not carried forward.
    assert_eq!(claim(Destination::Inside).await.len(), 1);
    let start = Instant::now();
    while copies(folder.path(), "body for moved@x.org") < 2 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "never carried forward"
        );
        traffic(&spool, 3).await;
    }
    let leases = claim(domain("x.org")).await;
    assert_eq!(names(&leases), ["moved@x.org"]);
    finish(&spool, &leases).await;
    traffic(&spool, 60).await;
    shrinks_to(folder.path(), 12 * SEGMENT_BYTES).await;
    assert!(copies(folder.path(), "body for held@x.org") > 0);
    spool.close().await;
    lose_index(folder.path());
    let spool = Embedded::open(small(folder.path())).unwrap();
    let found = contents(&spool).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["held@x.org"]);
}
