//! Batches whose record, or whose message's head, cannot be read. They rest, borrowed by nobody, and all others go on. What the disk
//! refuses is asked for again until its patience is over; what is damaged is not. Then the batch is set aside: what is known of it
//! and what can be read is put into `corrupt/`, and its recipients end as set aside. What cannot be kept there is not ended.
//!
//! A disk that is gone as a whole is no reason to end anything: when many are refused they rest until it is back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mail::{MessageId, Timestamp};

use super::disk;
use super::entry::{Entry, Hold, MessagePlace, Span};
use super::job::{Account, Job, SettleItem, SettleJob};
use super::leases::Stage;
use super::load::{self, Trouble};
use super::shared::Shared;
use super::treating;
use crate::{BatchId, Destination, Ends, Error};

/// What the disk refused is asked for again after this, then after twice as long each time, at most after the other: a reset of the
/// bus takes a second, another path to the disk a minute, a rebuild of the RAID or an operator longer.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(300);
/// So many rest at most, some 200 bytes each; of more, claims fail as a whole: that is no damaged batch, that is the disk.
const RESTING_MAX: usize = 1000;
/// While more than so many are refused, none of them is set aside, and the spool says that it is not healthy.
const REFUSED_MANY: usize = 100;
/// So many are tried in one round of the sweeper.
const ROUND_MAX: usize = 64;

/// A batch that rests.
#[derive(Clone, Copy, Debug)]
struct Resting {
    since: Instant,
    next: Instant,
    tries: u32,
    /// The disk refuses it; otherwise it is damaged.
    refused: bool,
}

/// What cannot be read just now.
#[derive(Debug, Default)]
pub struct Unreadable {
    batches: Mutex<BTreeMap<BatchId, Resting>>,
    /// Since when the disk refuses these bodies.
    bodies: Mutex<HashMap<MessageId, Instant>>,
    /// Batches set aside since the start.
    set_aside: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unreadable {
    /// Batches that rest.
    pub fn resting(&self) -> u64 {
        lock(&self.batches).len() as u64
    }

    /// Batches set aside since the start.
    pub fn set_aside(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    /// How many the disk refuses, when they are so many that it is the disk.
    pub fn refused_many(&self) -> Option<usize> {
        let batches = lock(&self.batches);
        let refused = batches.values().filter(|one| one.refused).count();
        (refused > REFUSED_MANY).then_some(refused)
    }

    /// The disk refuses a body; whether it has done so for this long.
    pub fn body_refused(&self, message: MessageId, patience: Duration) -> bool {
        let mut bodies = lock(&self.bodies);
        if bodies.len() >= RESTING_MAX && !bodies.contains_key(&message) {
            return false;
        }
        let since = bodies.entry(message).or_insert_with(Instant::now);
        since.elapsed() >= patience
    }

    /// A body was read, or set aside.
    pub fn body_done(&self, message: MessageId) {
        let mut bodies = lock(&self.bodies);
        if !bodies.is_empty() {
            bodies.remove(&message);
        }
    }
}

/// Leaves a borrowed batch to rest; false when too many do.
pub fn rest(shared: &Shared, entry: &Entry, error: &Error) -> bool {
    let refused = load::trouble(shared, error) == Trouble::Refused;
    let now = Instant::now();
    let wait = if refused { AGAIN_FIRST } else { Duration::ZERO };
    {
        let mut batches = lock(&shared.unreadable.batches);
        if batches.len() >= RESTING_MAX {
            return false;
        }
        batches.insert(
            entry.id,
            Resting {
                since: now,
                next: now + wait.min(shared.options.read_patience),
                tries: 0,
                refused,
            },
        );
    }
    if let Some(leased) = shared.state().leases.of_mut(entry.id) {
        leased.stage = Stage::Unreadable;
    }
    tell(entry, error, "it rests, and is read again");
    shared.wake_sweeper();
    true
}

/// Says that a batch cannot be read.
pub fn tell(entry: &Entry, error: &dyn std::fmt::Display, then: &str) {
    tracing::error!(
        event = "batch_unreadable",
        message = %entry.message,
        batch = format_args!("{:032x}", entry.id.0),
        generation = entry.span.generation,
        offset = entry.span.offset,
        recipients = entry.recipients,
        %error,
        then
    );
}

/// Reads again what is due for it.
pub fn round(shared: &Shared) {
    if shared.refusal().is_some() {
        return;
    }
    let now = Instant::now();
    let due: Vec<(BatchId, Resting)> = {
        let batches = lock(&shared.unreadable.batches);
        let due = batches.iter().filter(|(_, one)| one.next <= now);
        due.take(ROUND_MAX).map(|(id, one)| (*id, *one)).collect()
    };
    // A message's body is kept once, however many of its batches are set aside.
    let mut kept = BTreeSet::new();
    for (id, resting) in due {
        if shared.sweeps.is_closed() {
            return;
        }
        let next = again(shared, id, resting, &mut kept);
        let mut batches = lock(&shared.unreadable.batches);
        let is_same = |one: &Resting| one.since == resting.since;
        match next {
            Some(next) => drop(batches.insert(id, next)),
            // A claim may have met it meanwhile, and left it to rest anew.
            None if batches.get(&id).is_some_and(is_same) => drop(batches.remove(&id)),
            None => {}
        }
    }
}

/// Reads a batch again; when, if it is not done with.
fn again(
    shared: &Shared,
    id: BatchId,
    resting: Resting,
    kept: &mut BTreeSet<MessageId>,
) -> Option<Resting> {
    let entry = {
        let state = shared.state();
        let leased = state.leases.of(id)?;
        (leased.stage == Stage::Unreadable).then(|| leased.entry.clone())?
    };
    let later = |refused| {
        let doubled = AGAIN_FIRST * (1 << resting.tries.min(16));
        let wait = doubled.min(AGAIN_LONGEST);
        Some(Resting {
            next: Instant::now() + wait,
            tries: resting.tries + 1,
            refused,
            ..resting
        })
    };
    let error = match load::lease(shared, &entry) {
        Ok(_) => {
            serve(shared, entry);
            return None;
        }
        Err(error) => error,
    };
    let gone = match load::trouble(shared, &error) {
        Trouble::Damaged => true,
        Trouble::Refused => {
            resting.since.elapsed() >= shared.options.read_patience
                && is_of_disk(&error)
                && shared.unreadable.refused_many().is_none()
        }
        Trouble::Other => false,
    };
    if !gone {
        return later(true);
    }
    match set_aside(shared, &entry, &error, kept) {
        Ok(()) => None,
        Err(error) => {
            tell(&entry, &error, "it cannot be set aside either, and waits");
            later(resting.refused)
        }
    }
}

/// It can be read again: it waits like the others.
fn serve(shared: &Shared, entry: Entry) {
    tracing::info!(
        event = "batch_readable",
        message = %entry.message,
        batch = format_args!("{:032x}", entry.id.0)
    );
    shared.state().unlease(entry.id);
    shared.news.notify_waiters();
    if entry.hold == Hold::Ordered
        && let Err(error) = treating::follow(shared, entry)
    {
        tracing::error!(event = "orders_not_followed", %error);
    }
}

// === Setting aside ===

fn set_aside(
    shared: &Shared,
    entry: &Entry,
    error: &Error,
    kept: &mut BTreeSet<MessageId>,
) -> Result<(), Error> {
    let place = load::place(shared, entry.message)?;
    let path = keep(shared, entry, place.as_ref(), error, kept)?;
    end(shared, entry, place)?;
    shared.unreadable.set_aside.fetch_add(1, Ordering::Relaxed);
    tracing::error!(
        event = "batch_set_aside",
        message = %entry.message,
        batch = format_args!("{:032x}", entry.id.0),
        generation = entry.span.generation,
        offset = entry.span.offset,
        recipients = entry.recipients,
        set_aside = %path.display(),
        %error,
        "nothing is delivered of it; what is known of it was set aside, an operator must look"
    );
    Ok(())
}

/// Puts what there is into `corrupt/`, durably; where.
fn keep(
    shared: &Shared,
    entry: &Entry,
    place: Option<&MessagePlace>,
    error: &Error,
    kept: &mut BTreeSet<MessageId>,
) -> Result<PathBuf, Error> {
    let name = format!("batch-{:032x}", entry.id.0);
    let write = |name: String, bytes: &[u8]| {
        let path = shared.corrupt.join(name);
        disk::write_file(shared.disk.as_ref(), &path, bytes)
            .map(|()| path.clone())
            .map_err(|source| Error::Io {
                path,
                source: source.into(),
            })
    };
    let of = |span: Span| {
        let (offset, length) = (u64::from(span.offset), u64::from(span.length));
        load::around(shared, span.generation, offset, length)
    };
    write(format!("{name}.record"), &of(entry.span))?;
    if let Some(place) = place
        && kept.insert(entry.message)
    {
        let (at, length) = (place.body_offset, place.body_length);
        write(format!("{}.head", place.id), &of(place.head))?;
        let body = load::around(shared, place.generation(), at, length);
        write(format!("{}.eml", place.id), &body)?;
    }
    let said = describe(shared, entry, place, error);
    write(format!("{name}.envelope"), said.as_bytes())
}

/// What is known of a batch, in words.
fn describe(shared: &Shared, entry: &Entry, place: Option<&MessagePlace>, error: &Error) -> String {
    let destination = shared.state().numbers.name(entry.destination).cloned();
    let destination = destination.map_or("unknown".into(), |name: Destination| format!("{name:?}"));
    let span = entry.span;
    let mut lines = vec![
        format!("batch {:032x} of message {}", entry.id.0, entry.message),
        format!(
            "stood in journal/{:016x}.segment, {} bytes at {}",
            span.generation, span.length, span.offset
        ),
        format!("unreadable: {error}"),
        format!(
            "{} recipients, to {destination}, arrival {}, due {}",
            entry.recipients, entry.arrival, entry.due
        ),
    ];
    if let Some(place) = place {
        lines.extend(load::describe_head(shared, place));
    }
    lines.extend(load::describe_batch(shared, entry));
    lines.push(String::new());
    lines.join("\n")
}

/// Whether an error is one of the disk's own.
fn is_of_disk(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if load::is_of_disk(source))
}

/// Ends it in the journal: all its recipients are set aside.
fn end(shared: &Shared, entry: &Entry, place: Option<MessagePlace>) -> Result<(), Error> {
    let token = {
        let mut state = shared.state();
        if let Some(place) = place {
            // Its record says in which segment the message stands.
            state.keep(entry.message, place, None);
        }
        let leased = state.leases.of(entry.id);
        leased.map(|leased| leased.token).ok_or(Error::Closed)?
    };
    let item = SettleItem {
        batch: entry.id,
        token,
        message: entry.message,
        arrival: Timestamp(entry.arrival),
        presents: Vec::new(),
        finished: true,
        account: Account::Ended(Ends {
            set_aside: u64::from(entry.recipients),
            ..Ends::default()
        }),
    };
    let items = vec![item];
    treating::submit(shared, |answer| Job::Settle(SettleJob { items, answer })).map(|_: usize| ())
}
