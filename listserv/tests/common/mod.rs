//! A list host as a process of its own, a mail host that takes its mail, and a scanner that brings it some. All on loopback.

#![allow(clippy::unwrap_used)]
#![allow(dead_code)] // each test file uses a part

mod sink;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use mail::trace::{Custody, Spf, Trace};
use mail::verdict::{Action, Class, Keys, Token, Verdict};
use mail::{Address, Envelope, Ident, MailParameters, Reply, ReversePath, Timestamp};
use serde_json::{Value, json};
use service::control::{Request, ask};
use smtp::Protocol;
use smtp::client::{Client, Options, Timeouts, TlsPolicy};
use smtp::xforward::Xforward;

pub use sink::Sink;

/// No condition takes longer, on a slow machine either.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// The secret that test scanners sign with.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A list host.
pub struct Host {
    folder: tempfile::TempDir,
    child: Child,
    pub lmtp: SocketAddr,
    pub directory: SocketAddr,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "waited in vain for {what}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

impl Host {
    /// Starts one that delivers everything to `sink`; `more` is laid after its configuration.
    pub async fn start(sink: &Sink, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("verdict.key"), SECRET).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(at("verdict.key"), PermissionsExt::from_mode(0o600)).unwrap();
        // Keys of the top level before the first table.
        let (top, tables) = match more.starts_with('[') {
            true => ("", more),
            false => (more, ""),
        };
        let config = format!(
            "state = \"{}\"\nhostname = \"host.example\"\nverdict_key_files = [\"{}\"]\n{top}\n\
             [lmtp]\nlisten = \"127.0.0.1:0\"\n[publish]\nlisten = \"127.0.0.1:0\"\n\
             [control]\nsocket = \"{}\"\nlisten = \"127.0.0.1:0\"\n\
             [spool]\nfree_bytes_min = 0\nfree_inodes_min = 0\nsegment_bytes = \"1MiB\"\n\
             [dsn]\nmerge = \"0s\"\n[delivery]\ndefault_route = \"sink\"\nretry_first = \"1s\"\n[delivery.routes.sink]\nhosts = [\"{}\"]\n{tables}",
            at("state"),
            at("verdict.key"),
            at("listserv.sock"),
            sink.address,
        );
        std::fs::write(at("listserv.toml"), config).unwrap();
        let child = Self::spawn(&folder);
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut host = Self {
            folder,
            child,
            lmtp: unknown,
            directory: unknown,
        };
        host.wait_ready().await;
        host
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("listserv.toml")
    }

    fn spawn(folder: &tempfile::TempDir) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.path().join("log"))
            .unwrap();
        Command::new(env!("CARGO_BIN_EXE_listserv"))
            .arg("--config")
            .arg(folder.path().join("listserv.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    async fn wait_ready(&mut self) {
        let socket = self.folder.path().join("listserv.sock");
        let child = &mut self.child;
        let log = self.folder.path().join("log");
        let status = until("listserv to be ready", async || {
            if let Some(exit) = child.try_wait().unwrap() {
                panic!("{exit}: {}", std::fs::read_to_string(&log).unwrap());
            }
            let ready = ask(&socket, &Request::get("/readyz")).await.ok()?;
            (ready.0 == 200).then_some(())?;
            let (_, body) = ask(&socket, &Request::get("/status")).await.ok()?;
            serde_json::from_slice::<Value>(&body).ok()
        })
        .await;
        let address = |name: &str| status["listeners"][name].as_str().unwrap().parse().unwrap();
        self.lmtp = address("lmtp");
        self.directory = address("directory");
    }

    /// Kills it at once, and starts it again.
    pub async fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.folder);
        self.wait_ready().await;
    }

    /// Asks it to stop, and waits until it has; it ends well.
    pub async fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let child = &mut self.child;
        let exit = until("listserv to end", async || child.try_wait().unwrap()).await;
        assert!(exit.success(), "{exit}: {}", self.log());
    }

    /// Starts it after [`Self::stop`].
    pub async fn start_again(&mut self) {
        self.child = Self::spawn(&self.folder);
        self.wait_ready().await;
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Runs `listserv WORDS`; its JSON answer, or what it complained of.
    pub fn try_command(&self, words: &str) -> Result<Value, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_listserv"))
            .arg("--config")
            .arg(self.config())
            .arg("--json")
            .args(words.split(' '))
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Runs `listserv WORDS`, which must do.
    pub fn command(&self, words: &str) -> Value {
        self.try_command(words)
            .unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// A scanner's connection to it.
    pub async fn connect(&self) -> Client {
        let options = Options {
            protocol: Protocol::Lmtp,
            helo: "scan.example".into(),
            tls: TlsPolicy::Never,
            timeouts: Timeouts::default(),
            source: None,
            chunking: true,
        };
        Client::connect(self.lmtp, &options).await.unwrap()
    }

    /// Brings a message that is traced and clean; a reply a recipient.
    pub async fn post(&self, ident: &str, from: &str, to: &[&str], message: &str) -> Vec<Reply> {
        self.bring(&Traced::clean(ident), from, to, message).await
    }

    /// Brings a message.
    pub async fn bring(
        &self,
        traced: &Traced,
        from: &str,
        to: &[&str],
        message: &str,
    ) -> Vec<Reply> {
        let mut client = self.connect().await;
        let ident = Ident::parse(&traced.ident).unwrap();
        let attributes = Xforward {
            addr: Some("192.0.2.7".parse().unwrap()),
            helo: Some("client.example".into()),
            ident: Some(ident),
            ..Xforward::default()
        };
        client.xforward(&attributes).await.unwrap();
        let envelope = Envelope {
            reverse_path: ReversePath::parse(from).unwrap(),
            parameters: MailParameters::default(),
            recipients: to
                .iter()
                .map(|text| Address::parse(text).unwrap().into())
                .collect(),
        };
        let parts = [
            Bytes::from(traced.header(message)),
            Bytes::from(message.to_owned()),
        ];
        let replies = client.send(&envelope, &parts).await.unwrap();
        client.quit().await;
        replies
    }

    /// Whether every forward-path that was accepted since the start has ended in one way or another; for an idle host.
    pub async fn accounts(&self) {
        let request = Request::get("/metrics");
        let socket = self.folder.path().join("listserv.sock");
        let (_, text) = ask(&socket, &request).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let sum = |name: &str, but: &str| -> u64 {
            text.lines()
                .filter(|line| line.starts_with(&format!("{name}{{")) && !line.contains(but))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                .sum()
        };
        let accepted = sum("listserv_paths_accepted_total", "\"again\"");
        assert!(accepted > 0);
        assert_eq!(
            accepted,
            sum("listserv_paths_ended_total", "\"\""),
            "{text}"
        );
    }

    /// Waits until nothing is left to be done.
    pub async fn idle(&self) {
        until("an empty queue", async || {
            (self.command("queue tally") == json!([])).then_some(())
        })
        .await;
    }
}

/// What edge and scanner say of a message.
pub struct Traced {
    pub ident: String,
    pub custody: Custody,
    pub spf: Spf,
    pub class: Class,
}

impl Traced {
    /// Clean, its client waits, nothing known of the sender.
    pub fn clean(ident: &str) -> Self {
        Self {
            ident: ident.into(),
            custody: Custody::Live,
            spf: Spf::None,
            class: Class::Clean,
        }
    }

    fn header(&self, message: &str) -> String {
        let keys = Keys::new(&[SECRET.as_bytes().to_vec()]).unwrap();
        let action = match (self.class, self.custody) {
            (Class::Clean | Class::Spammy, _) => Action::Pass,
            (_, Custody::Live) => Action::Refuse,
            (_, Custody::Spooled) => Action::Quarantine,
        };
        let verdict = Verdict {
            class: self.class,
            found: [self.class].into_iter().collect(),
            action,
            score_hundredths: Some(1500),
            required_hundredths: 500,
            tests: Vec::new(),
            reason: "".into(),
            rules: "1".into(),
            signatures: "1".into(),
            time: Timestamp::now(),
        };
        let digest = mail::verdict::digest(message.as_bytes());
        let trace = Trace {
            ident: Ident::parse(&self.ident).unwrap(),
            custody: self.custody,
            arrival: Timestamp::now(),
            client: "192.0.2.7".parse().unwrap(),
            helo: "client.example".into(),
            spf: self.spf,
            exempt: false,
            verdict: Some(Token::sign(&verdict, &digest, &keys).into()),
        };
        trace.header()
    }
}

/// The first code of each reply.
pub fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.code).collect()
}
