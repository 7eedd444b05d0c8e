//! mx-edge: takes mail from the internet, passes it inside while the client waits, and keeps what the inside cannot take now.
//!
//! The rooms: `receive` (a session) asks `recipients` and `policy`, `take` brings one message `through` or hands it to `keep`;
//! `forward` is what the delivery engine asks about spooled mail. `run` below is the wiring, top to bottom.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod admission;
pub mod authres;
pub mod breaker;
pub mod caller;
pub mod command;
pub mod config;
pub mod dns;
pub mod dnsbl;
pub mod doors;
pub mod drain;
pub mod ended;
pub mod explain;
pub mod facts;
pub mod forward;
pub mod greylist;
pub mod handover;
pub mod heard;
pub mod held;
pub mod ident;
pub mod inquiry;
pub mod keep;
pub mod metrics;
pub mod names;
pub mod network;
pub mod objections;
pub mod passes;
pub mod policy;
pub mod reason;
pub mod receive;
pub mod received;
pub mod recipients;
pub mod records;
pub mod reload;
pub mod replies;
pub mod report;
pub mod routes;
pub mod rules;
pub mod screen;
pub mod seen;
pub mod served;
pub mod shadow;
pub mod sources;
pub mod spf;
pub use service::state;
pub mod take;
pub mod through;
pub mod told;
pub mod trail;
pub mod watch;
pub mod why;
pub mod wiring;
pub mod wording;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use delivery::queue::Queue;
use service::control::Control;
use service::listener::Listener;
use service::program::{Daemon, Invocation, Program, StartError};
use service::shutdown::Shutdown;
use service::tls::Identity;
use spool::Spool;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::command::Command;
use crate::config::Config;
use crate::doors::Doors;
use crate::drain::Drain;
use crate::forward::Forward;
use crate::handover::give::Giver;
use crate::handover::take::Taker;
use crate::held::Refused;
use crate::keep::Keeper;
use crate::metrics::Metrics;
use crate::receive::Edge;
use crate::reload::Reload;
use crate::routes::Controls;
use crate::sources::Sources;
use crate::watch::Status;
use crate::wiring::{Certificates, NextHop};

/// The program.
pub struct MxEdge;

impl Program for MxEdge {
    const NAME: &'static str = "mx-edge";
    const ABOUT: &'static str =
        "Takes mail from the internet and passes it inside, or keeps it until the inside is back";
    type Config = Config;
    type Command = Command;

    fn command(command: Command, config: &Config) -> Invocation {
        command::invocation(command, config)
    }

    async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
        run(config, daemon).await
    }
}

/// Serves until shutdown has drained.
pub async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
    wiring::make_state_folder(&config)?;
    let spool = wiring::open_spool(&config).await?;
    start(config, daemon, spool).await?.finished().await;
    Ok(())
}

/// A started edge.
pub struct Running {
    /// Where it takes mail, in the order of `mail.listen`.
    pub listeners: Vec<SocketAddr>,
    /// Its parts, for those who look in.
    pub controls: Controls,
    tasks: JoinSet<()>,
    shutdown: Shutdown,
}

impl Running {
    /// Resolves when shutdown has begun, every session has ended and the spool is closed.
    pub async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
        self.shutdown.drained().await;
        // What the last sessions added.
        let days = Arc::clone(&self.controls.days);
        let written = tokio::task::spawn_blocking(move || days.write()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(event = "report", %error, "counts not written");
        }
        self.controls.spool.close().await;
    }
}

/// Puts the rooms together on an open spool and starts them.
pub async fn start(
    config: Config,
    daemon: Daemon<Config>,
    spool: Arc<dyn Spool>,
) -> Result<Running, StartError> {
    wiring::make_state_folder(&config)?;
    let metrics = Arc::new(Metrics::new(&daemon.metrics).map_err(wiring::metrics_error)?);
    let certificates = Certificates::load(&config)?;
    let sources = Sources::open(&config, &certificates, &metrics)?;
    let next_hop = NextHop::new(&config, &certificates);
    let passes = screen::Memory::open(&config.state, config.screen.passes_max);
    let greylist = Arc::new(greylist::open(&config.state, config.greylist.entries_max));
    let admission = wiring::admission(&config)?;
    let shared = rules::Shared {
        metrics: &metrics,
        passes: &passes,
        greylist: &greylist,
        admission: &admission,
    };
    let edge = Arc::new(Edge {
        rules: rules::rules(&config, &shared, None)?.into(),
        recipients: Arc::clone(&sources.recipients),
        idents: wiring::open_idents(&config)?,
        through: next_hop.through(&config, &metrics),
        keeper: Keeper::new(&spool, config.spool.deadline, &metrics),
        admission,
        passes,
        greylist,
        ended: wiring::open_ended(&config)?,
        trail: wiring::open_trail(&config)?,
        tops: Arc::default(),
        metrics,
        draining: AtomicBool::new(false),
        trace: config.next_hop.trace,
        deferred_pause: config.forward.retry_first,
    });
    let kept = wiring::open_kept(&config)?;
    let (pause, paused) = tokio::sync::watch::channel(kept.is_paused());
    let owner = Arc::new(Forward::new(&edge));
    delivery::vitals::register(&daemon.metrics, Arc::clone(&spool));
    let engine = next_hop.engine(&config, Arc::clone(&spool), owner, paused, &daemon.metrics);
    let names = Arc::new(Refused {
        edge: Arc::clone(&edge),
        spool: Arc::clone(&spool),
    });
    let queue = Queue::new(Arc::clone(&spool), engine.clone(), pause, kept, names);
    let giver = Arc::new(Giver::new(
        Arc::clone(&spool),
        Arc::clone(&edge.metrics),
        Arc::clone(&edge.trail),
        certificates.inside.clone(),
        &config.hostname,
    ));
    let drain = Drain::open(
        &config.state,
        Arc::clone(&edge),
        Arc::clone(&spool),
        daemon.readiness.clone(),
        giver,
    );
    let controls = Controls {
        days: wiring::open_days(&config, &daemon.metrics, &edge.tops)?,
        drain: drain.map_err(|error| wiring::io_error(&config.state, &error))?,
        edge,
        spool,
        engine,
        queue,
        readiness: daemon.readiness.clone(),
    };
    serve(config, daemon, controls, sources, certificates).await
}

/// Takes what siblings hand over, and hands over what a drain says.
async fn handovers(
    tasks: &mut JoinSet<()>,
    config: &Config,
    controls: &Controls,
    identity: Option<Identity>,
    (control, shutdown): (&Control, &Shutdown),
) -> Result<(), StartError> {
    let taker = Taker {
        edge: Arc::clone(&controls.edge),
        spool: Arc::clone(&controls.spool),
        identity,
    };
    let taker = Arc::new(taker);
    let settings = Arc::new(taker.settings(config.host()));
    let sessions = Arc::new(Semaphore::new(handover::take::SESSIONS_MAX));
    for (address, name) in config.handover.listen.iter().zip(wiring::HANDOVERS) {
        let listener = control.bind(name, *address).await?;
        let (taker, settings) = (Arc::clone(&taker), Arc::clone(&settings));
        let stop = shutdown.watch();
        let serve = move |stream, peer| {
            let (settings, stop) = (Arc::clone(&settings), stop.clone());
            let mut session = handover::take::Session(Arc::clone(&taker));
            async move {
                smtp::server::serve(stream, peer, settings, &mut session, stop).await;
            }
        };
        let sessions = Arc::clone(&sessions);
        tasks.spawn(listener.run("handover", sessions, shutdown.clone(), serve));
    }
    let giver = Arc::clone(&controls.drain.giver);
    tasks.spawn(giver.run(shutdown.clone()));
    Ok(())
}

/// Publishes the edge and spawns all that runs.
async fn serve(
    config: Config,
    daemon: Daemon<Config>,
    controls: Controls,
    sources: Sources,
    certificates: Certificates,
) -> Result<Running, StartError> {
    let (edge, engine) = (&controls.edge, &controls.engine);
    let Daemon {
        shutdown,
        config: changes,
        readiness,
        control,
        metrics: registry,
        ..
    } = daemon;
    readiness.set("recipients", edge.recipients.loaded());
    let status = Status::new(&controls);
    let shown = status.clone();
    control.status(move || shown.json());
    certificates.publish(&control);

    let mut tasks = JoinSet::new();
    let stop = || shutdown.clone();
    let (server, served) = reload::server_settings(&config, &certificates, edge);
    let listeners = wiring::bind(&config, &control).await?;
    // Whoever finds it ready, by the commands that it knows, can connect.
    let files = delivery::safekeeping::routes(controls.spool.clone());
    let queue = delivery::queue::routes(controls.queue.clone());
    let own = access::router(controls.clone()).merge(why::router(controls.clone()));
    control.routes(
        routes::router(controls.clone())
            .merge(files)
            .merge(queue)
            .merge(own),
    );
    let addresses = listeners.iter().map(Listener::address).collect();
    let doors = Doors {
        listeners,
        settings: served,
    };
    doors.open(&mut tasks, edge, &shutdown);
    handovers(
        &mut tasks,
        &config,
        &controls,
        certificates.inside.clone(),
        (&control, &shutdown),
    )
    .await?;
    control.all_bound();
    tasks.spawn(forward::wake(Arc::clone(edge), engine.clone(), stop()));
    let target = controls.drain.giver.watch();
    tasks.spawn(forward::deliver(engine.clone(), target, stop()));
    tasks.spawn(controls.queue.clone().watch(registry, stop()));
    for (_, passes) in edge.passes.tests() {
        tasks.spawn(Arc::clone(passes).keep(stop()));
    }
    tasks.spawn(Arc::clone(&edge.greylist).keep(stop()));
    tasks.spawn(Arc::clone(&controls.days).keep(stop()));
    let waters = watch::Waters::new(&config);
    tasks.spawn(watch::run(controls.clone(), status, waters, stop()));
    wiring::give_copies(&config, &certificates, &sources, &control, &shutdown).await?;
    let files = sources.spawn(&mut tasks, &config, &shutdown);
    let reload = Reload {
        edge: Arc::clone(edge),
        server,
        certificates,
        files,
        config,
    };
    tasks.spawn(reload.run(changes, stop()));
    Ok(Running {
        listeners: addresses,
        controls,
        tasks,
        shutdown,
    })
}
