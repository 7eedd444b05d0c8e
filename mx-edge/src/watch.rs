//! Looks at spool and sources at short intervals, and tells readiness, metrics and `/status` what it sees.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use delivery::Engine;
use delivery::queue::{Queue, show_tally};
use mail::Timestamp;
use serde_json::{Value, json};
use service::shutdown::Shutdown;
use spool::{Spool, Tally};
use tracing::warn;

use crate::admission::pressure;
use crate::config::Config;
use crate::forward::held;
use crate::handover::give::Giver;
use crate::reason::Reason;
use crate::receive::Edge;
use crate::routes::Controls;

/// Between two looks: a poisoned spool is told within this time.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often what is kept no longer is deleted.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Above, what is looked at has run out.
pub struct Waters {
    ended_retention: Duration,
    memory_bytes_max: Option<u64>,
}

impl Waters {
    /// As configured; memory as far as this host lets it be known.
    pub fn new(config: &Config) -> Self {
        let memory_bytes_max = match config.limits.memory_bytes_max {
            0 => pressure::memory_bytes_max(),
            bytes => Some(bytes),
        };
        Self {
            memory_bytes_max,
            ended_retention: config.records.ended_retention,
        }
    }

    fn look(&self, edge: &Edge) {
        let pressure = &edge.admission.pressure;
        if let Some(used) = pressure::resident_bytes() {
            edge.metrics.resident_bytes.set(used as i64);
            if let Some(most) = self.memory_bytes_max {
                pressure.memory(used, most);
            }
        }
        let shut = edge.through.is_shut();
        let refuses = edge.keeper.refuses().filter(|_| shut);
        pressure.ways(refuses.map(Reason::label), tokio::time::Instant::now());
        let waiting = edge.admission.screening.taken();
        edge.metrics.screening.set(waiting as i64);
        edge.metrics.stressed.set(i64::from(pressure.is_stressed()));
    }
}

/// What `/status` shows of this program.
#[derive(Clone)]
pub struct Status {
    edge: Arc<Edge>,
    engine: Engine,
    spool: Arc<dyn Spool>,
    queue: Queue,
    giver: Arc<Giver>,
    tally: Arc<Mutex<Value>>,
}

impl Status {
    /// Nothing tallied yet.
    pub fn new(controls: &Controls) -> Self {
        Self {
            edge: Arc::clone(&controls.edge),
            engine: controls.engine.clone(),
            spool: Arc::clone(&controls.spool),
            queue: controls.queue.clone(),
            giver: Arc::clone(&controls.drain.giver),
            tally: Arc::default(),
        }
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let sources = self.edge.recipients.sources().iter();
        let sources: Vec<_> = sources.map(|source| source.summary()).collect();
        json!({
            "sessions": self.edge.metrics.sessions_open.get(),
            "stressed": self.edge.admission.pressure.is_stressed(),
            "draining": self.edge.is_draining(),
            "handover": self.giver.status(),
            "through_shut": self.edge.metrics.through_shut.get() == 1,
            "sources": sources,
            "queue": self.queue.state(),
            "sites": *self.engine.sites(),
            "spool": *self.tally.lock().expect("no holder panics"),
            "vitals": delivery::vitals::json(&self.spool.vitals()),
        })
    }
}

/// Until shutdown.
pub async fn run(controls: Controls, status: Status, waters: Waters, shutdown: Shutdown) {
    let Controls {
        edge,
        spool,
        engine,
        readiness,
        ..
    } = controls;
    let mut first = true;
    let mut swept: Option<tokio::time::Instant> = None;
    let mut dropped = Dropped::default();
    loop {
        readiness.set("spool", spool.unhealthy().map_or(Ok(()), Err));
        engine.tell(&readiness);
        readiness.set("recipients", edge.recipients.loaded());
        edge.admission.added.sweep(Timestamp::now());
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_INTERVAL) {
            swept = Some(tokio::time::Instant::now());
            forget(&edge, waters.ended_retention);
        }
        count_sources(&edge);
        waters.look(&edge);
        readiness.set("ways_in", edge.admission.pressure.ways_in());
        if let Ok(tally) = spool.tally().await {
            // First, so that what is seen to be gone is seen to have ended.
            dropped.look(&edge, &*spool).await;
            let waiting = count_spooled(&edge, &tally, Timestamp::now());
            if first {
                edge.metrics.spooled_at_start.set(waiting);
                first = false;
            }
            *status.tally.lock().expect("no holder panics") = show_tally(&tally);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.wait() => return,
        }
    }
}

/// Deletes what is kept no longer. The files may be large.
fn forget(edge: &Arc<Edge>, ended_retention: Duration) {
    let edge = Arc::clone(edge);
    tokio::task::spawn_blocking(move || {
        let now = Timestamp::now();
        let oldest = now.0.saturating_sub(ended_retention.as_millis() as u64);
        let ended = edge.ended.forget(Timestamp(oldest)).map(drop);
        if let Err(error) = edge.trail.sweep(now).and(ended) {
            warn!(event = "records", %error, "what is to be kept no longer is still there");
        }
    });
}

/// What operators ended, as the spool's account has it.
#[derive(Default)]
struct Dropped(Option<u64>);

impl Dropped {
    async fn look(&mut self, edge: &Edge, spool: &dyn Spool) {
        let Ok(ledger) = spool.ledger().await else {
            return;
        };
        let dropped = ledger.ends.dropped;
        let before = self.0.replace(dropped).unwrap_or(dropped);
        let ended = edge.metrics.done.with_label_values(&["ended"]);
        ended.inc_by(dropped.saturating_sub(before));
    }
}

fn count_sources(edge: &Edge) {
    for source in edge.recipients.sources() {
        let summary = source.summary();
        let labels = &[source.name()];
        let entries = if summary.loaded {
            summary.entries as i64
        } else {
            -1
        };
        let metrics = &edge.metrics;
        metrics
            .sources
            .entries
            .with_label_values(labels)
            .set(entries);
        let age = source.age(Timestamp::now());
        metrics
            .sources
            .age
            .with_label_values(labels)
            .set(age.map_or(-1, |age| age.as_secs() as i64));
        let (blocked, failing) = (summary.blocked.is_some(), summary.trouble.is_some());
        metrics
            .sources
            .blocked
            .with_label_values(labels)
            .set(i64::from(blocked));
        metrics
            .sources
            .failing
            .with_label_values(labels)
            .set(i64::from(failing));
    }
}

/// Returns how many forward-paths are in the spool.
fn count_spooled(edge: &Edge, tally: &[Tally], now: Timestamp) -> i64 {
    let (mut waiting, mut held_count, mut oldest) = (0, 0, Duration::ZERO);
    for line in tally {
        if line.destination == held() {
            held_count += line.recipients as i64;
        } else {
            waiting += line.recipients as i64;
            if line.batches > 0 {
                oldest = oldest.max(now.since(line.oldest));
            }
        }
    }
    let metrics = &edge.metrics;
    metrics.spooled.with_label_values(&["waiting"]).set(waiting);
    metrics.spooled.with_label_values(&["held"]).set(held_count);
    metrics.spooled_oldest_seconds.set(oldest.as_secs() as i64);
    waiting + held_count
}
