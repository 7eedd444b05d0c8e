//! The program itself, killed again and again while mail comes in: whatever was answered 250 arrives, and under one name.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::client::{envelope, try_connect};
use crate::edge::Site;
use crate::inside::{Got, Inside, Mode, PATIENCE};

const CLIENTS: usize = 4;
const LIVES: usize = 6;
/// Messages answered 250 after which a life ends.
const MESSAGES: usize = 25;

/// The program with its configuration in a file.
pub struct Program {
    config: PathBuf,
    child: Option<Child>,
}

impl Program {
    pub fn new(site: &Site) -> Self {
        let folder = site.config.state.parent().unwrap();
        let config = folder.join("mx-edge.toml");
        std::fs::write(&config, service::config::show(&site.config, false)).unwrap();
        Self {
            config,
            child: None,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mx-edge"));
        command.arg("--config").arg(&self.config);
        command.stdin(Stdio::null());
        command
    }

    /// Starts it; where it takes mail, once it is ready.
    pub async fn start(&mut self, log: &Path) -> SocketAddr {
        self.start_until(log, |ready| ready.is_empty()).await
    }

    /// The same for one that is being drained, which is not ready for anything else.
    pub async fn start_drained(&mut self, log: &Path) -> SocketAddr {
        let drained = |ready: &str| ready.lines().all(|line| line.contains("drained"));
        self.start_until(log, |ready| !ready.is_empty() && drained(ready))
            .await
    }

    /// `enough` looks at the reasons why it is not ready.
    async fn start_until(&mut self, log: &Path, enough: impl Fn(&str) -> bool) -> SocketAddr {
        let path = log;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = self.command().stderr(log).kill_on_drop(true).spawn();
        self.child = Some(child.unwrap());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let ready = self.ask(&["ready"]).await;
            let said = String::from_utf8_lossy(&ready.stderr);
            let reasons = match ready.status.success() {
                true => "",
                false => said.trim_start_matches("not ready\n"),
            };
            if enough(reasons) {
                let status = self.ask(&["--json", "status"]).await;
                let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
                return status["listeners"]["mail"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap();
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not ready: {said} {}",
                std::fs::read_to_string(path).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn ask(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().await.unwrap()
    }

    /// Bytes that it has in memory.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.as_ref().and_then(Child::id).unwrap();
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }
}

/// Sends one message after the other until the edge is gone; notes the marks of those that were answered 250.
async fn client(address: SocketAddr, next: Arc<AtomicUsize>, marks: watch::Sender<Vec<String>>) {
    while let Ok(mut client) = try_connect(address).await {
        let mark = format!("m-{}-", next.fetch_add(1, Ordering::Relaxed));
        let message = format!("Subject: {mark}\r\n\r\nHello.\r\n");
        let mail = envelope("ann@elsewhere.example", &["dev@lists.example"]);
        match client.send(&mail, &[Bytes::from(message)]).await {
            Ok(replies) if replies[0].code == 250 => marks.send_modify(|all| all.push(mark)),
            _ => return,
        }
    }
}

fn mark(got: &Got) -> String {
    let text = String::from_utf8_lossy(&got.message);
    let start = text.find("Subject: ").unwrap() + 9;
    text[start..].split("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn kill_9_loses_nothing() {
    let inside = Inside::start(Mode::Listening).await;
    let site = Site::new(&inside);
    let folder = site.config.state.parent().unwrap().to_owned();
    let mut program = Program::new(&site);
    let log = folder.join("log");
    let next = Arc::new(AtomicUsize::new(0));
    let (marks, mut acknowledged) = watch::channel(Vec::new());

    for life in 0..LIVES {
        inside.set(if life % 2 == 0 {
            Mode::Down
        } else {
            Mode::Listening
        });
        let address = program.start(&log).await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(client(address, Arc::clone(&next), marks.clone())))
            .collect();
        let enough = (life + 1) * MESSAGES;
        let waited = acknowledged.wait_for(|marks| marks.len() >= enough);
        let waited = tokio::time::timeout(PATIENCE, waited).await.is_ok();
        assert!(waited, "{}", std::fs::read_to_string(&log).unwrap());
        program.kill().await;
        for client in clients {
            client.await.unwrap();
        }
    }

    inside.set(Mode::Listening);
    program.start(&log).await;
    let wanted: HashSet<String> = acknowledged.borrow().iter().cloned().collect();
    let got = inside
        .wait(|got| wanted.is_subset(&got.iter().map(mark).collect()))
        .await;
    let mut names: HashMap<String, HashSet<String>> = HashMap::new();
    for got in &got {
        names.entry(mark(got)).or_default().insert(got.ident());
    }
    let renamed: Vec<_> = names.iter().filter(|(_, names)| names.len() > 1).collect();
    assert!(
        renamed.is_empty(),
        "a repeated message keeps its name: {renamed:?}"
    );
    let idents: HashSet<&String> = names.values().flatten().collect();
    assert_eq!(idents.len(), names.len(), "no name is given twice");

    let tally = program.ask(&["queue", "tally"]).await;
    assert!(tally.status.success());
    let known = program
        .ask(&["recipients", "lookup", "joe@b.example"])
        .await;
    assert!(
        String::from_utf8_lossy(&known.stdout).contains("known: yes"),
        "{known:?}"
    );
    let sources = program.ask(&["recipients", "show"]).await;
    assert!(
        String::from_utf8_lossy(&sources.stdout).contains("3 entries"),
        "{sources:?}"
    );
    let forced = program.ask(&["recipients", "accept"]).await;
    assert!(
        String::from_utf8_lossy(&forced.stderr).contains("--force"),
        "{forced:?}"
    );
    program.kill().await;
}
