//! The spool's vitals as metrics, `spool_*`, and for `/status`. Asked for when somebody looks, never kept here. A metric's help
//! text is its documentation.

use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge, Registry};
use serde_json::{Value, json};
use spool::{Spool, Vitals};

/// Shows the vitals of a spool.
pub fn register(registry: &Registry, spool: Arc<dyn Spool>) {
    if let Err(error) = registry.register(Box::new(Figures::new(spool))) {
        tracing::error!(%error, "the spool's metrics are not shown");
    }
}

/// As JSON: bytes, seconds, counts.
pub fn json(vitals: &Vitals) -> Value {
    json!({
        "bytes_free": vitals.bytes_free,
        "inodes_free": vitals.inodes_free,
        "bytes_used": vitals.bytes_used,
        "sync_seconds": vitals.sync.as_secs_f64(),
        "sync_worst_seconds": vitals.sync_worst.as_secs_f64(),
        "waiting_bytes": vitals.waiting_bytes,
        "index_behind": vitals.index_behind,
        "heads": vitals.heads,
        "set_aside": vitals.set_aside,
        "batches_set_aside": vitals.batches_set_aside,
        "unreadable": vitals.unreadable,
        "poisoned": vitals.poisoned,
        "full": vitals.full,
        "slow": vitals.slow,
        "copy": vitals.copy,
    })
}

/// Set anew each time they are collected.
struct Figures {
    spool: Arc<dyn Spool>,
    /// Two scrapes at once must not both add what was counted since the last.
    alone: Mutex<()>,
    bytes_free: IntGauge,
    inodes_free: IntGauge,
    bytes_used: IntGauge,
    sync: Gauge,
    sync_worst: Gauge,
    waiting_bytes: IntGauge,
    index_behind: IntGauge,
    heads: IntGauge,
    set_aside: IntCounter,
    batches_set_aside: IntCounter,
    unreadable: IntGauge,
    poisoned: IntGauge,
    full: IntGauge,
    slow: IntGauge,
    copy: IntGauge,
}

impl Figures {
    fn new(spool: Arc<dyn Spool>) -> Self {
        Self {
            spool,
            alone: Mutex::default(),
            bytes_free: gauge(
                "spool_free_bytes",
                "Free bytes on the spool's file system; below spool.free_bytes_min nothing is accepted. -1 where that means nothing.",
            ),
            inodes_free: gauge(
                "spool_free_inodes",
                "Free inodes on the spool's file system; below spool.free_inodes_min nothing is accepted. -1 where that means nothing.",
            ),
            bytes_used: gauge(
                "spool_used_bytes",
                "Bytes that the spool takes: segments (also free ones kept for use again) and index.",
            ),
            sync: seconds(
                "spool_sync_seconds",
                "How long making a group durable takes: moving average over some eight groups, or the one under way if that is longer; 0 when there was none in the last minute.",
            ),
            sync_worst: seconds(
                "spool_sync_worst_seconds",
                "The longest that making a group durable took in the last minute.",
            ),
            waiting_bytes: gauge(
                "spool_waiting_bytes",
                "Bytes of messages that wait to be made durable; more than spool.waiting_bytes_max are not let in.",
            ),
            index_behind: gauge(
                "spool_index_behind",
                "Changes that the index has not read yet. They are durable; kept in memory until then.",
            ),
            heads: gauge(
                "spool_heads",
                "Batches in memory that come next, of all destinations; at most spool.heads_max and those that the index has not read yet.",
            ),
            set_aside: counter(
                "spool_set_aside_total",
                "Messages whose body did not match its checksum, set aside in the spool's folder corrupt/; each needs an operator.",
            ),
            batches_set_aside: counter(
                "spool_batches_set_aside_total",
                "Batches whose record, or whose message's envelope, could not be read, set aside in the spool's folder corrupt/; each needs an operator.",
            ),
            unreadable: gauge(
                "spool_unreadable_batches",
                "Batches that the disk does not give just now. They rest and are read again for an hour, then set aside.",
            ),
            poisoned: gauge(
                "spool_poisoned",
                "1 after a failed write or sync: nothing more is accepted or delivered until a restart. Look at the disk first.",
            ),
            full: gauge(
                "spool_full",
                "1 while there is less room than is wanted: mail is answered 452; what is there is worked off.",
            ),
            slow: gauge(
                "spool_slow",
                "1 while the disk does not keep up: what comes beyond spool.waiting_bytes_max or spool.waiting_max is answered 451.",
            ),
            copy: gauge(
                "spool_copy",
                "1 while the spool is a restored copy that no operator has adopted: nothing leaves of what waits in it until `spool adopt`.",
            ),
        }
    }

    fn all(&self) -> [&dyn Collector; 15] {
        [
            &self.bytes_free,
            &self.inodes_free,
            &self.bytes_used,
            &self.sync,
            &self.sync_worst,
            &self.waiting_bytes,
            &self.index_behind,
            &self.heads,
            &self.set_aside,
            &self.batches_set_aside,
            &self.unreadable,
            &self.poisoned,
            &self.full,
            &self.slow,
            &self.copy,
        ]
    }
}

impl Collector for Figures {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _alone = self.alone.lock();
        let vitals = self.spool.vitals();
        let or_none = |free: Option<u64>| free.map_or(-1, whole);
        self.bytes_free.set(or_none(vitals.bytes_free));
        self.inodes_free.set(or_none(vitals.inodes_free));
        self.bytes_used.set(whole(vitals.bytes_used));
        self.sync.set(vitals.sync.as_secs_f64());
        self.sync_worst.set(vitals.sync_worst.as_secs_f64());
        self.waiting_bytes.set(whole(vitals.waiting_bytes));
        self.index_behind.set(whole(vitals.index_behind));
        self.heads.set(whole(vitals.heads));
        raise(&self.set_aside, vitals.set_aside);
        raise(&self.batches_set_aside, vitals.batches_set_aside);
        self.unreadable.set(whole(vitals.unreadable));
        self.poisoned.set(i64::from(vitals.poisoned));
        self.full.set(i64::from(vitals.full));
        self.slow.set(i64::from(vitals.slow));
        self.copy.set(i64::from(vitals.copy));
        self.all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Counts what was counted elsewhere since the last time.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a constant description is valid")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a constant description is valid")
}

fn seconds(name: &str, help: &str) -> Gauge {
    Gauge::new(name, help).expect("a constant description is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_figures_are_shown() {
        let registry = Registry::new();
        register(&registry, Arc::new(spool::memory::Memory::new()));
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let shown = json(&Vitals::default());
        let values = text.lines().filter(|line| line.starts_with("spool_"));
        assert_eq!(values.count(), shown.as_object().unwrap().len(), "{text}");
        assert!(text.contains("\nspool_free_bytes -1\n"), "{text}");
        assert!(text.contains("\nspool_poisoned 0\n"), "{text}");
    }
}
