//! What the engine counts, `delivery_*`. A metric's help text is its documentation.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::attempt::{Attempted, Result};
use crate::lane;

/// All of them; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) recipients: IntCounterVec,
    pub(crate) transactions: IntCounterVec,
    pub(crate) attempt_seconds: HistogramVec,
    pub(crate) delay_seconds: HistogramVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) old_allowed: IntGauge,
    pub(crate) turn_seconds: Histogram,
    pub(crate) in_hand: IntGauge,
    pub(crate) sites_shut: IntGauge,
    pub(crate) crossings: IntCounterVec,
    pub(crate) rules: IntCounterVec,
    pub(crate) claims: IntCounterVec,
    pub(crate) settlements: IntCounter,
    pub(crate) settle_group: Histogram,
    pub(crate) unsettled: IntGauge,
    pub(crate) corrupt: IntCounter,
    pub(crate) faults: IntCounterVec,
}

/// From a busy next hop on the same host to a slow stranger's greeting.
const ATTEMPT_SECONDS: [f64; 12] = [
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];
/// From an idle host to one that cannot do its work.
const TURN_SECONDS: [f64; 8] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0];
/// From live mail to five days.
const DELAY_SECONDS: [f64; 12] = [
    0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0, 86_400.0, 432_000.0,
];

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            recipients: counters(
                "delivery_recipients_total",
                "Recipients attempted, by what came of it (delivered, deferred, failed, expired)",
                "result",
            ),
            transactions: counters(
                "delivery_transactions_total",
                "Copies offered to a next hop, by whether it answered (answered, broken)",
                "outcome",
            ),
            attempt_seconds: histograms(
                "delivery_attempt_seconds",
                "Time to work on one batch, all its copies, by lane",
                &ATTEMPT_SECONDS,
            ),
            delay_seconds: histograms(
                "delivery_delay_seconds",
                "Time from acceptance here to delivery to the next hop, for each delivered recipient, by lane",
                &DELAY_SECONDS,
            ),
            in_flight: gauge("delivery_in_flight", "Batches being attempted now"),
            old_allowed: gauge(
                "delivery_old_allowed",
                "Batches of backlog and retries that may be attempted at once now, so that turns come within turn_target",
            ),
            turn_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "delivery_turn_seconds",
                    "How long a task that was ready to run waited for a processor, in the mean of a tenth of a second; measured while backlog or retries are attempted",
                )
                .buckets(TURN_SECONDS.to_vec()),
            )
            .expect("a constant description is valid"),
            in_hand: gauge(
                "delivery_in_hand",
                "Batches claimed and waiting for a turn, a gate or a lookup",
            ),
            sites_shut: gauge("delivery_sites_shut", "Sites whose gate is shut"),
            crossings: counters(
                "delivery_gate_crossings_total",
                "Gates that changed, by to what (open, limited, shut)",
                "state",
            ),
            rules: counters(
                "delivery_rules_total",
                "Attempts answered with a reply that a provider rule takes for the whole site, by rule",
                "rule",
            ),
            claims: counters("delivery_claimed_total", "Batches claimed, by lane", "lane"),
            settlements: counter("delivery_settlements_total", "Batches settled"),
            settle_group: Histogram::with_opts(
                HistogramOpts::new("delivery_settle_group", "Settlements in one commit")
                    .buckets(vec![1.0, 4.0, 16.0, 64.0, 128.0, 256.0]),
            )
            .expect("a constant description is valid"),
            unsettled: gauge(
                "delivery_unsettled",
                "Batches worked on whose settlement is not durable yet",
            ),
            corrupt: counter(
                "delivery_corrupt_total",
                "Batches whose message's body did not match its checksum, or is not in the spool any more; not delivered, each needs an operator",
            ),
            faults: counters(
                "delivery_faults_total",
                "Faults of our own that kept a batch from being worked on (spool, render, conclude, panic)",
                "kind",
            ),
        };
        metrics.register(registry);
        metrics.zero();
        metrics
    }

    /// A series that appears only with its first event cannot be alerted on. Rules have too many names for that.
    fn zero(&self) {
        for (counters, labels) in [
            (
                &self.recipients,
                &["delivered", "deferred", "failed", "expired"][..],
            ),
            (&self.transactions, &["answered", "broken"]),
            (&self.crossings, &["open", "limited", "shut"]),
            (&self.faults, &["spool", "render", "conclude", "panic"]),
        ] {
            for label in labels {
                counters.with_label_values(&[label]);
            }
        }
        for lane in spool::Lane::ALL {
            let label = [lane::label(lane)];
            self.claims.with_label_values(&label);
            self.attempt_seconds.with_label_values(&label);
            self.delay_seconds.with_label_values(&label);
        }
    }

    fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 17] = [
            Box::new(self.recipients.clone()),
            Box::new(self.transactions.clone()),
            Box::new(self.attempt_seconds.clone()),
            Box::new(self.delay_seconds.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.old_allowed.clone()),
            Box::new(self.turn_seconds.clone()),
            Box::new(self.in_hand.clone()),
            Box::new(self.sites_shut.clone()),
            Box::new(self.crossings.clone()),
            Box::new(self.rules.clone()),
            Box::new(self.claims.clone()),
            Box::new(self.settlements.clone()),
            Box::new(self.settle_group.clone()),
            Box::new(self.unsettled.clone()),
            Box::new(self.corrupt.clone()),
            Box::new(self.faults.clone()),
        ];
        for collector in all {
            if let Err(error) = registry.register(collector) {
                tracing::error!(%error, "a metric of the delivery engine is not shown");
            }
        }
    }

    /// Counts what came of recipients; `delay` is since acceptance here.
    pub(crate) fn attempted(&self, attempted: &[Attempted], lane: spool::Lane, delay: f64) {
        for one in attempted {
            let label = match one.result {
                Result::Delivered(_) => {
                    self.delay_seconds
                        .with_label_values(&[lane::label(lane)])
                        .observe(delay);
                    "delivered"
                }
                Result::Deferred(_) => "deferred",
                Result::Failed(_) => "failed",
                Result::Expired(_) => "expired",
            };
            self.recipients.with_label_values(&[label]).inc();
        }
    }
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a constant description is valid")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a constant description is valid")
}

fn counters(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &[label]).expect("a constant description is valid")
}

fn histograms(name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    HistogramVec::new(options, &["lane"]).expect("a constant description is valid")
}
