//! Makes jobs for the writer: names, packs, checks against the limits. Runs in the caller's task, so that the writer has
//! little left to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mail::{MessageId, Timestamp};

use super::content;
use super::job::{AcceptJob, Account, Answer, Packed, SettleItem, SettleJob};
use super::leases::Leased;
use super::record::IdentKey;
use super::shared::Shared;
use crate::{
    Accepted, Batch, BatchId, Error, Head, NewBatch, NewMessage, Outcome, Replies, Settlement,
};

/// Largest facts of a message, bytes.
const FACTS_BYTES_MAX: usize = 64 * 1024;
/// Largest template of a batch, bytes.
const TEMPLATE_BYTES_MAX: usize = 4 * 1024;
/// Largest note, bytes.
const NOTE_BYTES_MAX: usize = 4 * 1024;
/// A reply is cut to this, bytes.
const REPLY_BYTES_MAX: usize = 1024;
/// All the different replies of a batch together, bytes: a hundred of them keep 327 each. Where they are more, each is cut.
const REPLIES_BYTES_MAX: usize = 32 * 1024;
/// All batches of a new message together, packed, bytes; more recipients come from an expansion.
const FIRST_BATCHES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Names messages.
#[derive(Debug)]
pub struct Prepare {
    /// Unlike any other run's.
    run: u64,
    count: AtomicU64,
}

impl Prepare {
    /// For a run with this random number.
    pub fn new(run: u64) -> Self {
        Self {
            run,
            count: AtomicU64::new(0),
        }
    }

    /// 48 bits of time, so that names of one time stand together in the index; 40 of the run; 40 of a count.
    fn message_id(&self, now: Timestamp) -> MessageId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let low = u128::from(self.run & 0xff_ffff_ffff) << 40 | u128::from(count & 0xff_ffff_ffff);
        MessageId(u128::from(now.0) << 80 | low)
    }

    /// A message.
    pub fn accept(
        &self,
        shared: &Shared,
        message: NewMessage,
        ident: Option<&str>,
        answer: Answer<Accepted>,
    ) -> Result<AcceptJob, Error> {
        let body_bytes = message.body.iter().map(|part| part.len() as u64).sum();
        within(body_bytes, shared.options.message_bytes_max, "a message")?;
        within(message.facts.len() as u64, FACTS_BYTES_MAX as u64, "facts")?;
        let ticket = shared.syncs.admit(body_bytes)?;
        let now = shared.now();
        let id = self.message_id(now);
        let mut batches = Vec::with_capacity(message.batches.len());
        let mut idents = Vec::new();
        let mut size = 0;
        for (number, batch) in message.batches.into_iter().enumerate() {
            if let Some(ident) = ident {
                let keys = batch.recipients.iter();
                idents.extend(keys.map(|to| ident_key(ident, &to.address.to_string())));
            }
            if !batch.recipients.is_empty() {
                let packed = pack(child_id(id, BatchId(id.0), number), batch)?;
                size += packed.bytes.len();
                within(
                    size as u64,
                    FIRST_BATCHES_BYTES_MAX as u64,
                    "the batches of a new message",
                )?;
                batches.push(packed);
            }
        }
        let head = Head {
            id,
            arrival: message.arrival,
            accepted: now,
            reverse_path: message.reverse_path,
            parameters: message.parameters,
            facts: message.facts,
            body_bytes,
        };
        Ok(AcceptJob {
            packed_head: content::encode_head(&head),
            head: Arc::new(head),
            checksum: checksum(&message.body),
            body: message.body,
            batches,
            idents,
            answer,
            ticket,
        })
    }
}

fn checksum(parts: &[Bytes]) -> u32 {
    parts
        .iter()
        .fold(0, |checksum, part| crc32c::crc32c_append(checksum, part))
}

fn within(size: u64, max: u64, what: &str) -> Result<(), Error> {
    match size <= max {
        true => Ok(()),
        false => Err(Error::TooLarge(format!(
            "{what} of {size} bytes, {max} at most"
        ))),
    }
}

fn pack(id: BatchId, new: NewBatch) -> Result<Packed, Error> {
    within(
        new.template.len() as u64,
        TEMPLATE_BYTES_MAX as u64,
        "a template",
    )?;
    let replies = cut(&new.replies);
    Ok(packed(NewBatch { replies, ..new }.named(id)))
}

/// The replies as they are kept.
fn cut(replies: &Replies) -> Replies {
    let count = replies.texts().count().max(1);
    let most = REPLY_BYTES_MAX.min(REPLIES_BYTES_MAX / count);
    replies.map(|text| {
        let mut end = most.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.get(..end).unwrap_or_default()
    })
}

/// A batch with its packed form.
pub fn packed(batch: Batch) -> Packed {
    Packed {
        bytes: content::encode_batch(&batch, &[]),
        batch: Arc::new(batch),
    }
}

/// The id of the batch that is number `chunk` of those that come from `parent`. Its upper half is the message's, so that a
/// message's batches stand together; the lower half is a hash, so that a repeated expansion makes the same ones.
pub fn child_id(message: MessageId, parent: BatchId, chunk: usize) -> BatchId {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&parent.0.to_be_bytes());
    hash.update(&(chunk as u64).to_be_bytes());
    BatchId(below(message, half(&hash.finish())))
}

/// The id of a batch that is split off another one, number `count` in a transaction; unlike any other.
pub fn split_id(message: MessageId, parent: BatchId, transaction: u64, count: u64) -> BatchId {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(&parent.0.to_be_bytes());
    hash.update(&transaction.to_be_bytes());
    hash.update(&count.to_be_bytes());
    BatchId(below(message, half(&hash.finish())))
}

/// An id with a message's upper half.
fn below(message: MessageId, hash: [u8; 16]) -> u128 {
    message.0 >> 64 << 64 | u128::from_be_bytes(hash) & u128::from(u64::MAX)
}

/// What is remembered of a forward-path under an ident.
fn ident_key(ident: &str, address: &str) -> IdentKey {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(ident.as_bytes());
    // Neither part can hold it.
    hash.update(&[0]);
    hash.update(address.as_bytes());
    half(&hash.finish())
}

fn half(digest: &ring::digest::Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut()
        .zip(digest.as_ref())
        .for_each(|(to, from)| *to = *from);
    half
}

/// Settlements. Those whose lease is not known any more are left out here already.
pub fn settle(
    shared: &Shared,
    settlements: Vec<Settlement>,
    answer: Answer<usize>,
) -> Result<SettleJob, Error> {
    let mut items = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        let leased = shared
            .state()
            .leases
            .of(settlement.batch)
            .filter(|leased| leased.token == settlement.token)
            .cloned();
        if let Some(leased) = leased {
            items.extend(item(leased, settlement)?);
        }
    }
    Ok(SettleJob { items, answer })
}

fn item(leased: Leased, settlement: Settlement) -> Result<Option<SettleItem>, Error> {
    // A lease is handed on only with its content.
    let Some(batch) = leased.batch else {
        return Ok(None);
    };
    let message = leased.entry.message;
    let account = match settlement.outcome {
        Outcome::Replaced(_) => Account::Replaced,
        Outcome::Finished | Outcome::Deferred { .. } => Account::Ended(settlement.ends),
    };
    let mut finished = true;
    let mut presents = Vec::new();
    let children = match settlement.outcome {
        Outcome::Finished => Vec::new(),
        Outcome::Deferred {
            until,
            replies,
            note,
            recipients,
            attempted,
            moved,
        } => {
            within(note.len() as u64, NOTE_BYTES_MAX as u64, "a note")?;
            finished = recipients.is_empty();
            if !finished {
                presents.push(packed(Batch {
                    due: until,
                    attempts: batch.attempts + u32::from(attempted),
                    recipients,
                    note,
                    replies: cut(&replies),
                    ..Batch::clone(&batch)
                }));
            }
            moved
        }
        Outcome::Replaced(children) => children,
    };
    for (chunk, child) in children.into_iter().enumerate() {
        let id = match account {
            Account::Replaced => child_id(message, batch.id, chunk),
            // A batch may be parted several times.
            Account::Ended(_) => split_id(message, batch.id, leased.token, u64::MAX - chunk as u64),
        };
        if !child.recipients.is_empty() {
            presents.push(pack(id, child)?);
        }
    }
    Ok(Some(SettleItem {
        batch: batch.id,
        token: leased.token,
        message,
        arrival: Timestamp(leased.entry.arrival),
        presents,
        finished,
        account,
    }))
}
