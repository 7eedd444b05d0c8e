//! The index: an SQLite view of the journal. Holds where batches, messages and idents stand, what each segment is still needed
//! for, and the position that it has read up to, all in one transaction. It may be lost at any time: it is rebuilt.
//! Never the only place of anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use mail::MessageId;
use rusqlite::{Connection, params};

use super::apply::Applying;
use super::change::{Changes, Numbers};
use super::content;
use super::entry::{Position, Row};
use super::lookup::{self, generations, id, number};
use super::orders::put_ledger;
use crate::Ledger;

/// Raised with every change of the tables; an index of another version is rebuilt.
const SCHEMA_VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    schema INTEGER NOT NULL, secret INTEGER NOT NULL,
    generation INTEGER NOT NULL, offset INTEGER NOT NULL, sequence INTEGER NOT NULL,
    ledger BLOB);
CREATE TABLE IF NOT EXISTS destinations(
    number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS messages(
    id BLOB PRIMARY KEY, generation INTEGER NOT NULL,
    head_offset INTEGER NOT NULL, head_length INTEGER NOT NULL,
    body_offset INTEGER NOT NULL, body_length INTEGER NOT NULL, checksum INTEGER NOT NULL,
    batches INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches(
    id BLOB PRIMARY KEY, message BLOB NOT NULL, destination INTEGER NOT NULL, track INTEGER NOT NULL,
    held INTEGER, key INTEGER NOT NULL, arrival INTEGER NOT NULL, due INTEGER NOT NULL, recipients INTEGER NOT NULL,
    generation INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batches_order ON batches(destination, track, key, id);
CREATE INDEX IF NOT EXISTS batches_held ON batches(id) WHERE held IS NOT NULL;
CREATE INDEX IF NOT EXISTS batches_oldest ON batches(destination, track, arrival) WHERE track <> 1;
CREATE TABLE IF NOT EXISTS idents(
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS lines(
    destination INTEGER NOT NULL, track INTEGER NOT NULL,
    batches INTEGER NOT NULL, recipients INTEGER NOT NULL,
    PRIMARY KEY (destination, track)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ages(
    track INTEGER NOT NULL, grain INTEGER NOT NULL,
    batches INTEGER NOT NULL, recipients INTEGER NOT NULL,
    PRIMARY KEY (track, grain)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments(
    generation INTEGER PRIMARY KEY, messages INTEGER NOT NULL, states INTEGER NOT NULL,
    bytes INTEGER NOT NULL, idents_time INTEGER NOT NULL, memory INTEGER NOT NULL,
    depends BLOB NOT NULL, supersedes BLOB NOT NULL);
";

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
    /// Messages in it were carried forward from these segments; without it, the old copies there would count again.
    pub supersedes: BTreeSet<u64>,
}

/// Batches and recipients, of a destination in a track say.
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
    /// It is being made from segments of which some are missing: that a batch is done may be read before the batches that
    /// took its place (those were carried forward), so a message without batches is not done before all is read.
    rebuilding: bool,
}

impl Index {
    /// Opens the index of the spool with this secret. `None` when it is not this spool's, or not of this version.
    pub fn open(path: &Path, secret: u64) -> rusqlite::Result<Option<Self>> {
        let connection = connect(path)?;
        if lookup::schema(&connection).is_some_and(|found| found != SCHEMA_VERSION) {
            return Ok(None);
        }
        connection.execute_batch(SCHEMA)?;
        connection.execute(
            "INSERT OR IGNORE INTO meta VALUES (1, ?1, ?2, 0, 0, 0, NULL)",
            params![SCHEMA_VERSION, secret as i64],
        )?;
        let found: i64 = connection.query_row("SELECT secret FROM meta", [], |row| row.get(0))?;
        if found as u64 != secret {
            return Ok(None);
        }
        connection.execute(
            "DELETE FROM destinations WHERE number NOT IN (SELECT destination FROM lines WHERE batches > 0)",
            [],
        )?;
        connection.execute("DELETE FROM lines WHERE batches <= 0", [])?;
        let segments = connection
            .prepare("SELECT generation, messages, states, bytes, idents_time, memory, depends, supersedes FROM segments")?
            .query_map([], |row| {
                let usage = Usage {
                    messages: number(row, 1)?,
                    states: number(row, 2)?,
                    bytes: number(row, 3)?,
                    idents_time: number(row, 4)?,
                    memory: number(row, 5)?,
                    depends: generations(row, 6)?,
                    supersedes: generations(row, 7)?,
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
            rebuilding: false,
        }))
    }

    /// The position that it has read up to.
    pub fn position(&self) -> rusqlite::Result<Position> {
        lookup::position(&self.connection)
    }

    /// The account as of its position, with what waits by its lines. Of a spool from before there was one it is opened with that.
    pub fn ledger(&self, lines: &[(u32, Row, Line)]) -> rusqlite::Result<Ledger> {
        let (mut waiting, mut held) = (0, 0);
        for (_, row, line) in lines {
            let recipients = line.recipients as u64;
            waiting += recipients;
            held += if row.is_held() { recipients } else { 0 };
        }
        let opened = Ledger {
            accepted: waiting,
            ..Ledger::default()
        };
        Ok(Ledger {
            waiting,
            held,
            ..lookup::ledger(&self.connection)?.unwrap_or(opened)
        })
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
    pub fn lines(&self) -> rusqlite::Result<Vec<(u32, Row, Line)>> {
        self.connection
            .prepare("SELECT destination, track, batches, recipients FROM lines WHERE batches > 0")?
            .query_map([], |row| {
                let line = Line {
                    batches: row.get(2)?,
                    recipients: row.get(3)?,
                };
                Ok((row.get(0)?, Row(row.get(1)?), line))
            })?
            .collect()
    }

    /// The counts by track and the grain of arrival.
    pub fn ages(&self) -> rusqlite::Result<Vec<(Row, u64, Line)>> {
        self.connection
            .prepare("SELECT track, grain, batches, recipients FROM ages")?
            .query_map([], |row| {
                let line = Line {
                    batches: row.get(2)?,
                    recipients: row.get(3)?,
                };
                Ok((Row(row.get(0)?), number(row, 1)?, line))
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
                ages: HashMap::new(),
                stored_destinations: self.stored_destinations,
                rebuilding: self.rebuilding,
            };
            for changes in all {
                applying.changes(changes)?;
            }
            applying.destinations(numbers)?;
            applying.flush()?;
            stored_destinations = applying.stored_destinations;
            if let Some(ledger) = all.iter().rev().find_map(|changes| changes.ledger) {
                let mut packed = Vec::new();
                put_ledger(&mut packed, &ledger);
                transaction
                    .prepare_cached("UPDATE meta SET ledger = ?1")?
                    .execute([packed])?;
            }
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

    /// Says that segments are read of which some may be missing.
    pub fn begin_rebuild(&mut self) {
        self.rebuilding = true;
    }

    /// All segments are read: messages of which nothing is left are done.
    pub fn end_rebuild(&mut self) -> rusqlite::Result<()> {
        self.rebuilding = false;
        let done: Vec<MessageId> = self
            .connection
            .prepare("SELECT id FROM messages WHERE batches <= 0")?
            .query_map([], |row| Ok(MessageId(id(row, 0)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut segments = self.segments.clone();
        let transaction = self.connection.transaction()?;
        let mut applying = Applying {
            transaction: &transaction,
            segments: &mut segments,
            touched: BTreeSet::new(),
            lines: HashMap::new(),
            ages: HashMap::new(),
            stored_destinations: self.stored_destinations,
            rebuilding: false,
        };
        for message in done {
            applying.drop_message(message)?;
        }
        applying.flush()?;
        transaction.commit()?;
        self.segments = segments;
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
