//! The wiring, top to bottom.

use std::sync::Arc;

use serde_json::json;
use service::control;
use service::listener::Listener;
use service::program::{Daemon, StartError};
use service::shutdown::Shutdown;
use service::tls::{Identity, Role};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::{control as routes, probe, splice};

/// Who may register.
const PEERS: &[Role] = &[Role::Scanner];

/// Serves until the daemon is told to stop and its connections have ended.
pub async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
    let metrics = Metrics::new(&daemon.metrics).map_err(|error| StartError {
        what: "register metrics".into(),
        why: error.to_string(),
        remedy: "two metrics have one name: report it".into(),
    })?;
    let identity = Identity::inside(config.inside.as_ref())?;
    let shared = Shared::new(daemon.config.clone(), metrics);

    let listener = Listener::bind(config.listen).await?;
    // Registration goes on while connections drain: its answers say nothing about us, and nodes need not log its loss.
    let registering = Shutdown::new();
    let registration = control::serve(
        config.registration.listen,
        identity.clone(),
        PEERS,
        routes::registration(shared.clone()),
        registering.clone(),
    )
    .await?;
    daemon.control.routes(routes::routes(shared.clone()));
    daemon.control.listener("mail", &listener);
    daemon.control.listener("registration", registration);
    daemon.control.status({
        let shared = shared.clone();
        move || json!({ "nodes": shared.shown() })
    });
    if let Some(identity) = &identity {
        daemon.control.identity("inside", identity);
    }

    let mut aside = JoinSet::new();
    aside.spawn(probe::run(shared.clone(), daemon.readiness.clone()));
    aside.spawn({
        let (mut config, shared) = (daemon.config.clone(), shared.clone());
        async move {
            while config.changed().await.is_ok() {
                shared.reload();
            }
        }
    });

    let sessions_max = Arc::new(Semaphore::new(config.sessions_max));
    let accepting = Shutdown::new();
    let serving = tokio::spawn(
        listener.run("connection", sessions_max, accepting.clone(), {
            let shared = shared.clone();
            move |stream, client| {
                let shared = shared.clone();
                async move {
                    shared.metrics.open.inc();
                    let outcome = splice::serve(stream, &shared).await.label();
                    shared.metrics.open.dec();
                    shared
                        .metrics
                        .connections
                        .with_label_values(&[outcome])
                        .inc();
                    tracing::debug!(event = "session", client = %client, outcome);
                }
            }
        }),
    );
    daemon.shutdown.wait().await;
    accepting.begin();
    if tokio::time::timeout(config.drain, accepting.drained())
        .await
        .is_err()
    {
        tracing::warn!(
            event = "drain",
            outcome = "cut",
            "connections did not end in time"
        );
    }
    serving.abort();
    registering.begin();
    Ok(())
}
