//! Passing messages on to the list hosts: LMTP, several hosts in order, a fresh connection a message.
//!
//! Owns the `list` gate: shut while no host can be reached, opened by a probe, so that scanning goes on at full speed and no
//! session waits for a host that is known to be gone. Owns no mail: what is not accepted here was never ours.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use mail::{Envelope, Reply};
use service::gate::{self, Gate, Keeper, State};
use service::tls::{Identity, Role};
use smtp::Protocol;
use smtp::client::{Client, Options, Phase, Timeouts, TlsPolicy, Trouble};
use smtp::xforward::Xforward;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, timeout_at};

use crate::config::Config;
use crate::metrics::Metrics;

/// One transaction to pass on.
pub struct Parcel {
    /// Who gets it.
    pub envelope: Envelope,
    /// What the list host may know of the client.
    pub xforward: Xforward,
    /// Our fields and the message.
    pub parts: Vec<Bytes>,
}

/// Why there are no replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No host was reached: nothing was accepted.
    Unreachable(String),
    /// The connection was cut after the message: it may have been accepted; its ident keeps a repetition from harm.
    Cut(String),
}

/// The list hosts.
pub struct Relay {
    identity: Option<Identity>,
    failed: Mutex<HashMap<SocketAddr, Instant>>,
    keeper: Keeper,
    gate: Gate,
    shut: Notify,
    metrics: Metrics,
}

impl Relay {
    /// With the identity shown to them; plain without.
    pub fn new(identity: Option<Identity>, metrics: Metrics) -> Self {
        let (keeper, gate) = gate::gate(State::Open);
        metrics.gates.with_label_values(&["list"]).set(1);
        Self {
            identity,
            failed: Mutex::default(),
            keeper,
            gate,
            shut: Notify::new(),
            metrics,
        }
    }

    /// The reason why the gate is shut, if it is.
    pub fn shut(&self) -> Option<String> {
        self.gate.try_pass().err().map(|reason| reason.to_string())
    }

    /// Sends a parcel to the first host that takes it; a reply a recipient.
    pub async fn send(
        &self,
        config: &Config,
        parcel: &Parcel,
        deadline: Instant,
    ) -> Result<Vec<Reply>, Failure> {
        let result = self.attempt(config, parcel, deadline).await;
        let outcome = match &result {
            Ok(_) => "answered",
            Err(Failure::Cut(_)) => "cut",
            Err(Failure::Unreachable(_)) => "unreachable",
        };
        self.metrics.relays.with_label_values(&[outcome]).inc();
        result
    }

    async fn attempt(
        &self,
        config: &Config,
        parcel: &Parcel,
        deadline: Instant,
    ) -> Result<Vec<Reply>, Failure> {
        if let Some(reason) = self.shut() {
            return Err(Failure::Unreachable(reason));
        }
        let hosts = {
            let failed = lock(&self.failed);
            order(
                &config.relay.hosts,
                &failed,
                config.relay.retry,
                Instant::now(),
            )
        };
        let (mut reasons, mut all_down) = (Vec::new(), true);
        for host in hosts {
            let left = deadline.saturating_duration_since(Instant::now());
            let options = self.options(config, left);
            let attempt = dialogue(host, &options, parcel);
            let trouble = match timeout_at(deadline, attempt).await {
                Ok(Ok(replies)) => {
                    lock(&self.failed).remove(&host);
                    return Ok(replies);
                }
                Ok(Err(trouble)) => trouble,
                // Where it stood is not known: it may have been accepted.
                Err(_) => return Err(Failure::Cut(format!("{host}: no answer in time"))),
            };
            let reason = format!("{host}: {trouble}");
            tracing::warn!(event = "relay", host = %host, phase = ?trouble.phase, cause = %trouble.cause);
            if trouble.phase == Phase::End {
                return Err(Failure::Cut(reason));
            }
            lock(&self.failed).insert(host, Instant::now());
            all_down &= is_down(&trouble);
            reasons.push(reason);
        }
        let reason = reasons.join("; ");
        if all_down {
            self.set(State::Shut(reason.as_str().into()));
            self.shut.notify_one();
        }
        Err(Failure::Unreachable(reason))
    }

    /// Probes while the gate is shut, for ever.
    pub async fn watch(&self, config: impl Fn() -> Config) {
        loop {
            self.shut.notified().await;
            while self.shut().is_some() {
                let config = config();
                tokio::time::sleep(config.relay.retry).await;
                for &host in &config.relay.hosts {
                    let options = self.options(&config, config.relay.budget);
                    if let Ok(client) = Client::connect(host, &options).await {
                        client.quit().await;
                        lock(&self.failed).remove(&host);
                        self.set(State::Open);
                        break;
                    }
                }
            }
        }
    }

    fn set(&self, state: State) {
        let (word, reason) = match &state {
            State::Shut(reason) => ("shut", reason.to_string()),
            _ => ("open", String::new()),
        };
        let gauge = self.metrics.gates.with_label_values(&["list"]);
        gauge.set(i64::from(word == "open"));
        if self.keeper.set(state) {
            tracing::warn!(event = "gate", gate = "list", state = word, reason);
        }
    }

    fn options(&self, config: &Config, left: Duration) -> Options {
        let connect = config.relay.connect.min(left);
        let tls = match &self.identity {
            Some(identity) => TlsPolicy::Required(identity.client(), Role::Listserv.server_name()),
            None => TlsPolicy::Never,
        };
        Options {
            protocol: Protocol::Lmtp,
            helo: config.hostname.as_str().into(),
            tls,
            timeouts: Timeouts {
                connect,
                greeting: connect,
                helo: connect,
                mail: left,
                rcpt: left,
                data_start: left,
                data_block: left,
                data_end: left,
                rest: Duration::from_secs(1),
            },
            source: None,
            chunking: true,
        }
    }
}

/// Whether the host itself is of no use, rather than this one transaction.
fn is_down(trouble: &Trouble) -> bool {
    matches!(
        trouble.phase,
        Phase::Connect | Phase::Greeting | Phase::Helo
    )
}

async fn dialogue(
    host: SocketAddr,
    options: &Options,
    parcel: &Parcel,
) -> Result<Vec<Reply>, Trouble> {
    let mut client = Client::connect(host, options).await?;
    client.xforward(&parcel.xforward).await?;
    let replies = client.send(&parcel.envelope, &parcel.parts).await?;
    // Its 221 is worth nobody's time.
    tokio::spawn(client.quit());
    Ok(replies)
}

/// The hosts in their order, those that failed less than `retry` ago last.
fn order(
    hosts: &[SocketAddr],
    failed: &HashMap<SocketAddr, Instant>,
    retry: Duration,
    now: Instant,
) -> Vec<SocketAddr> {
    let mut hosts = hosts.to_vec();
    hosts.sort_by_key(|host| {
        let at = failed.get(host);
        at.is_some_and(|at| now.saturating_duration_since(*at) < retry)
    });
    hosts
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_that_failed_is_tried_last_for_a_while() {
        let [a, b, c] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let retry = Duration::from_secs(2);
        let failed = HashMap::from([(a, Instant::now())]);
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(order(&[a, b, c], &HashMap::new(), retry, at(0)), [a, b, c]);
        assert_eq!(order(&[a, b, c], &failed, retry, at(1)), [b, c, a]);
        assert_eq!(order(&[a, b, c], &failed, retry, at(2)), [a, b, c]);
    }
}
