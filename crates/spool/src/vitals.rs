//! How an engine is: figures for readiness, metrics and alerts.

use std::time::Duration;

/// Cheap to ask for; as of the last moment that the engine looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Free bytes where the spool is; none where that means nothing.
    pub bytes_free: Option<u64>,
    /// Free inodes likewise.
    pub inodes_free: Option<u64>,
    /// Bytes that the spool takes.
    pub bytes_used: u64,
    /// How long making something durable took lately (moving average).
    pub sync: Duration,
    /// The longest of the last minute.
    pub sync_worst: Duration,
    /// Bytes of messages that wait to be made durable.
    pub waiting_bytes: u64,
    /// Changes that the index has not read yet.
    pub index_behind: u64,
    /// Batches in memory that come next; the others are read when their turn comes.
    pub heads: u64,
    /// Messages whose body was set aside as corrupt since the start; each counts once, however many batches it has.
    pub set_aside: u64,
    /// Batches set aside since the start, since their record or their message's head could not be read.
    pub batches_set_aside: u64,
    /// Batches that cannot be read just now; they rest and are read again, or set aside.
    pub unreadable: u64,
    /// A write or a sync failed: nothing is accepted until a restart.
    pub poisoned: bool,
    /// There is less room than is wanted: nothing is accepted until there is more.
    pub full: bool,
    /// The disk does not keep up: not all is accepted.
    pub slow: bool,
    /// It is a copy that no operator has adopted: nothing leaves.
    pub copy: bool,
}
