//! Reads the journal on from a position: every good group once, in order. Knows a torn tail (the write that a crash cut:
//! dropped, it was never acknowledged) from damage in the middle (set aside and told).

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::Malformed;
use super::disk::{self, Disk, File};
use super::entry::Position;
use super::group::{HEADER, Header, PAGE};
use super::record::{self, Record};
use super::segment::Segments;

/// Looking for a later group reads so much at once.
const SEARCH_BYTES: u64 = 1024 * 1024;

/// A group that was read.
#[derive(Debug)]
pub struct Group {
    /// Its header.
    pub header: Header,
    /// Where it starts.
    pub offset: u64,
    /// Its records.
    pub records: Vec<Record>,
}

impl Group {
    /// The position behind it.
    pub fn end(&self) -> Position {
        Position {
            generation: self.header.generation,
            offset: self.offset + self.header.length(),
            sequence: self.header.sequence,
        }
    }

    /// Where its records start.
    pub fn records_at(&self) -> u64 {
        self.offset + HEADER as u64
    }

    /// Where its bodies start.
    pub fn bodies_at(&self) -> u64 {
        self.offset + self.header.bodies_at()
    }
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A record of a later version.
    #[error(transparent)]
    Version(Malformed),
}

/// What reading needs to know.
#[derive(Debug)]
pub struct Replay<'a> {
    /// The disk, for what is set aside.
    pub disk: &'a Arc<dyn Disk>,
    /// The segments.
    pub segments: &'a Segments,
    /// The spool's secret.
    pub secret: u64,
    /// Where damaged stretches are set aside.
    pub corrupt: &'a Path,
    /// What was found damaged.
    pub damage: RefCell<Vec<Damage>>,
}

/// A stretch of the journal in which acknowledged groups cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The use of the segment.
    pub generation: u64,
    /// Where the stretch starts in it.
    pub offset: u64,
    /// Its length, bytes.
    pub length: u64,
    /// Groups missing.
    pub groups: u64,
    /// Where a copy of the stretch was put.
    pub set_aside: PathBuf,
}

/// What stands at a place.
enum Found {
    Good(Box<Group>),
    Nothing,
}

impl Replay<'_> {
    /// Hands every good group behind `from` to `visit`; returns where the journal ends.
    pub fn run<E: From<ReplayError>>(
        &self,
        from: Position,
        mut visit: impl FnMut(Group) -> Result<(), E>,
    ) -> Result<Position, E> {
        let mut end = from;
        // The last group read; it is believed only when another follows or all its bodies are whole.
        let mut held: Option<Group> = None;
        for (generation, length) in self.segments.live() {
            if generation < from.generation {
                continue;
            }
            let file = self.segments.file(generation).map_err(ReplayError::Io)?;
            let mut offset = match generation == from.generation {
                true => from.offset,
                false => 0,
            };
            while let Some(group) = self.next(file.as_ref(), generation, length, offset)? {
                let last = held.as_ref().map_or(end, Group::end);
                self.notice_gap(last, &group, file.as_ref(), offset);
                offset = group.end().offset;
                if let Some(held) = held.replace(group) {
                    end = held.end();
                    visit(held)?;
                }
            }
        }
        if let Some(held) = held {
            if self.bodies_are_whole(&held).map_err(ReplayError::Io)? {
                end = held.end();
                visit(held)?;
            } else {
                tracing::warn!(
                    event = "torn_tail",
                    generation = held.header.generation,
                    offset = held.offset
                );
                // The next group goes where this one would have stood.
                end.generation = held.header.generation;
                end.offset = held.offset;
            }
        }
        // A segment that was taken into use and not written yet is where the journal goes on.
        if let Some(last) = self.segments.live().keys().next_back().copied()
            && last > end.generation
        {
            end.generation = last;
            end.offset = 0;
        }
        Ok(end)
    }

    /// Hands every good group of one segment to `visit`.
    pub fn segment<E: From<ReplayError>>(
        &self,
        from: Position,
        mut visit: impl FnMut(Group) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(length) = self.segments.live().get(&from.generation).copied() else {
            return Ok(());
        };
        let file = self
            .segments
            .file(from.generation)
            .map_err(ReplayError::Io)?;
        let mut offset = from.offset;
        while let Some(group) = self.next(file.as_ref(), from.generation, length, offset)? {
            offset = group.end().offset;
            visit(group)?;
        }
        Ok(())
    }

    /// The first good group at or behind `offset`.
    fn next(
        &self,
        file: &dyn File,
        generation: u64,
        length: u64,
        offset: u64,
    ) -> Result<Option<Group>, ReplayError> {
        if let Found::Good(group) = self.at(file, generation, length, offset)? {
            return Ok(Some(*group));
        }
        let mut chunk_at = offset + PAGE;
        while chunk_at < length {
            let chunk =
                disk::read_at(file, chunk_at, SEARCH_BYTES.min(length - chunk_at) as usize)?;
            for (page, bytes) in chunk.chunks(PAGE as usize).enumerate() {
                if let Ok(Some(_)) = Header::decode(bytes, self.secret, generation) {
                    let at = chunk_at + page as u64 * PAGE;
                    if let Found::Good(group) = self.at(file, generation, length, at)? {
                        return Ok(Some(*group));
                    }
                }
            }
            chunk_at += SEARCH_BYTES;
        }
        Ok(None)
    }

    fn at(
        &self,
        file: &dyn File,
        generation: u64,
        length: u64,
        offset: u64,
    ) -> Result<Found, ReplayError> {
        if offset + PAGE > length {
            return Ok(Found::Nothing);
        }
        let bytes = disk::read_at(file, offset, HEADER)?;
        let header = match Header::decode(&bytes, self.secret, generation) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Found::Nothing),
            Err(error) => return Err(ReplayError::Version(error)),
        };
        if header.length() > length - offset {
            return Ok(Found::Nothing);
        }
        let records = disk::read_at(file, offset + HEADER as u64, header.records as usize)?;
        if records.len() != header.records as usize || crc32c::crc32c(&records) != header.checksum {
            return Ok(Found::Nothing);
        }
        match record::read_all(&records) {
            Ok(records) => Ok(Found::Good(Box::new(Group {
                header,
                offset,
                records,
            }))),
            Err(error @ Malformed::Version { .. }) => Err(ReplayError::Version(error)),
            Err(error) => {
                tracing::error!(event = "journal_damaged", generation, offset, %error);
                Ok(Found::Nothing)
            }
        }
    }

    /// Tells of groups that should stand between `last` and `group`, and sets the stretch aside.
    fn notice_gap(&self, last: Position, group: &Group, file: &dyn File, expected: u64) {
        let header = &group.header;
        // Between segments that do not follow each other others were used again: no gap can be seen there.
        let adjacent = header.generation <= last.generation + 1 && last.generation > 0;
        if !adjacent || (header.sequence == last.sequence + 1 && group.offset == expected) {
            return;
        }
        let length = group.offset.saturating_sub(expected);
        let path = self
            .corrupt
            .join(format!("journal-{:016x}-{expected}", header.generation));
        let saved = disk::read_at(file, expected, length as usize)
            .and_then(|bytes| disk::write_file(self.disk.as_ref(), &path, &bytes));
        tracing::error!(
            event = "journal_damaged",
            generation = header.generation,
            offset = expected,
            length,
            groups_missing = header.sequence.saturating_sub(last.sequence + 1),
            set_aside = %path.display(),
            saved = saved.is_ok(),
            "groups that were acknowledged cannot be read; look at the disk, and at what was set aside"
        );
        self.damage.borrow_mut().push(Damage {
            generation: header.generation,
            offset: expected,
            length,
            groups: header.sequence.saturating_sub(last.sequence + 1),
            set_aside: path,
        });
    }

    fn bodies_are_whole(&self, group: &Group) -> io::Result<bool> {
        for record in &group.records {
            if let Record::Message { body, .. } = record {
                let bytes = self.segments.read_at(
                    group.header.generation,
                    group.bodies_at() + body.offset,
                    body.length as usize,
                )?;
                if bytes.len() as u64 != body.length || crc32c::crc32c(&bytes) != body.checksum {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
