//! Looking at batches for a selection: where each is now, and how many of its recipients are meant. Changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::{MessageId, Timestamp};

use super::candidates;
use super::entry::{Entry, Hold, Track};
use super::leases::{Leased, Stage};
use super::load;
use super::shared::Shared;
use crate::selection::Selection;
use crate::{Batch, Error, Head, Lane, Predicate};

/// It looks again so soon at what somebody else has in hand for a moment.
pub const AGAIN_AFTER: Duration = Duration::from_millis(2);
/// What stands nowhere after so many looks is damaged.
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
            // Damaged: neither can it be looked at, nor does anybody have it.
            let readable = leased.stage != Stage::Unreadable;
            return readable.then(|| Now::Leased(leased.clone(), head));
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
        let predicate = &self.selection.predicate;
        if !ordered && !self.content {
            let recipients = u64::from(now.entry().recipients);
            return Ok(Look::Meant(Box::new(Meant {
                now,
                recipients,
                batch: None,
            })));
        }
        let Some(batch) = self.batch(&now)? else {
            return Ok(Look::Moved);
        };
        // Of a message that is done no batch is left to be looked at again.
        let Some(head) = self.head(&now)? else {
            return Ok(Look::Moved);
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

    /// The content of a batch; none when another stands at its place by now.
    pub fn batch(&self, now: &Now) -> Result<Option<Arc<Batch>>, Error> {
        let known = match now {
            Now::Waits(_, content) => content.as_ref(),
            Now::Leased(leased, _) => leased.batch.as_ref(),
        };
        if let Some(batch) = known {
            return Ok(Some(batch.clone()));
        }
        let entry = now.entry();
        match load::batch(self.shared, entry) {
            Ok(batch) if batch.id == entry.id => Ok(Some(Arc::new(batch))),
            Ok(_) => Ok(None),
            // Its segment may have been used again.
            Err(error) if load::is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The head of its message; none when that is done.
    pub fn head(&mut self, now: &Now) -> Result<Option<Arc<Head>>, Error> {
        if let Now::Leased(_, Some(head)) = now {
            return Ok(Some(head.clone()));
        }
        let message = now.entry().message;
        if let Some(head) = self.heads.get(&message) {
            return Ok(Some(head.clone()));
        }
        match load::read_head(self.shared, message) {
            Ok((_, head)) => {
                self.heads.insert(message, head.clone());
                Ok(Some(head))
            }
            Err(error) if load::is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn needs_content(predicate: &Predicate) -> bool {
    predicate.sender.is_some()
        || predicate.recipient.is_some()
        || predicate.reply.is_some()
        || predicate.owner.is_some()
}

/// Looks at batches as the index has them, again at those that were being written elsewhere.
pub fn look_at(
    shared: &Shared,
    mut rows: Vec<Entry>,
    looker: &mut Looker<'_>,
    mut meant: impl FnMut(&mut Looker<'_>, Meant) -> Result<(), Error>,
) -> Result<(), Error> {
    for _ in 0..LOOKS_MAX {
        let mut moved = Vec::new();
        for now in now(shared, rows) {
            let id = now.entry().id;
            match looker.look(now)? {
                Look::Meant(one) => meant(looker, *one)?,
                Look::Not => {}
                Look::Moved => moved.push(id),
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        std::thread::sleep(AGAIN_AFTER);
        rows = candidates::entries(shared, &moved)?;
    }
    for row in rows {
        tell_unreadable(&row);
    }
    Ok(())
}

fn tell_unreadable(entry: &Entry) {
    tracing::error!(
        event = "batch_unreadable",
        message = %entry.message,
        batch = format_args!("{:032x}", entry.id.0),
        "it is not selected"
    );
}
