//! The wiring, top to bottom: rooms, listeners, what runs beside them, and how all of it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::verdict::Keys;
use service::listener::Listener;
use service::program::{Daemon, StartError};
use service::shutdown::Shutdown;
use service::tls::Identity;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::announce::{self, Announcer};
use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::receive::{Reception, Session};
use crate::relay::Relay;
use crate::scan::Scan;
use crate::standing::Standing;
use crate::transaction::Rooms;
use crate::{control, size};

/// How long balancers may take to hear that we have left.
const FAREWELL: Duration = Duration::from_secs(2);

/// Agent-checks at once; HAProxy makes one at a time.
const AGENT_SESSIONS_MAX: usize = 16;

/// Serves until the daemon is told to stop and its sessions have ended.
pub async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
    let metrics = Metrics::new(&daemon.metrics).map_err(|error| StartError {
        what: "register metrics".into(),
        why: error.to_string(),
        remedy: "two metrics have one name: report it".into(),
    })?;
    let identity = Identity::inside(config.inside.as_ref())?;
    let (sender, keys) = watch::channel(keys(&config)?);
    let health = Health::new(&config, metrics.clone());
    let standing = Arc::new(Standing::default());
    let memory_kib = usize::try_from(config.receive.memory_bytes_max / 1024);
    let reception = Arc::new(Reception {
        rooms: Rooms {
            scan: Scan::new(&config, health.clone()).map_err(|why| StartError {
                what: "make a resolver".into(),
                why,
                remedy: "give authenticate.servers, or authenticate.enabled = false".into(),
            })?,
            relay: Relay::new(identity.clone(), metrics.clone()),
            health: health.clone(),
            metrics: metrics.clone(),
        },
        config: daemon.config.clone(),
        keys,
        identity: identity.clone(),
        memory_kib: Arc::new(Semaphore::new(
            memory_kib.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
        )),
    });

    let listener = Listener::bind(config.receive.listen).await?;
    let lmtp = listener.address();
    let agent = match config.announce.agent_listen {
        Some(address) => Some(Listener::bind(address).await?),
        None => None,
    };
    daemon
        .control
        .routes(control::routes(reception.clone(), standing.clone()));
    daemon.control.listener("lmtp", &listener);
    if let Some(agent) = &agent {
        daemon.control.listener("agent", agent);
    }
    if let Some(identity) = &identity {
        daemon.control.identity("inside", identity);
    }
    daemon.control.on_reload("token.key_files", {
        let config = daemon.config.clone();
        move || reload_keys(&config.borrow(), &sender)
    });
    daemon.control.status({
        let (reception, standing) = (reception.clone(), standing.clone());
        move || control::status(&reception, &standing)
    });

    // What runs beside the sessions ends with this set.
    let mut aside = JoinSet::new();
    watch_daemons(&mut aside, &daemon, &health, &standing);
    aside.spawn({
        let (reception, config) = (reception.clone(), daemon.config.clone());
        async move {
            reception
                .rooms
                .relay
                .watch(move || config.borrow().clone())
                .await
        }
    });
    let closing = Shutdown::new();
    if let Some(agent) = agent {
        aside.spawn(serve_agent(
            agent,
            standing.clone(),
            health.clone(),
            closing.clone(),
        ));
    }
    let mut told = announce(&config, lmtp, &standing, &health, &metrics, identity);

    // The listener outlives the signal: mail is taken until every balancer has heard of the drain.
    let accepting = Shutdown::new();
    let serving = tokio::spawn(serve(
        listener,
        reception,
        config.receive.sessions_max,
        &accepting,
    ));
    daemon.shutdown.wait().await;
    standing.stop();
    if config.announce.agent_listen.is_some() || !config.announce.balancers.is_empty() {
        tokio::time::sleep(config.announce.drain_notice).await;
    }
    accepting.begin();
    if tokio::time::timeout(config.receive.drain, accepting.drained())
        .await
        .is_err()
    {
        tracing::warn!(
            event = "drain",
            outcome = "cut",
            "sessions did not end in time"
        );
    }
    serving.abort();
    standing.leave();
    let farewell = async { while told.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    closing.begin();
    Ok(())
}

/// The site's secrets; without any, one that this process makes up: its tokens mean nothing to anybody else.
fn keys(config: &Config) -> Result<Keys, StartError> {
    let error = |why: String| StartError {
        what: "read token.key_files".into(),
        why,
        remedy: "make them with `scanner ca init`, readable by this user alone".into(),
    };
    let mut secrets = Vec::new();
    for file in &config.token.key_files {
        secrets.push(service::config::secret(file).map_err(error)?);
    }
    if secrets.is_empty() {
        let mut secret = vec![0; 32];
        let random = ring::rand::SystemRandom::new();
        let filled = ring::rand::SecureRandom::fill(&random, &mut secret);
        filled.map_err(|_| error("no randomness".into()))?;
        secrets.push(secret);
        tracing::warn!(
            event = "keys",
            "token.key_files is empty: verdicts are signed by a key of this process alone, other hosts will scan again"
        );
    }
    Keys::new(&secrets).ok_or_else(|| error("a secret is shorter than 16 bytes".into()))
}

/// Canaries to each daemon, and how much each clamd looks at.
fn watch_daemons(
    aside: &mut JoinSet<()>,
    daemon: &Daemon<Config>,
    health: &Health,
    standing: &Arc<Standing>,
) {
    daemon
        .readiness
        .set("canary", Err("no canary has come back yet".into()));
    for pool in [&health.spamd, &health.clamd] {
        for at in 0..pool.daemons.len() {
            let (config, readiness) = (daemon.config.clone(), daemon.readiness.clone());
            let standing = standing.clone();
            let changed = move |health: &Health| {
                let fit = health.fit();
                readiness.set("canary", fit.clone());
                standing.fit(fit);
            };
            let config = move || config.borrow().clone();
            aside.spawn(health.clone().watch(pool.clone(), at, config, changed));
        }
    }
    for at in 0..health.clamd.daemons.len() {
        let config = daemon.config.clone();
        aside.spawn(size::watch(
            move || config.borrow().clone(),
            health.clone(),
            at,
        ));
    }
}

/// SIGHUP: secrets are read anew; without any the process keeps the one it made up.
fn reload_keys(config: &Config, sender: &watch::Sender<Keys>) -> Result<(), String> {
    if !config.token.key_files.is_empty() {
        sender.send_replace(keys(config).map_err(|error| error.to_string())?);
    }
    Ok(())
}

fn announce(
    config: &Config,
    lmtp: SocketAddr,
    standing: &Standing,
    health: &Health,
    metrics: &Metrics,
    identity: Option<Identity>,
) -> JoinSet<()> {
    let announcer = Announcer {
        name: config.announce.name.clone(),
        address: config.announce.address.unwrap_or(lmtp),
        state: standing.watch(),
        in_flight: metrics.in_flight.clone(),
        health: health.clone(),
        identity,
        retry: config.announce.retry,
    };
    let balancers = config.announce.balancers.iter();
    balancers
        .map(|&balancer| announcer.clone().run(balancer))
        .collect()
}

async fn serve_agent(
    listener: Listener,
    standing: Arc<Standing>,
    health: Health,
    closing: Shutdown,
) {
    let sessions_max = Arc::new(Semaphore::new(AGENT_SESSIONS_MAX));
    let state = standing.watch();
    let serve = move |stream, _| {
        let state = *state.borrow();
        announce::agent(stream, state, health.percent())
    };
    listener
        .run("agent-check", sessions_max, closing, serve)
        .await;
}

fn serve(
    listener: Listener,
    reception: Arc<Reception>,
    sessions_max: usize,
    accepting: &Shutdown,
) -> impl Future<Output = ()> + use<> {
    let sessions_max = Arc::new(Semaphore::new(sessions_max));
    let (stop, accepting) = (accepting.watch(), accepting.clone());
    let session = move |stream, client| {
        let (reception, stop) = (reception.clone(), stop.clone());
        async move {
            let settings = Arc::new(reception.settings());
            let sessions = reception.rooms.metrics.sessions.clone();
            let mut session = Session(reception);
            let ending = smtp::server::serve(stream, client, settings, &mut session, stop).await;
            let outcome = word(ending);
            sessions.with_label_values(&[outcome]).inc();
            tracing::debug!(event = "session", client = %client, outcome);
        }
    };
    async move {
        listener
            .run("session", sessions_max, accepting, session)
            .await
    }
}

fn word(ending: smtp::server::Ending) -> &'static str {
    use smtp::server::Ending;
    match ending {
        Ending::Quit => "quit",
        Ending::Lost => "lost",
        Ending::TimedOut => "timed_out",
        Ending::Refused => "refused",
        Ending::Errors => "errors",
        Ending::Pipelined => "pipelined",
        Ending::Foreign => "foreign",
        Ending::Shutdown => "shutdown",
        Ending::Tls => "tls",
    }
}
