//! A spool that can be told to fail as disks do, in front of a good one.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mail::MessageId;
use spool::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// No room.
    Full,
    /// The disk does not keep up.
    Slow,
    /// A sync has failed.
    Poisoned,
    /// Nothing ever becomes durable.
    Stuck,
}

pub struct Faulty {
    pub inner: Arc<dyn Spool>,
    fault: Mutex<Fault>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn Spool>) -> Self {
        Self {
            inner,
            fault: Mutex::default(),
        }
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }
}

#[async_trait::async_trait]
impl Spool for Faulty {
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error> {
        match self.fault() {
            Fault::None => self.inner.accept(message, ident).await,
            Fault::Full => Err(Error::Full("no room".into())),
            Fault::Slow => Err(Error::Slow("2 s a sync".into())),
            Fault::Poisoned => Err(Error::Poisoned("sync failed".into())),
            Fault::Stuck => std::future::pending().await,
        }
    }

    async fn claim(&self, host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        self.inner.claim(host, wanted).await
    }

    async fn ready(&self, seen: &mut Seen) {
        self.inner.ready(seen).await;
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        self.inner.settle(settlements).await
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        self.inner.body(message).await
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        self.inner.tally().await
    }

    async fn ages(&self) -> Result<Vec<spool::Aged>, Error> {
        self.inner.ages().await
    }

    async fn select(&self, predicate: &Predicate, action: Action) -> Result<Selected, Error> {
        self.inner.select(predicate, action).await
    }

    async fn find(
        &self,
        predicate: &Predicate,
        after: After,
        limit: usize,
    ) -> Result<Vec<Found>, Error> {
        self.inner.find(predicate, after, limit).await
    }

    async fn ledger(&self) -> Result<Ledger, Error> {
        self.inner.ledger().await
    }

    async fn backup(&self, to: &std::path::Path) -> Result<u64, Error> {
        self.inner.backup(to).await
    }

    fn vitals(&self) -> Vitals {
        self.inner.vitals()
    }

    fn refuses(&self) -> Option<Error> {
        match self.fault() {
            Fault::None | Fault::Stuck => self.inner.refuses(),
            Fault::Full => Some(Error::Full("no room".into())),
            Fault::Slow => Some(Error::Slow("2 s a sync".into())),
            Fault::Poisoned => Some(Error::Poisoned("sync failed".into())),
        }
    }

    fn unhealthy(&self) -> Option<String> {
        (self.fault() == Fault::Poisoned).then(|| "spool poisoned: sync failed".into())
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
