//! The directory: lists, their owners and members, aliases, post numbers, bounce counts, in an SQLite file of its own.
//!
//! It owns `directory.sqlite`; nobody else opens it. A database that is busy, absent or broken is an error that makes its caller
//! defer; it never looks like an empty list.

mod aliases;
mod bounces;
mod editions;
mod lists;
mod members;
mod names;
mod reports;
mod schema;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::Address;
use tokio::sync::watch;

pub use editions::Kin;
pub use members::Joined;
pub use names::{Names, Target, is_role};
pub use reports::{Due, Gathered};
pub use schema::Store;

/// How long a statement waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the directory did not do what was asked; each names who must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The database: its caller defers, the operator looks.
    #[error("directory unavailable: {0}")]
    Unavailable(String),
    /// The asker: no such list, member or alias.
    #[error("{0} does not exist")]
    Missing(String),
    /// The asker: the name is taken.
    #[error("{0} exists already")]
    Taken(String),
    /// The asker: what was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A handle on the directory; cheap to clone. Statements run on blocking threads: one writer, and one reader beside it.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Whether a missing file may be made: only where no mail was ever kept, otherwise it was lost.
    may_create: bool,
    writer: Mutex<Option<Store>>,
    reader: Mutex<Option<Store>>,
    names: watch::Sender<Option<Arc<Names>>>,
}

/// Which of the two connections.
#[derive(Clone, Copy)]
enum Side {
    Writer,
    Reader,
}

impl Directory {
    /// A handle on the file at `path`; opened at first use, and again after an error. Without `may_create` a missing file is an error.
    pub fn new(path: PathBuf, may_create: bool) -> Self {
        Self(Arc::new(Inner {
            path,
            may_create,
            writer: Mutex::new(None),
            reader: Mutex::new(None),
            names: watch::channel(None).0,
        }))
    }

    /// What names there are, as last read; `None` until the database could be read.
    pub fn names(&self) -> Option<Arc<Names>> {
        self.0.names.borrow().clone()
    }

    /// Follows the names.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Names>>> {
        self.0.names.subscribe()
    }

    /// Runs statements that change something; what `work` returned `Ok` for is committed and on stable storage.
    pub async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    {
        self.on(Side::Writer, work).await
    }

    /// Like [`Directory::write`], and then lets everybody know the new names.
    pub async fn rename<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    {
        let inner = self.0.clone();
        self.on(Side::Writer, move |store| {
            let result = work(store);
            inner.publish(store)?;
            result
        })
        .await
    }

    /// Runs statements that read. One SELECT sees one state.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    {
        self.on(Side::Reader, work).await
    }

    /// Reads the names anew; an error is the reason why the directory is not ready.
    pub async fn refresh(&self) -> Result<(), Error> {
        let inner = self.0.clone();
        self.on(Side::Writer, move |store| inner.publish(store))
            .await
    }

    async fn on<T, F>(&self, side: Side, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.on(side, work))
            .await
            .map_err(|error| Error::Unavailable(error.to_string()))?
    }
}

impl Inner {
    fn on<T>(
        &self,
        side: Side,
        work: impl FnOnce(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // The reader needs the tables, so whoever comes first opens the writer, which makes them.
        if matches!(side, Side::Reader) {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            self.opened(&mut writer)?;
        }
        let slot = match side {
            Side::Writer => &self.writer,
            Side::Reader => &self.reader,
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(self.opened(&mut slot)?);
        if matches!(result, Err(Error::Unavailable(_))) {
            *slot = None; // a broken connection is opened anew at the next call
        }
        result
    }

    fn opened<'a>(&self, slot: &'a mut Option<Store>) -> Result<&'a mut Store, Error> {
        let store = match slot.take() {
            Some(store) => store,
            None => Store::open(&self.path, self.may_create, BUSY_TIMEOUT)?,
        };
        Ok(slot.insert(store))
    }

    fn publish(&self, store: &mut Store) -> Result<(), Error> {
        let names = Arc::new(store.names()?);
        self.names.send_if_modified(|old| {
            let changed = old
                .as_ref()
                .is_none_or(|old| old.version() != names.version());
            *old = Some(names);
            changed
        });
        Ok(())
    }
}

/// Reads a stored address; one that no longer parses is damage, not absence.
fn stored(text: &str) -> Result<Address, Error> {
    Address::parse(text).map_err(|error| Error::Unavailable(format!("stored {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[tokio::test]
    async fn a_lost_database_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.sqlite");
        let lost = Directory::new(path.clone(), false);
        assert!(matches!(lost.refresh().await, Err(Error::Unavailable(_))));
        assert!(lost.names().is_none());

        let made = Directory::new(path.clone(), true);
        made.refresh().await.unwrap();
        assert!(made.names().unwrap().is_empty());
        // Once it is there it is found again without leave to make it.
        Directory::new(path, false).refresh().await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_database_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.sqlite");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let broken = Directory::new(path, true);
        assert!(matches!(broken.refresh().await, Err(Error::Unavailable(_))));
    }

    #[test]
    fn a_busy_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.sqlite");
        let mut store = Store::open(&path, true, Duration::ZERO).unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = store.create_list(&address("dev@lists.example"), &[]);
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        other.execute_batch("ROLLBACK").unwrap();
        store
            .create_list(&address("dev@lists.example"), &[])
            .unwrap();
    }

    #[tokio::test]
    async fn names_follow_changes() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::new(folder.path().join("directory.sqlite"), true);
        directory.refresh().await.unwrap();
        let mut watch = directory.watch();
        let before = watch.borrow_and_update().clone().unwrap();
        directory
            .rename(|store| store.create_list(&address("dev@lists.example"), &[]))
            .await
            .unwrap();
        assert!(watch.has_changed().unwrap());
        let after = watch.borrow_and_update().clone().unwrap();
        assert_ne!(before.version(), after.version());
        directory.refresh().await.unwrap();
        assert!(!watch.has_changed().unwrap());
    }
}
