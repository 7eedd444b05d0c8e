//! What can go wrong, sorted by who must act, and what an engine promises.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mail::MessageId;

/// Why the spool did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No room: watermarks of bytes or inodes. 452 4.3.1.
    #[error("spool full: {0}")]
    Full(String),
    /// The disk does not keep up: more waits for it than may. 451 4.3.2.
    #[error("spool slow: {0}")]
    Slow(String),
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
