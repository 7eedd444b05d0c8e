//! What the engine's threads share: the state under its lock, the queues between them, and the reasons to refuse.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mail::{MessageId, Timestamp};
use rusqlite::Connection;
use tokio::sync::{Notify, watch};

use super::Options;
use super::change::Changes;
use super::disk::Disk;
use super::index::{self, Usage};
use super::job::{Job, Queue};
use super::room::Room;
use super::segment::Segments;
use super::state::State;
use super::syncs::{Limits, Syncs};
use super::unreadable::Unreadable;
use crate::{Error, Vitals};

/// Idle connections for reading that are kept.
const READERS_MAX: usize = 8;

/// A job for the index's thread.
#[derive(Debug)]
pub enum IndexJob {
    /// A group is durable.
    Changes(Changes),
    /// These segments were taken out of use.
    Released(Vec<u64>),
    /// Idents from before this time may be forgotten.
    Forget(u64),
}

/// All that is shared.
#[derive(Debug)]
pub struct Shared {
    /// How it was opened.
    pub options: Options,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The segments.
    pub segments: Arc<Segments>,
    /// The spool's secret.
    pub secret: u64,
    /// Where the index is.
    pub index_path: PathBuf,
    /// Where what cannot be read is set aside.
    pub corrupt: PathBuf,
    /// For the writer.
    pub jobs: Queue<Job>,
    /// For the index's thread.
    pub index_jobs: Queue<IndexJob>,
    /// For the sweeper: that there is something to do.
    pub sweeps: Queue<()>,
    /// What segments are needed for, as the index knew last, and the segment that it had read up to.
    pub usage: Mutex<(u64, BTreeMap<u64, Usage>)>,
    /// Held by whoever takes segments out of use, or needs them to stand.
    pub sweeping: Mutex<()>,
    /// Something was accepted, settled, or read.
    pub news: Notify,
    /// What waits for the disk.
    pub syncs: Arc<Syncs>,
    /// The room on the disk.
    pub room: Room,
    /// Whether it is a copy that nobody has adopted.
    pub copy: watch::Sender<bool>,
    /// What cannot be read just now.
    pub unreadable: Unreadable,
    /// The messages whose bodies were set aside since the start.
    set_aside: Mutex<HashSet<MessageId>>,
    state: Mutex<State>,
    poisoned: OnceLock<Arc<str>>,
    index_trouble: Mutex<Option<String>>,
    abandoned: AtomicBool,
    closed: AtomicBool,
    readers: Mutex<Vec<Connection>>,
}

/// What [`Shared`] is made from.
#[derive(Debug)]
pub struct Parts {
    /// How it was opened.
    pub options: Options,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The segments.
    pub segments: Arc<Segments>,
    /// The spool's secret.
    pub secret: u64,
    /// Where the index is.
    pub index_path: PathBuf,
    /// Where what cannot be read is set aside.
    pub corrupt: PathBuf,
    /// The state as recovered.
    pub state: State,
    /// Whether it is a copy that nobody has adopted.
    pub copy: bool,
    /// What segments are needed for, and the segment that the index has read up to.
    pub usage: (u64, BTreeMap<u64, Usage>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        let limits = Limits {
            bytes: parts.options.waiting_bytes_max,
            time: parts.options.waiting_max,
        };
        Self {
            options: parts.options,
            disk: parts.disk,
            segments: parts.segments,
            secret: parts.secret,
            index_path: parts.index_path,
            corrupt: parts.corrupt,
            jobs: Queue::default(),
            index_jobs: Queue::default(),
            sweeps: Queue::default(),
            usage: Mutex::new(parts.usage),
            sweeping: Mutex::new(()),
            news: Notify::new(),
            syncs: Arc::new(Syncs::new(limits)),
            room: Room::default(),
            set_aside: Mutex::default(),
            copy: watch::Sender::new(parts.copy),
            unreadable: Unreadable::default(),
            state: Mutex::new(parts.state),
            poisoned: OnceLock::new(),
            index_trouble: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            readers: Mutex::new(Vec::new()),
        }
    }

    /// The state. A thread that panicked while it held the lock has shown a bug; what it leaves is no worse than what a
    /// restart would find, since only durable changes are made.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The messages whose bodies were set aside since the start: as many as are corrupt, at most.
    pub fn set_aside(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        lock(&self.set_aside)
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    /// Idents from before this are no longer remembered.
    pub fn idents_since(&self) -> u64 {
        let memory = self.options.ident_memory.as_millis() as u64;
        self.now().0.saturating_sub(memory)
    }

    /// Looks at the room; whether a message must be refused.
    pub fn full(&self) -> Option<Error> {
        let full = self.room.look(self.disk.as_ref(), &self.options);
        full.or_else(|| self.index_refuses())
    }

    /// Looks at all that is only seen by asking the disk.
    pub fn look(&self) {
        let index = ["sqlite", "sqlite-wal", "sqlite-shm"].map(|suffix| {
            let file = self.index_path.with_extension(suffix);
            std::fs::metadata(file).map_or(0, |file| file.len())
        });
        self.room
            .uses(self.segments.bytes() + index.iter().sum::<u64>());
        self.room.look(self.disk.as_ref(), &self.options);
    }

    /// How it is.
    pub fn vitals(&self) -> Vitals {
        let (free, used) = self.room.last();
        let syncs = self.syncs.measured();
        let (index_behind, heads) = {
            let state = self.state();
            (state.unindexed() as u64, state.heads.held() as u64)
        };
        Vitals {
            bytes_free: free.map(|free| free.bytes),
            inodes_free: free.map(|free| free.inodes),
            bytes_used: used,
            sync: syncs.average,
            sync_worst: syncs.worst,
            waiting_bytes: syncs.waiting_bytes,
            index_behind,
            heads,
            set_aside: self.set_aside().len() as u64,
            batches_set_aside: self.unreadable.set_aside(),
            unreadable: self.unreadable.resting(),
            poisoned: self.poisoned.get().is_some(),
            full: self.room.full().is_some(),
            slow: syncs.slow,
            copy: *self.copy.borrow(),
        }
    }

    // === Reasons to refuse ===

    /// Refuses everything from now on.
    pub fn poison(&self, reason: &str) -> Error {
        let kept = self.poisoned.get_or_init(|| reason.into()).clone();
        tracing::error!(
            event = "spool_poisoned",
            reason,
            "nothing more is acknowledged until a restart; look at the disk first"
        );
        Error::Poisoned(kept)
    }

    /// Why nothing is written any more.
    pub fn refusal(&self) -> Option<Error> {
        self.poisoned
            .get()
            .map(|reason| Error::Poisoned(reason.clone()))
    }

    /// What keeps the index from being written.
    pub fn index_trouble(&self) -> Option<String> {
        lock(&self.index_trouble).clone()
    }

    /// Says that the index cannot be written, or can again; one line per crossing.
    pub fn set_index_trouble(&self, trouble: Option<String>) {
        let mut current = lock(&self.index_trouble);
        match (&*current, &trouble) {
            (None, Some(why)) => tracing::error!(event = "index_failing", why),
            (Some(_), None) => tracing::info!(event = "index_works_again"),
            _ => {}
        }
        *current = trouble;
    }

    /// What keeps in memory has a limit; an index that is only slow makes the writer wait.
    fn index_refuses(&self) -> Option<Error> {
        let trouble = self.index_trouble()?;
        let behind = self.state().unindexed() > self.options.unindexed_max;
        behind.then(|| Error::Full(format!("the index is too far behind: {trouble}")))
    }

    /// What a message would be told now.
    pub fn refuses(&self) -> Option<Error> {
        self.check_open()
            .err()
            .or_else(|| self.refusal())
            .or_else(|| self.room.full())
            .or_else(|| self.index_refuses())
            .or_else(|| self.syncs.refuses())
    }

    /// Why the spool is not healthy.
    pub fn unhealthy(&self) -> Option<String> {
        if let Some(Error::Poisoned(reason)) = self.refusal() {
            return Some(format!("poisoned: {reason}"));
        }
        if let Some(trouble) = self.index_trouble() {
            return Some(format!("index: {trouble}"));
        }
        if let Some(full) = self.room.full() {
            return Some(full.to_string());
        }
        if let Some(count) = self.unreadable.refused_many() {
            return Some(format!("the disk does not give {count} batches"));
        }
        self.syncs.slow().map(|why| format!("slow: {why}"))
    }

    /// An error of the index.
    pub fn index_error(&self, error: rusqlite::Error) -> Error {
        Error::Io {
            path: self.index_path.clone(),
            source: Arc::new(std::io::Error::other(error)),
        }
    }

    /// An error of the journal.
    pub fn journal_error(&self, error: std::io::Error) -> Error {
        Error::Io {
            path: self.segments.folder().to_owned(),
            source: Arc::new(error),
        }
    }

    // === The end ===

    /// Refuses new calls.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_waiters();
    }

    /// Whether new calls are refused.
    pub fn check_open(&self) -> Result<(), Error> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// Makes all threads end as soon as they can, as after a crash.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.close();
        self.jobs.abandon();
        self.index_jobs.abandon();
        self.sweeps.abandon();
    }

    /// Whether it was left without being closed.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Tells the sweeper that there may be something to do.
    pub fn wake_sweeper(&self) {
        if self.sweeps.len() == 0 {
            let _ = self.sweeps.push(());
        }
    }

    /// Reads from the index.
    pub fn read<T>(
        &self,
        what: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => index::connect(&self.index_path).map_err(|error| self.index_error(error))?,
        };
        let result = what(&connection).map_err(|error| self.index_error(error));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS_MAX {
            readers.push(connection);
        }
        result
    }

    /// Closes idle connections, so that the last one leaves no files behind.
    pub fn close_readers(&self) {
        lock(&self.readers).clear();
    }
}
