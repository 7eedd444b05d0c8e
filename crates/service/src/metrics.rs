//! Metrics: the shortest way to register one, and the `service_*` ones that every program has.
//! A metric's help text is its documentation.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use time::OffsetDateTime;

use crate::control::Control;
use crate::listener::Counts;
use crate::shutdown::Shutdown;

/// Names are constants of the program: a bad or double one is met by its first test.
const NAMES_ARE_CONSTANTS: &str = "a metric's name is valid and registered once";

/// A counter; its name ends in `_total`.
pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

/// A counter by labels, which have few values.
pub fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

/// A gauge by labels, which have few values.
pub fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

/// A gauge of what is no whole number.
pub fn real_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

/// A histogram; the upper bounds of its buckets are in the unit its name ends in.
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, Histogram::with_opts(options))
}

/// A histogram by labels, which have few values.
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

fn register<M>(registry: &Registry, metric: Result<M, prometheus::Error>) -> M
where
    M: prometheus::core::Collector + Clone + 'static,
{
    let metric = metric.expect(NAMES_ARE_CONSTANTS);
    let registered = registry.register(Box::new(metric.clone()));
    registered.expect(NAMES_ARE_CONSTANTS);
    metric
}

/// What every program has.
pub(crate) struct ServiceMetrics {
    registry: Registry,
    ready: IntGauge,
    reload_failed: IntGauge,
    reload_good_time: IntGauge,
    keys_waiting: IntGauge,
    certificate_left: IntGaugeVec,
    activities: IntGaugeVec,
    descriptors: IntGauge,
    descriptors_max: IntGauge,
    memory: IntGauge,
    listeners: ListenerMetrics,
    /// Two scrapes at once must not both add what has been counted since the last.
    scrape: Mutex<()>,
}

impl ServiceMetrics {
    pub(crate) fn new(registry: &Registry, version: &str) -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let started = "service_start_time_seconds";
        gauge(registry, started, "When the program started, in Unix time.").set(now);
        let info = "The running version, as a label; always 1.";
        let info = gauges(registry, "service_info", info, &["version"]);
        info.with_label_values(&[version]).set(1);
        let metrics = Self {
            registry: registry.clone(),
            ready: gauge(
                registry,
                "service_ready",
                "1 when ready, 0 when not; /readyz says why not.",
            ),
            reload_failed: gauge(
                registry,
                "service_reload_failed",
                "1 when the last SIGHUP found a bad configuration or certificate and the old one stayed; the log says why.",
            ),
            reload_good_time: gauge(
                registry,
                "service_reload_good_time_seconds",
                "When the configuration in force was read, in Unix time.",
            ),
            keys_waiting: gauge(
                registry,
                "service_reload_waiting_keys",
                "Keys of the configuration that were changed since the start and take effect at the next one; /status names them.",
            ),
            certificate_left: gauges(
                registry,
                "service_certificate_left_seconds",
                "Time until the first certificate of a chain expires; negative when it has.",
                &["name"],
            ),
            activities: gauges(
                registry,
                "service_activities",
                "Work that a shutdown would wait for.",
                &["name"],
            ),
            descriptors: gauge(
                registry,
                "service_descriptors",
                "File descriptors in use; at service_descriptors_max nothing more can be accepted or written.",
            ),
            descriptors_max: gauge(
                registry,
                "service_descriptors_max",
                "File descriptors the system lets the program have (LimitNOFILE).",
            ),
            memory: gauge(registry, "service_memory_bytes", "Resident memory."),
            listeners: ListenerMetrics::new(registry),
            scrape: Mutex::new(()),
        };
        metrics.reload_good_time.set(now);
        metrics
    }

    pub(crate) fn reloaded(&self, good: bool) {
        self.reload_failed.set((!good).into());
        if good {
            let now = OffsetDateTime::now_utc().unix_timestamp();
            self.reload_good_time.set(now);
        }
    }

    /// So many changes wait for the next start.
    pub(crate) fn waiting(&self, keys: usize) {
        self.keys_waiting
            .set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// Everything in the registry in Prometheus's text format.
    pub(crate) fn text(&self, control: &Control, ready: bool, work: &Shutdown) -> String {
        let _alone = self.scrape.lock();
        self.ready.set(ready.into());
        self.system();
        for (name, left) in control.certificates() {
            self.certificate_left.with_label_values(&[name]).set(left);
        }
        for (name, count) in work.activities() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.activities.with_label_values(&[name]).set(count);
        }
        for (name, counts) in control.listener_counts() {
            self.listeners.set(name, &counts);
        }
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.unwrap_or_else(|error| {
            tracing::error!(event = "metrics_failed", %error);
            String::new()
        })
    }

    /// What the kernel says of the process; without /proc the gauges stay at 0.
    fn system(&self) {
        let set = |gauge: &IntGauge, value: Option<u64>| {
            gauge.set(i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX));
        };
        let open = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64);
        set(&self.descriptors, open.ok());
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        set(&self.descriptors_max, limit.current);
        let pages = std::fs::read_to_string("/proc/self/statm").ok();
        let pages = pages.and_then(|pages| pages.split_whitespace().nth(1)?.parse::<u64>().ok());
        let page_bytes = rustix::param::page_size() as u64;
        set(&self.memory, pages.map(|pages| pages * page_bytes));
    }
}

/// What every published listener has, by its name.
struct ListenerMetrics {
    sessions: IntGaugeVec,
    sessions_total: IntCounterVec,
    accept_failed: IntCounterVec,
    full: IntCounterVec,
}

impl ListenerMetrics {
    fn new(registry: &Registry) -> Self {
        Self {
            sessions: gauges(
                registry,
                "service_listener_sessions",
                "Sessions open now.",
                &["listener"],
            ),
            sessions_total: counters(
                registry,
                "service_listener_sessions_total",
                "Sessions accepted.",
                &["listener"],
            ),
            accept_failed: counters(
                registry,
                "service_listener_accept_failed_total",
                "Connections that could not be accepted; rising fast means that descriptors ran out.",
                &["listener"],
            ),
            full: counters(
                registry,
                "service_listener_full_total",
                "Times that all of a listener's sessions were in use and new connections waited.",
                &["listener"],
            ),
        }
    }

    /// Takes over what a listener has counted since the last scrape.
    fn set(&self, name: &str, counts: &Counts) {
        let sessions = counts.sessions.load(Ordering::Relaxed);
        self.sessions.with_label_values(&[name]).set(sessions);
        for (counter, counted) in [
            (&self.sessions_total, &counts.sessions_total),
            (&self.accept_failed, &counts.accept_failed_total),
            (&self.full, &counts.full_total),
        ] {
            let counter = counter.with_label_values(&[name]);
            counter.inc_by(
                counted
                    .load(Ordering::Relaxed)
                    .saturating_sub(counter.get()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let registry = Registry::new();
        let metrics = ServiceMetrics::new(&registry, "1.2.3");
        let outcomes = counters(&registry, "mx_sessions_total", "Sessions.", &["outcome"]);
        outcomes.with_label_values(&["passed"]).inc();
        let work = Shutdown::new();
        let _session = work.activity("session");
        metrics.reloaded(false);
        let text = metrics.text(&Control::default(), true, &work);
        for line in [
            "# HELP mx_sessions_total Sessions.",
            "mx_sessions_total{outcome=\"passed\"} 1",
            "service_ready 1",
            "service_reload_failed 1",
            "service_activities{name=\"session\"} 1",
            "service_info{version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        for gauge in [
            "service_descriptors ",
            "service_descriptors_max ",
            "service_memory_bytes ",
        ] {
            let line = text.lines().find(|line| line.starts_with(gauge)).unwrap();
            assert!(!line.ends_with(" 0"), "{line}");
        }
        metrics.reloaded(true);
        let text = metrics.text(&Control::default(), false, &work);
        assert!(text.contains("\nservice_reload_failed 0\n"), "{text}");
        assert!(text.contains("\nservice_ready 0\n"), "{text}");
    }
}
