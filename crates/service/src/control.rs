//! The control socket (HTTP on a Unix socket, all commands), the HTTP listener (/metrics /healthz /readyz /status, loopback by
//! default), the client that commands use, and HTTP over mutual TLS between hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tls::{Identity, Role};

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The Unix socket for commands; mode 0600.
    pub socket: PathBuf,
    /// /metrics, /healthz, /readyz, /status; loopback unless a firewall guards it.
    pub listen: SocketAddr,
}

/// A command's request to a daemon.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, `DELETE`.
    pub method: &'static str,
    /// `/queue/tally`, with its query.
    pub path: String,
    /// A JSON body.
    pub body: Option<serde_json::Value>,
}

/// What `/readyz` and `/status` say: ready when every named condition is met.
#[derive(Clone, Debug, Default)]
pub struct Readiness(
    Arc<std::sync::Mutex<std::collections::BTreeMap<&'static str, Option<String>>>>,
);

impl Readiness {
    /// Sets a condition: `Ok` is met, `Err` says why not. Logged when it changes.
    pub fn set(&self, condition: &'static str, state: Result<(), String>) {
        let _ = (&self.0, condition, state);
        todo!()
    }

    /// The first reason why not, if any.
    pub fn reason(&self) -> Option<String> {
        todo!()
    }
}

/// Where a program adds its routes and its part of `/status`.
#[derive(Clone, Default)]
pub struct Control {
    _routes: Arc<std::sync::Mutex<Option<axum::Router>>>,
}

impl Control {
    /// Serves the program's own routes on the control socket (not on TCP). Call once.
    pub fn routes(&self, router: axum::Router) {
        let _ = router;
        todo!()
    }

    /// What `/status` shows of this program, asked each time.
    pub fn status(&self, status: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        let _ = status;
        todo!()
    }
}

/// The peer of a request on [`serve`], as an axum extension (`Extension<Peer>`).
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The names in its verified certificate; empty on plain loopback.
    pub names: Arc<[String]>,
}

/// Serves a router to other hosts: over mutual TLS for peers whose certificate names one of `roles`; plain when `identity` is
/// `None`, which is refused unless `listen` is loopback. Returns the bound address and runs until shutdown.
pub async fn serve(
    listen: SocketAddr,
    identity: Option<Identity>,
    roles: &'static [Role],
    router: axum::Router,
    shutdown: crate::shutdown::Shutdown,
) -> Result<SocketAddr, crate::program::StartError> {
    let _ = (listen, identity, roles, router, shutdown);
    todo!()
}

/// A request to another host's [`serve`]: status code and body, at most `limit_bytes`. The peer must show a certificate with `role`.
pub async fn fetch(
    address: SocketAddr,
    identity: Option<&Identity>,
    role: Role,
    request: &Request,
    limit_bytes: usize,
    deadline: std::time::Duration,
) -> Result<(u16, Vec<u8>), String> {
    let _ = (address, identity, role, request, limit_bytes, deadline);
    todo!()
}
