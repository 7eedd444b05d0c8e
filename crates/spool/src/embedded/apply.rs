//! Takes what groups changed into the index, within one transaction of its owner. Idempotent by (id, position): what the index has
//! in a later state already has no effect.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mail::MessageId;
use rusqlite::{OptionalExtension, Transaction, params};

use super::change::{Change, Changes};
use super::content;
use super::entry::{Entry, Hold, MessagePlace, Row};
use super::index::{Line, Usage};
use super::lookup::{batches_of, blob, entry, message};
use super::record::IdentKey;

/// What an ident takes in a record, bytes.
const IDENT_BYTES: u64 = 22;
/// What a record of a finished batch takes, bytes.
const FINISHED_BYTES: u64 = 40;

/// A transaction under way. Counts are gathered and written at its end.
#[derive(Debug)]
pub struct Applying<'a> {
    /// The transaction.
    pub transaction: &'a Transaction<'a>,
    /// What segments are needed for.
    pub segments: &'a mut BTreeMap<u64, Usage>,
    /// Segments of which that changed.
    pub touched: BTreeSet<u64>,
    /// Changes of the counts.
    pub lines: HashMap<(u32, Row), Line>,
    /// Changes of the counts by age.
    pub ages: HashMap<(Row, u64), Line>,
    /// Destinations with a lower number are stored.
    pub stored_destinations: u32,
    /// A message without batches is not done yet.
    pub rebuilding: bool,
}

impl Applying<'_> {
    /// Takes over what one group changed.
    pub fn changes(&mut self, changes: &Changes) -> rusqlite::Result<()> {
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
        let lines = self.lines.entry((entry.destination, entry.row()));
        let ages = self.ages.entry((entry.row(), entry.grain()));
        for line in [lines.or_default(), ages.or_default()] {
            line.batches += sign;
            line.recipients += sign * i64::from(entry.recipients);
        }
        let usage = self.usage(entry.span.generation);
        usage.states = usage.states.saturating_add_signed(sign);
        usage.bytes = usage
            .bytes
            .saturating_add_signed(sign * i64::from(entry.span.length));
    }

    fn message(&mut self, place: &MessagePlace, entries: &[Entry]) -> rusqlite::Result<()> {
        let new = self
            .transaction
            .prepare_cached(
                "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                blob(place.id.0),
                place.head.generation as i64,
                place.head.offset,
                place.head.length,
                place.body_offset as i64,
                place.body_length as i64,
                place.checksum,
                entries.len() as i64
            ])?;
        if new == 0 {
            return self.message_again(place, entries);
        }
        // Without its message no batch of it can be there.
        self.weigh(place, 1);
        for entry in entries {
            self.count(entry, 1);
            self.write(entry)?;
        }
        Ok(())
    }

    /// A message that is known: read again, or carried forward.
    fn message_again(&mut self, place: &MessagePlace, entries: &[Entry]) -> rusqlite::Result<()> {
        let Some(old) = message(self.transaction, place.id)? else {
            return Ok(());
        };
        if (old.head.generation, old.head.offset) >= (place.head.generation, place.head.offset) {
            return Ok(());
        }
        self.weigh(&old, -1);
        self.weigh(place, 1);
        self.usage(place.generation())
            .supersedes
            .insert(old.generation());
        self.transaction
            .prepare_cached(
                "UPDATE messages SET generation = ?2, head_offset = ?3, head_length = ?4,
                     body_offset = ?5, body_length = ?6, checksum = ?7 WHERE id = ?1",
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
        // Carried forward: the copy names exactly what is left.
        let kept: BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
        for gone in batches_of(self.transaction, place.id)? {
            if !kept.contains(&gone.id) {
                self.remove(&gone, place.id)?;
            }
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
        self.write(new)
    }

    fn write(&self, new: &Entry) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "REPLACE INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                blob(new.id.0),
                blob(new.message.0),
                new.destination,
                new.row().0,
                match new.hold {
                    Hold::By(hold) => Some(hold.0 as i64),
                    Hold::Free | Hold::Ordered => None,
                },
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
        if left == Some(0) && !self.rebuilding {
            self.drop_message(id)?;
        }
        Ok(())
    }

    /// Lets go of a message that is done.
    pub fn drop_message(&mut self, id: MessageId) -> rusqlite::Result<()> {
        if let Some(place) = message(self.transaction, id)? {
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

    /// Stores the names of new destinations.
    pub fn destinations(
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

    /// Writes the counts.
    pub fn flush(&mut self) -> rusqlite::Result<()> {
        for ((destination, row), line) in self.lines.drain() {
            self.transaction
                .prepare_cached(
                    "INSERT INTO lines VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET batches = batches + ?3, recipients = recipients + ?4",
                )?
                .execute(params![destination, row.0, line.batches, line.recipients])?;
        }
        for ((row, grain), line) in self.ages.drain() {
            let left: i64 = self
                .transaction
                .prepare_cached(
                    "INSERT INTO ages VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET batches = batches + ?3, recipients = recipients + ?4 RETURNING batches",
                )?
                .query_row(
                    params![row.0, grain as i64, line.batches, line.recipients],
                    |row| row.get(0),
                )?;
            if left == 0 {
                self.transaction
                    .prepare_cached("DELETE FROM ages WHERE track = ?1 AND grain = ?2")?
                    .execute(params![row.0, grain as i64])?;
            }
        }
        for generation in &self.touched {
            let Some(usage) = self.segments.get(generation) else {
                continue;
            };
            let packed = |set: &BTreeSet<u64>| -> Vec<u8> {
                set.iter().flat_map(|at| at.to_le_bytes()).collect()
            };
            self.transaction
                .prepare_cached("REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![
                    *generation as i64,
                    usage.messages as i64,
                    usage.states as i64,
                    usage.bytes as i64,
                    usage.idents_time as i64,
                    usage.memory as i64,
                    packed(&usage.depends),
                    packed(&usage.supersedes)
                ])?;
        }
        Ok(())
    }
}
