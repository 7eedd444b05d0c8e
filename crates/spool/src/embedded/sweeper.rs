//! The sweeper: gets disk space back while the spool runs. Checkpoints the index, takes segments out of use that nothing needs,
//! carries the small remainder of old ones forward, keeps a free segment ready. A background thread, paced; it never holds
//! the writer up for longer than one small group.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::carry;
use super::damage;
use super::disk;
use super::entry::Position;
use super::index::Usage;
use super::lookup;
use super::shared::{IndexJob, Shared};
use super::unreadable;

/// It looks at least so often.
const EVERY: Duration = Duration::from_secs(1);
/// It rests so long between two rounds.
const REST: Duration = Duration::from_millis(20);
/// A segment rests so long after it was carried forward: the index must hear of it, borrowed batches must be settled.
const CARRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A segment is carried forward when what is needed of it is less than one part in so many.
const CARRY_BELOW: u64 = 4;
/// The index's log is checkpointed when it is longer than this, needed or not, bytes.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs until the queue is closed.
pub fn run(shared: &Arc<Shared>, connection: Connection) {
    let mut sweeper = Sweeper {
        shared: shared.clone(),
        connection,
        durable: Position::default(),
        idents_forgotten: 0,
        resting: HashMap::new(),
    };
    while !shared.sweeps.wait(EVERY) {
        shared.sweeps.take_now(|()| true);
        sweeper.prepare();
        // As long as it finds something, others may wait for that room.
        while !shared.sweeps.is_closed() && sweeper.round() {
            std::thread::sleep(REST);
        }
    }
}

struct Sweeper {
    shared: Arc<Shared>,
    connection: Connection,
    /// What the index has for sure, whatever happens to the power.
    durable: Position,
    idents_forgotten: u64,
    /// Segments that were just carried forward, or could not be.
    resting: HashMap<u64, Instant>,
}

impl Sweeper {
    /// Keeps a free segment ready: where none can be made the room ends, which is told while there still is some.
    fn prepare(&self) {
        let made = self.shared.segments.prepare();
        if let Err(error) = &made {
            tracing::warn!(event = "segment_not_prepared", %error);
        }
        let no_room = made.err().filter(disk::is_full);
        self.shared.room.segment(match no_room {
            Some(error) => Err(format!("no room for a new segment: {error}")),
            None => Ok(()),
        });
    }

    /// One round; whether another may find more.
    fn round(&mut self) -> bool {
        self.shared.look();
        unreadable::round(&self.shared);
        self.checkpoint();
        self.forget();
        let released = self.release();
        let carried = self.carry();
        released || carried
    }

    /// Makes what the index has read durable, when a segment could be released by it or its log is long.
    fn checkpoint(&mut self) {
        let shared = &self.shared;
        let behind = lookup::position(&self.connection)
            .is_ok_and(|position| position.generation > self.durable.generation);
        let log = shared.index_path.with_extension("sqlite-wal");
        let long = std::fs::metadata(log).is_ok_and(|log| log.len() > LOG_BYTES_MAX);
        if !behind && !long {
            return;
        }
        let checkpointed = lookup::position(&self.connection).and_then(|position| {
            self.connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get::<_, i64>(2)?,
                    ))
                })
                // Busy, or held up by a reader: the next round tries again.
                .map(|(busy, log, done)| (busy == 0 && log == done).then_some(position))
        });
        match checkpointed {
            Ok(Some(position)) => self.durable = position,
            Ok(None) => {}
            Err(error) => tracing::warn!(event = "checkpoint_failed", %error),
        }
    }

    fn forget(&mut self) {
        let since = self.shared.idents_since();
        // Once a minute is often enough for something that is kept for weeks.
        if since > self.idents_forgotten + 60_000 {
            self.idents_forgotten = since;
            let _ = self.shared.index_jobs.push(IndexJob::Forget(since));
        }
    }

    fn usage(&self) -> Vec<(u64, u64, Usage)> {
        let usage = self
            .shared
            .usage
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Of what lies behind either, not all that is needed may be counted.
        let before = self.durable.generation.min(usage.0);
        self.shared
            .segments
            .live()
            .into_iter()
            .filter(|(generation, _)| *generation < before)
            .map(|(generation, length)| {
                let usage = usage.1.get(&generation).cloned().unwrap_or_default();
                (generation, length, usage)
            })
            .collect()
    }

    fn any_live(&self, generation: u64, of: &BTreeSet<u64>) -> bool {
        let mut others = of.iter().filter(|other| **other != generation);
        others.any(|other| self.shared.segments.is_live(*other))
    }

    /// Whether a segment still says something that matters apart from messages and batches, and can be carried forward.
    fn remembers(&self, generation: u64, usage: &Usage) -> bool {
        self.any_live(generation, &usage.depends) || usage.idents_time > self.shared.idents_since()
    }

    /// Takes out of use what is not needed.
    fn release(&self) -> bool {
        // A copy is being made.
        let Ok(_sweeping) = self.shared.sweeping.try_lock() else {
            return false;
        };
        let mut released = Vec::new();
        let Ok(kept) = damage::kept_segments(self.shared.disk.as_ref(), &self.shared.corrupt)
        else {
            return false;
        };
        for (generation, _, usage) in self.usage() {
            let needed = usage.messages > 0
                || usage.states > 0
                || self.remembers(generation, &usage)
                // The old copies go first; they are let go of at their next round.
                || self.any_live(generation, &usage.supersedes)
                || kept.contains(&generation);
            if needed {
                continue;
            }
            match self.shared.segments.release(generation) {
                Ok(()) => released.push(generation),
                Err(error) => tracing::warn!(event = "segment_not_released", generation, %error),
            }
        }
        if released.is_empty() {
            return false;
        }
        // What others say of messages in these is let go only when their names cannot come back.
        if let Err(error) = self.shared.segments.sync() {
            tracing::warn!(event = "segment_not_released", %error);
            return false;
        }
        tracing::debug!(event = "segments_released", count = released.len());
        let _ = self.shared.index_jobs.push(IndexJob::Released(released));
        true
    }

    /// Carries the segment forward of which least is needed.
    fn carry(&mut self) -> bool {
        // A disk that does not keep up has better things to do, unless it is room that is missing.
        let slow = self.shared.syncs.slow().is_some() && self.shared.room.full().is_none();
        if slow || self.shared.refusal().is_some() {
            return false;
        }
        self.resting
            .retain(|_, since| since.elapsed() < CARRY_AGAIN_AFTER);
        let least = self
            .usage()
            .into_iter()
            .filter(|(generation, length, usage)| {
                usage.bytes + usage.memory < length / CARRY_BELOW
                    && !self.resting.contains_key(generation)
            })
            .min_by_key(|(_, _, usage)| usage.bytes + usage.memory);
        let Some((generation, _, usage)) = least else {
            return false;
        };
        let remembers = self.remembers(generation, &usage);
        self.resting.insert(generation, Instant::now());
        if usage.messages == 0 && usage.states == 0 && !remembers {
            // The next release takes it.
            return false;
        }
        match carry::forward(&self.shared, generation, remembers) {
            Ok(moved) => moved,
            Err(error) => {
                tracing::warn!(event = "carry_failed", generation, %error);
                false
            }
        }
    }
}
