//! What is read from the index. Every query runs on a bounded number of rows.

use std::collections::BTreeSet;

use mail::MessageId;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::candidates::Way;
use super::codec::Take;
use super::entry::{self, Entry, Hold, MessagePlace, Position, Span, Track};
use super::orders::take_ledger;
use super::record::IdentKey;
use crate::{BatchId, HoldId, Ledger};

const ENTRY: &str =
    "id, message, destination, track, held, arrival, due, recipients, generation, offset, length";

/// Stored so that their order is the numbers' order.
pub fn blob(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

/// An id in a column.
pub fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<u128> {
    Ok(u128::from_be_bytes(row.get(column)?))
}

/// A number in a column.
pub fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)? as u64)
}

/// A set of generations in a column.
pub fn generations(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeSet<u64>> {
    let packed: Vec<u8> = row.get(column)?;
    let chunks = packed.as_chunks::<8>().0.iter();
    Ok(chunks.map(|bytes| u64::from_le_bytes(*bytes)).collect())
}

/// A track and a hold in a column and the one behind it.
fn track(row: &Row<'_>, column: usize) -> rusqlite::Result<(Track, Hold)> {
    let number = entry::Row(row.get(column)?);
    let out_of_range = rusqlite::Error::IntegralValueOutOfRange(column, i64::from(number.0));
    let track = number.track().ok_or(out_of_range)?;
    let hold = match row.get::<_, Option<i64>>(column + 1)? {
        _ if number.is_ordered() => Hold::Ordered,
        Some(hold) => Hold::By(HoldId(hold as u64)),
        None => Hold::Free,
    };
    Ok((track, hold))
}

/// An entry, its columns as in `ENTRY`.
pub fn read_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let (track, hold) = track(row, 3)?;
    Ok(Entry {
        id: BatchId(id(row, 0)?),
        message: MessageId(id(row, 1)?),
        destination: row.get(2)?,
        track,
        hold,
        arrival: number(row, 5)?,
        due: number(row, 6)?,
        recipients: row.get(7)?,
        span: Span {
            generation: number(row, 8)?,
            offset: row.get(9)?,
            length: row.get(10)?,
        },
    })
}

/// The version of an index that has one.
pub fn schema(connection: &Connection) -> Option<i64> {
    // Without the table it is new.
    connection
        .query_row("SELECT schema FROM meta", [], |row| row.get(0))
        .ok()
}

/// The account stored.
pub fn ledger(connection: &Connection) -> rusqlite::Result<Option<Ledger>> {
    let packed: Option<Vec<u8>> =
        connection.query_row("SELECT ledger FROM meta", [], |row| row.get(0))?;
    packed
        .map(|packed| take_ledger(&mut Take::new(&packed)))
        .transpose()
        .map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error.into())
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

/// Messages, batches and recipients in all.
pub fn totals(connection: &Connection) -> rusqlite::Result<(u64, u64, u64)> {
    connection.query_row(
        "SELECT (SELECT count(*) FROM messages), coalesce(sum(batches), 0), coalesce(sum(recipients), 0) FROM lines",
        [],
        |row| Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?)),
    )
}

/// The next `limit` messages behind `after`, by id.
pub fn messages_after(
    connection: &Connection,
    after: Option<MessageId>,
    limit: usize,
) -> rusqlite::Result<Vec<MessagePlace>> {
    let ids: Vec<MessageId> = connection
        .prepare_cached("SELECT id FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map(
            params![
                after.map_or(Vec::new(), |id| blob(id.0).to_vec()),
                limit as i64
            ],
            |row| Ok(MessageId(id(row, 0)?)),
        )?
        .collect::<rusqlite::Result<_>>()?;
    let places = ids.into_iter().map(|id| message(connection, id));
    places.filter_map(Result::transpose).collect()
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

/// The next `limit` batches behind `after`, by id.
pub fn batches_after(
    connection: &Connection,
    after: Option<BatchId>,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(&format!(
            "SELECT {ENTRY} FROM batches NOT INDEXED WHERE id > ?1 ORDER BY id LIMIT ?2"
        ))?
        .query_map(params![behind(after), limit as i64], read_entry)?
        .collect()
}

/// The ids of the next `limit` batches behind `after` on a way to them, by id.
pub fn ids_after(
    connection: &Connection,
    way: &Way,
    after: Option<BatchId>,
    limit: usize,
) -> rusqlite::Result<Vec<BatchId>> {
    let read = |row: &Row<'_>| Ok(BatchId(id(row, 0)?));
    let (after, limit) = (behind(after), limit as i64);
    match way {
        Way::Message(message) => {
            let low = message.0 >> 64 << 64;
            let high = low | u128::from(u64::MAX);
            connection
                .prepare_cached(
                    "SELECT id FROM batches NOT INDEXED
                     WHERE id BETWEEN ?1 AND ?2 AND message = ?3 AND id > ?4 ORDER BY id LIMIT ?5",
                )?
                .query_map(
                    params![blob(low), blob(high), blob(message.0), after, limit],
                    read,
                )?
                .collect()
        }
        Way::Held(hold) => connection
            .prepare_cached(
                "SELECT id FROM batches INDEXED BY batches_held WHERE held IS NOT NULL
                 AND held = coalesce(?1, held) AND id > ?2 ORDER BY id LIMIT ?3",
            )?
            .query_map(params![hold.map(|hold| hold.0 as i64), after, limit], read)?
            .collect(),
        Way::Destinations(numbers) => {
            // Numbers, and not too many for a statement.
            let some: Vec<String> = numbers.iter().map(u32::to_string).collect();
            connection
                .prepare(&format!(
                    "SELECT id FROM batches INDEXED BY batches_order
                     WHERE destination IN ({}) AND id > ?1 ORDER BY id LIMIT ?2",
                    some.join(",")
                ))?
                .query_map(params![after, limit], read)?
                .collect()
        }
        Way::All => Ok(Vec::new()),
    }
}

/// What sorts before all ids that are behind this one.
fn behind(after: Option<BatchId>) -> Vec<u8> {
    after.map_or(Vec::new(), |id| blob(id.0).to_vec())
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
    row: entry::Row,
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
                row.0,
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
    row: entry::Row,
    mut counts: impl FnMut(BatchId) -> bool,
) -> rusqlite::Result<Option<u64>> {
    let order = match row == entry::Row(Track::Ripe as u8) {
        true => "ORDER BY key, id",
        false => "AND track <> 1 ORDER BY arrival",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, arrival FROM batches WHERE destination = ?1 AND track = ?2 {order}"
    ))?;
    let mut rows = statement.query(params![destination, row.0])?;
    while let Some(row) = rows.next()? {
        if counts(BatchId(id(row, 0)?)) {
            return Ok(Some(number(row, 1)?));
        }
    }
    Ok(None)
}
