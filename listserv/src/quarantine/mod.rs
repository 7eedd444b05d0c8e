//! The quarantine: mail that was taken into custody and is not let through. Kept in an SQLite file of its own, synced before
//! anybody is told 250; released or dropped by an operator, forgotten after its retention.

mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mail::{MailParameters, Recipient, ReversePath, Timestamp};
use serde::Serialize;
use service::program::StartError;

use store::Store;

/// Why the quarantine did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database: its caller defers, the operator looks.
    #[error("quarantine unavailable: {0}")]
    Unavailable(String),
    /// As much is kept as may be.
    #[error("quarantine full: {0} bytes kept; release or drop some, or raise quarantine.bytes_max")]
    Full(u64),
    /// The asker: no such item, or it is not held any more.
    #[error("no held item {0}")]
    Missing(i64),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A message to be kept.
#[derive(Clone, Debug)]
pub struct Item {
    /// When the edge had it.
    pub arrival: Timestamp,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// For whom it was.
    pub recipients: Vec<Recipient>,
    /// Facts, as in the spool.
    pub facts: Bytes,
    /// Why it is here.
    pub reason: String,
    /// The message, CRLF lines.
    pub body: Bytes,
}

/// An item as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its number.
    pub id: i64,
    /// When it came.
    pub time: String,
    /// Its name on the inner hops.
    pub ident: String,
    /// MAIL FROM.
    pub reverse_path: String,
    /// For whom it was.
    pub recipients: Vec<String>,
    /// Why it is here.
    pub reason: String,
    /// `held`, `released`, `dropped`, `expired`.
    pub state: String,
    /// Its size.
    pub bytes: u64,
}

/// A handle; cheap to clone. Statements run on blocking threads, one at a time.
#[derive(Clone)]
pub struct Quarantine {
    store: Arc<Mutex<Store>>,
    bytes_max: u64,
}

impl Quarantine {
    /// Opens or makes the file.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, StartError> {
        let store = Store::open(path).map_err(|error| StartError {
            what: format!("open {}", path.display()),
            why: error.to_string(),
            remedy: "restore it, or move it away and start again".into(),
        })?;
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            bytes_max,
        })
    }

    /// Keeps a message, durably. Under an ident that brought the same forward-path before, that path is left out; false when none was left.
    pub async fn keep(&self, item: Item, ident: String) -> Result<bool, Error> {
        let bytes_max = self.bytes_max;
        self.with(move |store| store.keep(&item, &ident, bytes_max))
            .await
    }

    /// The newest items; only those still held unless `all`.
    pub async fn list(&self, all: bool, limit: u32) -> Result<Vec<Line>, Error> {
        self.with(move |store| store.list(all, limit)).await
    }

    /// One item, held or not.
    pub async fn line(&self, id: i64) -> Result<Line, Error> {
        self.with(move |store| store.line(id)).await
    }

    /// A held item.
    pub async fn item(&self, id: i64) -> Result<Item, Error> {
        self.with(move |store| store.item(id)).await
    }

    /// Ends an item: its message is gone from here, its line stays for a while.
    pub async fn end(&self, id: i64, state: &'static str) -> Result<(), Error> {
        self.with(move |store| store.end(id, state)).await
    }

    /// Ends items that came before `before`, and forgets the lines of items that ended and came before `forget`. Returns how many ended.
    pub async fn expire(&self, before: Timestamp, forget: Timestamp) -> Result<usize, Error> {
        self.with(move |store| store.expire(before, forget)).await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            work(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|error| Error::Unavailable(error.to_string()))?
    }
}
