//! The room on the file system, as last seen: below its marks nothing new is taken, so that what was taken can still be worked
//! off, indexed and carried forward. A state with a high and a low water mark and one log line a crossing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Options;
use super::disk::{Disk, Free};
use crate::Error;

/// See the module.
#[derive(Debug, Default)]
pub struct Room(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    free: Option<Free>,
    /// Bytes that the spool takes.
    used: u64,
    /// No segment could be made, whatever the file system says is free.
    no_segment: Option<String>,
    full: Option<String>,
}

impl Room {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change is whole before anything could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the disk; whether there is no room.
    pub fn look(&self, disk: &dyn Disk, options: &Options) -> Option<Error> {
        let asked = disk.free(&options.path);
        let mut seen = self.seen();
        // Room must come back by a little more than it was short of, lest the answer flutters.
        let was_full = seen.full.is_some();
        let mark = |min: u64| min.saturating_add(if was_full { min / 16 } else { 0 });
        let (bytes_min, inodes_min) = (mark(options.free_bytes_min), mark(options.free_inodes_min));
        let why = match &asked {
            Ok(free) if free.bytes < bytes_min || free.inodes < inodes_min => Some(format!(
                "{} bytes and {} inodes are free at {}, at least {bytes_min} and {inodes_min} are wanted",
                free.bytes,
                free.inodes,
                options.path.display()
            )),
            Ok(_) => seen.no_segment.clone(),
            Err(error) => Some(format!("free room cannot be read: {error}")),
        };
        seen.free = asked.ok().or(seen.free);
        seen.cross(why);
        seen.full.clone().map(Error::Full)
    }

    /// Whether a segment could be made; only that tells of a quota.
    pub fn segment(&self, made: Result<(), String>) {
        let mut seen = self.seen();
        seen.no_segment = made.err();
        if let Some(why) = seen.no_segment.clone() {
            seen.cross(Some(why));
        }
    }

    /// The spool takes so many bytes.
    pub fn uses(&self, bytes: u64) {
        self.seen().used = bytes;
    }

    /// Whether there was no room at the last look.
    pub fn full(&self) -> Option<Error> {
        self.seen().full.clone().map(Error::Full)
    }

    /// What was free, and what the spool took, at the last look.
    pub fn last(&self) -> (Option<Free>, u64) {
        let seen = self.seen();
        (seen.free, seen.used)
    }
}

impl Seen {
    fn cross(&mut self, why: Option<String>) {
        match (&self.full, &why) {
            (None, Some(why)) => tracing::error!(event = "spool_full", why),
            (Some(_), None) => tracing::info!(event = "spool_has_room", free = ?self.free),
            _ => {}
        }
        self.full = why;
    }
}
