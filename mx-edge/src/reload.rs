//! What a reload changes while sessions go on: rules, server settings, the guard. Which keys these are says
//! `config::changes`. Certificates are read anew by the service crate.

use std::sync::{Arc, RwLock};

use service::shutdown::Shutdown;
use smtp::server::{Guard, Settings, Stress, Timeouts};
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use crate::config::Config;
use crate::receive::Edge;
use crate::rules::{self, Rules};
use crate::served::{Served, bare_newline};
use crate::sources::guard;
use crate::wiring::Certificates;

/// Follows the configuration in force.
pub struct Reload {
    /// Whose rules change.
    pub edge: Arc<Edge>,
    /// Where new sessions get their settings.
    pub server: watch::Sender<Arc<Served>>,
    /// What is served with.
    pub certificates: Certificates,
    /// Makes files of recipients be read at once.
    pub files: watch::Sender<u64>,
    /// What is in force.
    pub config: Config,
}

impl Reload {
    /// Until shutdown.
    pub async fn run(mut self, mut changes: watch::Receiver<Config>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = shutdown.wait() => return,
            }
            let config = changes.borrow_and_update().clone();
            self.apply(config);
        }
    }

    fn apply(&mut self, config: Config) {
        let kept = self.edge.rules();
        let kept = Some((&self.config, &*kept));
        let shared = rules::Shared {
            metrics: &self.edge.metrics,
            passes: &self.edge.passes,
            greylist: &self.edge.greylist,
            admission: &self.edge.admission,
        };
        let outcome = match rules::rules(&config, &shared, kept) {
            Ok(rules) => {
                *self.edge.rules.write().expect("no holder panics") = Arc::new(rules);
                "applied"
            }
            Err(error) => {
                error!(event = "reload", %error, "the old rules stay");
                "failed"
            }
        };
        self.edge
            .metrics
            .reloads
            .with_label_values(&[outcome])
            .inc();
        let memory = Arc::clone(&self.server.borrow().all().memory_kib);
        let settings = settings(&config, &self.certificates, &self.edge, memory);
        let served = Served::new(settings, &config);
        self.server.send_replace(Arc::new(served));
        self.edge.recipients.set_domains(config.domains());
        for source in self.edge.recipients.sources() {
            source.set_guard(guard(&config));
        }
        self.files.send_modify(|count| *count += 1);
        self.config = config;
        info!(event = "reload", outcome);
    }
}

impl From<Rules> for RwLock<Arc<Rules>> {
    fn from(rules: Rules) -> Self {
        RwLock::new(Arc::new(rules))
    }
}

/// The settings for new sessions, and the way to change them.
pub fn server_settings(
    config: &Config,
    certificates: &Certificates,
    edge: &Edge,
) -> (watch::Sender<Arc<Served>>, watch::Receiver<Arc<Served>>) {
    let kib = config.limits.message_memory_bytes_max.div_ceil(1024);
    let memory = Arc::new(crate::through::semaphore(kib));
    let settings = settings(config, certificates, edge, memory);
    watch::channel(Arc::new(Served::new(settings, config)))
}

/// `memory` stays the same over reloads, since messages in flight hold parts of it.
fn settings(
    config: &Config,
    certificates: &Certificates,
    edge: &Edge,
    memory: Arc<Semaphore>,
) -> Settings {
    let limits = &config.limits;
    Settings {
        protocol: smtp::Protocol::Smtp,
        hostname: config.host(),
        message_bytes_max: limits.message_bytes_max,
        recipients_max: limits.recipients_max,
        errors_max: limits.errors_max,
        bare_newline: bare_newline(config.mail.bare_newline),
        tls: (!certificates.public.is_empty())
            .then(|| service::tls::public_servers(certificates.public.clone())),
        tls_required: false,
        xforward: false,
        keywords_off: config.mail.keywords_off.clone(),
        timeouts: Timeouts {
            command: limits.command_timeout,
            data_block: limits.data_block_timeout,
            handshake: limits.handshake_timeout,
            session: limits.session_timeout,
        },
        guard: guard_of(config, edge),
        memory_kib: memory,
    }
}

/// What a client that misbehaves meets.
fn guard_of(config: &Config, edge: &Edge) -> Guard {
    let (limits, stress) = (&config.limits, &config.stress);
    Guard {
        errors_soft: limits.errors_soft,
        error_delay: limits.error_delay,
        data_rate_min: limits.data_bytes_per_second_min,
        junk_commands_max: limits.junk_commands_max,
        xclient: false,
        // Those in force: a configuration whose rules could not be read has none.
        wording: Some(edge.rules().words.clone()),
        stress: Some(Stress {
            now: edge.admission.pressure.watch(),
            command: stress.command_timeout.min(limits.command_timeout),
            data_block: stress.data_block_timeout.min(limits.data_block_timeout),
            handshake: stress.handshake_timeout.min(limits.handshake_timeout),
            errors_max: stress.errors_max.min(limits.errors_max),
            junk_commands_max: stress.junk_commands_max.min(limits.junk_commands_max),
        }),
    }
}
