//! One spamd or clamd: where it listens, and what its canary and its answers told of it. Asks nothing itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service::gate::{self, Gate, Keeper, State};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::endpoint::Endpoint;

/// What is known of a daemon.
pub struct Daemon {
    /// Where it listens.
    pub endpoint: Endpoint,
    keeper: Keeper,
    gate: Gate,
    seen: Mutex<Seen>,
    doubt: Notify,
}

struct Seen {
    answered: Option<Instant>,
    version: Arc<str>,
    bytes_max: Option<u64>,
}

impl Daemon {
    /// Not fit before its first canary has come back. `version` stands for it until it has told its own.
    pub fn new(endpoint: Endpoint, version: &str) -> Self {
        let (keeper, gate) = gate::gate(State::Shut("no canary has come back yet".into()));
        Self {
            endpoint,
            keeper,
            gate,
            seen: Mutex::new(Seen {
                answered: None,
                version: version.into(),
                bytes_max: None,
            }),
            doubt: Notify::new(),
        }
    }

    /// Whether it may be asked; the reason why not.
    pub fn fit(&self) -> Result<(), Arc<str>> {
        self.gate.try_pass().map(drop)
    }

    /// What its canary says; whether that is a change between fit and unfit.
    pub fn judged(&self, fit: Result<(), &str>) -> bool {
        self.keeper.set(match fit {
            Ok(()) => State::Open,
            Err(reason) => State::Shut(reason.into()),
        })
    }

    /// A real scan was answered.
    pub fn answered(&self) {
        self.seen().answered = Some(Instant::now());
    }

    /// Whether a real scan was answered within the last `time`.
    pub fn answered_within(&self, time: Duration) -> bool {
        let answered = self.seen().answered;
        answered.is_some_and(|at| at.elapsed() < time)
    }

    /// A real scan was not: whoever watches it looks at once.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Resolves when it is doubted.
    pub async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// The engine and its signatures, as it told.
    pub fn version(&self) -> Arc<str> {
        self.seen().version.clone()
    }

    /// It told its version.
    pub fn told(&self, version: &str) {
        let mut seen = self.seen();
        if *seen.version != *version {
            seen.version = version.into();
        }
    }

    /// The largest message that it looks at, bytes; `None`: not known (any more).
    pub fn bytes_max(&self) -> Option<u64> {
        self.seen().bytes_max
    }

    /// Its limit was found out, or is in doubt.
    pub fn measured(&self, bytes_max: Option<u64>) {
        self.seen().bytes_max = bytes_max;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_recent_for_a_while() {
        let daemon = Daemon::new(Endpoint::Unix("/run/clamd.ctl".into()), "ClamAV");
        let minute = Duration::from_secs(60);
        assert!(!daemon.answered_within(minute));
        daemon.answered();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(daemon.answered_within(minute));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!daemon.answered_within(minute));
    }
}
