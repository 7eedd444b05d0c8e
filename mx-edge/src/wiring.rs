//! From the configuration to the parts that `run` puts together: folders, certificates, spool, next hop, listeners. Every failure
//! says what, why and what to do.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use delivery::attempt::{Connections, Route};
use delivery::engine::{Engine, Settings};
use delivery::expiry::Expiry;
use delivery::queue::Kept;
use prometheus::Registry;
use service::control::Control;
use service::listener::Listener;
use service::program::StartError;
use service::shutdown::Shutdown;
use service::tls::{self, Identity, Role};
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::embedded::Embedded;
use spool::{Destination, Destinations, Spool};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::admission::Admission;
use crate::admission::added::Added;
use crate::admission::places::Places;
use crate::admission::rates::Rates;
use crate::config::{Config, Protocol, SPOOL_MESSAGE_BYTES_MAX};
use crate::ended::Ended;
use crate::forward::{self, Forward};
use crate::ident::Idents;
use crate::metrics::Metrics;
use crate::recipients::sibling;
use crate::report::{Days, Tops};
use crate::sources::Sources;
use crate::through::{Limits, Through};
use crate::trail::Trail;

/// How long the spool remembers idents: longer than any held batch takes to be settled twice.
const IDENT_MEMORY: Duration = Duration::from_secs(60 * 24 * 3600);

/// A file or folder that could not be used.
pub fn io_error(path: &Path, error: &io::Error) -> StartError {
    StartError {
        what: path.display().to_string(),
        why: error.to_string(),
        remedy: "look at the folder, its owner and its mode".into(),
    }
}

/// A metric that exists already.
pub fn metrics_error(error: prometheus::Error) -> StartError {
    StartError {
        what: "metrics".into(),
        why: error.to_string(),
        remedy: "this is a fault of the program, report it".into(),
    }
}

/// Makes the state folder, if there is none.
pub fn make_state_folder(config: &Config) -> Result<(), StartError> {
    crate::state::make_folder(&config.state).map_err(|error| io_error(&config.state, &error))
}

/// Takes the next boot number.
pub fn open_idents(config: &Config) -> Result<Idents, StartError> {
    Idents::open(&config.name, &config.state)
        .map_err(|error| io_error(&config.state.join("boot"), &error))
}

/// Opens the counts by day.
pub fn open_days(
    config: &Config,
    registry: &Registry,
    tops: &Arc<Tops>,
) -> Result<Arc<Days>, StartError> {
    let days = Days::open(&config.state, registry, tops, &config.report);
    let days = days.map_err(|error| io_error(&config.state.join("report"), &error))?;
    Ok(Arc::new(days))
}

/// Opens the list of what was not passed in.
pub fn open_ended(config: &Config) -> Result<Arc<Ended>, StartError> {
    let ended = Ended::open(&config.state).map_err(|error| io_error(&config.state, &error))?;
    Ok(Arc::new(ended))
}

/// Opens the records.
pub fn open_trail(config: &Config) -> Result<Arc<Trail>, StartError> {
    let trail = Trail::open(&config.state, &config.records);
    let trail = trail.map_err(|error| io_error(&config.state.join("records"), &error))?;
    Ok(Arc::new(trail))
}

/// Reads what operators set that outlasts a restart.
pub fn open_kept(config: &Config) -> Result<Kept, StartError> {
    Kept::open(&config.state).map_err(|why| StartError {
        what: "what was set by `queue`".into(),
        why,
        remedy: "look at the file".into(),
    })
}

/// The names of the public certificates, in their order; so many there may be.
pub const CERTIFICATES: [&str; 8] = [
    "tls", "tls-2", "tls-3", "tls-4", "tls-5", "tls-6", "tls-7", "tls-8",
];

/// This node's certificates.
#[derive(Clone)]
pub struct Certificates {
    /// The public ones, for STARTTLS; the first for everybody who asks for none of the others' names.
    pub public: Vec<Identity>,
    /// The site's, for the inner hops.
    pub inside: Option<Identity>,
}

impl Certificates {
    /// Reads them.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let error = |why: String| StartError {
            what: "load the certificate of [tls]".into(),
            why,
            remedy: "name a certificate and its key in PEM".into(),
        };
        let files = config.tls.iter().flat_map(|public| public.files());
        let public: Result<Vec<_>, _> = files.map(|files| Identity::load_public(&files)).collect();
        Ok(Self {
            public: public.map_err(error)?,
            inside: Identity::inside(config.inside.as_ref())?,
        })
    }

    /// Has them read anew on reload, and their last days shown.
    pub fn publish(&self, control: &Control) {
        for (name, identity) in CERTIFICATES.iter().zip(&self.public) {
            control.identity(name, identity);
        }
        if let Some(identity) = &self.inside {
            control.identity("inside", identity);
        }
    }
}

/// Opens the spool off the runtime's threads, since it may have much to replay.
pub async fn open_spool(config: &Config) -> Result<Arc<dyn Spool>, StartError> {
    let options = spool::embedded::Options {
        segment_bytes: config.spool.segment_bytes,
        free_bytes_min: config.spool.free_bytes_min,
        free_inodes_min: config.spool.free_inodes_min,
        waiting_bytes_max: config.spool.waiting_bytes_max,
        waiting_max: config.spool.waiting_max,
        window_max: config.spool.window_max,
        heads_max: config.spool.heads_max,
        unindexed_max: config.spool.unindexed_max,
        content_bytes_max: config.spool.content_bytes_max,
        ident_memory: IDENT_MEMORY,
        message_bytes_max: SPOOL_MESSAGE_BYTES_MAX,
        ..spool::embedded::Options::new(config.spool_folder())
    };
    let path = options.path.clone();
    let error = |why: String| StartError {
        what: format!("spool {}", path.display()),
        why,
        remedy: "look at the disk and at the log of the last run".into(),
    };
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let opened = opened.map_err(|panicked| error(panicked.to_string()))?;
    let spool = opened.map_err(|why| error(why.to_string()))?;
    if !spool.guarantees().survives_power_cut {
        return Err(error(
            "it does not promise to survive a power cut, so that no 250 could be said".into(),
        ));
    }
    Ok(Arc::new(spool))
}

/// Nobody has come yet.
pub fn admission(config: &Config) -> Result<Admission, StartError> {
    let added = Added::open(&config.state).map_err(|why| StartError {
        what: "what was added by `access add`".into(),
        why,
        remedy: "look at the file".into(),
    })?;
    Ok(Admission {
        sessions: Places::default(),
        sessions_max: config.limits.sessions_max,
        screening: Places::default(),
        clients: Arc::default(),
        added: Arc::new(added),
        rates: Rates::new(config.rates.entries_max),
        pressure: Arc::default(),
    })
}

/// The names of the listeners, in the order of `mail.listen`; so many there may be.
pub const LISTENERS: [&str; 4] = ["mail", "mail-2", "mail-3", "mail-4"];

/// The same of `handover.listen`.
pub const HANDOVERS: [&str; 2] = ["handover", "handover-2"];

/// Binds all listeners, or takes those that systemd passed on.
pub async fn bind(config: &Config, control: &Control) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for (address, name) in config.mail.listen.iter().zip(LISTENERS) {
        listeners.push(control.bind(name, *address).await?);
    }
    Ok(listeners)
}

/// Lets siblings have our copy of the directory, where that is configured.
pub async fn give_copies(
    config: &Config,
    certificates: &Certificates,
    sources: &Sources,
    control: &Control,
    shutdown: &Shutdown,
) -> Result<(), StartError> {
    let (Some(listen), Some(directory)) = (config.directory.listen, &sources.directory) else {
        return Ok(());
    };
    let address = service::control::serve(
        listen,
        certificates.inside.clone(),
        &[Role::MxEdge],
        sibling::router(Arc::clone(directory)),
        shutdown.clone(),
    )
    .await?;
    control.listener("directory", address);
    Ok(())
}

/// The next hop, for those who wait and for those who do not: two sets of connections, so that a backlog never takes the
/// connections of live mail.
pub struct NextHop {
    live: Route,
    spooled: Route,
}

impl NextHop {
    /// From the configuration.
    pub fn new(config: &Config, certificates: &Certificates) -> Self {
        let route = |reply: Duration, connections_max: usize| Route {
            hosts: config.next_hop.hosts.clone(),
            options: options(config, certificates, reply),
            // A balancer picks a node for each connection, so that each message gets its own pick.
            transactions_max: 1,
            connections_max,
        };
        Self {
            live: route(config.through.budget, config.through.messages_max),
            spooled: route(config.forward.reply_timeout, config.forward.connections_max),
        }
    }

    /// The way through.
    pub fn through(&self, config: &Config, metrics: &Arc<Metrics>) -> Through {
        let limits = Limits {
            budget: config.through.budget,
            messages_max: config.through.messages_max,
            bytes_max: config.through.bytes_max,
            failures_max: config.through.failures_max,
            probe_interval: config.through.probe_interval,
        };
        Through::new(
            Connections::new(self.live.clone()),
            limits,
            Arc::clone(metrics),
        )
    }

    /// The engine that works the spool off.
    pub fn engine(
        &self,
        config: &Config,
        spool: Arc<dyn Spool>,
        owner: Arc<Forward>,
        paused: watch::Receiver<bool>,
        registry: &Registry,
    ) -> Engine {
        let connections = || Arc::new(Connections::new(self.spooled.clone()));
        let settings = Settings {
            host: config.name.clone(),
            serves: Destinations::Only(vec![Destination::Inside, forward::scanned()]),
            // Each its own, so that what waits for a list host takes no connection from what is to be scanned.
            routes: BTreeMap::from([
                ("".into(), connections()),
                (forward::LIST.into(), connections()),
            ]),
            pinned: BTreeMap::new(),
            default_route: None,
            exchangers: None,
            options: self.spooled.options.clone(),
            egresses: Default::default(),
            tls: None,
            sink: false,
            attempts_max: config.forward.attempts_max,
            bodies_bytes_max: config.forward.bodies_bytes_max,
            turn_target: delivery::engine::TURN_TARGET,
            site_connections_max: config.forward.connections_max,
            schedule: config.forward.retry().schedule(),
            expiry: Expiry::NEVER,
            rules: Arc::new(forward::rules()),
            paused,
        };
        Engine::new(settings, spool, owner, registry).with_limits(delivery::breaker::Limits {
            probe_interval: config.forward.probe_interval,
            ..Default::default()
        })
    }
}

/// `reply` bounds the wait for the reply to the message and for each block of it on the way.
fn options(config: &Config, certificates: &Certificates, reply: Duration) -> Options {
    let hop = &config.next_hop;
    Options {
        protocol: match hop.protocol {
            Protocol::Lmtp => smtp::Protocol::Lmtp,
            Protocol::Smtp => smtp::Protocol::Smtp,
        },
        helo: config.hostname.as_str().into(),
        tls: tls_policy(config, certificates),
        timeouts: Timeouts {
            connect: hop.connect_timeout,
            greeting: hop.reply_timeout,
            helo: hop.reply_timeout,
            mail: hop.reply_timeout,
            rcpt: hop.reply_timeout,
            data_start: hop.reply_timeout,
            data_block: reply,
            data_end: reply,
            rest: Duration::from_secs(5),
        },
        source: None,
        chunking: true,
    }
}

/// Inside the site its own CA, under the role's name; a foreign SMTP server is encrypted to when it offers; loopback is plain.
fn tls_policy(config: &Config, certificates: &Certificates) -> TlsPolicy {
    let addresses: Vec<SocketAddr> = config
        .next_hop
        .hosts
        .iter()
        .filter_map(|host| host.parse().ok())
        .collect();
    match (&certificates.inside, config.next_hop.protocol) {
        (Some(identity), Protocol::Lmtp) => {
            TlsPolicy::Required(identity.client(), Role::Scanner.server_name())
        }
        (_, Protocol::Smtp) if !addresses.iter().all(|address| address.ip().is_loopback()) => {
            let name = ServerName::IpAddress(addresses[0].ip().into());
            TlsPolicy::Opportunistic(tls::opportunistic_client(), name)
        }
        _ => TlsPolicy::Never,
    }
}
