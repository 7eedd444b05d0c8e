//! The durable queue: messages, what is to be done with each (batches), and who is doing it (leases).
//!
//! [`Spool`] is the whole interface, the same for every engine. What `accept` and `settle` have returned is on stable storage.
//! The spool knows nothing of SMTP, lists or sites; it owns message files, and no other crate writes any.

pub mod embedded;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Domain, MailParameters, MessageId, Recipient, ReversePath, Timestamp};

/// The envelope and the facts of a stored message: everything but its body and its recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its name here.
    pub id: MessageId,
    /// When the edge had the whole message. Its lane counts from here.
    pub arrival: Timestamp,
    /// When this spool accepted it, set by the engine in `accept`. The time after which mail is given up counts from here.
    pub accepted: Timestamp,
    /// MAIL FROM as it arrived.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// What the owner wants to remember of it, in the owner's own form (JSON, say), at most 64 KiB.
    pub facts: Bytes,
    /// Length of the body, bytes.
    pub body_bytes: u64,
}

/// A message to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// When the edge had it.
    pub arrival: Timestamp,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// The owner's facts.
    pub facts: Bytes,
    /// Header and body, CRLF lines; the concatenation of the parts.
    pub body: Vec<Bytes>,
    /// What is to be done with it. The order of the recipients in all batches is the order of [`Accepted::paths`].
    pub batches: Vec<NewBatch>,
}

/// Something to be done with a message for some recipients, about a hundred at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Not before.
    pub due: Timestamp,
    /// For whom.
    pub recipients: Vec<Recipient>,
    /// From what the owner renders each recipient's copy (list, number, reverse-path pattern), in its own form, at most 4 KiB.
    pub template: Bytes,
}

/// Where a batch goes. A domain is mapped to a site (its MX set) when the batch is claimed, not before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// To be expanded here: lists, aliases, commands.
    Expand,
    /// To the next hop inside.
    Inside,
    /// To a configured route.
    Route(Box<str>),
    /// To the mail exchangers of a domain.
    Domain(Domain),
}

/// What kind of mail a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Confirmations, moderation, DSN: a person waits for it.
    Urgent,
    /// All other mail.
    Ordinary,
}

/// The order of service, derived at claim, never stored (design section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// [`Class::Urgent`], first attempts.
    Urgent,
    /// First attempts of messages younger than an hour.
    Live,
    /// First attempts of older ones, oldest first.
    Backlog,
    /// All later attempts.
    Retry,
}

impl Lane {
    /// All lanes, in the order of their weights.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Live, Self::Backlog, Self::Retry];

    /// The lane of a batch at `now`.
    pub fn of(class: Class, arrival: Timestamp, attempts: u32, now: Timestamp) -> Self {
        match (attempts, class) {
            (1.., _) => Self::Retry,
            (0, Class::Urgent) => Self::Urgent,
            (0, Class::Ordinary) if now.since(arrival) < Duration::from_secs(3600) => Self::Live,
            (0, Class::Ordinary) => Self::Backlog,
        }
    }
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its id; a child's is a hash of (parent, chunk), so that a repeated expansion makes the same ones.
    pub id: BatchId,
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Not before.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// For whom, those not done yet.
    pub recipients: Vec<Recipient>,
    /// The owner's template.
    pub template: Bytes,
    /// What the owner noted when it deferred the batch last (a signed verdict, say), at most 4 KiB.
    pub note: Bytes,
    /// The last reply, in one line; empty before the first attempt.
    pub reply: Box<str>,
}

/// A batch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u128);

/// Borrowed work. Dropping it without settling gives the batch back only when the process ends or the lease lapses;
/// whoever cannot work on it settles it as deferred.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub head: Arc<Head>,
    /// The batch.
    pub batch: Batch,
    /// The fencing token: a settlement with another one has no effect.
    pub token: u64,
}

/// What came of a lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The batch.
    pub batch: BatchId,
    /// The lease's token.
    pub token: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a batch: its full new state.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Every recipient that was left is done, well or badly; what had to be told about it was accepted before.
    Finished,
    /// Not done for these recipients; try again.
    Deferred {
        /// Not before.
        until: Timestamp,
        /// Why, in one line.
        reply: Box<str>,
        /// Kept for the next attempt.
        note: Bytes,
        /// Who is left.
        recipients: Vec<Recipient>,
        /// Whether this counts as an attempt (a dead site does not).
        attempted: bool,
    },
    /// Other batches of the same message take its place, all or none of them.
    Replaced(Vec<NewBatch>),
}

/// Whether a forward-path of an ident was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Accepted now.
    New,
    /// Accepted with the same ident before: nothing was done, the sender is told 250 again.
    Again,
}

/// What became of an accepted message.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its name; where every path is [`Path::Again`] nothing was stored under it.
    pub id: MessageId,
    /// One a recipient, in the order of the batches.
    pub paths: Vec<Path>,
}

/// Which batches are wanted, and how many from each lane at most (in the order of [`Lane::ALL`]).
#[derive(Clone, Debug)]
pub struct Wanted {
    /// From which destinations.
    pub destinations: Destinations,
    /// At most so many from each lane.
    pub lanes: [usize; 4],
}

/// A set of destinations.
#[derive(Clone, Debug)]
pub enum Destinations {
    /// All of them but these (whose gates are shut, or who have enough in hand).
    Except(Vec<Destination>),
    /// Only these.
    Only(Vec<Destination>),
}

/// A line of the tally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Batches waiting or leased.
    pub batches: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Of the batches, those leased.
    pub leased: u64,
    /// Arrival of the oldest message among them.
    pub oldest: Timestamp,
    /// When the next one is due.
    pub next_due: Timestamp,
}

/// Why the spool did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No room: watermarks of bytes or inodes. 452 4.3.1.
    #[error("spool full: {0}")]
    Full(String),
    /// A write or a sync failed; nothing more is acknowledged until an operator has looked and restarted. 451 4.3.0.
    #[error("spool poisoned: {0}")]
    Poisoned(Arc<str>),
    /// More than the engine can store as one (its guarantees say how much).
    #[error("too large: {0}")]
    TooLarge(String),
    /// The body does not match its checksum; it was set aside.
    #[error("body of {0} is corrupt, set aside as {1}")]
    Corrupt(MessageId, PathBuf),
    /// No such message; it may have been settled meanwhile.
    #[error("no message {0}")]
    Unknown(MessageId),
    /// The spool could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The spool has been closed.
    #[error("spool closed")]
    Closed,
}

/// What an engine promises; an edge refuses to answer 250 below its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// A returned `accept` survives a power cut of this host.
    pub survives_power_cut: bool,
    /// It survives the loss of this host.
    pub survives_host_loss: bool,
    /// Largest message, bytes.
    pub message_bytes_max: u64,
    /// How long idents are remembered.
    pub ident_memory: Duration,
}

/// The durable queue.
#[async_trait::async_trait]
pub trait Spool: Send + Sync + 'static {
    /// Stores a message and its batches, all or nothing, durably. With an ident, forward-paths accepted before under the same
    /// ident (also those still in flight) are left out of the batches and told as [`Path::Again`]. Group commit: call it
    /// from as many tasks as there are messages.
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error>;

    /// Borrows batches that are due: by lane, within a lane by due time (backlog: oldest arrival first). Returns at once, with
    /// nothing when nothing is due. `host` names who claims.
    async fn claim(&self, host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error>;

    /// Resolves when a claim may find more than the last one did: something was accepted, became due, or was settled.
    /// May resolve early; never misses.
    async fn ready(&self);

    /// Ends leases, all in one commit, durably. Settlements with a stale token are skipped; returns how many took effect.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error>;

    /// The message's bytes, checked against their checksum.
    async fn body(&self, message: MessageId) -> Result<Bytes, Error>;

    /// What waits, by destination and class; costs the same however much waits.
    async fn tally(&self) -> Result<Vec<Tally>, Error>;

    /// Why nothing is acknowledged any more, if so; cheap, for readiness.
    fn unhealthy(&self) -> Option<String>;

    /// What this engine promises.
    fn guarantees(&self) -> Guarantees;

    /// Writes and syncs what is pending and stops. Later calls get [`Error::Closed`].
    async fn close(&self);
}
