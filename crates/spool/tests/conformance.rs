//! Every engine passes the conformance suite.

#![allow(clippy::unwrap_used)]

mod shared;

use std::sync::Arc;

use shared::HandClock;
use shared::conformance::{self, Made};
use spool::embedded::{Embedded, Options};
use spool::memory::Memory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    let make =
        |clock: &HandClock| -> Made { (Arc::new(Memory::with_clock(clock.clock())), Box::new(())) };
    conformance::all(make).await;
    conformance::selections(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let make = |clock: &HandClock| -> Made {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            clock: clock.clock(),
            ..shared::options(folder.path())
        };
        (Arc::new(Embedded::open(options).unwrap()), Box::new(folder))
    };
    conformance::all(make).await;
    conformance::selections(make).await;
}

/// Nothing depends on how much is held in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_with_the_least_memory() {
    let make = |clock: &HandClock| -> Made {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            clock: clock.clock(),
            window_max: 1,
            heads_max: 1,
            content_bytes_max: 0,
            unindexed_max: 8,
            ..shared::options(folder.path())
        };
        (Arc::new(Embedded::open(options).unwrap()), Box::new(folder))
    };
    conformance::all(make).await;
    conformance::selections(make).await;
}
