//! Opening: folder, lock, format, index, and the journal read on from where the index stands. An index that is lost, foreign or
//! broken is made anew from the live segments. Ends with an index that has everything.

use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::rand::SecureRandom;
use rusqlite::Connection;

use super::Options;
use super::change::{Changes, Numbers, Reader};
use super::claiming::LIVE_FOR;
use super::copy;
use super::disk::{self, Disk};
use super::entry::{Position, Row};
use super::group::PAGE;
use super::heads::Heads;
use super::index::{self, Index};
use super::journal::Journal;
use super::load;
use super::prepare::Prepare;
use super::replay::{Replay, ReplayError};
use super::segment::Segments;
use super::shared::{Parts, Shared};
use super::state::State;
use super::writer::Writer;
use crate::Error;

/// The first words of the file `format`, with the version of the whole.
const FORMAT: &str = "mailflow spool 1";
/// Smallest and largest segment, bytes. Places in a segment are 32-bit numbers.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=1 << 30;
/// Largest message, bytes: it must fit a segment of its own.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;
/// So many changes are read before they are put into the index.
const CHANGES_MAX: usize = 20_000;

/// A spool that was opened.
#[derive(Debug)]
pub struct Recovered {
    /// For all.
    pub shared: Arc<Shared>,
    /// For its thread.
    pub writer: Writer,
    /// For its thread.
    pub index: Index,
    /// For the sweeper.
    pub checkpoints: Connection,
    /// Names messages.
    pub prepare: Prepare,
    /// Where batches wait for their orders to be followed.
    pub ordered: Vec<(u32, Row)>,
    /// Keeps others out.
    pub lock: std::fs::File,
}

pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io {
        path: path.clone(),
        source: Arc::new(error),
    }
}

fn bad(path: &Path, kind: io::ErrorKind, what: String) -> Error {
    failed(path)(io::Error::new(kind, what))
}

/// Opens.
pub fn recover(mut options: Options, disk: Arc<dyn Disk>) -> Result<Recovered, Error> {
    let path = options.path.clone();
    if !SEGMENT_BYTES.contains(&options.segment_bytes)
        || options.message_bytes_max > MESSAGE_BYTES_MAX
    {
        let what = format!(
            "segments of {} bytes and messages of {} bytes: {SEGMENT_BYTES:?} and at most {MESSAGE_BYTES_MAX} are possible",
            options.segment_bytes, options.message_bytes_max
        );
        return Err(bad(&path, io::ErrorKind::InvalidInput, what));
    }
    options.segment_bytes = options.segment_bytes.next_multiple_of(PAGE);
    options.window_max = options.window_max.max(1);
    options.heads_max = options.heads_max.max(1);
    disk.make_folder(&path).map_err(failed(&path))?;
    let lock = lock(&path)?;
    let journal_folder = path.join("journal");
    let corrupt = load::corrupt_folder(&path);
    for folder in [&journal_folder, &corrupt] {
        disk.make_folder(folder).map_err(failed(folder))?;
    }
    let segments = Segments::open(disk.clone(), journal_folder.clone(), options.segment_bytes)
        .map_err(failed(&journal_folder))?;
    let segments = Arc::new(segments);
    let secret = secret(disk.as_ref(), &path, &segments)?;
    let copy = copy::is_marked(disk.as_ref(), &path)?;
    if copy {
        tracing::warn!(
            event = "spool_copy",
            "this spool is a restored copy: nothing leaves of what waits in it before `spool adopt`"
        );
    }
    let index_path = path.join("index.sqlite");
    let replay = Replay::new(&disk, &segments, secret, &corrupt);
    let (mut index, fresh) = open_index(disk.as_ref(), &index_path, secret, &segments)?;
    let (numbers, end) = match catch_up(&replay, &mut index, &index_path) {
        // What an index of an earlier run makes fail may work with a new one.
        Err(error) if !fresh && is_index_error(&error, &index_path) => {
            tracing::error!(event = "index_rebuilt", %error);
            drop(index);
            index = new_index(disk.as_ref(), &index_path, secret)?;
            catch_up(&replay, &mut index, &index_path)?
        }
        other => other?,
    };
    let sql = |error| index_error(&index_path, error);
    let now = options.clock.now();
    let young_from = now.0.saturating_sub(LIVE_FOR.as_millis() as u64) + 1;
    let lines = index.lines().map_err(sql)?;
    let rows = lines
        .iter()
        .map(|(destination, row, _)| (*destination, *row));
    let ledger = index.ledger(&lines).map_err(sql)?;
    let ordered = rows.filter(|(_, row)| row.is_ordered()).collect();
    let mut state = State::new(
        Heads::new(options.window_max, options.heads_max, young_from),
        numbers,
        lines,
        usize::try_from(options.content_bytes_max).unwrap_or(usize::MAX),
        // Unlike any token of an earlier run.
        now.0 << 20,
    );
    state.end = end;
    state.indexed = end.sequence;
    for (row, grain, line) in index.ages().map_err(sql)? {
        state.counts.insert_aged(row, grain, line);
    }
    state.ledger = ledger;
    let journal = Journal::new(segments.clone(), options.segment_bytes, secret, end)
        .map_err(failed(&journal_folder))?;
    let usage = (end.generation, index.segments.clone());
    let for_writer = index::connect(&index_path).map_err(sql)?;
    let checkpoints = index::connect(&index_path).map_err(sql)?;
    let shared = Arc::new(Shared::new(Parts {
        options,
        disk,
        segments,
        secret,
        index_path: index_path.clone(),
        corrupt,
        state,
        copy,
        usage,
    }));
    Ok(Recovered {
        writer: Writer::new(shared.clone(), journal, for_writer),
        shared,
        index,
        checkpoints,
        prepare: Prepare::new(random(&path)?),
        ordered,
        lock,
    })
}

fn lock(path: &Path) -> Result<std::fs::File, Error> {
    let path = path.join("lock");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(bad(
            &path,
            io::ErrorKind::WouldBlock,
            "another process has this spool open; stop it, or give each its own folder".into(),
        )),
        Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
    }
}

fn random(path: &Path) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| {
            bad(
                path,
                io::ErrorKind::Other,
                "the system gives no random numbers".into(),
            )
        })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads the file `format`, or makes it in a new spool.
fn secret(disk: &dyn Disk, path: &Path, segments: &Segments) -> Result<u64, Error> {
    let format = path.join("format");
    match read_secret(disk, &format)? {
        Some(secret) => Ok(secret),
        None if segments.live().is_empty() => {
            let secret = random(path)?;
            // Made whole under another name: half a number must never be read.
            let new = path.join("format.new");
            disk::write_file(disk, &new, format!("{FORMAT} {secret:016x}\n").as_bytes())
                .and_then(|()| disk.rename(&new, &format))
                .and_then(|()| disk.sync_folder(path))
                .map_err(failed(&format))?;
            Ok(secret)
        }
        None => Err(bad(
            &format,
            io::ErrorKind::InvalidData,
            "missing, but there are segments: put it back from a copy of this spool".into(),
        )),
    }
}

/// Reads the file `format`; `None` when it is not there.
pub(super) fn read_secret(disk: &dyn Disk, format: &Path) -> Result<Option<u64>, Error> {
    match disk.read(format) {
        Ok(bytes) => String::from_utf8_lossy(&bytes)
            .strip_prefix(FORMAT)
            .and_then(|rest| u64::from_str_radix(rest.trim(), 16).ok())
            .map(Some)
            .ok_or_else(|| {
                let what = format!(
                    "not a spool that this program can read: {:?}, wanted {FORMAT:?} and a number",
                    String::from_utf8_lossy(&bytes)
                );
                bad(format, io::ErrorKind::InvalidData, what)
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(format)(error)),
    }
}

// === Index ===

fn index_error(path: &Path, error: rusqlite::Error) -> Error {
    failed(path)(io::Error::other(error))
}

fn is_index_error(error: &Error, index: &Path) -> bool {
    matches!(error, Error::Io { path, .. } if path == index)
}

/// Opens the index; whether it was made anew.
fn open_index(
    disk: &dyn Disk,
    path: &Path,
    secret: u64,
    segments: &Segments,
) -> Result<(Index, bool), Error> {
    match Index::open(path, secret) {
        Ok(Some(index)) => {
            let position = index.position().map_err(|error| index_error(path, error))?;
            if position.generation == 0 || segments.is_live(position.generation) {
                return Ok((index, position.generation == 0));
            }
            tracing::error!(
                event = "index_rebuilt",
                "it stands at a segment that is not there"
            );
        }
        Ok(None) => tracing::warn!(
            event = "index_rebuilt",
            "it is another spool's or another version's"
        ),
        Err(error) => tracing::error!(event = "index_rebuilt", %error),
    }
    Ok((new_index(disk, path, secret)?, true))
}

fn new_index(disk: &dyn Disk, path: &Path, secret: u64) -> Result<Index, Error> {
    for suffix in ["sqlite", "sqlite-wal", "sqlite-shm"] {
        let file = path.with_extension(suffix);
        match disk.remove(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&file)(error));
            }
            _ => {}
        }
    }
    Index::open(path, secret)
        .map_err(|error| index_error(path, error))?
        .ok_or_else(|| {
            bad(
                path,
                io::ErrorKind::Other,
                "a new index is not accepted".into(),
            )
        })
}

/// Carries errors of both sides through the replay.
enum Failure {
    Replay(ReplayError),
    Index(rusqlite::Error),
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        Self::Replay(error)
    }
}

/// Brings the index up to the end of the journal, which it returns.
pub(super) fn catch_up(
    replay: &Replay<'_>,
    index: &mut Index,
    index_path: &Path,
) -> Result<(Numbers, Position), Error> {
    let sql = |error| index_error(index_path, error);
    let mut numbers = index.numbers().map_err(sql)?;
    let from = index.position().map_err(sql)?;
    let rebuilding = from.generation == 0;
    if rebuilding {
        index.begin_rebuild();
    }
    let mut reader = Reader::default();
    let mut waiting: Vec<Changes> = Vec::new();
    let mut count = 0;
    let mut time = mail::Timestamp(0);
    let end = replay
        .run(from, |group| {
            let changes = reader.changes(group, &mut numbers);
            time = changes.time;
            count += 1 + changes.changes.len();
            waiting.push(changes);
            if count >= CHANGES_MAX {
                count = 0;
                index
                    .apply(&waiting, &|number| numbers.name(number).cloned())
                    .map_err(Failure::Index)?;
                waiting.clear();
            }
            Ok(())
        })
        .map_err(|failure| match failure {
            Failure::Index(error) => index_error(index_path, error),
            Failure::Replay(ReplayError::Io(error)) => failed(replay.segments.folder())(error),
            Failure::Replay(error @ ReplayError::Version(_)) => bad(
                replay.segments.folder(),
                io::ErrorKind::InvalidData,
                error.to_string(),
            ),
        })?;
    if end != from {
        // Parts that nobody committed belong to a run that is over: they need not be read again.
        waiting.push(Changes {
            generation: end.generation,
            sequence: end.sequence,
            time,
            changes: Vec::new(),
            ledger: None,
            resume: end,
        });
    }
    index
        .apply(&waiting, &|number| numbers.name(number).cloned())
        .map_err(sql)?;
    if rebuilding {
        index.end_rebuild().map_err(sql)?;
    }
    // Segments that were taken out of use just before a crash.
    let live = replay.segments.live();
    let gone: Vec<u64> = index
        .segments
        .keys()
        .filter(|generation| !live.contains_key(generation))
        .copied()
        .collect();
    index.released(&gone).map_err(sql)?;
    Ok((numbers, end))
}
