//! The control socket (HTTP on a Unix socket, all commands), the HTTP listener (/metrics /healthz /readyz /status, loopback by
//! default), the client that commands use, and HTTP over mutual TLS between hosts.
//! What a program's own routes do is the program's affair.

mod client;
mod http;
mod peers;
mod server;
mod socket;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::listener::inherited::Inherited;
use crate::listener::{Counts, Listener};
use crate::tls::Identity;
use crate::trouble::StartError;

pub use client::{ask, fetch};
pub use peers::{Peer, serve};
pub(crate) use server::Server;

/// `[control]`. What the file leaves out is the program's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The Unix socket for commands; mode 0600.
    pub socket: PathBuf,
    /// /metrics, /healthz, /readyz, /status; loopback unless a firewall guards it.
    pub listen: SocketAddr,
}

/// Who gives a command over the control socket, as an axum extension (`Extension<Caller>`): told by the kernel, for audits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user; none when the kernel does not tell.
    pub uid: Option<u32>,
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.uid {
            Some(uid) => write!(f, "uid {uid}"),
            None => f.write_str("unknown"),
        }
    }
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

impl Request {
    /// Asks for something; `path` with its query.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            body: None,
        }
    }

    /// Has something done, or asks with words that a query does not hold.
    pub fn post(path: impl Into<String>, body: impl Into<Option<serde_json::Value>>) -> Self {
        Self {
            method: "POST",
            path: path.into(),
            body: body.into(),
        }
    }
}

/// What `/readyz` and `/status` say: ready when every named condition is met.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    /// Sets a condition: `Ok` is met, `Err` says why not. Logged when it changes.
    pub fn set(&self, condition: &'static str, state: Result<(), String>) {
        let reason = state.err();
        let before = lock(&self.0).insert(condition, reason.clone());
        match (before, reason) {
            // Met from the start, or as before: nothing to tell.
            (None | Some(None), None) => {}
            (Some(Some(before)), Some(reason)) if before == reason => {}
            (_, Some(reason)) => tracing::warn!(event = "not_ready", condition, %reason),
            (_, None) => tracing::info!(event = "ready", condition),
        }
    }

    /// The first reason why not, if any.
    pub fn reason(&self) -> Option<String> {
        let reasons = self.reasons();
        let (condition, reason) = reasons.into_iter().next()?;
        Some(format!("{condition}: {reason}"))
    }

    /// Every condition that is not met, with its reason.
    pub fn reasons(&self) -> BTreeMap<&'static str, String> {
        let conditions = lock(&self.0);
        let unmet = conditions.iter();
        unmet
            .filter_map(|(condition, reason)| Some((*condition, reason.clone()?)))
            .collect()
    }
}

/// Where a program adds its routes, its listeners, its certificates and its part of `/status`.
#[derive(Clone, Default)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Met by the first listener or routes published; `None` in tests.
    started: Option<(Readiness, &'static str)>,
    routes: Mutex<Option<axum::Router>>,
    status: Mutex<Option<StatusPart>>,
    listeners: Mutex<BTreeMap<&'static str, Published>>,
    identities: Mutex<BTreeMap<&'static str, Identity>>,
    reloads: Mutex<Vec<(&'static str, ReloadStep)>>,
    inherited: Mutex<Inherited>,
}

type StatusPart = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;
type ReloadStep = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A listener as `/status` and `/metrics` show it: an address, or a [`Listener`] with its counts.
pub struct Published {
    address: SocketAddr,
    counts: Option<Arc<Counts>>,
}

impl From<SocketAddr> for Published {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            counts: None,
        }
    }
}

impl From<&Listener> for Published {
    fn from(listener: &Listener) -> Self {
        Self {
            address: listener.address(),
            counts: Some(listener.counts()),
        }
    }
}

impl Control {
    /// One that holds `condition` back until the program has published something to serve.
    pub(crate) fn new(readiness: Readiness, condition: &'static str, inherited: Inherited) -> Self {
        let reason = "no listener or routes published yet";
        readiness.set(condition, Err(reason.into()));
        let inner = Inner {
            started: Some((readiness, condition)),
            inherited: Mutex::new(inherited),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn started(&self) {
        if let Some((readiness, condition)) = &self.inner.started {
            readiness.set(condition, Ok(()));
        }
    }

    /// Serves the program's own routes on the control socket (not on TCP). Call once: the last call counts.
    /// `/status`, `/metrics`, `/healthz` and `/readyz` are taken.
    pub fn routes(&self, router: axum::Router) {
        *lock(&self.inner.routes) = Some(router);
        self.started();
    }

    /// What `/status` shows of this program under `program`, asked each time.
    pub fn status(&self, status: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        *lock(&self.inner.status) = Some(Arc::new(status));
    }

    /// Shows a bound listener in `/status` under `listeners`: `control.listener("mail", &listener)` with its sessions
    /// in `/metrics`, or an address alone. `control` is taken.
    pub fn listener(&self, name: &'static str, listener: impl Into<Published>) {
        self.publish(name, listener.into());
        self.started();
    }

    /// Binds a listener, or takes the socket for that address that systemd holds and passed on; and shows it as
    /// [`listener`](Self::listener) does.
    pub async fn bind(
        &self,
        name: &'static str,
        address: SocketAddr,
    ) -> Result<Listener, StartError> {
        let passed = lock(&self.inner.inherited).take(address);
        let listener = match passed {
            Some(socket) => {
                tracing::info!(event = "inherited", listener = name, %address);
                Listener::inherited(socket)?
            }
            None => Listener::bind(address).await?,
        };
        self.listener(name, &listener);
        Ok(listener)
    }

    /// Tells of sockets that were passed on and that no listener is configured for: who connects there waits for ever.
    pub fn all_bound(&self) {
        for address in lock(&self.inner.inherited).left() {
            tracing::warn!(
                event = "not_inherited",
                %address,
                remedy = "configure a listener there, or take it out of the socket unit",
                "a listening socket was passed on and nobody accepts from it"
            );
        }
    }

    fn publish(&self, name: &'static str, listener: Published) {
        tracing::info!(event = "listening", listener = name, address = %listener.address);
        lock(&self.inner.listeners).insert(name, listener);
    }

    /// Reloads an identity on SIGHUP, and shows when it expires in `/status` and `/metrics`. `name` is its section: `inside`.
    pub fn identity(&self, name: &'static str, identity: &Identity) {
        lock(&self.inner.identities).insert(name, identity.clone());
        let identity = identity.clone();
        self.on_reload(name, move || identity.reload());
    }

    /// Does something on each SIGHUP, after a good configuration has come into force; on an error what was in force
    /// must stay, and the reload counts as failed. `name` says what is reloaded.
    pub fn on_reload(
        &self,
        name: &'static str,
        reload: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        lock(&self.inner.reloads).push((name, Arc::new(reload)));
    }

    /// Runs every step of a reload; the names and errors of those that failed.
    pub(crate) fn reload(&self) -> Vec<(&'static str, String)> {
        let steps = lock(&self.inner.reloads).clone();
        let failed = steps.into_iter();
        failed
            .filter_map(|(name, step)| Some((name, step().err()?)))
            .collect()
    }

    fn program_routes(&self) -> Option<axum::Router> {
        lock(&self.inner.routes).clone()
    }

    fn program_status(&self) -> serde_json::Value {
        // Asked outside the lock: it is the program's code.
        let status = lock(&self.inner.status).clone();
        status.map_or(serde_json::Value::Null, |status| status())
    }

    fn listeners(&self) -> BTreeMap<&'static str, SocketAddr> {
        let listeners = lock(&self.inner.listeners);
        listeners
            .iter()
            .map(|(name, l)| (*name, l.address))
            .collect()
    }

    pub(crate) fn listener_counts(&self) -> Vec<(&'static str, Arc<Counts>)> {
        let listeners = lock(&self.inner.listeners);
        let counted = listeners.iter();
        counted
            .filter_map(|(name, listener)| Some((*name, listener.counts.clone()?)))
            .collect()
    }

    /// Seconds until each identity expires.
    pub(crate) fn certificates(&self) -> BTreeMap<&'static str, i64> {
        let identities = lock(&self.inner.identities);
        identities
            .iter()
            .map(|(name, i)| (*name, i.seconds_left()))
            .collect()
    }
}

/// None of these locks is held over code that could panic half-way: a poisoned one is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
