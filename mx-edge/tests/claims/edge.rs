//! An edge in a folder of its own, started and stopped as often as a claim needs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mx_edge::config::Config;
use mx_edge::{Running, start};
use prometheus::Registry;
use service::control::{Control, Readiness};
use service::program::Daemon;
use service::shutdown::Shutdown;
use spool::Spool;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::faulty::Faulty;
use crate::inside::{Inside, PATIENCE};

/// A folder and a configuration.
pub struct Site {
    folder: TempDir,
    pub config: Config,
}

/// A started edge.
pub struct Edge {
    pub address: SocketAddr,
    pub spool: Arc<Faulty>,
    pub readiness: Readiness,
    pub metrics: Registry,
    pub running: Running,
    pub shutdown: Shutdown,
    pub changes: watch::Sender<Config>,
}

impl Site {
    /// Everybody in lists.example and a.example is known, and mail goes to `inside`. Intervals are short.
    pub fn new(inside: &Inside) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let known = folder.path().join("known");
        std::fs::write(&known, "@lists.example\n@a.example\njoe@b.example\n").unwrap();
        let ms = Duration::from_millis;
        let mut config = Config {
            name: "mx1".into(),
            hostname: "mx1.example".into(),
            state: folder.path().join("state"),
            ..Config::default()
        };
        config.control.socket = folder.path().join("control.sock");
        config.control.listen = "127.0.0.1:0".parse().unwrap();
        config.mail.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.directory.servers.clear();
        config.recipients.files = vec![known];
        config.recipients.reload_interval = ms(50);
        config.next_hop.hosts = vec![inside.address.to_string()];
        config.through.budget = ms(2000);
        config.through.probe_interval = ms(100);
        config.forward.reply_timeout = ms(1000);
        config.forward.probe_interval = ms(200);
        config.forward.retry_first = ms(50);
        config.forward.retry_longest = ms(200);
        config.spf.enabled = false;
        config.spool.free_bytes_min = 1;
        config.spool.free_inodes_min = 1;
        config.spool.segment_bytes = 1 << 20;
        Self { folder, config }
    }

    /// Its folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Starts an edge on its spool.
    pub async fn start(&self) -> Edge {
        mx_edge::wiring::make_state_folder(&self.config).unwrap();
        let spool = mx_edge::wiring::open_spool(&self.config).await.unwrap();
        let spool = Arc::new(Faulty::new(spool));
        let (changes, config) = watch::channel(self.config.clone());
        let shutdown = Shutdown::new();
        let daemon = Daemon {
            shutdown: shutdown.clone(),
            config,
            readiness: Readiness::default(),
            metrics: Registry::new(),
            control: Control::default(),
        };
        let (readiness, metrics) = (daemon.readiness.clone(), daemon.metrics.clone());
        let shared: Arc<dyn Spool> = spool.clone();
        let running = start(self.config.clone(), daemon, shared).await.unwrap();
        Edge {
            address: running.listeners[0],
            spool,
            readiness,
            metrics,
            running,
            shutdown,
            changes,
        }
    }
}

impl Edge {
    /// The value of a counter or gauge, summed over the label values that hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        metrics
            .iter()
            .filter(|metric| {
                label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    /// Waits until a metric has a value.
    pub async fn wait_metric(&self, name: &str, label: &str, value: f64) {
        until(
            || self.metric(name, label) == value,
            || {
                format!(
                    "{name} {label:?} is {}, not {value}",
                    self.metric(name, label)
                )
            },
        )
        .await;
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(self) {
        self.shutdown.begin();
        let finished = tokio::time::timeout(PATIENCE, self.running.finished()).await;
        finished.expect("the edge ends");
    }
}

/// Looks again at short intervals until the condition holds.
pub async fn until(condition: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{}", otherwise());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
