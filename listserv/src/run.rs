//! The wiring, top to bottom: stores, rooms, listeners, upkeep, and how all of it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use delivery::Engine;
use delivery::breaker::Limits;
use delivery::queue::{Kept, Queue};
use mail::{Domain, Timestamp};
use serde_json::json;
use service::control::Readiness;
use service::listener::Listener;
use service::program::{Daemon, StartError};
use service::shutdown::Shutdown;
use service::tls::{Identity, Role};
use smtp::Protocol;
use smtp::server::{BareNewline, Settings, Timeouts};
use spool::Spool;
use spool::embedded::{Embedded, Options};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use crate::command::Commander;
use crate::config::Config;
use crate::control::{self, Desk};
use crate::deliver::notify::Notifier;
use crate::deliver::{self, Deliverer, Leaving};
use crate::directory::Directory;
use crate::expansion::Expander;
use crate::metrics::Metrics;
use crate::publish::{Editions, Editor, Publisher};
use crate::quarantine::Quarantine;
use crate::receive::Receiver;
use crate::secrets::Secrets;

/// How often stores are looked at: a database that comes back makes us ready by itself.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often old things are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);
/// Ended quarantine items are shown for so long, and their idents known: longer than any edge keeps mail.
const ENDED_KEEP: Duration = Duration::from_secs(60 * 86_400);
/// Refused recipients and unknown commands in one session. A scanner's connection carries many messages.
const ERRORS_MAX: usize = 1000;
/// Sites in the status: those that are shut, then those with most to do.
const SITES_IN_STATUS: usize = 20;
/// Peers that may fetch the directory.
const READERS: &[Role] = &[Role::MxEdge];

/// What is opened before anything is served.
struct Stores {
    spool: Arc<dyn Spool>,
    directory: Directory,
    quarantine: Quarantine,
}

/// Serves until the daemon is told to stop and what is under way has ended.
pub async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
    let hostname = config.hostname().map_err(|why| wrong("hostname", why))?;
    let metrics = Metrics::new(&daemon.metrics)?;
    let identity = Identity::inside(config.inside.as_ref())?;
    let stores = open(&config).await?;
    let (secrets_sender, secrets) =
        watch::channel(Secrets::read(&config).map_err(|why| wrong("secrets", why))?);
    if config.postmaster.is_empty() {
        warn!(
            event = "postmaster",
            "no `postmaster`: mail to postmaster@, abuse@ and security@ is kept in quarantine"
        );
    }

    let kept = Kept::open(&config.state).map_err(|why| wrong("what was set by `queue`", why))?;
    let (pause, paused) = watch::channel(config.delivery.paused || kept.is_paused());
    let rooms = Rooms::new(&stores, &daemon, &hostname, &secrets, &metrics);
    let deliverer = Deliverer {
        notifier: rooms.notifier.clone(),
        leaving: Leaving::new(&config.delivery),
    };
    let engine = Engine::new(
        deliver::settings(&config, paused)?,
        stores.spool.clone(),
        Arc::new(deliverer),
        &daemon.metrics,
    )
    .with_limits(Limits {
        probe_interval: config.delivery.probe_interval,
        ..Limits::default()
    });
    let desk = Desk {
        directory: stores.directory.clone(),
        quarantine: stores.quarantine.clone(),
        spool: stores.spool.clone(),
        metrics: metrics.clone(),
    };
    let queue = Queue::new(
        stores.spool.clone(),
        engine.clone(),
        pause,
        kept,
        Arc::new(deliver::Names),
    );

    delivery::vitals::register(&daemon.metrics, stores.spool.clone());
    look(&stores, &engine, &daemon.readiness).await;
    let lmtp = Listener::bind(config.lmtp.listen).await?;
    let editions = rooms.publisher.editions.clone();
    let published = service::control::serve(
        config.publish.listen,
        identity.clone(),
        READERS,
        rooms.publisher.router(),
        daemon.shutdown.clone(),
    )
    .await?;
    add_control(&daemon, desk, &queue, &engine, secrets_sender, editions);
    daemon.control.listener("lmtp", &lmtp);
    daemon.control.listener("directory", published);
    if let Some(identity) = &identity {
        daemon.control.identity("inside", identity);
    }

    let settings = Arc::new(lmtp_settings(&config, hostname, identity.as_ref()));
    let delivering = tokio::spawn(engine.clone().run(daemon.shutdown.clone()));
    let reporting = tokio::spawn(rooms.notifier.run(daemon.shutdown.clone()));
    let expanding = tokio::spawn(rooms.expander.run(daemon.shutdown.clone()));
    tokio::spawn(rooms.editor.run(daemon.shutdown.watch()));
    tokio::spawn(queue.watch(daemon.metrics.clone(), daemon.shutdown.clone()));
    let upkeep = tokio::spawn(upkeep(
        stores.clone(),
        engine,
        daemon.readiness.clone(),
        daemon.config.clone(),
    ));
    serve(lmtp, settings, rooms.receiver, &config, &daemon.shutdown).await;
    daemon.shutdown.drained().await;
    for task in [delivering, expanding, reporting] {
        if let Err(error) = task.await {
            warn!(event = "shutdown", outcome = "task failed", reason = %error);
        }
    }
    upkeep.abort();
    stores.spool.close().await;
    Ok(())
}

/// The rooms that work on the stores.
struct Rooms {
    notifier: Notifier,
    expander: Expander,
    receiver: Receiver,
    publisher: Publisher,
    editor: Editor,
}

impl Rooms {
    fn new(
        stores: &Stores,
        daemon: &Daemon<Config>,
        hostname: &Domain,
        secrets: &watch::Receiver<Secrets>,
        metrics: &Metrics,
    ) -> Self {
        let Stores {
            spool,
            directory,
            quarantine,
        } = stores.clone();
        let config = &daemon.config;
        let (editor, editions) = Editor::new(directory.clone(), config.clone(), secrets.clone());
        let notifier = Notifier {
            spool: spool.clone(),
            directory: directory.clone(),
            config: config.clone(),
            hostname: hostname.clone(),
            metrics: metrics.clone(),
            begun: Arc::default(),
        };
        let commander = Commander {
            spool: spool.clone(),
            directory: directory.clone(),
            config: config.clone(),
            hostname: hostname.clone(),
            secrets: secrets.clone(),
            metrics: metrics.clone(),
        };
        Self {
            expander: Expander {
                spool: spool.clone(),
                directory: directory.clone(),
                quarantine: quarantine.clone(),
                commander,
                notifier: notifier.clone(),
                config: config.clone(),
                metrics: metrics.clone(),
            },
            receiver: Receiver {
                session: "".into(),
                spool,
                directory: directory.clone(),
                quarantine,
                config: config.clone(),
                secrets: secrets.clone(),
                metrics: metrics.clone(),
            },
            publisher: Publisher {
                editions,
                directory,
                metrics: metrics.clone(),
                stop: daemon.shutdown.watch(),
                whole: Default::default(),
            },
            editor,
            notifier,
        }
    }
}

impl Clone for Stores {
    fn clone(&self) -> Self {
        Self {
            spool: self.spool.clone(),
            directory: self.directory.clone(),
            quarantine: self.quarantine.clone(),
        }
    }
}

fn wrong(what: &str, why: String) -> StartError {
    StartError {
        what: what.into(),
        why,
        remedy: "mend it and start again".into(),
    }
}

/// Opens what is kept on disk. A directory that is missing beside a spool was lost, and is not made anew.
async fn open(config: &Config) -> Result<Stores, StartError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let state = &config.state;
        let may_create = !config.spool_folder().exists();
        make_folder(state)?;
        make_folder(&state.join("quarantine"))?;
        let directory = Directory::new(state.join("directory.sqlite"), may_create);
        let path = state.join("quarantine/quarantine.sqlite");
        let quarantine = Quarantine::open(&path, config.quarantine.bytes_max)?;
        let spool = Embedded::open(Options {
            segment_bytes: config.spool.segment_bytes,
            free_bytes_min: config.spool.free_bytes_min,
            free_inodes_min: config.spool.free_inodes_min,
            waiting_bytes_max: config.spool.waiting_bytes_max,
            waiting_max: config.spool.waiting_max,
            window_max: config.spool.window_max,
            heads_max: config.spool.heads_max,
            unindexed_max: config.spool.unindexed_max,
            content_bytes_max: config.spool.content_bytes_max,
            ident_memory: config.spool.ident_memory,
            message_bytes_max: config.lmtp.message_bytes_max,
            ..Options::new(config.spool_folder())
        })
        .map_err(|error| wrong("open the spool", error.to_string()))?;
        Ok(Stores {
            spool: Arc::new(spool),
            directory,
            quarantine,
        })
    })
    .await
    .map_err(|error| wrong("open the stores", error.to_string()))?
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError {
            what: format!("make {}", path.display()),
            why: error.to_string(),
            remedy: "give a folder of this user's own as `state`".into(),
        })
}

fn lmtp_settings(config: &Config, hostname: Domain, identity: Option<&Identity>) -> Settings {
    let kib = usize::try_from(config.lmtp.memory_bytes_max / 1024).unwrap_or(usize::MAX);
    Settings {
        protocol: Protocol::Lmtp,
        hostname,
        message_bytes_max: config.lmtp.message_bytes_max,
        recipients_max: config.lmtp.recipients_max,
        errors_max: ERRORS_MAX,
        bare_newline: BareNewline::Normalize,
        tls: identity.map(Identity::server),
        tls_required: identity.is_some(),
        xforward: true,
        keywords_off: Vec::new(),
        timeouts: Timeouts::default(),
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
    }
}

async fn serve(
    listener: Listener,
    settings: Arc<Settings>,
    receiver: Receiver,
    config: &Config,
    shutdown: &Shutdown,
) {
    let stop = shutdown.watch();
    let sessions_max = Arc::new(Semaphore::new(config.lmtp.sessions_max));
    let session = move |stream, client| {
        let (settings, mut receiver, stop) = (settings.clone(), receiver.clone(), stop.clone());
        async move {
            let ending = smtp::server::serve(stream, client, settings, &mut receiver, stop).await;
            info!(event = "session", session = %receiver.session, %client, outcome = ?ending);
        }
    };
    listener
        .run("lmtp", sessions_max, shutdown.clone(), session)
        .await;
}

fn add_control(
    daemon: &Daemon<Config>,
    desk: Desk,
    queue: &Queue,
    engine: &Engine,
    secrets: watch::Sender<Secrets>,
    editions: Editions,
) {
    let (directory, spool) = (desk.directory.clone(), desk.spool.clone());
    let routes = control::routes(desk)
        .merge(delivery::queue::routes(queue.clone()))
        .merge(delivery::safekeeping::routes(spool.clone()));
    daemon.control.routes(routes);
    let (queue, engine) = (queue.clone(), engine.clone());
    daemon.control.status(move || {
        let names = directory.names();
        let published = editions.newest.borrow().clone();
        json!({
            "published": published.map(|published| json!({
                "version": published.seal.version,
                "digest": published.seal.digest,
                "entries": published.content.entries(),
                "signed": published.seal.signatures.len(),
            })),
            "directory": names.as_ref().map(|names| json!({
                "version": names.version(),
                "lists": names.lists().len(),
                "aliases": names.addresses().len(),
            })),
            "queue": queue.state(),
            "spool": spool.unhealthy(),
            "vitals": delivery::vitals::json(&spool.vitals()),
            "sites": engine.sites().iter().take(SITES_IN_STATUS).collect::<Vec<_>>(),
        })
    });
    let config = daemon.config.clone();
    daemon.control.on_reload("secrets", move || {
        secrets.send_replace(Secrets::read(&config.borrow())?);
        Ok(())
    });
}

/// Looks at the stores and says whether they are ready.
async fn look(stores: &Stores, engine: &Engine, readiness: &Readiness) {
    engine.tell(readiness);
    let directory = stores.directory.refresh().await;
    readiness.set("directory", directory.map_err(|error| error.to_string()));
    readiness.set(
        "spool",
        match stores.spool.unhealthy() {
            Some(why) => Err(why),
            None => Ok(()),
        },
    );
    let quarantine = stores.quarantine.list(false, 1).await;
    readiness.set(
        "quarantine",
        quarantine.map(|_| ()).map_err(|error| error.to_string()),
    );
}

/// Looks at the stores, and forgets what is too old. Runs until it is aborted.
async fn upkeep(
    stores: Stores,
    engine: Engine,
    readiness: Readiness,
    config: watch::Receiver<Config>,
) {
    let mut forget = tokio::time::interval(FORGET_INTERVAL);
    let mut look_again = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = look_again.tick() => look(&stores, &engine, &readiness).await,
            _ = forget.tick() => {
                let config = config.borrow().clone();
                if let Err(why) = forget_old(&stores, &config).await {
                    warn!(event = "retention", outcome = "failed", reason = %why);
                }
            }
        }
    }
}

async fn forget_old(stores: &Stores, config: &Config) -> Result<(), String> {
    let now = Timestamp::now();
    let ago = |age: Duration| Timestamp(now.0.saturating_sub(age.as_millis() as u64));
    let (before, forget) = (
        ago(config.quarantine.keep),
        ago(ENDED_KEEP.max(config.quarantine.keep)),
    );
    let expired = stores
        .quarantine
        .expire(before, forget)
        .await
        .map_err(|error| error.to_string())?;
    if expired > 0 {
        info!(event = "retention", store = "quarantine", expired);
    }
    let before = ago(config.lists.bounces_keep);
    stores
        .directory
        .write(move |store| store.forget_bounces(before))
        .await
        .map_err(|error| error.to_string())?;
    Ok(())
}
