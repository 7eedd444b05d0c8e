//! The embedded engine: a journal of recycled segments is the truth, an SQLite index is a view of it (docs/spool-format.md).

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// How the engine is opened. Defaults in brackets.
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
    /// How long idents are remembered [60 days]; an edge keeps mail without limit, so this is also how long it may try.
    pub ident_memory: Duration,
    /// Largest message, bytes [128 MiB].
    pub message_bytes_max: u64,
}

/// The engine.
pub struct Embedded {
    _private: (),
}

impl Embedded {
    /// Opens or makes a spool, replays what the index has not seen, and is ready to accept. Blocking; call it before serving.
    pub fn open(options: Options) -> Result<Self, Error> {
        todo!("{options:?}")
    }
}
