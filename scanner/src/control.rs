//! Commands: `scanner verdict FILE`, `scanner drain`, `scanner undrain`; and this node's part of `/status`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use mail::trace::Custody;
use serde::Deserialize;
use serde_json::{Value, json};
use service::control::Request;
use service::program::Invocation;

use crate::decide;
use crate::headers;
use crate::policy::Policy;
use crate::pool::Pool;
use crate::receive::Reception;
use crate::scan::{Item, Known};
use crate::standing::Standing;

/// The scanner's commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Scan a message file as if it had arrived, and show the verdict; nothing is passed on.
    Verdict {
        /// The message; `-` reads standard input.
        file: PathBuf,
    },
    /// Ask balancers to send no more mail; the node goes on working and takes what still comes.
    Drain,
    /// Take a drain back.
    Undrain,
}

/// What a command does.
pub fn command(command: Command) -> Invocation {
    match command {
        Command::Verdict { file } => match read(&file) {
            Ok(message) => {
                let body = json!({ "message": BASE64.encode(message) });
                post_request("/verdict", Some(body), print_verdict)
            }
            Err(error) => Invocation::Here(Box::new(move || {
                Err(format!("cannot read {}: {error}", file.display()))
            })),
        },
        Command::Drain => post_request("/drain", None, print_state),
        Command::Undrain => post_request("/undrain", None, print_state),
    }
}

fn post_request(path: &str, body: Option<Value>, print: fn(&Value) -> String) -> Invocation {
    Invocation::Control {
        request: Request::post(path, body),
        print,
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut message = Vec::new();
        std::io::stdin().read_to_end(&mut message)?;
        return Ok(message);
    }
    std::fs::read(file)
}

fn print_state(answer: &Value) -> String {
    format!("this node is {}", answer["state"].as_str().unwrap_or("?"))
}

fn print_verdict(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or("").to_owned();
    let mut out = format!("{} ({})", text("class"), text("action"));
    for (label, key) in [
        ("found", "found"),
        ("score", "score"),
        ("tests", "tests"),
        ("reason", "reason"),
    ] {
        if !text(key).is_empty() {
            out += &format!("\n{label}: {}", text(key));
        }
    }
    out + &format!(
        "\nrules: {}\nsignatures: {}",
        text("rules"),
        text("signatures")
    )
}

/// What the routes need.
#[derive(Clone)]
struct Rooms {
    reception: Arc<Reception>,
    standing: Arc<Standing>,
}

/// The routes of the control socket.
pub fn routes(reception: Arc<Reception>, standing: Arc<Standing>) -> Router {
    // Base64 and JSON around the largest message that LMTP would take.
    let message_bytes_max = reception.config.borrow().receive.message_bytes_max;
    let limit = usize::try_from(message_bytes_max / 2 * 3 + 4096).unwrap_or(usize::MAX);
    Router::new()
        .route("/verdict", post(verdict))
        .route(
            "/drain",
            post(|State(rooms): State<Rooms>| async move { drain(&rooms, true) }),
        )
        .route(
            "/undrain",
            post(|State(rooms): State<Rooms>| async move { drain(&rooms, false) }),
        )
        .layer(DefaultBodyLimit::max(limit))
        .with_state(Rooms {
            reception,
            standing,
        })
}

fn drain(rooms: &Rooms, drained: bool) -> Json<Value> {
    rooms.standing.drain(drained);
    let state = *rooms.standing.watch().borrow();
    tracing::warn!(event = "operator", drained);
    Json(json!({ "state": state }))
}

#[derive(Deserialize)]
struct Submission {
    message: String,
}

async fn verdict(
    State(rooms): State<Rooms>,
    Json(submission): Json<Submission>,
) -> (StatusCode, Json<Value>) {
    let error = |code, text: String| (code, Json(json!({ "error": text })));
    let message = match BASE64.decode(submission.message) {
        Ok(message) => with_crlf(&message),
        Err(problem) => return error(StatusCode::BAD_REQUEST, format!("not base64: {problem}")),
    };
    let reception = &rooms.reception;
    let config = reception.config.borrow().clone();
    let message =
        headers::without_strangers(&headers::without_trace(&message), config.authserv_id());
    let item = Item {
        message: &message,
        preamble: "",
        custody: Custody::Live,
        known: Known::default(),
        utf8: false,
        // Whoever shows a file is not its sender.
        sender: None,
    };
    let scanned = reception.rooms.scan.find(&config, item).await;
    let policy = Policy {
        levels: config.levels.levels(),
        actions: config.classes,
        no_kill_level: false,
        banned: &config.banned,
    };
    let decision = match decide::decide(&scanned.findings, &[policy], Custody::Live) {
        Ok(decision) => decision,
        Err(trouble) => return error(StatusCode::SERVICE_UNAVAILABLE, trouble.to_string()),
    };
    let outcome = &decision.outcomes[0];
    let found: Vec<&str> = outcome.found.iter().map(|class| class.as_str()).collect();
    let answer = json!({
        "class": outcome.class.as_str(),
        "found": found.join(","),
        "action": outcome.action.as_str(),
        "score": decision.score_hundredths.map(headers::points),
        "tests": decision.tests.join(","),
        "reason": outcome.reason,
        "rules": config.scan.rules_version,
        "signatures": *scanned.signatures,
    });
    (StatusCode::OK, Json(answer))
}

/// Files on Unix hosts often have lone LFs; what arrives by LMTP never does.
fn with_crlf(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32);
    let mut last = 0;
    for &byte in message {
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        last = byte;
    }
    out.into()
}

/// This node's part of `/status`.
pub fn status(reception: &Reception, standing: &Standing) -> Value {
    let config = reception.config.borrow();
    let rooms = &reception.rooms;
    let state = *standing.watch().borrow();
    let health = &rooms.health;
    let daemons = [&health.spamd, &health.clamd].map(|pool| daemons(pool));
    let daemons = daemons.concat();
    json!({
        "name": config.announce.name,
        "state": state,
        "in_flight": rooms.metrics.in_flight.get(),
        "gates": {
            "scan": rooms.health.fit().err().unwrap_or_else(|| "open".into()),
            "list": rooms.relay.shut().unwrap_or_else(|| "open".into()),
        },
        "rules": config.scan.rules_version,
        "daemons": daemons,
    })
}

/// Each daemon of a kind, for `/status`.
fn daemons(pool: &Pool) -> Vec<Value> {
    let running = pool.running();
    let daemons = pool.daemons.iter().zip(running);
    let told = daemons.map(|(daemon, running)| {
        json!({
            "daemon": pool.kind.as_str(),
            "address": daemon.endpoint,
            "state": daemon.fit().err().as_deref().unwrap_or("in service"),
            "scans": running,
            "version": *daemon.version(),
            "bytes_max": daemon.bytes_max(),
        })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_line_feeds_become_crlf() {
        for (from, to) in [
            ("a\nb\r\nc\n", "a\r\nb\r\nc\r\n"),
            ("\n\n", "\r\n\r\n"),
            ("", ""),
        ] {
            assert_eq!(with_crlf(from.as_bytes()), to.as_bytes());
        }
    }
}
