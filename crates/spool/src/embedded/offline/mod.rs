//! Reading a spool that no process works on, without changing a byte of it: to check it, and to get mail out of a copied or damaged
//! disk. Needs the segments alone; the index is made anew in a folder elsewhere.

mod readonly;

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mail::MessageId;

use super::content;
use super::copy;
use super::damage::Damage;
use super::disk::{Disk, System};
use super::entry::MessagePlace;
use super::group::{HEADER, Header};
use super::index::{self, Index};
use super::load;
use super::lookup;
use super::recover::{self, failed};
use super::replay::Replay;
use super::segment::Segments;
use crate::{Batch, BatchId, Error, Head, Ledger};
use readonly::ReadOnly;

/// Messages that are looked up at once.
const PAGE_MESSAGES: usize = 1000;

/// What there is in a spool, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It is a copy that no operator has adopted.
    pub copy: bool,
    /// Segments in use.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages of which something is left to do.
    pub messages: u64,
    /// Their batches.
    pub batches: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Of the batches, those held.
    pub held: u64,
    /// How every accepted recipient ended, or that it waits. Each group tells the whole of it, so that what a damaged journal has lost
    /// is missing in it: [`Ledger::difference`].
    pub ledger: Ledger,
    /// The file `format` could not be read; the segments told the secret.
    pub format_lost: bool,
    /// Stretches of the journal in which acknowledged groups are missing.
    pub damage: Vec<Damage>,
    /// Bytes that the system could not read.
    pub unreadable_bytes: u64,
    /// Messages whose body does not match its checksum.
    pub corrupt_bodies: Vec<MessageId>,
    /// Messages whose envelope cannot be read.
    pub unreadable_heads: Vec<MessageId>,
    /// Batches that cannot be read.
    pub unreadable_batches: Vec<BatchId>,
    /// What the spool's program has set aside in `corrupt/`, by name.
    pub set_aside: Vec<String>,
}

impl Report {
    /// Whether all that was acknowledged can be read.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
            && self.unreadable_bytes == 0
            && self.corrupt_bodies.is_empty()
            && self.unreadable_heads.is_empty()
            && self.unreadable_batches.is_empty()
    }
}

/// A message as it was found; what cannot be read says why.
#[derive(Debug)]
pub struct Stored {
    /// Its name.
    pub id: MessageId,
    /// Its envelope and facts.
    pub head: Result<Head, String>,
    /// Its bytes; with a wrong checksum what there is of them is the second part of the error.
    pub body: Result<Bytes, (String, Bytes)>,
    /// What is left to be done with it.
    pub batches: Vec<Result<Batch, (BatchId, String)>>,
}

/// An opened spool.
#[derive(Debug)]
pub struct Offline {
    disk: Arc<ReadOnly>,
    segments: Segments,
    connection: rusqlite::Connection,
    /// Counts of all but the content, which nobody has looked at yet.
    report: Report,
}

impl Offline {
    /// Reads the journal of the spool at `path`; `work` is an empty folder for an index, and for what is found damaged.
    pub fn open(path: &Path, work: &Path) -> Result<Self, Error> {
        refuse_in_use(path)?;
        let disk = Arc::new(ReadOnly::default());
        let reading: Arc<dyn Disk> = disk.clone();
        let folder = path.join("journal");
        let segments =
            Segments::open(reading, folder.clone(), u64::MAX).map_err(failed(&folder))?;
        let live = segments.live();
        let (secret, format_lost) = match recover::read_secret(&System, &path.join("format")) {
            Ok(Some(secret)) => (secret, false),
            Ok(None) if live.is_empty() => {
                return Err(failed(path)(io::Error::new(
                    io::ErrorKind::NotFound,
                    "no spool: there is neither a file `format` nor a segment in `journal`",
                )));
            }
            // Lost, or unreadable as the rest of the disk.
            Ok(None) | Err(_) => (secret_of(&segments, &live, path)?, true),
        };
        let index_path = work.join("index.sqlite");
        let sql = |error| failed(&index_path)(io::Error::other(error));
        let mut index = Index::open(&index_path, secret)
            .map_err(sql)?
            .ok_or_else(|| {
                failed(work)(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the work folder holds another spool's index; give an empty folder",
                ))
            })?;
        let writing: Arc<dyn Disk> = Arc::new(System);
        let replay = Replay::new(&writing, &segments, secret, work);
        recover::catch_up(&replay, &mut index, &index_path)?;
        let mut report = Report {
            // A mark that cannot be read is there.
            copy: copy::is_marked(&System, path).unwrap_or(true),
            segments: live.len() as u64,
            bytes: live.values().sum(),
            format_lost,
            set_aside: names(&load::corrupt_folder(path)),
            damage: replay.damage.take(),
            ..Report::default()
        };
        let lines = index.lines().map_err(sql)?;
        report.ledger = index.ledger(&lines).map_err(sql)?;
        let connection = index::connect(&index_path).map_err(sql)?;
        drop(index);
        (report.messages, report.batches, report.recipients) =
            lookup::totals(&connection).map_err(sql)?;
        Ok(Self {
            disk,
            segments,
            connection,
            report,
        })
    }

    /// What there is, before any content was read.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Reads everything, and says what is wrong.
    pub fn check(&self) -> Result<Report, Error> {
        let mut report = self.report.clone();
        self.messages(|stored| {
            if stored.head.is_err() {
                report.unreadable_heads.push(stored.id);
            }
            if stored.body.is_err() {
                report.corrupt_bodies.push(stored.id);
            }
            for batch in &stored.batches {
                match batch {
                    Ok(batch) => report.held += u64::from(batch.held.is_some()),
                    Err((id, _)) => report.unreadable_batches.push(*id),
                }
            }
            Ok(())
        })?;
        report.unreadable_bytes = self.disk.unreadable();
        Ok(report)
    }

    /// Hands every message to `visit`, in the order in which they were accepted; an error ends it.
    pub fn messages(
        &self,
        mut visit: impl FnMut(Stored) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sql = |error| failed(self.segments.folder())(io::Error::other(error));
        let mut after = None;
        loop {
            let page =
                lookup::messages_after(&self.connection, after, PAGE_MESSAGES).map_err(sql)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.id);
            for place in &page {
                let stored = self.stored(place).map_err(sql)?;
                visit(stored)?;
            }
        }
    }

    fn stored(&self, place: &MessagePlace) -> rusqlite::Result<Stored> {
        let read = |span| self.segments.read(span).map_err(|error| error.to_string());
        let head = read(place.head)
            .and_then(|bytes| content::decode_head(&bytes).map_err(|error| error.to_string()));
        let batches = lookup::batches_of(&self.connection, place.id)?
            .iter()
            .map(|entry| {
                let stored = read(entry.span).and_then(|bytes| {
                    content::decode_batch(&bytes).map_err(|error| error.to_string())
                });
                stored
                    .map(|stored| stored.batch)
                    .map_err(|error| (entry.id, error))
            })
            .collect();
        Ok(Stored {
            id: place.id,
            head,
            body: self.body(place),
            batches,
        })
    }

    fn body(&self, place: &MessagePlace) -> Result<Bytes, (String, Bytes)> {
        let length = place.body_length as usize;
        let body = self
            .segments
            .read_at(place.generation(), place.body_offset, length)
            .map_err(|error| (error.to_string(), Bytes::new()))?;
        match body.len() == length && crc32c::crc32c(&body) == place.checksum {
            true => Ok(body.into()),
            false => Err(("does not match its checksum".into(), body.into())),
        }
    }
}

/// The names in a folder, sorted; none when it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = (System.list(folder).unwrap_or_default().iter())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// A process that works on it would change it under our hands.
pub(super) fn refuse_in_use(path: &Path) -> Result<(), Error> {
    let lock: PathBuf = path.join("lock");
    match std::fs::File::open(&lock).map(|file| file.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => Err(failed(&lock)(io::Error::new(
            io::ErrorKind::WouldBlock,
            "a running process has this spool open; stop it, or look at a copy",
        ))),
        // Without the file, or where files cannot be locked, nobody can be asked.
        _ => Ok(()),
    }
}

/// What most segments say at their start, which no sender of mail can write to.
fn secret_of(segments: &Segments, live: &BTreeMap<u64, u64>, path: &Path) -> Result<u64, Error> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for generation in live.keys() {
        let start = segments.read_at(*generation, 0, HEADER).unwrap_or_default();
        if let Some(secret) = Header::secret_of(&start, *generation) {
            *votes.entry(secret).or_default() += 1;
        }
    }
    votes
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(secret, _)| secret)
        .ok_or_else(|| {
            failed(path)(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file `format` cannot be read, and no segment starts with a group from which its secret could be told",
            ))
        })
}
