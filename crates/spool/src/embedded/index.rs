//! The index: an SQLite view of the journal. Holds where batches, messages and idents stand, what each segment is still needed
//! for, and the position that it has read up to, all in one transaction. It may be lost at any time: it is rebuilt.
//! Never the only place of anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::change::{Change, Changes, Numbers};
use super::content;
use super::entry::{Entry, MessagePlace, Position, Span, Track};
use super::record::IdentKey;
use crate::BatchId;
use mail::MessageId;

/// Raised with every change of the tables; an index of another version is rebuilt.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    schema INTEGER NOT NULL, secret INTEGER NOT NULL,
    generation INTEGER NOT NULL, offset INTEGER NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS destinations(
    number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS messages(
    id BLOB PRIMARY KEY, generation INTEGER NOT NULL,
    head_offset INTEGER NOT NULL, head_length INTEGER NOT NULL,
    body_offset INTEGER NOT NULL, body_length INTEGER NOT NULL, checksum INTEGER NOT NULL,
    batches INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches(
    id BLOB PRIMARY KEY, message BLOB NOT NULL, destination INTEGER NOT NULL, track INTEGER NOT NULL,
    key INTEGER NOT NULL, arrival INTEGER NOT NULL, due INTEGER NOT NULL, recipients INTEGER NOT NULL,
    generation INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batches_order ON batches(destination, track, key, id);
CREATE INDEX IF NOT EXISTS batches_oldest ON batches(destination, track, arrival) WHERE track <> 1;
CREATE TABLE IF NOT EXISTS idents(
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lines(
    destination INTEGER NOT NULL, track INTEGER NOT NULL,
    batches INTEGER NOT NULL, recipients INTEGER NOT NULL,
    PRIMARY KEY (destination, track)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments(
    generation INTEGER PRIMARY KEY, messages INTEGER NOT NULL, states INTEGER NOT NULL,
    bytes INTEGER NOT NULL, idents_time INTEGER NOT NULL, memory INTEGER NOT NULL, depends BLOB NOT NULL);
";

const ENTRY: &str =
    "id, message, destination, track, arrival, due, recipients, generation, offset, length";

/// What an ident takes in a record.
const IDENT_BYTES: u64 = 22;
/// What a record of a finished batch takes.
const FINISHED_BYTES: u64 = 40;

/// What a segment is needed for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages that stand in it and are not done.
    pub messages: u64,
    /// Batches whose latest state stands in it.
    pub states: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// The latest ident in it; 0 without one.
    pub idents_time: u64,
    /// Bytes of its idents and of what it says is done.
    pub memory: u64,
    /// It says of batches whose messages stand in these segments that they are done.
    pub depends: BTreeSet<u64>,
}

/// Batches and recipients of a destination in a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Batches.
    pub batches: i64,
    /// Their recipients.
    pub recipients: i64,
}

/// Opens a connection to an index that may not be there yet.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Checkpoints are the sweeper's: one in a commit would make the commit wait for the disk.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The writing side.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    /// Mirror of the table.
    pub segments: BTreeMap<u64, Usage>,
    stored_destinations: u32,
}

impl Index {
    /// Opens the index of the spool with this secret. `None` when it is not this spool's, or not of this version.
    pub fn open(path: &Path, secret: u64) -> rusqlite::Result<Option<Self>> {
        let connection = connect(path)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute(
            "INSERT OR IGNORE INTO meta VALUES (1, ?1, ?2, 0, 0, 0)",
            params![SCHEMA_VERSION, secret as i64],
        )?;
        let (schema, found): (i64, i64) =
            connection.query_row("SELECT schema, secret FROM meta", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if schema != SCHEMA_VERSION || found as u64 != secret {
            return Ok(None);
        }
        connection.execute(
            "DELETE FROM destinations WHERE number NOT IN (SELECT destination FROM lines WHERE batches > 0)",
            [],
        )?;
        connection.execute("DELETE FROM lines WHERE batches <= 0", [])?;
        let segments = connection
            .prepare("SELECT generation, messages, states, bytes, idents_time, memory, depends FROM segments")?
            .query_map([], |row| {
                let depends: Vec<u8> = row.get(6)?;
                let usage = Usage {
                    messages: number(row, 1)?,
                    states: number(row, 2)?,
                    bytes: number(row, 3)?,
                    idents_time: number(row, 4)?,
                    memory: number(row, 5)?,
                    depends: depends
                        .as_chunks::<8>()
                        .0
                        .iter()
                        .map(|bytes| u64::from_le_bytes(*bytes))
                        .collect(),
                };
                Ok((number(row, 0)?, usage))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let next: i64 = connection.query_row(
            "SELECT coalesce(max(number) + 1, 0) FROM destinations",
            [],
            |row| row.get(0),
        )?;
        Ok(Some(Self {
            connection,
            segments,
            stored_destinations: next as u32,
        }))
    }

    /// The position that it has read up to.
    pub fn position(&self) -> rusqlite::Result<Position> {
        position(&self.connection)
    }

    /// The destinations that it knows.
    pub fn numbers(&self) -> rusqlite::Result<Numbers> {
        let mut numbers = Numbers::default();
        let mut statement = self
            .connection
            .prepare("SELECT number, kind, name FROM destinations")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(2)?;
            if let Some(destination) = content::destination_from(row.get(1)?, &name) {
                numbers.insert(row.get(0)?, destination);
            }
        }
        Ok(numbers)
    }

    /// The counts by destination and track.
    pub fn lines(&self) -> rusqlite::Result<Vec<(u32, Track, Line)>> {
        self.connection
            .prepare("SELECT destination, track, batches, recipients FROM lines WHERE batches > 0")?
            .query_map([], |row| {
                let line = Line {
                    batches: row.get(2)?,
                    recipients: row.get(3)?,
                };
                Ok((row.get(0)?, track(row, 1)?, line))
            })?
            .collect()
    }

    /// Applies what groups changed, in one transaction.
    pub fn apply(
        &mut self,
        all: &[Changes],
        numbers: &dyn Fn(u32) -> Option<crate::Destination>,
    ) -> rusqlite::Result<()> {
        let mut segments = self.segments.clone();
        let stored_destinations;
        {
            let transaction = self.connection.transaction()?;
            let mut applying = Applying {
                transaction: &transaction,
                segments: &mut segments,
                touched: BTreeSet::new(),
                lines: HashMap::new(),
                stored_destinations: self.stored_destinations,
            };
            for changes in all {
                applying.changes(changes)?;
            }
            applying.destinations(numbers)?;
            applying.flush()?;
            stored_destinations = applying.stored_destinations;
            if let Some(last) = all.last() {
                transaction
                    .prepare_cached("UPDATE meta SET generation = ?1, offset = ?2, sequence = ?3")?
                    .execute(params![
                        last.resume.generation as i64,
                        last.resume.offset as i64,
                        last.resume.sequence as i64
                    ])?;
            }
            transaction.commit()?;
        }
        self.segments = segments;
        self.stored_destinations = stored_destinations;
        Ok(())
    }

    /// Forgets segments that were taken out of use.
    pub fn released(&mut self, generations: &[u64]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for generation in generations {
            transaction.execute(
                "DELETE FROM segments WHERE generation = ?1",
                [*generation as i64],
            )?;
        }
        transaction.commit()?;
        for generation in generations {
            self.segments.remove(generation);
        }
        Ok(())
    }

    /// Forgets at most `limit` idents from before `time`; they stand in the order in which they came.
    pub fn forget_idents(&mut self, time: u64, limit: u32) -> rusqlite::Result<usize> {
        self.connection.execute(
            "DELETE FROM idents WHERE number IN
                 (SELECT number FROM (SELECT number, time FROM idents ORDER BY number LIMIT ?2) WHERE time < ?1)",
            params![time as i64, limit],
        )
    }
}

struct Applying<'a> {
    transaction: &'a Transaction<'a>,
    segments: &'a mut BTreeMap<u64, Usage>,
    touched: BTreeSet<u64>,
    lines: HashMap<(u32, Track), Line>,
    stored_destinations: u32,
}

impl Applying<'_> {
    fn changes(&mut self, changes: &Changes) -> rusqlite::Result<()> {
        self.usage(changes.generation);
        for change in &changes.changes {
            match change {
                Change::Message {
                    place,
                    entries,
                    idents,
                } => {
                    self.message(place, entries)?;
                    for ident in idents {
                        self.ident(ident, changes.time.0, changes.generation)?;
                    }
                }
                Change::State(entry) => self.state(entry)?,
                Change::Finished {
                    message,
                    batch,
                    generation,
                } => {
                    if let Some(old) = entry(self.transaction, *batch)? {
                        self.remove(&old, *message)?;
                    }
                    // Read again without this record the message's would bring the batch back.
                    if *generation != changes.generation && self.segments.contains_key(generation) {
                        let usage = self.usage(changes.generation);
                        usage.depends.insert(*generation);
                        usage.memory += FINISHED_BYTES;
                    }
                }
                Change::Idents(idents) => {
                    for (key, time) in idents {
                        self.ident(key, time.0, changes.generation)?;
                    }
                }
                Change::Carried(generation) => {
                    if self.segments.contains_key(generation) {
                        let usage = self.usage(*generation);
                        usage.idents_time = 0;
                        usage.memory = 0;
                        usage.depends.clear();
                    }
                }
            }
        }
        Ok(())
    }

    fn usage(&mut self, generation: u64) -> &mut Usage {
        self.touched.insert(generation);
        self.segments.entry(generation).or_default()
    }

    fn count(&mut self, entry: &Entry, sign: i64) {
        let line = self
            .lines
            .entry((entry.destination, entry.track))
            .or_default();
        line.batches += sign;
        line.recipients += sign * i64::from(entry.recipients);
        let usage = self.usage(entry.span.generation);
        usage.states = usage.states.saturating_add_signed(sign);
        usage.bytes = usage
            .bytes
            .saturating_add_signed(sign * i64::from(entry.span.length));
    }

    fn message(&mut self, place: &MessagePlace, entries: &[Entry]) -> rusqlite::Result<()> {
        if let Some(old) = message(self.transaction, place.id)? {
            if (old.head.generation, old.head.offset) >= (place.head.generation, place.head.offset)
            {
                return Ok(());
            }
            // Carried forward: the copy names exactly what is left.
            let kept: BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
            for gone in batches_of(self.transaction, place.id)? {
                if !kept.contains(&gone.id) {
                    self.remove(&gone, place.id)?;
                }
            }
            self.weigh(&old, -1);
        }
        self.weigh(place, 1);
        self.transaction
            .prepare_cached(
                "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)
                 ON CONFLICT (id) DO UPDATE SET generation = ?2, head_offset = ?3, head_length = ?4,
                     body_offset = ?5, body_length = ?6, checksum = ?7",
            )?
            .execute(params![
                blob(place.id.0),
                place.head.generation as i64,
                place.head.offset,
                place.head.length,
                place.body_offset as i64,
                place.body_length as i64,
                place.checksum
            ])?;
        for entry in entries {
            self.state(entry)?;
        }
        Ok(())
    }

    fn weigh(&mut self, place: &MessagePlace, sign: i64) {
        let bytes = place.body_length as i64 + i64::from(place.head.length);
        let usage = self.usage(place.generation());
        usage.messages = usage.messages.saturating_add_signed(sign);
        usage.bytes = usage.bytes.saturating_add_signed(sign * bytes);
    }

    fn state(&mut self, new: &Entry) -> rusqlite::Result<()> {
        match entry(self.transaction, new.id)? {
            Some(old) => {
                if (old.span.generation, old.span.offset) >= (new.span.generation, new.span.offset)
                {
                    return Ok(());
                }
                self.count(&old, -1);
            }
            None => {
                let known = self
                    .transaction
                    .prepare_cached("UPDATE messages SET batches = batches + 1 WHERE id = ?1")?
                    .execute([blob(new.message.0)])?;
                if known == 0 {
                    // Its message was done and its segment used again.
                    return Ok(());
                }
            }
        }
        self.count(new, 1);
        self.transaction
            .prepare_cached(
                "REPLACE INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                blob(new.id.0),
                blob(new.message.0),
                new.destination,
                new.track as u8,
                new.key().0 as i64,
                new.arrival as i64,
                new.due as i64,
                new.recipients,
                new.span.generation as i64,
                new.span.offset,
                new.span.length
            ])?;
        Ok(())
    }

    fn remove(&mut self, old: &Entry, id: MessageId) -> rusqlite::Result<()> {
        self.count(old, -1);
        self.transaction
            .prepare_cached("DELETE FROM batches WHERE id = ?1")?
            .execute([blob(old.id.0)])?;
        let left: Option<i64> = self
            .transaction
            .prepare_cached(
                "UPDATE messages SET batches = batches - 1 WHERE id = ?1 RETURNING batches",
            )?
            .query_row([blob(id.0)], |row| row.get(0))
            .optional()?;
        if left == Some(0)
            && let Some(place) = message(self.transaction, id)?
        {
            self.weigh(&place, -1);
            self.transaction
                .prepare_cached("DELETE FROM messages WHERE id = ?1")?
                .execute([blob(id.0)])?;
        }
        Ok(())
    }

    fn ident(&mut self, key: &IdentKey, time: u64, generation: u64) -> rusqlite::Result<()> {
        let usage = self.usage(generation);
        usage.idents_time = usage.idents_time.max(time);
        usage.memory += IDENT_BYTES;
        self.transaction
            .prepare_cached("INSERT INTO idents(key, time) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET time = max(time, ?2)")?
            .execute(params![key, time as i64])?;
        Ok(())
    }

    fn destinations(
        &mut self,
        name: &dyn Fn(u32) -> Option<crate::Destination>,
    ) -> rusqlite::Result<()> {
        while let Some(destination) = name(self.stored_destinations) {
            let (kind, text) = content::destination_parts(&destination);
            self.transaction
                .prepare_cached("REPLACE INTO destinations VALUES (?1, ?2, ?3)")?
                .execute(params![self.stored_destinations, kind, text])?;
            self.stored_destinations += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> rusqlite::Result<()> {
        for ((destination, track), line) in self.lines.drain() {
            self.transaction
                .prepare_cached(
                    "INSERT INTO lines VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET batches = batches + ?3, recipients = recipients + ?4",
                )?
                .execute(params![
                    destination,
                    track as u8,
                    line.batches,
                    line.recipients
                ])?;
        }
        for generation in &self.touched {
            let Some(usage) = self.segments.get(generation) else {
                continue;
            };
            let depends: Vec<u8> = usage
                .depends
                .iter()
                .flat_map(|at| at.to_le_bytes())
                .collect();
            self.transaction
                .prepare_cached("REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    *generation as i64,
                    usage.messages as i64,
                    usage.states as i64,
                    usage.bytes as i64,
                    usage.idents_time as i64,
                    usage.memory as i64,
                    depends
                ])?;
        }
        Ok(())
    }
}

/// Stored so that their order is the numbers' order.
fn blob(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<u128> {
    Ok(u128::from_be_bytes(row.get(column)?))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

fn track(row: &Row<'_>, column: usize) -> rusqlite::Result<Track> {
    let number: u8 = row.get(column)?;
    Track::from_number(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(
        column,
        i64::from(number),
    ))
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: BatchId(id(row, 0)?),
        message: MessageId(id(row, 1)?),
        destination: row.get(2)?,
        track: track(row, 3)?,
        arrival: number(row, 4)?,
        due: number(row, 5)?,
        recipients: row.get(6)?,
        span: Span {
            generation: number(row, 7)?,
            offset: row.get(8)?,
            length: row.get(9)?,
        },
    })
}

/// The position stored.
pub fn position(connection: &Connection) -> rusqlite::Result<Position> {
    connection
        .prepare_cached("SELECT generation, offset, sequence FROM meta")?
        .query_row([], |row| {
            Ok(Position {
                generation: number(row, 0)?,
                offset: number(row, 1)?,
                sequence: number(row, 2)?,
            })
        })
}

/// A batch.
pub fn entry(connection: &Connection, batch: BatchId) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached(&format!("SELECT {ENTRY} FROM batches WHERE id = ?1"))?
        .query_row([blob(batch.0)], read_entry)
        .optional()
}

/// A message.
pub fn message(connection: &Connection, id: MessageId) -> rusqlite::Result<Option<MessagePlace>> {
    connection
        .prepare_cached(
            "SELECT generation, head_offset, head_length, body_offset, body_length, checksum
             FROM messages WHERE id = ?1",
        )?
        .query_row([blob(id.0)], |row| {
            Ok(MessagePlace {
                id,
                head: Span {
                    generation: number(row, 0)?,
                    offset: row.get(1)?,
                    length: row.get(2)?,
                },
                body_offset: number(row, 3)?,
                body_length: number(row, 4)?,
                checksum: row.get(5)?,
            })
        })
        .optional()
}

/// The batches of a message: their ids share its upper half.
pub fn batches_of(connection: &Connection, id: MessageId) -> rusqlite::Result<Vec<Entry>> {
    let low = id.0 >> 64 << 64;
    let high = low | u128::from(u64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT {ENTRY} FROM batches WHERE id BETWEEN ?1 AND ?2 AND message = ?3"
        ))?
        .query_map(params![blob(low), blob(high), blob(id.0)], read_entry)?
        .collect()
}

/// Whether an ident is remembered since `since` or later.
pub fn has_ident(connection: &Connection, key: &IdentKey, since: u64) -> rusqlite::Result<bool> {
    let time: Option<i64> = connection
        .prepare_cached("SELECT time FROM idents WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(time.is_some_and(|time| time as u64 >= since))
}

/// The next `limit` batches of a track behind `after`, with keys below `below`.
pub fn following(
    connection: &Connection,
    destination: u32,
    track: Track,
    after: (u64, BatchId),
    below: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(&format!(
            "SELECT {ENTRY} FROM batches
             WHERE destination = ?1 AND track = ?2 AND (key, id) > (?3, ?4) AND key < ?5
             ORDER BY key, id LIMIT ?6"
        ))?
        .query_map(
            params![
                destination,
                track as u8,
                after.0 as i64,
                blob(after.1.0),
                i64::try_from(below).unwrap_or(i64::MAX),
                limit as i64
            ],
            read_entry,
        )?
        .collect()
}

/// The oldest arrival in a track of those that `counts`; for [`Track::Ripe`] the order itself tells it.
pub fn oldest(
    connection: &Connection,
    destination: u32,
    track: Track,
    mut counts: impl FnMut(BatchId) -> bool,
) -> rusqlite::Result<Option<u64>> {
    let order = match track {
        Track::Ripe => "ORDER BY key, id",
        _ => "AND track <> 1 ORDER BY arrival",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, arrival FROM batches WHERE destination = ?1 AND track = ?2 {order}"
    ))?;
    let mut rows = statement.query(params![destination, track as u8])?;
    while let Some(row) = rows.next()? {
        if counts(BatchId(id(row, 0)?)) {
            return Ok(Some(number(row, 1)?));
        }
    }
    Ok(None)
}
