//! What the scanner counts. A metric's help is its documentation.

use mail::verdict::Class;
use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::trouble::Cause;

/// Bounds of scan times in seconds: clamd's milliseconds up to the deadline.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
];

/// Every outcome a recipient can have; their sum is what was offered.
pub const OUTCOMES: [&str; 6] = [
    "passed",
    "tagged",
    "exempt",
    "quarantined",
    "refused",
    "deferred",
];

/// The scanner's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Sessions by how they ended.
    pub sessions: IntCounterVec,
    /// Recipients offered.
    pub offered: IntCounter,
    /// Recipients by outcome.
    pub recipients: IntCounterVec,
    /// Messages by class.
    pub messages: IntCounterVec,
    /// Scan times by daemon.
    pub scan_seconds: HistogramVec,
    /// Missing answers by daemon and cause.
    pub trouble: IntCounterVec,
    /// Scans that run, by daemon.
    pub scans: IntGaugeVec,
    /// Messages that wait for a slot, by daemon.
    pub waiting: IntGaugeVec,
    /// Presented tokens by what came of them.
    pub tokens: IntCounterVec,
    /// Relay attempts by outcome.
    pub relays: IntCounterVec,
    /// Canary rounds by outcome.
    pub canaries: IntCounterVec,
    /// Gates: 1 open, 0 shut.
    pub gates: IntGaugeVec,
    /// Whether each daemon may be asked: 1 or 0.
    pub daemons_in_service: IntGaugeVec,
    /// Messages that were given to another daemon after one had failed.
    pub retries: IntCounterVec,
    /// The largest message that each clamd looks at.
    pub clamd_bytes_max: IntGaugeVec,
    /// The age of each clamd's signatures.
    pub signatures_age_seconds: IntGaugeVec,
    /// Messages of which spamd saw the beginning alone.
    pub truncated: IntCounter,
    /// Transactions being worked on.
    pub in_flight: IntGauge,
}

impl Metrics {
    /// Makes and registers them, with every series of a known label at zero.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            sessions: counters(
                "scanner_sessions_total",
                "Sessions by how they ended.",
                &["outcome"],
            )?,
            offered: IntCounter::new(
                "scanner_recipients_offered_total",
                "Recipients of messages that came whole; equals the sum of scanner_recipients_total.",
            )?,
            recipients: counters(
                "scanner_recipients_total",
                "Recipients of messages by outcome: each is counted once an attempt.",
                &["outcome"],
            )?,
            messages: counters(
                "scanner_messages_total",
                "Messages with a verdict by the worst class that decided for a recipient.",
                &["class"],
            )?,
            scan_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "scanner_scan_seconds",
                    "Time from a free slot to the daemon's answer, missing answers included.",
                )
                .buckets(SECONDS.to_vec()),
                &["daemon"],
            )?,
            trouble: counters(
                "scanner_trouble_total",
                "Answers of a daemon that are missing, by cause.",
                &["daemon", "cause"],
            )?,
            scans: IntGaugeVec::new(
                Opts::new(
                    "scanner_scans",
                    "Scans that run now; bounded by scans_max, each daemon.",
                ),
                &["daemon"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new(
                    "scanner_waiting",
                    "Messages that wait for a scan slot now; bounded by scan.waiting_max.",
                ),
                &["daemon"],
            )?,
            tokens: counters(
                "scanner_tokens_total",
                "Verdict tokens presented by edges: reused whole, reused for the score alone, or not believed.",
                &["outcome"],
            )?,
            relays: counters(
                "scanner_relays_total",
                "Transactions with list hosts: answered, cut, or not begun because none was reached.",
                &["outcome"],
            )?,
            canaries: counters(
                "scanner_canaries_total",
                "Canary rounds: right, wrong, or unanswered.",
                &["outcome"],
            )?,
            gates: IntGaugeVec::new(
                Opts::new(
                    "scanner_gate_open",
                    "1 when the gate is open, 0 when it is shut.",
                ),
                &["gate"],
            )?,
            daemons_in_service: IntGaugeVec::new(
                Opts::new(
                    "scanner_daemon_in_service",
                    "1 while the daemon at this address may be asked, 0 while its canary does not come back right.",
                ),
                &["daemon", "address"],
            )?,
            retries: counters(
                "scanner_retries_total",
                "Messages that were given to another daemon after one had failed.",
                &["daemon"],
            )?,
            clamd_bytes_max: IntGaugeVec::new(
                Opts::new(
                    "scanner_clamd_bytes_max",
                    "Largest message that the clamd at this address was seen to look at, at most receive.message_bytes_max; 0 while it is not known.",
                ),
                &["address"],
            )?,
            signatures_age_seconds: IntGaugeVec::new(
                Opts::new(
                    "scanner_clamd_signatures_age_seconds",
                    "Age of the signatures of the clamd at this address, as of the last canary; 0 where they bear no date.",
                ),
                &["address"],
            )?,
            truncated: IntCounter::new(
                "scanner_truncated_scans_total",
                "Messages of which spamd was shown the beginning alone (TRUNCATED_SCAN in X-Spam-Status).",
            )?,
            in_flight: IntGauge::new(
                "scanner_in_flight",
                "Messages being scanned or relayed now.",
            )?,
        };
        metrics.register(registry)?;
        metrics.zero();
        Ok(metrics)
    }

    fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 18] = [
            Box::new(self.sessions.clone()),
            Box::new(self.offered.clone()),
            Box::new(self.recipients.clone()),
            Box::new(self.messages.clone()),
            Box::new(self.scan_seconds.clone()),
            Box::new(self.trouble.clone()),
            Box::new(self.scans.clone()),
            Box::new(self.waiting.clone()),
            Box::new(self.tokens.clone()),
            Box::new(self.relays.clone()),
            Box::new(self.canaries.clone()),
            Box::new(self.gates.clone()),
            Box::new(self.daemons_in_service.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.clamd_bytes_max.clone()),
            Box::new(self.signatures_age_seconds.clone()),
            Box::new(self.truncated.clone()),
            Box::new(self.in_flight.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        Ok(())
    }

    /// A series that appears only with its first event cannot be alerted on.
    fn zero(&self) {
        for outcome in OUTCOMES {
            self.recipients.with_label_values(&[outcome]);
        }
        for class in Class::ALL {
            self.messages.with_label_values(&[class.as_str()]);
        }
        for daemon in ["spamd", "clamd"] {
            self.scans.with_label_values(&[daemon]);
            self.waiting.with_label_values(&[daemon]);
            self.retries.with_label_values(&[daemon]);
            self.scan_seconds.with_label_values(&[daemon]);
            for cause in Cause::LABELS {
                self.trouble.with_label_values(&[daemon, cause]);
            }
        }
        for outcome in ["reused", "score_reused", "not_believed"] {
            self.tokens.with_label_values(&[outcome]);
        }
        for outcome in ["answered", "cut", "unreachable", "client_gone"] {
            self.relays.with_label_values(&[outcome]);
        }
        for outcome in ["right", "wrong", "unanswered"] {
            self.canaries.with_label_values(&[outcome]);
        }
        for gate in ["scan", "list"] {
            self.gates.with_label_values(&[gate]);
        }
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// A gauge that counts down however its scope is left.
pub struct Running<'a>(&'a prometheus::IntGauge);

impl<'a> Running<'a> {
    /// Counts up.
    pub fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
