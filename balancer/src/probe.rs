//! The prober and the sweep: asks nodes that are due for their greeting, tells changes, keeps gauges and readiness true.

use std::sync::Arc;
use std::time::Duration;

use service::control::Readiness;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::agent;
use crate::dial;
use crate::node::State;
use crate::shared::Shared;

/// The longest time between two looks: a lapsed lease is logged and shown no later. Picking looks at leases itself.
const TICK: Duration = Duration::from_millis(250);

/// Probes for ever.
pub async fn run(shared: Arc<Shared>, readiness: Readiness) {
    let mut probes = JoinSet::new();
    loop {
        let (probe, pick) = {
            let config = shared.config();
            (config.probe, config.pick)
        };
        let due = shared.with(|pool| pool.probes_due(&probe, Instant::now()));
        for claim in due {
            let shared = shared.clone();
            probes.spawn(async move {
                if let Some(address) = claim.agent {
                    match agent::ask(address, pick.greeting).await {
                        Ok(line) => shared.heard(&claim, &line),
                        Err(problem) => {
                            tracing::debug!(event = "agent", node = claim.name, problem);
                        }
                    }
                }
                let result = dial::probe(claim.address, claim.proxy_protocol, &pick).await;
                shared.probed(&claim, result.map_err(|failure| failure.to_string()));
            });
        }
        sweep(&shared, &readiness);
        tokio::select! {
            _ = timeout(TICK, shared.probe_soon.notified()) => {}
            Some(_) = probes.join_next() => {}
        }
    }
}

fn sweep(shared: &Shared, readiness: &Readiness) {
    for change in shared.with(|pool| pool.sweep(Instant::now())) {
        let state = change.state.map_or("left", State::as_str);
        tracing::info!(
            event = "node",
            node = change.name,
            state,
            reason = change.reason
        );
    }
    let nodes = shared.shown();
    shared.metrics.show(&nodes);
    let is_ready = nodes.iter().any(|node| node.state == State::Ready);
    let reason = || format!("none of {} nodes is ready", nodes.len());
    readiness.set("nodes", is_ready.then_some(()).ok_or_else(reason));
}
