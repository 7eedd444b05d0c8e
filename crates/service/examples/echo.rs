//! The smallest daemon of the house: greets each session and echoes its lines. The tests of this crate start it as a process.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::config::Changes;
use service::control::{Request, Settings};
use service::listener::Listener;
use service::log::LogSettings;
use service::program::{Complaint, Configuration, Daemon, Invocation, Program, StartError};
use service::tls::{Files, Identity};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

fn main() -> ExitCode {
    service::program::main::<Echo>()
}

struct Echo;

#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    control: Settings,
    log: LogSettings,
    listen: SocketAddr,
    greeting: String,
    sessions_max: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<Files>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            control: Settings {
                socket: "/run/mailflow/echo/control.sock".into(),
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            },
            log: LogSettings::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            greeting: "hello".into(),
            sessions_max: 10,
            inside: None,
        }
    }
}

impl Configuration for Config {
    const CHANGES: Changes = Changes {
        at_reload: &["greeting"],
        at_start: &["listen", "sessions_max", "inside"],
    };

    fn check(&self) -> Vec<Complaint> {
        let empty = self.greeting.is_empty().then(|| Complaint {
            key: "greeting".into(),
            what: "empty".into(),
            why: "a client waits for it".into(),
            remedy: "give some text".into(),
        });
        let none = (self.sessions_max == 0).then(|| Complaint {
            key: "sessions_max".into(),
            what: "0".into(),
            why: "nobody would be served".into(),
            remedy: "give 1 or more".into(),
        });
        empty.into_iter().chain(none).collect()
    }

    fn control(&self) -> &Settings {
        &self.control
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the greeting of the running program
    Greeting,
    /// Always refused by the running program
    Refuse,
    /// Say something here and now
    Say {
        /// What to say
        words: String,
    },
}

impl Program for Echo {
    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "Greets and echoes";
    type Config = Config;
    type Command = Command;

    fn command(command: Command, _config: &Config) -> Invocation {
        let request = |method, path: &str| Request {
            method,
            path: path.into(),
            body: None,
        };
        match command {
            Command::Greeting => Invocation::Control {
                request: request("GET", "/greeting"),
                print: |value| value["greeting"].to_string(),
            },
            Command::Refuse => Invocation::Control {
                request: request("POST", "/refuse"),
                print: |value| value.to_string(),
            },
            Command::Say { words } => Invocation::Here(Box::new(move || Ok(words))),
        }
    }

    async fn run(config: Config, daemon: Daemon<Config>) -> Result<(), StartError> {
        if let Some(files) = &config.inside {
            let identity = Identity::load(files).map_err(|why| StartError {
                what: "cannot use [inside]".into(),
                why,
                remedy: "make certificates with `ca node`".into(),
            })?;
            daemon.control.identity("inside", &identity);
        }
        daemon.control.routes(routes(daemon.config.clone()));
        let listener = Listener::bind(config.listen).await?;
        daemon.control.listener("echo", &listener);
        let sessions_max = Arc::new(Semaphore::new(config.sessions_max));
        let greetings = daemon.config.clone();
        let serve = move |stream, _peer| session(stream, greetings.borrow().greeting.clone());
        listener
            .run("session", sessions_max, daemon.shutdown.clone(), serve)
            .await;
        daemon.shutdown.drained().await;
        Ok(())
    }
}

fn routes(config: watch::Receiver<Config>) -> axum::Router {
    let refused = (
        axum::http::StatusCode::CONFLICT,
        axum::Json(json!({ "error": "refused, as told" })),
    );
    axum::Router::new()
        .route(
            "/greeting",
            get(async move || axum::Json(json!({ "greeting": config.borrow().greeting }))),
        )
        .route("/refuse", post(async move || refused.clone()))
}

async fn session(mut stream: TcpStream, greeting: String) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let mut answer = greeting;
    loop {
        if write
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
        match lines.next_line().await {
            Ok(Some(line)) => answer = line,
            _ => return,
        }
    }
}
