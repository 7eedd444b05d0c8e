//! A daemon's life: start, reload at SIGHUP, drain at SIGTERM or SIGINT, end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Configuration, Daemon, EXIT_FAILED, End, Program, StartError};
use crate::config::changes;
use crate::control::{Control, Readiness, Server};
use crate::listener::inherited::Inherited;
use crate::log::{self, Handle};
use crate::metrics::ServiceMetrics;
use crate::shutdown::Shutdown;

/// The condition that holds readiness back until the program has published what it serves.
const STARTED: &str = "started";

pub(super) fn run<P: Program>(path: PathBuf, config: P::Config) -> Result<ExitCode, End> {
    let log = log::init(config.log());
    raise_descriptors();
    let inherited = Inherited::from_environment().map_err(End::failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| End::failed(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(async {
        // First of all: a signal that comes while starting must not kill a half-made daemon.
        let signals = Signals::new().map_err(End::failed)?;
        live::<P>(path, config, log, signals, inherited).await
    });
    // What is still running after the drain may be cut: it was not worth an activity.
    runtime.shutdown_background();
    ended
}

async fn live<P: Program>(
    path: PathBuf,
    config: P::Config,
    log: Handle,
    mut signals: Signals,
    inherited: Inherited,
) -> Result<ExitCode, End> {
    let registry = prometheus::Registry::new();
    let version = env!("CARGO_PKG_VERSION");
    let (shutdown, readiness) = (Shutdown::new(), Readiness::default());
    let control = Control::new(readiness.clone(), STARTED, inherited);
    let server = Arc::new(Server {
        name: P::NAME,
        version,
        started: OffsetDateTime::now_utc(),
        control: control.clone(),
        readiness: readiness.clone(),
        metrics: ServiceMetrics::new(&registry, version),
        work: shutdown.clone(),
        waiting: Mutex::default(),
    });
    tracing::info!(event = "starting", program = P::NAME, version, config = %path.display());
    let control_end = Shutdown::new();
    let started = server.clone().start(config.control(), control_end.clone());
    started.await.map_err(start_failed)?;

    let (publish, watched) = watch::channel(config.clone());
    let daemon = Daemon {
        shutdown: shutdown.clone(),
        config: watched,
        readiness: readiness.clone(),
        metrics: registry,
        control: control.clone(),
    };
    let reloader = Reloader {
        path,
        started: config.clone(),
        publish,
        log,
        control,
        server,
    };
    let mut running = tokio::spawn(P::run(config, daemon));
    let ended = loop {
        tokio::select! {
            ended = &mut running => break outcome(ended),
            told = signals.next() => match told {
                Told::Reload => reloader.reload(),
                Told::Stop(name) => {
                    tracing::info!(event = "stopping", signal = name);
                    readiness.set("running", Err("the program is stopping".into()));
                    shutdown.begin();
                    break drain(running, &shutdown, &mut signals).await;
                }
            }
        }
    };
    if ended.is_ok() {
        // A program may end by itself; what it left running is waited for as well.
        shutdown.begin();
        wait_drained(&shutdown, &mut signals).await?;
    }
    control_end.begin();
    control_end.drained().await;
    ended?;
    tracing::info!(event = "stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits for the program to end; a second signal, or a panic or error meanwhile, ends it at once.
async fn drain(
    mut running: JoinHandle<Result<(), StartError>>,
    shutdown: &Shutdown,
    signals: &mut Signals,
) -> Result<(), End> {
    let mut draining = std::pin::pin!(shutdown.drained());
    let mut drained = false;
    loop {
        tokio::select! {
            ended = &mut running => return outcome(ended),
            name = signals.stop() => return Err(cut(name)),
            // Only for its log lines: the program's own end counts.
            () = &mut draining, if !drained => drained = true,
        }
    }
}

async fn wait_drained(shutdown: &Shutdown, signals: &mut Signals) -> Result<(), End> {
    tokio::select! {
        () = shutdown.drained() => Ok(()),
        name = signals.stop() => Err(cut(name)),
    }
}

fn cut(signal: &str) -> End {
    tracing::warn!(event = "cut", signal, "ended at once by a second signal");
    End::failed(format!(
        "second {signal}: ended at once, without waiting for work under way"
    ))
}

fn outcome(ended: Result<Result<(), StartError>, tokio::task::JoinError>) -> Result<(), End> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(start_failed(error)),
        Err(error) => Err(End::failed(format!(
            "a mistake in the program: {error}; please report it with the log"
        ))),
    }
}

fn start_failed(error: StartError) -> End {
    let StartError { what, why, remedy } = &error;
    tracing::error!(event = "failed", what, why, remedy);
    End {
        text: error.to_string(),
        exit: EXIT_FAILED,
    }
}

/// What a SIGHUP does.
struct Reloader<C> {
    path: PathBuf,
    /// With which the program was started.
    started: C,
    publish: watch::Sender<C>,
    log: Handle,
    control: Control,
    server: Arc<Server>,
}

impl<C: Configuration> Reloader<C> {
    fn reload(&self) {
        let good = self.reload_config(&self.path) & self.reload_steps();
        self.server.metrics.reloaded(good);
    }

    fn reload_config(&self, path: &Path) -> bool {
        let config = match crate::config::load::<C>(path) {
            Ok(config) => config,
            Err(complaints) => {
                for complaint in complaints.lines() {
                    tracing::error!(
                        event = "reload_failed",
                        part = "config",
                        reason = complaint,
                        "the old configuration stays in force"
                    );
                }
                return false;
            }
        };
        let waiting = changes::waiting(&self.started, &config);
        self.log.apply(config.log());
        let old = self.publish.send_replace(config);
        let changed = changes::taken_up(&old, &self.publish.borrow()).join(" ");
        tracing::info!(event = "reloaded", part = "config", config = %path.display(), changed);
        if !waiting.is_empty() {
            tracing::warn!(
                event = "reload_incomplete",
                part = "config",
                keys = waiting.join(" "),
                "what was changed there takes effect at the next start"
            );
        }
        self.server.waits(waiting);
        true
    }

    /// Also after a bad configuration: certificates are renewed by others, who send SIGHUP.
    fn reload_steps(&self) -> bool {
        let failed = self.control.reload();
        for (part, reason) in &failed {
            tracing::error!(event = "reload_failed", part, %reason, "the old one stays in force");
        }
        failed.is_empty()
    }
}

/// The signals that a daemon knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// The name of the next signal that says stop; a reload makes no sense any more.
    async fn stop(&mut self) -> &'static str {
        loop {
            if let Told::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}

/// What a signal says.
enum Told {
    Stop(&'static str),
    Reload,
}

/// Each session needs a descriptor or three: takes all that the system lets us have.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(event = "descriptors_not_raised", current = limit.current, %error);
    }
}
