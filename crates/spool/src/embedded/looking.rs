//! Looking at batches for a selection: where each is now, and how many of its recipients are meant. Changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::{MessageId, Timestamp};

use super::candidates;
use super::entry::{Entry, Hold, Track};
use super::leases::{Leased, Stage};
use super::load::{self, Trouble};
use super::shared::Shared;
use super::unreadable;
use crate::selection::Selection;
use crate::{Batch, BatchId, Error, Head, Lane, Predicate};

/// It looks again so soon at what somebody else has in hand for a moment.
pub const AGAIN_AFTER: Duration = Duration::from_millis(2);
/// What is somewhere else after so many looks is left alone.
const LOOKS_MAX: u32 = 50;

/// A batch as it is now.
#[derive(Clone, Debug)]
pub enum Now {
    /// It waits.
    Waits(Entry, Option<Arc<Batch>>),
    /// It is borrowed.
    Leased(Leased, Option<Arc<Head>>),
}

/// A batch of which some recipients are meant.
#[derive(Debug)]
pub struct Meant {
    /// As it is now.
    pub now: Now,
    /// How many.
    pub recipients: u64,
    /// Its content, when it was looked at.
    pub batch: Option<Arc<Batch>>,
}

/// What came of looking.
#[derive(Debug)]
pub enum Look {
    /// Some recipients are meant.
    Meant(Box<Meant>),
    /// None is, or it is done.
    Not,
    /// It was written elsewhere meanwhile: look again.
    Moved,
    /// Nobody can tell: it cannot be read just now.
    Unreadable,
}

/// What came of reading a piece of what is looked at.
#[derive(Debug)]
pub enum Read<T> {
    /// It.
    Here(T),
    /// It was written elsewhere meanwhile, or is done.
    Moved,
    /// It cannot be read.
    Unreadable,
}

/// Looks.
#[derive(Debug)]
pub struct Looker<'a> {
    shared: &'a Shared,
    selection: &'a Selection,
    /// The numbers of the destinations that are meant.
    destinations: Option<Vec<u32>>,
    /// Whether the content of all that is meant is wanted.
    content: bool,
    /// Heads of this step.
    heads: HashMap<MessageId, Arc<Head>>,
    pub(super) at: Timestamp,
}

impl Now {
    /// The batch.
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Waits(entry, _) => entry,
            Self::Leased(leased, _) => &leased.entry,
        }
    }

    /// Whether it is being attempted.
    pub fn in_flight(&self) -> bool {
        matches!(self, Self::Leased(leased, _) if leased.stage != Stage::Reserved)
    }
}

/// Where batches are now that the index knows like this; those that are done are left out.
pub fn now(shared: &Shared, rows: Vec<Entry>) -> Vec<Now> {
    let state = shared.state();
    let find = |row: Entry| {
        if let Some(leased) = state.leases.of(row.id) {
            let head = state.leases.message(row.message).0;
            return Some(Now::Leased(leased.clone(), head));
        }
        match state.unindexed_state(row.id) {
            Some((entry, content)) => Some(Now::Waits(entry?.clone(), content.cloned())),
            None => Some(Now::Waits(row, None)),
        }
    };
    rows.into_iter().filter_map(find).collect()
}

impl<'a> Looker<'a> {
    /// For a selection.
    pub fn new(shared: &'a Shared, selection: &'a Selection) -> Self {
        let state = shared.state();
        let destinations = selection.predicate.destinations.as_ref().map(|these| {
            let known = these.iter().filter_map(|these| state.numbers.known(these));
            known.collect()
        });
        drop(state);
        Self {
            shared,
            selection,
            destinations,
            content: needs_content(&selection.predicate),
            heads: HashMap::new(),
            at: shared.now(),
        }
    }

    /// The same, and what is meant comes with its content: one that is being written elsewhere is looked at again, not left out.
    pub fn with_content(self) -> Self {
        Self {
            content: true,
            ..self
        }
    }

    /// A step begins: what was kept for the one before is let go of.
    pub fn step(&mut self) {
        self.heads.clear();
        self.at = self.shared.now();
    }

    /// Looks at a batch.
    pub fn look(&mut self, now: Now) -> Result<Look, Error> {
        let ordered = match &now {
            Now::Leased(leased, _) => !leased.selections.is_empty(),
            Now::Waits(..) => false,
        };
        if !self.may_be(now.entry(), ordered) {
            return Ok(Look::Not);
        }
        if matches!(&now, Now::Leased(leased, _) if leased.stage == Stage::Unreadable) {
            return Ok(Look::Unreadable);
        }
        let predicate = &self.selection.predicate;
        if !ordered && !self.content {
            let recipients = u64::from(now.entry().recipients);
            return Ok(Look::Meant(Box::new(Meant {
                now,
                recipients,
                batch: None,
            })));
        }
        let batch = match self.batch(&now)? {
            Read::Here(batch) => batch,
            Read::Moved => return Ok(Look::Moved),
            Read::Unreadable => return Ok(Look::Unreadable),
        };
        // Of a message that is done no batch is left to be looked at again.
        let head = match self.head(&now)? {
            Read::Here(head) => head,
            Read::Moved => return Ok(Look::Moved),
            Read::Unreadable => return Ok(Look::Unreadable),
        };
        let recipients = match &now {
            Now::Waits(..) => predicate.meant(&head, &batch, self.at),
            Now::Leased(leased, _) => {
                let orders = leased.orders();
                self.selection
                    .meant_in_flight(&head, &batch, &orders, self.at)
            }
        };
        match recipients {
            0 => Ok(Look::Not),
            _ => Ok(Look::Meant(Box::new(Meant {
                now,
                recipients,
                batch: Some(batch),
            }))),
        }
    }

    /// What can be told without its content; of one with orders its hold cannot.
    fn may_be(&self, entry: &Entry, ordered: bool) -> bool {
        let predicate = &self.selection.predicate;
        let held = match entry.hold {
            Hold::By(hold) => Some(hold),
            Hold::Free | Hold::Ordered => None,
        };
        let hold = ordered
            || (predicate.held.is_none_or(|wanted| wanted == held.is_some())
                && predicate.hold.is_none_or(|hold| held == Some(hold)));
        let attempts = u32::from(matches!(entry.track, Track::Retry | Track::UrgentRetry));
        let arrival = Timestamp(entry.arrival);
        let lane = || Lane::of(entry.class(), arrival, attempts, self.at);
        hold && (predicate.message).is_none_or(|message| message == entry.message)
            && (self.destinations.as_ref()).is_none_or(|these| these.contains(&entry.destination))
            && (predicate.arrived_before).is_none_or(|time| arrival < time)
            && (predicate.arrived_from).is_none_or(|time| arrival >= time)
            && (predicate.lanes.as_ref()).is_none_or(|lanes| lanes.contains(&lane()))
    }

    /// The content of a batch.
    pub fn batch(&self, now: &Now) -> Result<Read<Arc<Batch>>, Error> {
        let known = match now {
            Now::Waits(_, content) => content.as_ref(),
            Now::Leased(leased, _) => leased.batch.as_ref(),
        };
        if let Some(batch) = known {
            return Ok(Read::Here(batch.clone()));
        }
        match load::right_batch(self.shared, now.entry()) {
            Ok(batch) => Ok(Read::Here(Arc::new(batch))),
            Err(error) => self.not_read(now.entry(), error),
        }
    }

    /// The head of its message.
    pub fn head(&mut self, now: &Now) -> Result<Read<Arc<Head>>, Error> {
        if let Now::Leased(_, Some(head)) = now {
            return Ok(Read::Here(head.clone()));
        }
        let message = now.entry().message;
        if let Some(head) = self.heads.get(&message) {
            return Ok(Read::Here(head.clone()));
        }
        match load::read_head(self.shared, message) {
            Ok((_, head)) => {
                self.heads.insert(message, head.clone());
                Ok(Read::Here(head))
            }
            Err(error) => self.not_read(now.entry(), error),
        }
    }

    /// Whether it could not be read because it does not stand there any more: then its segment may have been used again.
    fn not_read<T>(&self, entry: &Entry, error: Error) -> Result<Read<T>, Error> {
        if load::trouble(self.shared, &error) == Trouble::Other {
            return Err(error);
        }
        let present = present(self.shared, entry.id)?;
        if present.is_none_or(|present| present.span != entry.span) {
            return Ok(Read::Moved);
        }
        unreadable::tell(entry, &error, "it is not selected");
        Ok(Read::Unreadable)
    }
}

fn needs_content(predicate: &Predicate) -> bool {
    predicate.sender.is_some()
        || predicate.recipient.is_some()
        || predicate.reply.is_some()
        || predicate.owner.is_some()
}

/// A batch as it is at this moment; none when it is done.
fn present(shared: &Shared, batch: BatchId) -> Result<Option<Entry>, Error> {
    loop {
        let before = shared.state().commits;
        let row = candidates::entries(shared, &[batch])?.pop();
        let state = shared.state();
        if state.commits != before {
            // What the index took over in between may be missing in both.
            continue;
        }
        return Ok(
            match (state.leases.of(batch), state.unindexed_state(batch)) {
                (Some(leased), _) => Some(leased.entry.clone()),
                (None, Some((entry, _))) => entry.cloned(),
                (None, None) => row,
            },
        );
    }
}

/// Looks at batches as the index has them, again at those that were being written elsewhere. Returns of how many nobody can tell.
pub fn look_at(
    shared: &Shared,
    mut rows: Vec<Entry>,
    looker: &mut Looker<'_>,
    mut meant: impl FnMut(&mut Looker<'_>, Meant) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut unreadable = 0;
    for _ in 0..LOOKS_MAX {
        let mut moved = Vec::new();
        for now in now(shared, rows) {
            let id = now.entry().id;
            match looker.look(now)? {
                Look::Meant(one) => meant(looker, *one)?,
                Look::Not => {}
                Look::Unreadable => unreadable += 1,
                Look::Moved => moved.push(id),
            }
        }
        if moved.is_empty() {
            return Ok(unreadable);
        }
        std::thread::sleep(AGAIN_AFTER);
        rows = candidates::entries(shared, &moved)?;
    }
    for row in &rows {
        unreadable::tell(row, &"it never stands still", "it is not selected");
    }
    Ok(unreadable + rows.len() as u64)
}
