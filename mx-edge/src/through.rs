//! Passing a message inside while its client waits. Owns the limits of that (messages, bytes, budget) and the breaker; says what
//! came back, or why nothing did. What then happens to the message is decided in `receive`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use delivery::Copy;
use delivery::attempt::Connections;
use delivery::pace::Pace;
use mail::Reply;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::breaker::Breaker;
use crate::metrics::Metrics;

/// What came of a try.
#[derive(Debug)]
pub enum Tried {
    /// A reply a recipient, and who gave them.
    Answered(Vec<Reply>, Box<str>),
    /// The limits are reached, the inside asked for less, or the breaker is shut: nothing was tried.
    NotTried(&'static str),
    /// The inside did not answer; after the end of the message it may have taken it all the same.
    Trouble(String),
}

/// The way through.
pub struct Through {
    connections: Connections,
    budget: Duration,
    messages: Semaphore,
    kib: Semaphore,
    breaker: Mutex<Breaker>,
    /// Without limit until the inside asks for less.
    pace: Pace,
    reopened: Notify,
    metrics: Arc<Metrics>,
}

/// How much may go through at once, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the end of the message to the reply.
    pub budget: Duration,
    /// Messages at once.
    pub messages_max: usize,
    /// Their bytes.
    pub bytes_max: u64,
    /// See [`Breaker::new`].
    pub failures_max: u32,
    /// See [`Breaker::new`].
    pub probe_interval: Duration,
}

impl Through {
    /// Nothing under way.
    pub fn new(connections: Connections, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            connections,
            budget: limits.budget,
            messages: semaphore(limits.messages_max as u64),
            kib: semaphore(limits.bytes_max.div_ceil(1024)),
            breaker: Mutex::new(Breaker::new(limits.failures_max, limits.probe_interval)),
            pace: Pace::new(None, Instant::now()),
            reopened: Notify::new(),
            metrics,
        }
    }

    /// Passes one copy on within the budget. `insist` tries although the breaker is shut: for when the spool cannot help.
    /// Nobody queues here: a message that finds the limits reached is the spool's at once.
    pub async fn pass(&self, copy: &Copy, insist: bool) -> Tried {
        let bytes: usize = copy.parts.iter().map(bytes::Bytes::len).sum();
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let (Ok(_message), Ok(_kib)) =
            (self.messages.try_acquire(), self.kib.try_acquire_many(kib))
        else {
            return self.not_tried("busy");
        };
        // A list host that is full hears less of the live way too; what is kept here follows by the queue's own pace.
        if !insist && (self.pace.reserve(1, Duration::ZERO, Instant::now())).is_err() {
            return self.not_tried("busy");
        }
        if !self.breaker().admits(Instant::now()) && !insist {
            return self.not_tried("shut");
        }
        self.metrics.through_bytes.add(bytes as i64);
        let start = Instant::now();
        let deadline = start + self.budget;
        // The connections hold to the deadline themselves; the second clock is for whatever they might wait on before that.
        let work = self.connections.pass(copy, deadline);
        let passed = tokio::time::timeout_at(deadline + GRACE, work).await;
        self.metrics.through_bytes.sub(bytes as i64);
        match passed {
            Ok(Ok((replies, remote))) => {
                self.metrics
                    .through_seconds
                    .observe(start.elapsed().as_secs_f64());
                self.answered();
                match replies.iter().any(asks_for_less) {
                    true => self.pace.cut(Instant::now()),
                    false => self.pace.took(Instant::now()),
                }
                Tried::Answered(replies, remote)
            }
            Ok(Err(trouble)) => self.failed(trouble.to_string()),
            Err(_) => self.failed("no answer within the budget".into()),
        }
    }

    /// Whether a message that came now would not be tried because the inside does not answer.
    pub fn is_shut(&self) -> bool {
        self.breaker().refuses(Instant::now())
    }

    /// Resolves when the inside has answered again after the breaker was shut: what is spooled need not wait any longer.
    pub async fn reopened(&self) {
        self.reopened.notified().await;
    }

    fn not_tried(&self, why: &'static str) -> Tried {
        self.metrics.through.with_label_values(&[why]).inc();
        Tried::NotTried(why)
    }

    fn answered(&self) {
        self.metrics.through.with_label_values(&["answered"]).inc();
        if self.breaker().answered() {
            self.metrics.through_shut.set(0);
            self.reopened.notify_one();
            info!(event = "through_open", "the inside answers again");
        }
    }

    fn failed(&self, why: String) -> Tried {
        self.metrics.through.with_label_values(&["trouble"]).inc();
        if self.breaker().failed(Instant::now()) {
            self.metrics.through_shut.set(1);
            warn!(event = "through_shut", reason = %why, "the inside does not answer, messages are spooled");
        }
        Tried::Trouble(why)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("no holder panics")
    }
}

/// As the queue's rule `list-host-busy` says it: no room, or no time, inside.
fn asks_for_less(reply: &Reply) -> bool {
    let of_system =
        |status: &mail::EnhancedStatus| matches!((status.0, status.1, status.2), (4, 3, 1 | 2));
    matches!(reply.code, 421 | 451 | 452) && reply.enhanced.as_ref().is_some_and(of_system)
}

/// How much later than the budget the second clock strikes.
const GRACE: Duration = Duration::from_millis(250);

/// With as many permits as a configuration asks for, and no more than there can be.
pub fn semaphore(permits: u64) -> Semaphore {
    let most = Semaphore::MAX_PERMITS;
    Semaphore::new(usize::try_from(permits).map_or(most, |permits| permits.min(most)))
}
