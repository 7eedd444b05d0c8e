//! mx-edge: takes mail from the internet, passes it inside while the client waits, and keeps what the inside cannot take now.
//!
//! The rooms: `receive` (a session) asks `recipients` and `policy`, `take` brings one message `through` or hands it to `keep`;
//! `forward` is what the delivery engine asks about spooled mail. `run` below is the wiring, top to bottom.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod breaker;
pub mod command;
pub mod config;
pub mod ended;
pub mod facts;
pub mod forward;
pub mod held;
pub mod ident;
pub mod keep;
pub mod metrics;
pub mod network;
pub mod policy;
pub mod reason;
pub mod receive;
pub mod received;
pub mod recipients;
pub mod reload;
pub mod replies;
pub mod routes;
pub mod sources;
pub mod spf;
pub mod state;
pub mod take;
pub mod through;
pub mod watch;
pub mod wiring;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use service::program::{Daemon, Invocation, Program, StartError};
use smtp::server::serve;
use spool::Spool;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::command::Command;
use crate::config::Config;
use crate::receive::{Edge, Session};

/// The program.
pub struct MxEdge;

impl Program for MxEdge {
    const NAME: &'static str = "mx-edge";
    const ABOUT: &'static str =
        "Takes mail from the internet and passes it inside, or keeps it until the inside is back";
    type Config = Config;
    type Command = Command;

    fn command(command: Command, _config: &Config) -> Invocation {
        command::invocation(command)
    }

    async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
        run(config, daemon).await
    }
}

/// Serves until shutdown has drained.
pub async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
    let Daemon {
        shutdown,
        config: changes,
        readiness,
        metrics: registry,
        control,
    } = daemon;
    let metrics = Arc::new(metrics::Metrics::new(&registry).map_err(wiring::metrics_error)?);
    let state = wiring::state_folder(&config)?;
    let certificates = wiring::Certificates::load(&config)?;

    let sources = sources::Sources::open(&config, &state, &certificates, &metrics)?;
    let recipients = Arc::clone(&sources.recipients);
    readiness.set("recipients", recipients.loaded());

    let spool: Arc<dyn Spool> = wiring::open_spool(&config, &state).await?;
    let ended =
        Arc::new(ended::Ended::open(&state).map_err(|error| wiring::io_error(&state, &error))?);
    let next_hop = wiring::NextHop::new(&config, &certificates);
    let edge = Arc::new(Edge {
        rules: reload::rules(&config)?.into(),
        recipients: Arc::clone(&recipients),
        idents: ident::Idents::open(&config.name, &state)
            .map_err(|error| wiring::io_error(&state.join("boot"), &error))?,
        through: next_hop.through(&config, &metrics),
        keeper: keep::Keeper::new(
            Arc::clone(&spool),
            config.spool.deadline,
            Arc::clone(&metrics),
        ),
        clients: Arc::default(),
        ended: Arc::clone(&ended),
        metrics: Arc::clone(&metrics),
        draining: AtomicBool::new(false),
        trace: config.next_hop.trace,
        deferred_pause: config.forward.retry_first,
    });
    let owner = Arc::new(forward::Forward {
        spool: Arc::clone(&spool),
        ended,
        metrics: Arc::clone(&metrics),
        trace: config.next_hop.trace,
    });
    let (paused, pause) = tokio::sync::watch::channel(false);
    let engine = next_hop.engine(&config, Arc::clone(&spool), owner, pause, &registry);

    control.routes(routes::router(routes::Controls {
        edge: Arc::clone(&edge),
        spool: Arc::clone(&spool),
        paused,
        readiness: readiness.clone(),
    }));
    let status = watch::Status::new(&edge);
    let shown = status.clone();
    control.status(move || shown.json());
    certificates.publish(&control);
    let (server, served) = reload::server_settings(&config, &certificates);
    let listeners = wiring::bind(&config, &control).await?;

    let mut tasks = JoinSet::new();
    let sessions = Arc::new(Semaphore::new(config.limits.sessions_max));
    for listener in listeners {
        let (edge, served, stop) = (Arc::clone(&edge), served.clone(), shutdown.watch());
        tasks.spawn(listener.run(
            "session",
            Arc::clone(&sessions),
            shutdown.clone(),
            move |stream, client| {
                let (settings, stop) = (served.borrow().clone(), stop.clone());
                let mut session = Session::new(Arc::clone(&edge), client);
                async move {
                    let ending = serve(stream, client, settings, &mut session, stop).await;
                    session.ended(ending);
                }
            },
        ));
    }
    tasks.spawn(engine.run(shutdown.clone()));
    let reloaded = sources.spawn(&mut tasks, &config, &shutdown);
    tasks.spawn(watch::run(
        Arc::clone(&spool),
        Arc::clone(&edge),
        status,
        readiness,
        shutdown.clone(),
    ));
    let reload = reload::Reload {
        edge,
        server,
        certificates,
        files: reloaded,
        config,
    };
    tasks.spawn(reload.run(changes, shutdown.clone()));

    while tasks.join_next().await.is_some() {}
    shutdown.drained().await;
    spool.close().await;
    Ok(())
}
