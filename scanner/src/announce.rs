//! Registration with balancers: who we are and how we stand, at every change and three times a lease; and HAProxy's agent-check.
//!
//! Each balancer is told for itself: they share nothing, and one that is gone delays no other.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
use service::control::{self, Request};
use service::tls::{Identity, Role};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::health::Health;
use crate::standing::State;

/// Largest answer to a registration, bytes.
const ANSWER_BYTES_MAX: usize = 65_536;

/// For one registration.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long HAProxy may take to read its line.
const AGENT_DEADLINE: Duration = Duration::from_secs(2);

/// What a balancer is told.
#[derive(Debug, Serialize)]
struct Registration<'a> {
    name: &'a str,
    address: SocketAddr,
    state: State,
    in_flight: i64,
    slots: usize,
}

/// What it answers.
#[derive(Debug, Deserialize)]
struct Lease {
    lease_seconds: f64,
}

/// This node, as it tells of itself.
#[derive(Clone)]
pub struct Announcer {
    /// Its name in the pool.
    pub name: String,
    /// Where it takes mail.
    pub address: SocketAddr,
    /// How it stands.
    pub state: watch::Receiver<State>,
    /// Messages it works on.
    pub in_flight: IntGauge,
    /// Its daemons.
    pub health: Health,
    /// What it shows balancers; plain without.
    pub identity: Option<Identity>,
    /// Until the lease is known, and after a failure.
    pub retry: Duration,
}

impl Announcer {
    /// Tells one balancer, until it has heard that we have left or cannot be told.
    pub async fn run(mut self, balancer: SocketAddr) {
        let mut was_heard = true;
        loop {
            let state = *self.state.borrow_and_update();
            let told = self.tell(balancer, state).await;
            if state == State::Leaving {
                return;
            }
            let pause = match told {
                Ok(lease) => {
                    if !was_heard {
                        tracing::info!(event = "registered", balancer = %balancer);
                    }
                    was_heard = true;
                    (lease / 3).max(Duration::from_millis(50))
                }
                Err(error) => {
                    if was_heard {
                        tracing::warn!(event = "unregistered", balancer = %balancer, error);
                    }
                    was_heard = false;
                    self.retry
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(pause, self.state.changed()).await {
                return;
            }
        }
    }

    async fn tell(&self, balancer: SocketAddr, state: State) -> Result<Duration, String> {
        let registration = Registration {
            name: &self.name,
            address: self.address,
            state,
            in_flight: self.in_flight.get(),
            slots: self.health.slots(),
        };
        let body = serde_json::to_value(registration).map_err(|error| error.to_string())?;
        let request = Request::post("/register", body);
        let identity = self.identity.as_ref();
        let role = Role::Balancer;
        let fetched = control::fetch(
            balancer,
            identity,
            role,
            &request,
            ANSWER_BYTES_MAX,
            DEADLINE,
        )
        .await;
        let (code, body) = fetched?;
        if code != 200 {
            return Err(format!("{code} {}", String::from_utf8_lossy(&body)));
        }
        let lease: Lease = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Duration::try_from_secs_f64(lease.lease_seconds).map_err(|error| error.to_string())
    }
}

/// One agent-check: the state's line, and close.
pub async fn agent(mut stream: TcpStream, state: State, percent: usize) {
    let answer = async {
        stream.write_all(state.agent(percent).as_bytes()).await?;
        stream.shutdown().await
    };
    // HAProxy that does not listen to the answer asks again.
    let _ = tokio::time::timeout(AGENT_DEADLINE, answer).await;
}
