//! The records of the journal: what they say, how they are written and read. A record is `kind, version, length, content`; its
//! unit of truth is the group that it stands in. An unknown kind or version is an error, never skipped: it says something.

use mail::{MessageId, Timestamp};

use super::codec::{Malformed, Put, Take};
use super::content::{self, Stored};
use super::orders::{put_ledger, take_ledger};
use crate::{BatchId, Head, Ledger};

const VERSION: u8 = 1;

const MESSAGE: u8 = 1;
const STATE: u8 = 2;
const FINISHED: u8 = 3;
const IDENTS: u8 = 4;
const CARRIED: u8 = 5;
const PART: u8 = 6;
const COMMIT: u8 = 7;
const LEDGER: u8 = 8;

/// What is remembered of (ident, forward-path): half a SHA-256.
pub type IdentKey = [u8; 16];

/// A stretch of a group's records, counted from their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it starts.
    pub offset: usize,
    /// Its length.
    pub length: usize,
}

/// A body as a message record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPlace {
    /// Where it starts, counted from the start of the group's bodies.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Its crc32c.
    pub checksum: u32,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A message, all that is still to be done with it, and the idents that it was accepted under.
    Message {
        /// Its head, and where that stands.
        head: Box<Head>,
        /// Where the head stands.
        head_at: Stretch,
        /// Its body.
        body: BodyPlace,
        /// Its batches, and where each stands.
        batches: Vec<(Stored, Stretch)>,
        /// Remember these.
        idents: Vec<IdentKey>,
    },
    /// The full present state of a batch, new or not.
    State {
        /// Of which message.
        message: MessageId,
        /// When that arrived.
        arrival: Timestamp,
        /// The batch.
        batch: Box<Stored>,
        /// Where it stands.
        at: Stretch,
    },
    /// A batch is done.
    Finished {
        /// Of which message.
        message: MessageId,
        /// The batch.
        batch: BatchId,
        /// The segment in which the message's record stood then: as long as that one is there, so must this be.
        generation: u64,
    },
    /// Idents carried forward, with the time from which each counts.
    Idents(Vec<(IdentKey, Timestamp)>),
    /// All that is still needed of a segment stands in the journal again, before this.
    Carried {
        /// The segment.
        generation: u64,
    },
    /// A record that counts only once its transaction is committed.
    Part {
        /// Which transaction.
        transaction: u64,
        /// The record.
        record: Box<Record>,
    },
    /// All parts of a transaction count from here on.
    Commit {
        /// Which transaction.
        transaction: u64,
        /// How many parts it has.
        parts: u64,
    },
    /// The account behind this group, all but what waits.
    Ledger(Ledger),
}

/// Writes records into a buffer, telling where the pieces stand that are read back alone.
#[derive(Debug, Default)]
pub struct Records {
    buffer: Vec<u8>,
}

impl Records {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// A message: its packed head, its body, its packed batches, its idents.
    pub fn message(
        &mut self,
        head: &[u8],
        body: BodyPlace,
        batches: &[Vec<u8>],
        idents: &[IdentKey],
    ) -> (Stretch, Vec<Stretch>) {
        let size = batches.iter().map(|batch| batch.len() + 5).sum::<usize>();
        let mut out = Vec::with_capacity(64 + head.len() + size + 16 * idents.len());
        let mut head_at = put_piece(&mut out, head);
        out.put_number(body.offset);
        out.put_number(body.length);
        out.put_u32(body.checksum);
        out.put_number(batches.len() as u64);
        let mut batches_at: Vec<_> = batches.iter().map(|b| put_piece(&mut out, b)).collect();
        out.put_number(idents.len() as u64);
        for ident in idents {
            out.extend_from_slice(ident);
        }
        let base = self.put(None, MESSAGE, &out);
        head_at.offset += base;
        for at in &mut batches_at {
            at.offset += base;
        }
        (head_at, batches_at)
    }

    /// The state of a batch, packed.
    pub fn state(
        &mut self,
        part_of: Option<u64>,
        message: MessageId,
        arrival: Timestamp,
        batch: &[u8],
    ) -> Stretch {
        let mut out = Vec::with_capacity(32 + batch.len());
        out.put_u128(message.0);
        out.put_number(arrival.0);
        let mut at = put_piece(&mut out, batch);
        at.offset += self.put(part_of, STATE, &out);
        at
    }

    /// A batch is done.
    pub fn finished(
        &mut self,
        part_of: Option<u64>,
        message: MessageId,
        batch: BatchId,
        generation: u64,
    ) {
        let mut out = Vec::with_capacity(48);
        out.put_u128(message.0);
        out.put_u128(batch.0);
        out.put_number(generation);
        self.put(part_of, FINISHED, &out);
    }

    /// Idents carried forward.
    pub fn idents(&mut self, idents: &[(IdentKey, Timestamp)]) {
        let mut out = Vec::with_capacity(8 + 24 * idents.len());
        out.put_number(idents.len() as u64);
        for (key, time) in idents {
            out.extend_from_slice(key);
            out.put_number(time.0);
        }
        self.put(None, IDENTS, &out);
    }

    /// A segment was carried forward.
    pub fn carried(&mut self, generation: u64) {
        let mut out = Vec::new();
        out.put_number(generation);
        self.put(None, CARRIED, &out);
    }

    /// A transaction of so many parts counts.
    pub fn commit(&mut self, transaction: u64, parts: u64) {
        let mut out = Vec::new();
        out.put_u64(transaction);
        out.put_number(parts);
        self.put(None, COMMIT, &out);
    }

    /// The account behind the group.
    pub fn ledger(&mut self, ledger: &Ledger) {
        let mut out = Vec::with_capacity(48);
        put_ledger(&mut out, ledger);
        self.put(None, LEDGER, &out);
    }

    /// Appends a record; returns where its content starts.
    fn put(&mut self, part_of: Option<u64>, kind: u8, content: &[u8]) -> usize {
        if let Some(transaction) = part_of {
            let mut inner = vec![kind, VERSION];
            inner.put_number(content.len() as u64);
            self.buffer.put_u8(PART);
            self.buffer.put_u8(VERSION);
            self.buffer
                .put_number((8 + inner.len() + content.len()) as u64);
            self.buffer.put_u64(transaction);
            self.buffer.extend_from_slice(&inner);
        } else {
            self.buffer.put_u8(kind);
            self.buffer.put_u8(VERSION);
            self.buffer.put_number(content.len() as u64);
        }
        let base = self.buffer.len();
        self.buffer.extend_from_slice(content);
        base
    }
}

fn put_piece(out: &mut Vec<u8>, piece: &[u8]) -> Stretch {
    out.put_bytes(piece);
    Stretch {
        offset: out.len() - piece.len(),
        length: piece.len(),
    }
}

/// Reads all records of a group.
pub fn read_all(bytes: &[u8]) -> Result<Vec<Record>, Malformed> {
    let mut take = Take::new(bytes);
    let mut records = Vec::new();
    while !take.is_done() {
        records.push(read(&mut take, true)?);
    }
    Ok(records)
}

/// Reads of a damaged group's records what has a checksum of its own and matches it, and what does no harm when it is wrong: a batch that
/// is done under a wrong name is done for nobody. What counts for a whole segment, or for all, is left to other groups.
/// `bodies` is the length of the group's bodies. Also says how many records were lost, whole or in part.
pub fn read_what_is_whole(bytes: &[u8], bodies: u64) -> (Vec<Record>, u64) {
    let mut take = Take::new(bytes);
    let (mut records, mut lost) = (Vec::new(), 0);
    while !take.is_done() {
        let mut whole = take.clone();
        let Ok((kind, content)) = skip(&mut take) else {
            // Where the next one starts nobody can tell.
            return (records, lost + 1);
        };
        let record = match read(&mut whole, true) {
            Ok(record) => Some(record),
            Err(_) => {
                lost += 1;
                let base = take.at() - content.len();
                (kind == MESSAGE)
                    .then(|| message_in_part(content, base))
                    .flatten()
            }
        };
        match record {
            Some(Record::Carried { .. } | Record::Ledger(_)) => {}
            Some(Record::Message { head, body, .. })
                if body.length != head.body_bytes
                    || body
                        .offset
                        .checked_add(body.length)
                        .is_none_or(|end| end > bodies) =>
            {
                lost += 1;
            }
            other => records.extend(other),
        }
    }
    (records, lost)
}

/// Passes over a record.
fn skip<'a>(take: &mut Take<'a>) -> Result<(u8, &'a [u8]), Malformed> {
    let kind = take.u8("record kind")?;
    take.u8("record version")?;
    Ok((kind, take.bytes("record")?))
}

/// A message with those of its batches that are whole; `base` is where its content starts.
fn message_in_part(content: &[u8], base: usize) -> Option<Record> {
    let mut take = Take::new(content);
    let (bytes, mut head_at) = piece(&mut take, "head").ok()?;
    head_at.offset += base;
    let head = Box::new(content::decode_head(bytes).ok()?);
    let body = BodyPlace {
        offset: take.number("body offset").ok()?,
        length: take.number("body length").ok()?,
        checksum: take.u32("body checksum").ok()?,
    };
    let mut batches = Vec::new();
    for _ in 0..take.number("batches").ok()? {
        let Ok((bytes, mut at)) = piece(&mut take, "batch") else {
            break;
        };
        at.offset += base;
        batches.extend(content::decode_batch(bytes).ok().map(|batch| (batch, at)));
    }
    // Without any it would stand there for ever.
    (!batches.is_empty()).then_some(Record::Message {
        head,
        head_at,
        body,
        batches,
        idents: Vec::new(),
    })
}

fn read(take: &mut Take<'_>, outermost: bool) -> Result<Record, Malformed> {
    let kind = take.u8("record kind")?;
    take.version("record", VERSION)?;
    let length = take.number("record length")?;
    let length = usize::try_from(length).map_err(|_| take.bad("record length"))?;
    let start = take.at();
    let record = match kind {
        MESSAGE => read_message(take)?,
        STATE => {
            let message = MessageId(take.u128("message id")?);
            let arrival = Timestamp(take.number("arrival")?);
            let (bytes, at) = piece(take, "batch")?;
            let batch = Box::new(content::decode_batch(bytes)?);
            Record::State {
                message,
                arrival,
                batch,
                at,
            }
        }
        FINISHED => Record::Finished {
            message: MessageId(take.u128("message id")?),
            batch: BatchId(take.u128("batch id")?),
            generation: take.number("generation")?,
        },
        IDENTS => {
            let count = take.number("idents")?;
            let mut idents = Vec::new();
            for _ in 0..count {
                idents.push((ident(take)?, Timestamp(take.number("ident time")?)));
            }
            Record::Idents(idents)
        }
        CARRIED => Record::Carried {
            generation: take.number("generation")?,
        },
        PART if outermost => Record::Part {
            transaction: take.u64("transaction")?,
            record: Box::new(read(take, false)?),
        },
        COMMIT => Record::Commit {
            transaction: take.u64("transaction")?,
            parts: take.number("parts")?,
        },
        LEDGER if outermost => Record::Ledger(take_ledger(take)?),
        _ => return Err(take.bad("record kind")),
    };
    if take.at() - start != length {
        return Err(take.bad("record length"));
    }
    Ok(record)
}

fn read_message(take: &mut Take<'_>) -> Result<Record, Malformed> {
    let (bytes, head_at) = piece(take, "head")?;
    let head = Box::new(content::decode_head(bytes)?);
    let body = BodyPlace {
        offset: take.number("body offset")?,
        length: take.number("body length")?,
        checksum: take.u32("body checksum")?,
    };
    let mut batches = Vec::new();
    for _ in 0..take.number("batches")? {
        let (bytes, at) = piece(take, "batch")?;
        batches.push((content::decode_batch(bytes)?, at));
    }
    let mut idents = Vec::new();
    for _ in 0..take.number("idents")? {
        idents.push(ident(take)?);
    }
    Ok(Record::Message {
        head,
        head_at,
        body,
        batches,
        idents,
    })
}

fn piece<'a>(take: &mut Take<'a>, what: &'static str) -> Result<(&'a [u8], Stretch), Malformed> {
    let bytes = take.bytes(what)?;
    let at = Stretch {
        offset: take.at() - bytes.len(),
        length: bytes.len(),
    };
    Ok((bytes, at))
}

fn ident(take: &mut Take<'_>) -> Result<IdentKey, Malformed> {
    let bad = take.bad("ident");
    take.slice(16, "ident")?.try_into().map_err(|_| bad)
}
