//! What the balancer counts. A metric's help is its documentation.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::node::State;
use crate::pool::Shown;

/// Bounds of waiting for a node, in seconds: at once, one mute node, two, the longest wait.
const SECONDS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0];

/// The balancer's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Connections by what became of them.
    pub connections: IntCounterVec,
    /// Connections being served.
    pub open: IntGauge,
    /// From accept to a node's greeting.
    pub pick_seconds: Histogram,
    /// Failures of nodes with real connections, by why.
    pub failures: IntCounterVec,
    /// Probes by outcome.
    pub probes: IntCounterVec,
    /// Registrations by outcome.
    pub registrations: IntCounterVec,
    /// Nodes by state.
    pub nodes: IntGaugeVec,
    /// Connections by node.
    pub in_flight: IntGaugeVec,
    /// How long they last, by node.
    pub latency: GaugeVec,
}

impl Metrics {
    /// Makes and registers them, with every series of a known label at zero.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let metrics = Self {
            connections: counters(
                "balancer_connections_total",
                "Connections by outcome: spliced to a node, told 421 for want of one, or lost before either.",
                &["outcome"],
            )?,
            open: IntGauge::new("balancer_connections", "Connections being served now.")?,
            pick_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "balancer_pick_seconds",
                    "Time from accepting a connection to a node's whole greeting.",
                )
                .buckets(SECONDS.to_vec()),
            )?,
            failures: counters(
                "balancer_node_failures_total",
                "Real connections that a node failed: before its greeting was whole, then they went to another node; or it left a client without an answer (unanswered).",
                &["reason"],
            )?,
            probes: counters("balancer_probes_total", "Probes by outcome.", &["outcome"])?,
            registrations: counters(
                "balancer_registrations_total",
                "Registrations by outcome.",
                &["outcome"],
            )?,
            nodes: IntGaugeVec::new(Opts::new("balancer_nodes", "Nodes by state."), &["state"])?,
            in_flight: IntGaugeVec::new(
                Opts::new(
                    "balancer_node_connections",
                    "Connections a node has from us now.",
                ),
                &["node"],
            )?,
            latency: GaugeVec::new(
                Opts::new(
                    "balancer_node_latency_seconds",
                    "How long a connection with a node lasts: a moving average over the last few.",
                ),
                &["node"],
            )?,
        };
        let all: [Box<dyn Collector>; 9] = [
            Box::new(metrics.connections.clone()),
            Box::new(metrics.open.clone()),
            Box::new(metrics.pick_seconds.clone()),
            Box::new(metrics.failures.clone()),
            Box::new(metrics.probes.clone()),
            Box::new(metrics.registrations.clone()),
            Box::new(metrics.nodes.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.latency.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        metrics.zero();
        Ok(metrics)
    }

    fn zero(&self) {
        for outcome in ["spliced", "no_node", "lost"] {
            self.connections.with_label_values(&[outcome]);
        }
        for reason in [
            "connect",
            "silent",
            "closed",
            "refused",
            "nonsense",
            "unanswered",
        ] {
            self.failures.with_label_values(&[reason]);
        }
        for outcome in ["good", "failed"] {
            self.probes.with_label_values(&[outcome]);
        }
        for outcome in ["taken", "refused"] {
            self.registrations.with_label_values(&[outcome]);
        }
        self.show(&[]);
    }

    /// Sets the gauges to what the pool shows; nodes that have left leave no series behind.
    pub fn show(&self, nodes: &[Shown]) {
        self.in_flight.reset();
        self.latency.reset();
        for state in State::ALL {
            let count = nodes.iter().filter(|node| node.state == state).count();
            let gauge = self.nodes.with_label_values(&[state.as_str()]);
            gauge.set(count as i64);
        }
        for node in nodes {
            let gauge = self.in_flight.with_label_values(&[node.name.as_str()]);
            gauge.set(node.in_flight as i64);
            if let Some(seconds) = node.seconds {
                let gauge = self.latency.with_label_values(&[node.name.as_str()]);
                gauge.set(seconds);
            }
        }
    }
}
