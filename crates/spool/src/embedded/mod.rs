//! The embedded engine: a journal of recycled segments is the truth, an SQLite index is a view of it (docs/spool-format.md).
//!
//! A call to `accept` or `settle` becomes a job of the single writer, which gathers jobs into groups. Claims are served from
//! memory; what is not there is read from the index. Three threads: writer, indexer, sweeper.

mod apply;
pub mod backup;
mod candidates;
mod carry;
mod change;
mod claiming;
mod codec;
mod content;
mod copy;
mod counting;
mod counts;
mod damage;
pub mod disk;
mod entry;
mod finding;
mod fronts;
mod group;
mod heads;
mod index;
mod indexer;
mod job;
mod journal;
mod leases;
mod load;
mod looking;
mod lookup;
pub mod offline;
mod ordering;
mod orders;
mod prepare;
mod record;
#[cfg(test)]
mod record_tests;
mod recover;
mod replay;
mod room;
mod segment;
mod selecting;
mod settling;
mod shared;
mod staged;
mod state;
mod sweeper;
mod syncs;
mod treating;
mod unreadable;
mod window;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mail::MessageId;
use tokio::sync::{oneshot, watch};

use crate::selection::Selection;
use crate::{
    Accepted, Action, After, Aged, Clock, Error, Found, Guarantees, Lease, Ledger, NewMessage,
    Predicate, Seen, Selected, Settlement, Spool, Tally, Vitals, Wanted,
};
use job::Job;
use prepare::Prepare;
use shared::Shared;

/// How the engine is opened. Defaults in brackets; take them from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder; made when missing, mode 0700, locked against a second process.
    pub path: PathBuf,
    /// Segment size, bytes [64 MiB].
    pub segment_bytes: u64,
    /// Below so many free bytes on the file system `accept` answers [`Error::Full`] [1 GiB].
    pub free_bytes_min: u64,
    /// Below so many free inodes likewise [1000].
    pub free_inodes_min: u64,
    /// When so many bytes of messages wait to be made durable, `accept` answers [`Error::Slow`] [256 MiB]; a single one may be
    /// larger.
    pub waiting_bytes_max: u64,
    /// When one has waited so long likewise [3 s].
    pub waiting_max: Duration,
    /// How long idents are remembered [60 days]; an edge keeps mail without limit, so this is also how long it may try.
    pub ident_memory: Duration,
    /// Largest message, bytes [128 MiB].
    pub message_bytes_max: u64,
    /// About so many batches of each destination and lane are held in memory [4096]; the rest are read when these are used up.
    pub window_max: usize,
    /// About so many batches are held in memory for all destinations together [200,000], beside those that the index lacks; some 200
    /// bytes each, 600 where destinations have but one.
    pub heads_max: usize,
    /// Changes that the index may lag behind; then accepting waits for it [200,000], some 400 bytes each.
    pub unindexed_max: usize,
    /// Content of new batches kept in memory until it is indexed, bytes [32 MiB]; beyond, it is read back when claimed.
    pub content_bytes_max: u64,
    /// What the disk refuses to read is asked for so long, after 1 s first and each 300 s at last, before it is set aside [1 h]: by
    /// then the bus was reset, another path found, a sector rebuilt, or an operator called.
    pub read_patience: Duration,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Options {
    /// The defaults, at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            segment_bytes: 64 << 20,
            free_bytes_min: 1 << 30,
            free_inodes_min: 1000,
            waiting_bytes_max: 256 << 20,
            waiting_max: Duration::from_secs(3),
            ident_memory: Duration::from_secs(60 * 24 * 3600),
            message_bytes_max: 128 << 20,
            window_max: 4096,
            heads_max: 200_000,
            unindexed_max: 200_000,
            content_bytes_max: 32 << 20,
            read_patience: Duration::from_secs(3600),
            clock: Clock::default(),
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    prepare: Prepare,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    writer: JoinHandle<()>,
    indexer: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    /// Held as long as the threads run.
    _lock: std::fs::File,
}

impl Embedded {
    /// Opens or makes a spool, replays what the index has not seen, and is ready to accept. Blocking; call it before serving.
    pub fn open(options: Options) -> Result<Self, Error> {
        Self::open_on(options, Arc::new(disk::System))
    }

    /// Opens it on another disk.
    pub fn open_on(options: Options, disk: Arc<dyn disk::Disk>) -> Result<Self, Error> {
        let recovered = recover::recover(options, disk)?;
        let shared = recovered.shared;
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(body)
                .map_err(|error| shared.journal_error(error))
        };
        let (writer, index) = (recovered.writer, recovered.index);
        let (for_index, for_sweeper) = (shared.clone(), shared.clone());
        let checkpoints = recovered.checkpoints;
        let running = Running {
            writer: spawn("spool-writer", Box::new(move || writer.run()))?,
            indexer: spawn(
                "spool-index",
                Box::new(move || indexer::run(&for_index, index)),
            )?,
            sweeper: spawn(
                "spool-sweeper",
                Box::new(move || sweeper::run(&for_sweeper, checkpoints)),
            )?,
            _lock: recovered.lock,
        };
        shared.look();
        resume(&shared, &recovered.ordered);
        shared.wake_sweeper();
        Ok(Self {
            prepare: recovered.prepare,
            shared,
            running: Mutex::new(Some(running)),
        })
    }

    fn take_running(&self) -> Option<Running> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn submit<T>(
        &self,
        job: Job,
        answered: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        self.shared.jobs.push(job).map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

/// Follows orders that a crash left. What cannot be treated is not served before the next start.
fn resume(shared: &Shared, ordered: &[(u32, entry::Row)]) {
    if ordered.is_empty() {
        return;
    }
    // A thread of its own: it waits for the writer, which a task of a runtime must not.
    let followed = std::thread::scope(|scope| {
        let thread = scope.spawn(|| treating::resume(shared, ordered));
        thread.join().unwrap_or(Err(Error::Closed))
    });
    if let Err(error) = followed {
        tracing::error!(event = "orders_not_followed", %error);
    }
}

#[async_trait::async_trait]
impl Spool for Embedded {
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error> {
        self.shared.check_open()?;
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        let (answer, answered) = oneshot::channel();
        let job = self.prepare.accept(&self.shared, message, ident, answer)?;
        self.submit(Job::Accept(job), answered).await
    }

    async fn claim(&self, _host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error> {
        claiming::claim(&self.shared, wanted).await
    }

    async fn ready(&self, seen: &mut Seen) {
        claiming::ready(&self.shared, seen).await;
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        self.shared.check_open()?;
        let (answer, answered) = oneshot::channel();
        let job = prepare::settle(&self.shared, settlements, answer)?;
        self.submit(Job::Settle(job), answered).await
    }

    async fn body(&self, message: MessageId) -> Result<Bytes, Error> {
        self.shared.check_open()?;
        let shared = self.shared.clone();
        claiming::blocking(move || load::body(&shared, message)).await?
    }

    async fn tally(&self) -> Result<Vec<Tally>, Error> {
        self.shared.check_open()?;
        let shared = self.shared.clone();
        claiming::blocking(move || counting::tally(&shared)).await?
    }

    async fn ages(&self) -> Result<Vec<Aged>, Error> {
        self.shared.check_open()?;
        Ok(self.shared.state().counts.ages().collect())
    }

    async fn select(&self, predicate: &Predicate, action: Action) -> Result<Selected, Error> {
        self.shared.check_open()?;
        let shared = self.shared.clone();
        let selection = Arc::new(Selection {
            predicate: predicate.clone(),
            action,
        });
        claiming::blocking(move || selecting::select(&shared, &selection)).await?
    }

    async fn find(
        &self,
        predicate: &Predicate,
        after: After,
        limit: usize,
    ) -> Result<Vec<Found>, Error> {
        self.shared.check_open()?;
        let (shared, predicate) = (self.shared.clone(), predicate.clone());
        claiming::blocking(move || finding::find(&shared, &predicate, after, limit)).await?
    }

    async fn ledger(&self) -> Result<Ledger, Error> {
        self.shared.check_open()?;
        let state = self.shared.state();
        Ok(Ledger {
            waiting: state.counts.waiting,
            held: state.counts.held,
            ..state.ledger
        })
    }

    async fn backup(&self, to: &std::path::Path) -> Result<u64, Error> {
        self.shared.check_open()?;
        let (shared, to) = (self.shared.clone(), to.to_owned());
        claiming::blocking(move || backup::backup(&shared, &to)).await?
    }

    fn copy(&self) -> watch::Receiver<bool> {
        self.shared.copy.subscribe()
    }

    async fn adopt(&self) -> Result<bool, Error> {
        self.shared.check_open()?;
        let shared = self.shared.clone();
        claiming::blocking(move || copy::adopt(&shared)).await?
    }

    fn vitals(&self) -> Vitals {
        self.shared.vitals()
    }

    fn refuses(&self) -> Option<Error> {
        self.shared.refuses()
    }

    fn unhealthy(&self) -> Option<String> {
        self.shared.unhealthy()
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            survives_power_cut: true,
            survives_host_loss: false,
            message_bytes_max: self.shared.options.message_bytes_max,
            ident_memory: self.shared.options.ident_memory,
        }
    }

    async fn close(&self) {
        self.shared.close();
        let Some(running) = self.take_running() else {
            return;
        };
        let shared = self.shared.clone();
        // Fails only when the runtime is going down; then the journal has all, and the next start reads it.
        let _ = claiming::blocking(move || running.end(&shared)).await;
    }
}

impl Running {
    /// In the order in which they feed each other.
    fn end(self, shared: &Shared) {
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!(event = "spool_thread_panicked");
            }
        };
        shared.sweeps.close();
        join(self.sweeper);
        shared.jobs.close();
        join(self.writer);
        shared.index_jobs.close();
        join(self.indexer);
        shared.close_readers();
    }
}

impl Drop for Embedded {
    /// Without [`Spool::close`] it ends as by a crash: what was acknowledged is there, what waits is not answered.
    fn drop(&mut self) {
        if let Some(running) = self.take_running() {
            self.shared.abandon();
            running.end(&self.shared);
        }
    }
}
