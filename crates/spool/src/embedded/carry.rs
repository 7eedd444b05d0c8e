//! Carrying a segment forward: what is still needed of it is read, written again at the journal's end, and only then is the
//! old place let go. What is borrowed or just changing stays for the next time.

use std::collections::HashSet;
use std::sync::Arc;

use mail::{MessageId, Timestamp};
use tokio::sync::oneshot;

use super::entry::{Entry, MessagePlace, Position};
use super::job::{Carry, Job};
use super::load;
use super::lookup;
use super::record::{IdentKey, Record};
use super::replay::{Group, Replay, ReplayError};
use super::shared::Shared;
use super::state::State;
use crate::{BatchId, Error};

/// So much is written again in one group.
const CHUNK_BYTES: u64 = 512 * 1024;
/// So many idents or finished batches go into one record.
const CHUNK_ITEMS: usize = 5_000;

#[derive(Debug, Default)]
struct Remainder {
    messages: Vec<MessageId>,
    states: Vec<(BatchId, MessageId)>,
    idents: Vec<(IdentKey, Timestamp)>,
    finished: Vec<(MessageId, BatchId, u64)>,
}

/// Carries a segment forward; whether anything was written again.
pub fn forward(shared: &Arc<Shared>, generation: u64, remembers: bool) -> Result<bool, Error> {
    let mut remainder = Remainder::default();
    let from = Position {
        generation,
        offset: 0,
        sequence: 0,
    };
    let replay = Replay::new(
        &shared.disk,
        &shared.segments,
        shared.secret,
        &shared.corrupt,
    );
    replay
        .segment(from, |group| {
            collect(shared, &group, &mut remainder);
            Ok::<_, ReplayError>(())
        })
        .map_err(|error| shared.journal_error(std::io::Error::other(error)))?;
    let mut moved = false;
    if remembers {
        moved |= carry_memory(shared, generation, &mut remainder)?;
    }
    moved |= carry_messages(shared, generation, &remainder.messages)?;
    moved |= carry_states(shared, generation, &remainder.states)?;
    Ok(moved)
}

fn collect(shared: &Shared, group: &Group, remainder: &mut Remainder) {
    let since = shared.idents_since();
    let time = group.header.time;
    let mut idents = Vec::new();
    for record in &group.records {
        let record = match record {
            Record::Part { record, .. } => record,
            record => record,
        };
        match record {
            Record::Message {
                head,
                batches,
                idents: keys,
                ..
            } => {
                remainder.messages.push(head.id);
                // Their message may have been carried forward without them, while they were borrowed.
                let states = batches.iter().map(|(stored, _)| (stored.batch.id, head.id));
                remainder.states.extend(states);
                idents.extend(keys.iter().map(|key| (*key, time)));
            }
            Record::State { message, batch, .. } => {
                remainder.states.push((batch.batch.id, *message));
            }
            Record::Finished {
                message,
                batch,
                generation,
            } => {
                if *generation != group.header.generation && shared.segments.is_live(*generation) {
                    remainder.finished.push((*message, *batch, *generation));
                }
            }
            Record::Idents(all) => idents.extend(all),
            Record::Carried { .. }
            | Record::Part { .. }
            | Record::Commit { .. }
            | Record::Ledger(_) => {}
        }
    }
    idents.retain(|(_, time)| time.0 >= since);
    remainder.idents.append(&mut idents);
}

fn carry_memory(
    shared: &Shared,
    generation: u64,
    remainder: &mut Remainder,
) -> Result<bool, Error> {
    for idents in remainder.idents.chunks(CHUNK_ITEMS) {
        submit(shared, vec![Carry::Idents(idents.to_vec())])?;
    }
    for finished in remainder.finished.chunks(CHUNK_ITEMS) {
        submit(shared, vec![Carry::Finished(finished.to_vec())])?;
    }
    submit(shared, vec![Carry::Done(generation)])?;
    Ok(true)
}

fn submit(shared: &Shared, items: Vec<Carry>) -> Result<usize, Error> {
    let (answer, answered) = oneshot::channel();
    shared
        .jobs
        .push(Job::Carry(items, answer))
        .map_err(|_| Error::Closed)?;
    answered.blocking_recv().map_err(|_| Error::Closed)?
}

/// What the index says of something and memory does not contradict, together with the promise that a later change takes its
/// message off `carrying`. Both are looked at while the index stands still: what it takes over leaves memory.
fn watch<T>(
    shared: &Shared,
    messages: &[MessageId],
    read: impl Fn(&rusqlite::Connection) -> rusqlite::Result<Vec<T>>,
    holds: impl Fn(&State, &T) -> bool,
) -> Result<Vec<T>, Error> {
    loop {
        let before = {
            let mut state = shared.state();
            state.carrying = messages.iter().copied().collect::<HashSet<_>>();
            state.commits
        };
        let mut found = shared.read(&read)?;
        let state = shared.state();
        if state.commits == before {
            found.retain(|one| holds(&state, one));
            return Ok(found);
        }
    }
}

fn carry_messages(shared: &Shared, generation: u64, messages: &[MessageId]) -> Result<bool, Error> {
    let mut moved = 0;
    for some in messages.chunks(64) {
        let read = |connection: &rusqlite::Connection| {
            let mut found = Vec::new();
            for message in some {
                if let Some(place) = lookup::message(connection, *message)?
                    && place.generation() == generation
                {
                    found.push((place, lookup::batches_of(connection, *message)?));
                }
            }
            Ok(found)
        };
        let holds = |state: &State, found: &(MessagePlace, Vec<Entry>)| {
            state.place(found.0.id).is_none() && found.1.iter().all(|entry| state.is_idle(entry.id))
        };
        let mut items = Vec::new();
        let mut size = 0;
        for (place, entries) in watch(shared, some, read, holds)? {
            match message(shared, place, entries) {
                Ok(item) => items.push(item),
                // It stays where it is, and with it the segment; whoever wants it is told.
                Err(error) => {
                    tracing::error!(event = "carry_failed", message = %place.id, %error);
                    continue;
                }
            }
            size += place.body_length;
            if size >= CHUNK_BYTES {
                moved += submit(shared, std::mem::take(&mut items))?;
                size = 0;
            }
        }
        if !items.is_empty() {
            moved += submit(shared, items)?;
        }
    }
    Ok(moved > 0)
}

fn message(shared: &Shared, place: MessagePlace, entries: Vec<Entry>) -> Result<Carry, Error> {
    let error = |error| shared.journal_error(error);
    let generation = place.generation();
    let head = load::head(shared, &place)?;
    let body = shared
        .segments
        .read_at(generation, place.body_offset, place.body_length as usize)
        .map_err(error)?;
    if crc32c::crc32c(&body) != place.checksum {
        return Err(error(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "the body does not match its checksum",
        )));
    }
    let mut batches = Vec::new();
    for entry in entries {
        load::batch(shared, &entry)?;
        let bytes = shared.segments.read(entry.span).map_err(error)?;
        batches.push((entry, bytes));
    }
    Ok(Carry::Message {
        old: place,
        head: super::content::encode_head(&head),
        body: body.into(),
        batches,
    })
}

fn carry_states(
    shared: &Shared,
    generation: u64,
    states: &[(BatchId, MessageId)],
) -> Result<bool, Error> {
    let mut moved = 0;
    for some in states.chunks(256) {
        let messages: Vec<_> = some.iter().map(|(_, message)| *message).collect();
        let read = |connection: &rusqlite::Connection| {
            let mut found = Vec::new();
            for (batch, _) in some {
                let entry = lookup::entry(connection, *batch)?;
                found.extend(entry.filter(|entry| entry.span.generation == generation));
            }
            Ok(found)
        };
        let holds = |state: &State, entry: &Entry| state.is_idle(entry.id);
        let mut items = Vec::new();
        for old in watch(shared, &messages, read, holds)? {
            match load::stored(shared, &old) {
                Ok(stored) => items.push(Carry::State {
                    bytes: super::content::encode_batch(&stored.batch, &stored.orders),
                    old,
                }),
                Err(error) => {
                    tracing::error!(event = "carry_failed", message = %old.message, %error);
                }
            }
        }
        if !items.is_empty() {
            moved += submit(shared, items)?;
        }
    }
    Ok(moved > 0)
}
