//! Every engine passes the conformance suite.

#![allow(clippy::unwrap_used)]

mod shared;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use shared::HandClock;
use shared::conformance::{self, Made, Outside};
use spool::embedded::{Embedded, Options};
use spool::memory::Memory;

/// The engine in memory, which is its own guard.
struct OfMemory;

impl Outside for OfMemory {
    fn lapse(&self, made: Made, _: &HandClock) -> Made {
        memory_of(&made).lapse();
        made
    }

    fn flip_bit(&self, made: &Made, message: mail::MessageId, _: &[u8]) {
        memory_of(made).flip_bit(message);
    }
}

fn memory_of(made: &Made) -> &Memory {
    made.1.downcast_ref::<Arc<Memory>>().unwrap()
}

/// The embedded engine, guarded by its folder: leases live as long as its process.
struct OfEmbedded(fn(&HandClock, &Path) -> Options);

impl Outside for OfEmbedded {
    fn lapse(&self, (spool, folder): Made, clock: &HandClock) -> Made {
        drop(spool);
        let path = folder.downcast_ref::<tempfile::TempDir>().unwrap().path();
        let spool = Embedded::open((self.0)(clock, path)).unwrap();
        (Arc::new(spool), folder)
    }

    fn flip_bit(&self, made: &Made, _: mail::MessageId, body: &[u8]) {
        let folder = made.1.downcast_ref::<tempfile::TempDir>().unwrap();
        let mut flipped = 0;
        for segment in shared::segments(folder.path()) {
            let bytes = std::fs::read(&segment).unwrap();
            let mut windows = bytes.windows(body.len());
            if let Some(at) = windows.position(|window| window == body) {
                let file = std::fs::File::options().write(true).open(&segment).unwrap();
                file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
                flipped += 1;
            }
        }
        assert_eq!(flipped, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let make = |clock: &HandClock| -> Made {
        let memory = Arc::new(Memory::with_clock(clock.clock()));
        (memory.clone(), Box::new(memory))
    };
    conformance::all(make).await;
    conformance::selections(make).await;
    conformance::outside(make, &OfMemory).await;
}

async fn embedded_with(options: fn(&HandClock, &Path) -> Options) {
    let make = |clock: &HandClock| -> Made {
        let folder = tempfile::tempdir().unwrap();
        let spool = Embedded::open(options(clock, folder.path())).unwrap();
        (Arc::new(spool), Box::new(folder))
    };
    conformance::all(make).await;
    conformance::selections(make).await;
    conformance::outside(make, &OfEmbedded(options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    embedded_with(|clock, path| Options {
        clock: clock.clock(),
        ..shared::options(path)
    })
    .await;
}

/// Nothing depends on how much is held in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_with_the_least_memory() {
    embedded_with(|clock, path| Options {
        clock: clock.clock(),
        window_max: 1,
        heads_max: 1,
        content_bytes_max: 0,
        unindexed_max: 8,
        ..shared::options(path)
    })
    .await;
}
