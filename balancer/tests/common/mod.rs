//! A balancer as a process of its own, and nodes as this test wants them.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use service::control::{self, Request};
use service::tls::Role;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything that must happen may take; far beyond what it does take.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// A running balancer.
pub struct Balancer {
    pub child: Child,
    dir: Arc<TempDir>,
    pub mail: SocketAddr,
    pub registration: SocketAddr,
}

impl Balancer {
    /// With short intervals; `more` is put at the end of the configuration.
    pub async fn start(more: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), more).await
    }

    /// Ends it, and starts one that knows what it knew.
    pub async fn again(mut self, more: &str) -> Self {
        self.terminate();
        soon("the balancer ends", self.child.wait()).await.unwrap();
        Self::start_in(self.dir.clone(), more).await
    }

    async fn start_in(dir: Arc<TempDir>, more: &str) -> Self {
        let socket = dir.path().join("control.sock");
        let config = format!(
            "listen = '127.0.0.1:0'\ndrain = '10s'\nstate = '{}'\n\
             [control]\nsocket = '{}'\nlisten = '127.0.0.1:0'\n\
             [probe]\ninterval = '50ms'\nbackoff_min = '50ms'\nbackoff_max = '200ms'\n\
             [pick]\nwait = '1s'\ngreeting = '200ms'\nslow_start = '0s'\n\
             [registration]\nlisten = '127.0.0.1:0'\n{more}",
            dir.path().join("state").display(),
            socket.display()
        );
        let file = dir.path().join("balancer.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let unknown = "127.0.0.1:0".parse().unwrap();
        let mut balancer = Self {
            child,
            dir,
            mail: unknown,
            registration: unknown,
        };
        let listeners = until("the balancer listens", async || {
            let status = balancer.try_ask("GET", "/status").await?;
            status["listeners"].get("registration")?;
            Some(status["listeners"].clone())
        })
        .await;
        let address = |name: &str| listeners[name].as_str().unwrap().parse().unwrap();
        balancer.mail = address("mail");
        balancer.registration = address("registration");
        balancer
    }

    async fn try_ask(&self, method: &'static str, path: &str) -> Option<Value> {
        let request = Request {
            method,
            path: path.into(),
            body: None,
        };
        let socket = self.dir.path().join("control.sock");
        let (_, body) = control::ask(&socket, &request).await.ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// A command.
    pub async fn ask(&self, method: &'static str, path: &str) -> Value {
        self.try_ask(method, path).await.unwrap()
    }

    /// An operator's word about a node.
    pub async fn say(&self, name: &str, word: Value) -> Value {
        let request = Request::post(format!("/nodes/{name}"), word);
        let socket = self.dir.path().join("control.sock");
        let (_, body) = control::ask(&socket, &request).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// What is shown of a node.
    pub async fn shown(&self, name: &str) -> Value {
        let answer = self.ask("GET", "/nodes").await;
        let nodes = answer["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name);
        node.cloned().unwrap_or_default()
    }

    /// A node's state, `none` when there is no such node.
    pub async fn state(&self, name: &str) -> String {
        let node = self.shown(name).await;
        node["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Waits for a node's state.
    pub async fn reaches(&self, name: &str, state: &str) {
        let what = format!("{name} is {state}");
        until(&what, async || {
            (self.state(name).await == state).then_some(())
        })
        .await;
    }

    /// Registers a node; the answer's code and body.
    pub async fn register(&self, name: &str, address: SocketAddr, state: &str) -> (u16, Value) {
        let body = json!({ "name": name, "address": address, "state": state, "in_flight": 0 });
        let request = Request::post("/register", body);
        let role = Role::Balancer;
        let fetched = control::fetch(self.registration, None, role, &request, 65_536, PATIENCE);
        let (code, body) = fetched.await.unwrap();
        (code, serde_json::from_slice(&body).unwrap())
    }

    /// Registers a node and waits until it is ready.
    pub async fn join(&self, name: &str, node: &Node) {
        assert_eq!(self.register(name, node.address, "ready").await.0, 200);
        self.reaches(name, "ready").await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        let killed = std::process::Command::new("kill")
            .arg(pid)
            .status()
            .unwrap();
        assert!(killed.success());
    }

    /// A client's connection.
    pub async fn connect(&self) -> Session {
        let stream = TcpStream::connect(self.mail).await.unwrap();
        Session(BufReader::new(stream))
    }

    /// A client's connection that must be greeted by one of `nodes`.
    pub async fn greeted_by(&self, nodes: &[&str]) -> (Session, String) {
        let mut session = self.connect().await;
        let greeting = session.line().await;
        let name = greeting.trim_end().strip_prefix("220 ");
        let name = name.unwrap_or_else(|| panic!("{greeting:?}")).to_owned();
        assert!(nodes.contains(&name.as_str()), "{name} of {nodes:?}");
        (session, name)
    }
}

/// A client.
pub struct Session(pub BufReader<TcpStream>);

impl Session {
    /// The next line; empty at the end.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        // A reset is an end, too.
        let _ = soon("a line", self.0.read_line(&mut line)).await;
        line
    }

    /// Says a line and reads the node's answer.
    pub async fn say(&mut self, text: &str) -> String {
        let line = format!("{text}\r\n");
        let _ = self.0.write_all(line.as_bytes()).await;
        self.line().await
    }
}

/// How a node behaves.
pub const GREET: u8 = 0;
/// Accepts and says nothing.
pub const MUTE: u8 = 1;
/// Says 421.
pub const REFUSE: u8 = 2;
/// Closes at once.
pub const CLOSE: u8 = 3;
/// Greets, and closes in the middle of its answer to the first line.
pub const DIE: u8 = 4;
/// Greets, and closes at the first line without an answer.
pub const VANISH: u8 = 5;

/// A node: greets with its name and answers each line with `250 NAME LINE`.
pub struct Node {
    pub address: SocketAddr,
    pub behaviour: Arc<AtomicU8>,
    pub sessions: Arc<AtomicUsize>,
}

impl Node {
    /// One that listens.
    pub async fn start(name: &str) -> Self {
        Self::greeting(name, &format!("220 {name}\r\n")).await
    }

    /// One that wants to know who the client is, and adds that to its answers.
    pub async fn behind_proxy(name: &str) -> Self {
        Self::serving(name, &format!("220 {name}\r\n"), true).await
    }

    /// One with a greeting of its own.
    pub async fn greeting(name: &str, greeting: &str) -> Self {
        Self::serving(name, greeting, false).await
    }

    async fn serving(name: &str, greeting: &str, behind_proxy: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(AtomicU8::new(GREET));
        let sessions = Arc::new(AtomicUsize::new(0));
        let node = Self {
            address,
            behaviour: behaviour.clone(),
            sessions: sessions.clone(),
        };
        let (name, greeting) = (name.to_owned(), greeting.to_owned());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (name, greeting) = (name.clone(), greeting.clone());
                let (behaviour, sessions) = (behaviour.load(Ordering::SeqCst), sessions.clone());
                tokio::spawn(async move {
                    let _ =
                        session(stream, &name, &greeting, behind_proxy, behaviour, &sessions).await;
                });
            }
        });
        node
    }

    /// Changes its behaviour for new connections.
    pub fn turns(&self, behaviour: u8) {
        self.behaviour.store(behaviour, Ordering::SeqCst);
    }
}

async fn session(
    stream: TcpStream,
    name: &str,
    greeting: &str,
    behind_proxy: bool,
    behaviour: u8,
    sessions: &AtomicUsize,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let client = match behind_proxy {
        true => proxied(&mut stream).await?,
        false => String::new(),
    };
    match behaviour {
        MUTE => std::future::pending().await,
        REFUSE => stream.write_all(b"421 4.3.2 busy\r\n").await?,
        CLOSE => return Ok(()),
        _ => stream.write_all(greeting.as_bytes()).await?,
    }
    let mut is_counted = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            // The client's half is closed; ours is not yet.
            return stream.write_all(format!("221 {name}\r\n").as_bytes()).await;
        }
        if line == "QUIT\r\n" {
            return stream.write_all(b"221 bye\r\n").await;
        }
        if !is_counted {
            is_counted = true;
            sessions.fetch_add(1, Ordering::SeqCst);
        }
        if behaviour == VANISH {
            return Ok(());
        }
        if behaviour == DIE {
            return stream.write_all(b"250-half an ans").await;
        }
        let line = line.trim_end();
        stream
            .write_all(format!("250 {name} {line}{client}\r\n").as_bytes())
            .await?;
    }
}

/// Reads the header of the PROXY protocol; the client, or nothing for a probe.
async fn proxied(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut header = Vec::new();
    loop {
        header.push(stream.read_u8().await?);
        match smtp::proxy::parse(&header) {
            Ok(None) => {}
            Ok(Some(smtp::proxy::Header::Client { client, .. })) => {
                return Ok(format!(" {client}"));
            }
            Ok(Some(smtp::proxy::Header::Check)) => return Ok(String::new()),
            Err(error) => return Err(std::io::Error::other(error)),
        }
    }
}

/// An agent as HAProxy's agent-check asks it; dropped, it is gone.
pub struct Agent {
    pub address: SocketAddr,
    line: watch::Sender<&'static str>,
    task: JoinHandle<()>,
}

impl Agent {
    pub async fn saying(line: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, said) = watch::channel(line);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let line = *said.borrow();
                let _ = stream.write_all(line.as_bytes()).await;
            }
        });
        Self {
            address,
            line,
            task,
        }
    }

    /// Says something else from now on.
    pub fn says(&self, line: &'static str) {
        self.line.send_replace(line);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
