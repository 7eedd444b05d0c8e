//! Settlements, grouped: many ends of leases in one commit of the spool.
//!
//! What it was given it settles or keeps trying to; a spool that refuses stops the engine's claims, not this task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use service::shutdown::Shutdown;
use spool::{Settlement, Spool};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;

/// Settlements in one commit at most (design section 4).
const GROUP_MAX: usize = 256;
/// The first of a group waits no longer than this for others. With [`GROUP_MAX`] it bounds what a crash may repeat.
const GROUP_WAIT: Duration = Duration::from_millis(10);
/// Settlements not durable yet, beyond which no further attempt begins.
const UNSETTLED_MAX: usize = 4096;
/// After a refusal of the spool; doubled each time.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_LONGEST: Duration = Duration::from_secs(30);
/// Tries after shutdown has begun.
const TRIES_AT_END: u32 = 3;

/// Where settlements are put.
#[derive(Clone)]
pub(crate) struct Settler {
    sender: mpsc::UnboundedSender<Settlement>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    unsettled: AtomicUsize,
    refusing: AtomicBool,
    /// Told after every commit, and when the spool starts or stops refusing.
    changed: Notify,
}

impl Settler {
    /// And the task that must be run with it; it ends when every [`Settler`] is gone and everything is settled.
    pub(crate) fn new(
        spool: Arc<dyn Spool>,
        metrics: Metrics,
        shutdown: Shutdown,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State::default());
        let settler = Self {
            sender,
            state: state.clone(),
        };
        let task = Task {
            receiver,
            spool,
            metrics,
            state,
            shutdown,
        };
        (settler, task.run())
    }

    /// Settles soon. Bounded by who calls: nothing is begun while [`Self::is_busy`].
    pub(crate) fn settle(&self, settlement: Settlement) {
        self.state.unsettled.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(settlement).is_err() {
            self.state.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Nothing new should be begun: the spool refuses, or is far behind.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.refusing.load(Ordering::Relaxed)
            || self.state.unsettled.load(Ordering::Relaxed) >= UNSETTLED_MAX
    }

    /// Resolves when [`Self::is_busy`] may have changed.
    pub(crate) async fn changed(&self) {
        self.state.changed.notified().await;
    }
}

struct Task {
    receiver: mpsc::UnboundedReceiver<Settlement>,
    spool: Arc<dyn Spool>,
    metrics: Metrics,
    state: Arc<State>,
    shutdown: Shutdown,
}

impl Task {
    async fn run(mut self) {
        loop {
            let mut group = Vec::with_capacity(GROUP_MAX);
            let Some(first) = self.receiver.recv().await else {
                return;
            };
            group.push(first);
            let until = Instant::now() + GROUP_WAIT;
            while group.len() < GROUP_MAX {
                let room = GROUP_MAX - group.len();
                let more = timeout_at(until, self.receiver.recv_many(&mut group, room)).await;
                // Time is up, or nobody is left to add anything.
                if !matches!(more, Ok(1..)) {
                    break;
                }
            }
            self.commit(group).await;
        }
    }

    async fn commit(&self, group: Vec<Settlement>) {
        let count = group.len();
        let mut wait = REFUSED_FIRST;
        let mut tries_at_end = 0;
        loop {
            let error = match self.spool.settle(group.clone()).await {
                Ok(_) => break,
                Err(error) => error,
            };
            self.refused(&error, count);
            if self.shutdown.begun() {
                tries_at_end += 1;
                wait = REFUSED_FIRST;
                // Only a restart mends a poisoned spool.
                if tries_at_end >= TRIES_AT_END || matches!(error, spool::Error::Poisoned(_)) {
                    tracing::error!(
                        event = "unsettled",
                        batches = count,
                        "not settled before the end; these batches will be attempted again"
                    );
                    break;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.wait(), if tries_at_end == 0 => {}
            }
            wait = (wait * 2).min(REFUSED_LONGEST);
        }
        if self.state.refusing.swap(false, Ordering::Relaxed) {
            tracing::info!(event = "spool", state = "open", "the spool settles again");
        }
        self.metrics.settlements.inc_by(count as u64);
        self.metrics.settle_group.observe(count as f64);
        let unsettled = self.state.unsettled.fetch_sub(count, Ordering::Relaxed) - count;
        self.metrics.unsettled.set(unsettled as i64);
        self.state.changed.notify_one();
    }

    /// Said once, until it settles again.
    fn refused(&self, error: &spool::Error, count: usize) {
        self.metrics.faults.with_label_values(&["spool"]).inc();
        if !self.state.refusing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                event = "spool",
                state = "shut",
                batches = count,
                %error,
                "the spool does not settle; nothing more is claimed until it does"
            );
            self.state.changed.notify_one();
        }
    }
}
