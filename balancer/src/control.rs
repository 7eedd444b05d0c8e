//! Registration for scanners; commands for operators: `balancer nodes`, `balancer drain NAME`, `balancer undrain NAME`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use service::config::is_node_name;
use service::control::{Peer, Request};
use service::program::Invocation;
use service::tls::Role;

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
    /// Take a drain back.
    Undrain {
        /// The node's name.
        name: String,
    },
}

/// What a command does.
pub fn command(command: Command) -> Invocation {
    let (method, path, print): (_, _, fn(&Value) -> String) = match command {
        Command::Nodes => ("GET", "/nodes".to_owned(), print_nodes),
        Command::Drain { name } | Command::Undrain { name } if !is_node_name(&name) => {
            return Invocation::Here(Box::new(move || {
                Err(format!(
                    "{name:?} is no node's name; `balancer nodes` shows them"
                ))
            }));
        }
        Command::Drain { name } => ("POST", format!("/nodes/{name}/drain"), print_nodes),
        Command::Undrain { name } => ("POST", format!("/nodes/{name}/undrain"), print_nodes),
    };
    let request = Request {
        method,
        path,
        body: None,
    };
    Invocation::Control { request, print }
}

fn print_nodes(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
    if nodes.is_empty() {
        return "no nodes: scanners register by themselves, see [announce] in scanner.toml".into();
    }
    let mut lines = vec![format!(
        "{:<20} {:<9} {:<22} {:<10} {:>9}  {}",
        "NODE", "STATE", "ADDRESS", "ORIGIN", "IN FLIGHT", "WHY"
    )];
    for node in nodes {
        let text = |key: &str| node[key].as_str().unwrap_or("").to_owned();
        let line = format!(
            "{:<20} {:<9} {:<22} {:<10} {:>9}  {}",
            text("name"),
            text("state"),
            text("address"),
            text("origin"),
            node["in_flight"],
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
        .route("/nodes/{name}/drain", post(drain))
        .route("/nodes/{name}/undrain", post(undrain))
        .with_state(shared)
}

async fn nodes(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "nodes": shared.shown() }))
}

async fn drain(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> (StatusCode, Json<Value>) {
    operate(&shared, &name, true)
}

async fn undrain(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> (StatusCode, Json<Value>) {
    operate(&shared, &name, false)
}

fn operate(shared: &Shared, name: &str, drained: bool) -> (StatusCode, Json<Value>) {
    if !shared.drain(name, drained) {
        let error = format!("there is no node {name:?}; `balancer nodes` shows them");
        return (StatusCode::NOT_FOUND, Json(json!({ "error": error })));
    }
    tracing::warn!(event = "operator", node = name, drained);
    (StatusCode::OK, Json(json!({ "nodes": shared.shown() })))
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
