//! The pool as the connections, the probes and the registrations share it: one lock, never held across an await.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::moves::Moves;
use crate::node::Word;
use crate::pool::{Claim, Pool, Refusal, Registration, Shown};
use crate::words::Words;

/// What all rooms share.
pub struct Shared {
    pool: Mutex<Pool>,
    words: Words,
    /// Wakes who waits for a node: one may have become ready or less busy.
    freed: Notify,
    /// Wakes the prober: a node has joined or was set aside.
    pub probe_soon: Notify,
    config: watch::Receiver<Config>,
    /// Counters.
    pub metrics: Metrics,
}

/// A claim that gives itself back.
pub struct Claimed {
    claim: Claim,
    shared: Arc<Shared>,
}

impl Claimed {
    /// Where the node listens.
    pub fn address(&self) -> SocketAddr {
        self.claim.address
    }

    /// Whether the node is told who the client is.
    pub fn proxy_protocol(&self) -> bool {
        self.claim.proxy_protocol
    }

    /// The connection has ended; `is_cut`: the node left its client without an answer.
    pub fn ended(self, is_cut: bool) {
        let probe = self.shared.config().probe;
        self.shared
            .with(|pool| pool.ended(&self.claim, is_cut, &probe, Instant::now()));
    }

    /// Who says something on the connection.
    pub fn moves(&self) -> &Moves {
        &self.claim.moves
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.claim.name
    }

    /// The node was of no use.
    pub fn failed(self, reason: &str) {
        let probe = self.shared.config().probe;
        self.shared
            .with(|pool| pool.failed(&self.claim, reason, &probe, Instant::now()));
        self.shared.probe_soon.notify_one();
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.shared.with(|pool| pool.release(&self.claim));
        self.shared.freed.notify_waiters();
    }
}

impl Shared {
    /// With the static nodes of the configuration, and what operators said before.
    pub fn new(config: watch::Receiver<Config>, metrics: Metrics) -> Arc<Self> {
        let words = Words::below(&config.borrow().state);
        let (said, read) = words.read();
        if let Err(problem) = read {
            let what =
                "what operators said of nodes is lost: say it anew, `balancer nodes` shows them";
            tracing::error!(event = "words", problem, "{what}");
        }
        let shared = Self {
            pool: Mutex::new(Pool::new(said, Instant::now())),
            words,
            freed: Notify::new(),
            probe_soon: Notify::new(),
            config,
            metrics,
        };
        shared.reload();
        Arc::new(shared)
    }

    /// The configuration in force; not to be held across an await.
    pub fn config(&self) -> watch::Ref<'_, Config> {
        self.config.borrow()
    }

    /// Something done with the pool, at once.
    pub fn with<T>(&self, act: impl FnOnce(&mut Pool) -> T) -> T {
        act(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The static nodes of the configuration in force.
    pub fn reload(&self) {
        let nodes = self.config().nodes.clone();
        self.with(|pool| pool.set_static(&nodes, Instant::now()));
        self.probe_soon.notify_one();
    }

    /// Waits for a node that is ready, not full and not among `tried`. The caller holds the deadline.
    pub async fn claim(self: &Arc<Self>, tried: &[String]) -> Claimed {
        loop {
            // Registered before the pool is looked at, so that no change in between is missed.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let settings = self.config().pick;
            let claim = self.with(|pool| pool.claim(tried, &settings, Instant::now()));
            if let Some(claim) = claim {
                let shared = self.clone();
                return Claimed { claim, shared };
            }
            freed.await;
        }
    }

    /// A node registers.
    pub fn register(&self, registration: &Registration) -> Result<(), Refusal> {
        let config = self.config();
        let now = Instant::now();
        let result = self.with(|pool| pool.register(registration, &config, now));
        self.freed.notify_waiters();
        self.probe_soon.notify_one();
        result
    }

    /// What a probe brought.
    pub fn probed(&self, claim: &Claim, result: Result<(), String>) {
        let outcome = if result.is_ok() { "good" } else { "failed" };
        self.metrics.probes.with_label_values(&[outcome]).inc();
        let probe = self.config().probe;
        self.with(|pool| pool.probed(claim, result, &probe, Instant::now()));
        self.freed.notify_waiters();
    }

    /// What a node's agent said.
    pub fn heard(&self, claim: &Claim, line: &str) {
        self.with(|pool| pool.heard(claim, line));
        self.freed.notify_waiters();
    }

    /// An operator's word, remembered; `None` when there is no such node, and the reason when it holds but will not outlast a restart.
    pub fn say(&self, name: &str, change: impl FnOnce(&mut Word)) -> Option<Result<(), String>> {
        let written = self.with(|pool| {
            // Under the lock, so that of two words the later one is the one that is kept.
            pool.say(name, change)
                .then(|| self.words.write(pool.words()))
        });
        self.freed.notify_waiters();
        self.probe_soon.notify_one();
        written
    }

    /// All nodes.
    pub fn shown(&self) -> Vec<Shown> {
        self.with(|pool| pool.shown(Instant::now()))
    }
}
