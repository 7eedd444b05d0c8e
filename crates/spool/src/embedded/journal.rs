//! The end of the journal: where the next group goes. Appends and syncs; a group that is larger than a segment gets one of
//! its own. Never reads, never decides what is acknowledged.

use std::io;
use std::sync::Arc;

use mail::Timestamp;

use super::disk::{self, File};
use super::entry::Position;
use super::group::Draft;
use super::segment::Segments;

/// The writing end.
#[derive(Debug)]
pub struct Journal {
    segments: Arc<Segments>,
    segment_bytes: u64,
    secret: u64,
    end: Position,
    current: Option<(Arc<dyn File>, u64)>,
}

/// Why a group was not written.
#[derive(Debug)]
pub enum AppendError {
    /// No room for a new segment; nothing was written, it may work later.
    NoRoom(io::Error),
    /// What is on the disk now is unknown.
    Broken(io::Error),
}

impl Journal {
    /// Goes on at `end`.
    pub fn new(
        segments: Arc<Segments>,
        segment_bytes: u64,
        secret: u64,
        end: Position,
    ) -> io::Result<Self> {
        let current = match segments.live().get(&end.generation) {
            Some(length) => Some((segments.file(end.generation)?, *length)),
            None => None,
        };
        Ok(Self {
            segments,
            segment_bytes,
            secret,
            end,
            current,
        })
    }

    /// Where the next group would go.
    pub fn end(&self) -> Position {
        self.end
    }

    /// Writes and syncs a group; returns where it starts, and whether a segment was begun for it.
    pub fn append(
        &mut self,
        draft: &Draft,
        now: Timestamp,
    ) -> Result<(Position, bool), AppendError> {
        let length = draft.length();
        let fits = self
            .current
            .as_ref()
            .filter(|(_, size)| self.end.offset + length <= *size);
        let (file, begun) = match fits {
            Some((file, _)) => (file.clone(), false),
            None => (self.roll(length)?, true),
        };
        let start = Position {
            sequence: self.end.sequence + 1,
            ..self.end
        };
        let bytes = draft.encode(self.secret, start.generation, start.sequence, now);
        disk::write_all_at(file.as_ref(), &bytes, start.offset).map_err(AppendError::Broken)?;
        file.sync().map_err(AppendError::Broken)?;
        self.end = Position {
            offset: start.offset + length,
            ..start
        };
        Ok((start, begun))
    }

    fn roll(&mut self, length: u64) -> Result<Arc<dyn File>, AppendError> {
        let generation = self.end.generation + 1;
        let taken = self
            .segments
            .take(generation, length.max(self.segment_bytes));
        let (file, size) = taken.map_err(|error| match disk::is_full(&error) {
            true => AppendError::NoRoom(error),
            false => AppendError::Broken(error),
        })?;
        self.end.generation = generation;
        self.end.offset = 0;
        self.current = Some((file.clone(), size));
        Ok(file)
    }
}
