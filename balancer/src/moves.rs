//! Who said something last on a connection, and when: what its own idle limit goes by, and what tells of a node that hangs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What moved last.
#[derive(Clone, Copy, Debug)]
struct Last {
    at: Instant,
    by_client: bool,
}

/// The last move of one connection; shared between who moves and who picks.
#[derive(Clone, Debug)]
pub struct Moves(Arc<watch::Sender<Last>>);

impl PartialEq for Moves {
    /// Of the same connection.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Moves {
    /// Of a connection that begins; the node has greeted.
    pub fn new(now: Instant) -> Self {
        let (at, by_client) = (now, false);
        Self(Arc::new(watch::Sender::new(Last { at, by_client })))
    }

    /// Something has moved.
    pub fn moved(&self, by_client: bool, at: Instant) {
        self.0.send_replace(Last { at, by_client });
    }

    /// How long the client has waited for an answer; `None` when it does not.
    pub fn waits(&self, now: Instant) -> Option<Duration> {
        let last = *self.0.borrow();
        last.by_client
            .then(|| now.saturating_duration_since(last.at))
    }

    /// Resolves when nothing has moved for `idle`.
    pub async fn silence(&self, idle: Duration) {
        loop {
            let until = self.0.borrow().at + idle;
            sleep_until(until).await;
            if self.0.borrow().at + idle <= Instant::now() {
                return;
            }
        }
    }
}
