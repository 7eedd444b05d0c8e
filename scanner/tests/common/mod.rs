//! A scanner as a process of its own, between daemons, an edge and a list host that this test plays.

#![allow(dead_code)]

pub mod daemons;
pub mod edge;
pub mod list_host;
pub mod real;
pub mod stubs;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use list_host::ListHost;
use mail::verdict::Keys;
use serde_json::Value;
use service::control::{self, Request};
use stubs::Stub;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long anything that must happen may take; far beyond what it does take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The site's secret.
const SECRET: &[u8] = b"a secret of this test alone";

/// Waits until `probe` gives something.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Anything that must come to an end.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// The keys by which tokens are signed here.
pub fn keys() -> Keys {
    Keys::new(&[SECRET.to_vec()]).unwrap()
}

/// A running scanner.
pub struct Scanner {
    pub child: Child,
    dir: TempDir,
    pub lmtp: SocketAddr,
    pub agent: SocketAddr,
}

/// What differs from test to test.
#[derive(Default)]
pub struct Setup {
    /// Addresses, one or several.
    pub spamd: Vec<String>,
    pub clamd: Vec<String>,
    pub list_host: Option<SocketAddr>,
    /// `section.key = value`, a line each.
    pub more: String,
}

impl Setup {
    /// Between these.
    pub fn of(spamd: &Stub, clamd: &Stub, list_host: &ListHost, more: impl Into<String>) -> Self {
        Self {
            spamd: vec![spamd.address.to_string()],
            clamd: vec![clamd.address.to_string()],
            list_host: Some(list_host.address),
            more: more.into(),
        }
    }
}

impl Scanner {
    /// Starts one and waits until it listens.
    pub async fn start(setup: &Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let key = dir.path().join("verdict.key");
        std::fs::write(&key, SECRET).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = format!(
            "hostname = 'scan.example'\nreceive.listen = '127.0.0.1:0'\nreceive.message_bytes_max = '8MiB'\n{}\
             spamd.addresses = ['{}']\nclamd.addresses = ['{}']\nrelay.hosts = ['{}']\n\
             relay.retry = '50ms'\nscan.canary_retry = '50ms'\nannounce.retry = '50ms'\n\
             announce.agent_listen = '127.0.0.1:0'\nannounce.drain_notice = '100ms'\n\
             token.key_files = ['{}']\n\
             control.socket = '{}'\ncontrol.listen = '127.0.0.1:0'\nlog.level = 'debug'\n{}\n",
            // Without a name server of the test's own nobody is asked.
            match setup.more.contains("authenticate.enabled") {
                true => "",
                false => "authenticate.enabled = false\n",
            },
            setup.spamd.join("', '"),
            setup.clamd.join("', '"),
            setup.list_host.unwrap_or(nowhere),
            key.display(),
            path("control.sock"),
            setup.more,
        );
        std::fs::write(dir.path().join("scanner.toml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_scanner"))
            .arg("--config")
            .arg(dir.path().join("scanner.toml"))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let unknown = "127.0.0.1:0".parse().unwrap();
        let mut scanner = Self {
            child,
            dir,
            lmtp: unknown,
            agent: unknown,
        };
        let listeners = until("the scanner listens", async || {
            if let Some(exit) = scanner.child.try_wait().unwrap() {
                panic!("the scanner ended, {exit}:\n{}", scanner.log());
            }
            let status = scanner.ask("GET", "/status").await?;
            status["listeners"].get("agent")?;
            Some(status["listeners"].clone())
        })
        .await;
        let address = |name: &str| listeners[name].as_str().unwrap().parse().unwrap();
        scanner.lmtp = address("lmtp");
        scanner.agent = address("agent");
        scanner
    }

    /// Starts one and waits until its canary has come back.
    pub async fn ready(setup: &Setup) -> Self {
        let scanner = Self::start(setup).await;
        scanner.becomes("ready").await;
        scanner
    }

    /// Waits for a state.
    pub async fn becomes(&self, state: &str) {
        let what = format!("the scanner is {state}; its log:\n{}", self.log());
        until(&what, async || {
            let status = self.ask("GET", "/status").await?;
            (status["program"]["state"] == state).then_some(())
        })
        .await;
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("scanner.toml")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command.
    pub async fn ask(&self, method: &'static str, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(method, path).await?).ok()
    }

    async fn text(&self, method: &'static str, path: &str) -> Option<String> {
        let request = Request {
            method,
            path: path.into(),
            body: None,
        };
        let socket = self.dir.path().join("control.sock");
        let (_, body) = control::ask(&socket, &request).await.ok()?;
        String::from_utf8(body).ok()
    }

    /// The sum of a metric's series that have all of these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.text("GET", "/metrics").await.unwrap();
        let series = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Puts a line into the configuration and reloads it.
    pub async fn reload(&self, line: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), format!("{config}{line}\n")).unwrap();
        self.signal("HUP");
        until("the configuration is in force", async || {
            self.log().contains("event=reloaded").then_some(())
        })
        .await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let killed = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(killed.success());
    }
}
