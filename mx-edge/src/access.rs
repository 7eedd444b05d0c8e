//! `mx-edge access`: the lines of the access list that operators add and end at run time.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use clap::Subcommand;
use mail::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use service::config::duration;
use service::control::{Caller, Request};

use crate::admission::access::Word;
use crate::admission::added::Line;
use crate::network::Network;
use crate::routes::{Answer, Controls, failed};

/// `mx-edge access ...`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Adds a line, before those of the files and in place of one on the same network; it outlasts restarts
    Add {
        /// An address or a network like 192.0.2.0/24
        network: Network,
        /// permit, reject (at RCPT), drop (before the greeting), warn (as reject, told and not done) or dunno
        #[arg(long, default_value = "reject")]
        word: String,
        /// Its end: a time like 2026-12-01T00:00:00Z, or how long from now, like 2h or 3d
        #[arg(long)]
        until: String,
        /// Why; the client is told
        #[arg(long)]
        note: String,
    },
    /// Those in force, the newest first
    List,
    /// Ends the line on exactly this network
    Remove {
        /// As it was added
        network: Network,
    },
}

/// The request that a command is, and how its answer looks.
pub fn request(command: Command) -> (Request, fn(&Value) -> String) {
    match command {
        Command::Add {
            network,
            word,
            until,
            note,
        } => {
            let line = json!({ "network": network, "word": word, "until": until, "note": note });
            (Request::post("/access/add", line), print)
        }
        Command::List => (Request::get("/access"), print_list),
        Command::Remove { network } => (
            Request::post("/access/remove", json!({ "network": network })),
            print,
        ),
    }
}

/// The routes.
pub fn router(controls: Controls) -> Router {
    Router::new()
        .route("/access", get(list))
        .route("/access/add", post(add))
        .route("/access/remove", post(remove))
        .with_state(controls)
}

#[derive(Deserialize)]
struct Asked {
    network: Network,
    word: String,
    until: String,
    note: String,
}

async fn add(
    State(controls): State<Controls>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Asked>,
) -> Answer {
    let wrong = |why: String| failed(StatusCode::BAD_REQUEST, why);
    let now = Timestamp::now();
    let line = Line {
        network: asked.network,
        word: asked.word.parse::<Word>().map_err(wrong)?,
        until: end(&asked.until, now).map_err(wrong)?,
        note: asked.note,
        by: caller.to_string(),
        added: now,
    };
    let shown = json!(line);
    let work = move || {
        let door = &controls.edge.rules().door;
        controls.edge.admission.added.add(line, door)
    };
    // It writes the file.
    let added = tokio::task::spawn_blocking(work).await;
    let added = added.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    added.map_err(wrong)?;
    Ok(Json(shown))
}

async fn list(State(controls): State<Controls>) -> Answer {
    Ok(Json(json!(
        controls.edge.admission.added.list(Timestamp::now())
    )))
}

#[derive(Deserialize)]
struct Which {
    network: Network,
}

async fn remove(
    State(controls): State<Controls>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Which>,
) -> Answer {
    let by = caller.to_string();
    let added = std::sync::Arc::clone(&controls.edge.admission.added);
    let removed = tokio::task::spawn_blocking(move || added.remove(asked.network, &by)).await;
    let removed = removed.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    match removed.map_err(|why| failed(StatusCode::INTERNAL_SERVER_ERROR, why))? {
        Some(line) => Ok(Json(json!(line))),
        None => {
            let network = String::from(asked.network);
            let why = format!(
                "no line was added on {network}; `mx-edge access list` shows them, and those of files end in the files"
            );
            Err(failed(StatusCode::NOT_FOUND, why))
        }
    }
}

/// When a line ends: a time, or so long from now.
fn end(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    let lasts = duration::parse(text);
    let lasts = lasts.map_err(|_| {
        format!("--until {text:?} is neither a time like 2026-12-01T00:00:00Z nor how long, like 2h or 3d")
    })?;
    Ok(now.after(lasts))
}

fn print(line: &Value) -> String {
    let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    format!(
        "{} {} until={} {} (added {} by {})",
        word("network"),
        word("word"),
        word("until"),
        word("note"),
        word("added"),
        word("by")
    )
}

fn print_list(lines: &Value) -> String {
    let lines: Vec<String> = lines.as_array().into_iter().flatten().map(print).collect();
    match lines.is_empty() {
        true => "no line was added; those of access.files stand".into(),
        false => lines.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_how_long() {
        let now = Timestamp(1_000_000);
        assert_eq!(end("2h", now), Ok(Timestamp(1_000_000 + 7_200_000)));
        let time = end("2026-12-01T00:00:00Z", now).unwrap();
        assert_eq!(time.rfc3339().get(..10), Some("2026-12-01"));
        assert!(end("tomorrow", now).unwrap_err().contains("\"tomorrow\""));
    }
}
