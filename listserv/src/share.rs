//! One spool for two who claim from it: expansion and delivery. A spool tells its news once, to whoever claims next; here each
//! user has its own view of what is new, so that neither waits for what the other was told of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mail::MessageId;
use spool::{Accepted, Error, Guarantees, Lease, NewMessage, Settlement, Spool, Tally, Wanted};
use tokio::sync::watch;

/// How late a batch may be claimed that becomes due by time alone. A claim that finds nothing costs microseconds.
const TICK: Duration = Duration::from_secs(1);

/// One user's view of the spool.
pub struct Share {
    spool: Arc<dyn Spool>,
    /// Counts what may make a claim find more.
    news: Arc<watch::Sender<u64>>,
    /// How much of it this user's last claim has seen.
    seen: AtomicU64,
}

impl Share {
    /// The first user of a spool that nobody else holds.
    pub fn new(spool: Arc<dyn Spool>) -> Self {
        Self {
            spool,
            news: Arc::new(watch::channel(1).0),
            seen: AtomicU64::new(0),
        }
    }

    /// Another user of the same spool.
    pub fn user(&self) -> Self {
        Self {
            spool: self.spool.clone(),
            news: self.news.clone(),
            seen: AtomicU64::new(0),
        }
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }
}

#[async_trait::async_trait]
impl Spool for Share {
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error> {
        let accepted = self.spool.accept(message, ident).await;
        self.tell();
        accepted
    }

    async fn claim(&self, host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        let news = *self.news.borrow();
        let leases = self.spool.claim(host, wanted).await?;
        // Where some were found there may be more than were wanted.
        let seen = if leases.is_empty() { news } else { news - 1 };
        self.seen.store(seen, Ordering::Relaxed);
        Ok(leases)
    }

    async fn ready(&self) {
        let mut news = self.news.subscribe();
        let seen = self.seen.load(Ordering::Relaxed);
        // Either way a claim may find more; neither the sender nor this end goes away before.
        let _ = tokio::time::timeout(TICK, news.wait_for(|news| *news > seen)).await;
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        let settled = self.spool.settle(settlements).await;
        self.tell();
        settled
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        self.spool.body(message).await
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        self.spool.tally().await
    }

    fn unhealthy(&self) -> Option<String> {
        self.spool.unhealthy()
    }

    fn guarantees(&self) -> Guarantees {
        self.spool.guarantees()
    }

    async fn close(&self) {
        self.spool.close().await;
        self.tell();
    }
}
