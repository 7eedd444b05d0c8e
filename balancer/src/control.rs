//! Registration for scanners; commands for operators: `balancer nodes`, `drain NAME`, `maint NAME`, `undrain NAME`, `weight NAME PERCENT`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use service::config::is_node_name;
use service::control::{Peer, Request};
use service::program::Invocation;
use service::tls::Role;

use crate::node::Mode;
use crate::pool::{Refusal, Registration};
use crate::shared::Shared;

/// The balancer's commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show all nodes and how they stand.
    Nodes,
    /// Send a node no new connections, also after it has registered again.
    Drain {
        /// The node's name.
        name: String,
    },
    /// Take a node out for work on it: it gets nothing and is not probed.
    Maint {
        /// The node's name.
        name: String,
    },
    /// Take a drain or a maintenance back.
    Undrain {
        /// The node's name.
        name: String,
    },
    /// Use so much of a node's capacity; 100 is all of it, 0 none.
    Weight {
        /// The node's name.
        name: String,
        /// Percent.
        #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(WEIGHT_MAX)))]
        percent: u32,
    },
}

/// Largest weight, percent: a node may be given twice what it says it can do.
const WEIGHT_MAX: u32 = 200;

/// What a command does.
pub fn command(command: Command) -> Invocation {
    let (name, word) = match command {
        Command::Nodes => {
            let path = "/nodes".into();
            let (method, body) = ("GET", None);
            return control(Request { method, path, body });
        }
        Command::Drain { name } => (name, json!({ "mode": Mode::Drain })),
        Command::Maint { name } => (name, json!({ "mode": Mode::Maint })),
        Command::Undrain { name } => (name, json!({ "mode": Mode::Ready })),
        Command::Weight { name, percent } => (name, json!({ "weight": percent })),
    };
    if !is_node_name(&name) {
        return Invocation::Here(Box::new(move || {
            Err(format!(
                "{name:?} is no node's name; `balancer nodes` shows them"
            ))
        }));
    }
    control(Request::post(format!("/nodes/{name}"), word))
}

fn control(request: Request) -> Invocation {
    let print = print_nodes;
    Invocation::Control { request, print }
}

fn print_nodes(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    if nodes.is_empty() {
        return "no nodes: scanners register by themselves, see [announce] in scanner.toml".into();
    }
    let mut lines = vec![format!(
        "{:<20} {:<9} {:<22} {:<10} {:>9} {:>5} {:>6} {:>8}  {}",
        "NODE", "STATE", "ADDRESS", "ORIGIN", "IN FLIGHT", "SLOTS", "WEIGHT", "SECONDS", "WHY"
    )];
    for node in nodes {
        let text = |key: &str| node[key].as_str().unwrap_or("").to_owned();
        let slots = match node["slots"].as_u64() {
            Some(0) | None => "-".to_owned(),
            Some(slots) => slots.to_string(),
        };
        let seconds = node["seconds"].as_f64();
        let seconds = seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.3}"));
        let line = format!(
            "{:<20} {:<9} {:<22} {:<10} {:>9} {:>5} {:>5}% {:>8}  {}",
            text("name"),
            text("state"),
            text("address"),
            text("origin"),
            node["in_flight"],
            slots,
            node["weight"],
            seconds,
            text("reason")
        );
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// The routes of the control socket.
pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/nodes", get(nodes))
        .route("/nodes/{name}", post(say))
        .with_state(shared)
}

async fn nodes(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "nodes": shared.shown() }))
}

/// What of an operator's word is changed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    mode: Option<Mode>,
    weight: Option<u32>,
}

async fn say(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Json(change): Json<Change>,
) -> (StatusCode, Json<Value>) {
    let error = |code, error: String| (code, Json(json!({ "error": error })));
    if change.weight.is_some_and(|weight| weight > WEIGHT_MAX) {
        let range = format!("a weight is 0 to {WEIGHT_MAX} percent");
        return error(StatusCode::BAD_REQUEST, range);
    }
    let said = shared.say(&name, |word| {
        word.mode = change.mode.unwrap_or(word.mode);
        word.weight = change.weight.unwrap_or(word.weight);
    });
    let Some(kept) = said else {
        let none = format!("there is no node {name:?}; `balancer nodes` shows them");
        return error(StatusCode::NOT_FOUND, none);
    };
    tracing::warn!(event = "operator", node = name, mode = ?change.mode, weight = change.weight);
    match kept {
        Ok(()) => (StatusCode::OK, Json(json!({ "nodes": shared.shown() }))),
        Err(why) => {
            tracing::error!(event = "words", problem = why);
            let problem = format!("it holds now, but not after a restart: {why}");
            error(StatusCode::INSUFFICIENT_STORAGE, problem)
        }
    }
}

/// The routes of the registration listener.
pub fn registration(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/register", post(register))
        .with_state(shared)
}

/// Whether a peer with a certificate of these names may register a node of that name; without any it is on plain loopback. A
/// role's name is in many certificates and no node's own.
fn may_be_called(name: &str, names: &[String]) -> bool {
    let is_role = Role::ALL.iter().any(|role| role.name() == name);
    names.is_empty() || !is_role && names.iter().any(|own| own == name)
}

async fn register(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Json(registration): Json<Registration>,
) -> (StatusCode, Json<Value>) {
    let outcomes = &shared.metrics.registrations;
    let registered = match may_be_called(&registration.name, &peer.names) {
        true => shared.register(&registration),
        false => Err(Refusal::Foreign),
    };
    match registered {
        Ok(()) => {
            outcomes.with_label_values(&["taken"]).inc();
            let lease_seconds = shared.config().registration.lease.as_secs_f64();
            (
                StatusCode::OK,
                Json(json!({ "lease_seconds": lease_seconds })),
            )
        }
        Err(refusal) => {
            outcomes.with_label_values(&["refused"]).inc();
            tracing::warn!(event = "registration", node = registration.name, refusal = %refusal);
            let code = match refusal {
                Refusal::BadName => StatusCode::BAD_REQUEST,
                Refusal::Foreign => StatusCode::FORBIDDEN,
                Refusal::Static | Refusal::Held(_) => StatusCode::CONFLICT,
                Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
            };
            (code, Json(json!({ "error": refusal.to_string() })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_goes_by_its_certificates_name() {
        let shown = ["scan-1".to_owned(), "scanner".to_owned()];
        for (name, names, expected) in [
            ("scan-1", &shown[..], true),
            ("scan-2", &shown[..], false),
            ("scanner", &shown[..], false),
            ("anything", &[], true),
        ] {
            assert_eq!(may_be_called(name, names), expected, "{name}");
        }
    }
}
