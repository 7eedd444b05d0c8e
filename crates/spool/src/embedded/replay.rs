//! Reads the journal on from a position: every good group once, in order. Knows a torn tail (the write that a crash cut:
//! dropped, it was never acknowledged) from damage in the middle (set aside and told; what is whole of it counts). What the
//! disk refuses is asked for again, then counts as damage, and is never written over: it may come back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::codec::Malformed;
use super::damage::Damage;
use super::disk::{self, Disk, File};
use super::entry::Position;
use super::group::{HEADER, Header, PAGE};
use super::load::is_of_disk;
use super::record::{self, Record};
use super::segment::Segments;

/// Looking for a later group reads so much at once.
const SEARCH_BYTES: u64 = 1024 * 1024;
/// What the disk refuses is asked for again after these: a start can wait for a reset of the bus, and not much longer.
const AGAIN_AFTER: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// A disk that refuses more of the journal than this, bytes, is no disk to go on with: each page may take it half a minute.
const REFUSED_BYTES_MAX: u64 = 1024 * 1024;

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
    /// Pages that the disk refused: segment, offset.
    pub(super) refused: RefCell<BTreeSet<(u64, u64)>>,
}

/// What stands at a place.
enum Found {
    Good(Box<Group>),
    Nothing,
}

impl<'a> Replay<'a> {
    /// Of these segments.
    pub fn new(
        disk: &'a Arc<dyn Disk>,
        segments: &'a Segments,
        secret: u64,
        corrupt: &'a Path,
    ) -> Self {
        Self {
            disk,
            segments,
            secret,
            corrupt,
            damage: RefCell::default(),
            refused: RefCell::default(),
        }
    }

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
                let mut all = self.notice_gap(last, &group, offset)?;
                offset = group.end().offset;
                all.push(group);
                for group in all {
                    if let Some(held) = held.replace(group) {
                        end = held.end();
                        visit(held)?;
                    }
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
        let behind = self.behind(end)?;
        // A segment that was taken into use and not written yet is where the journal goes on.
        if let Some(last) = self.segments.live().keys().next_back().copied()
            && last > end.generation
        {
            end.generation = last;
            end.offset = 0;
        }
        Ok(end.max(behind))
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
        match self.refused.borrow().is_empty() {
            true => Ok(()),
            false => Err(E::from(ReplayError::Io(Errno::IO.into()))),
        }
    }

    /// Reads; what the disk refuses counts as zeros.
    pub(super) fn read(
        &self,
        file: &dyn File,
        generation: u64,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ReplayError> {
        let pages = (generation, offset / PAGE * PAGE)..(generation, offset + length as u64);
        let is_known = self.refused.borrow().range(pages).next().is_some();
        let mut waits = AGAIN_AFTER.iter().filter(|_| !is_known);
        loop {
            match disk::read_at(file, offset, length) {
                Err(error) if is_of_disk(&error) => match waits.next() {
                    Some(wait) => std::thread::sleep(*wait),
                    None => break,
                },
                other => return Ok(other?),
            }
        }
        let mut refused = self.refused.borrow_mut();
        let bytes = disk::read_around(file, offset, length, |at, _| {
            if refused.insert((generation, at / PAGE * PAGE)) {
                tracing::error!(event = "disk_unreadable", generation, offset = at);
            }
        });
        if refused.len() as u64 * PAGE > REFUSED_BYTES_MAX {
            return Err(ReplayError::Io(io::Error::other(format!(
                "the disk refuses more than {REFUSED_BYTES_MAX} bytes: copy it with a tool for that, and start on the copy"
            ))));
        }
        Ok(bytes)
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
            let want = SEARCH_BYTES.min(length - chunk_at) as usize;
            let chunk = self.read(file, generation, chunk_at, want)?;
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
        let Some((header, records)) = self.bytes(file, generation, length, offset)? else {
            return Ok(Found::Nothing);
        };
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

    /// A header, and what stands in the place of its records.
    pub(super) fn bytes(
        &self,
        file: &dyn File,
        generation: u64,
        length: u64,
        offset: u64,
    ) -> Result<Option<(Header, Vec<u8>)>, ReplayError> {
        let bytes = self.read(file, generation, offset, HEADER)?;
        let header = match Header::decode(&bytes, self.secret, generation) {
            Ok(Some(header)) if header.length() <= length - offset => header,
            Ok(_) => return Ok(None),
            Err(error) => return Err(ReplayError::Version(error)),
        };
        let records_at = offset + HEADER as u64;
        let records = self.read(file, generation, records_at, header.records as usize)?;
        Ok(Some((header, records)))
    }

    fn bodies_are_whole(&self, group: &Group) -> io::Result<bool> {
        for record in &group.records {
            if let Record::Message { body, .. } = record {
                let read = self.segments.read_at(
                    group.header.generation,
                    group.bodies_at() + body.offset,
                    body.length as usize,
                );
                let bytes = match read {
                    // A write that was cut can be read; whether this one was, the disk does not say.
                    Err(error) if is_of_disk(&error) => continue,
                    other => other?,
                };
                if bytes.len() as u64 != body.length || crc32c::crc32c(&bytes) != body.checksum {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
