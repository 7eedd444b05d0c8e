//! Which batches a selection must look at, by id, page by page: by the index's shortest way to them, each read bounded, so that
//! neither memory nor a reader that keeps the index's log from being used again grows with what waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::Entry;
use super::lookup;
use super::shared::Shared;
use crate::{BatchId, Destination, Error, Predicate};

/// So many batches are looked at in one step.
pub const PAGE: usize = 1024;
/// So many ids of few are gathered at once.
const IDS_MAX: usize = 1_000_000;
/// It looks again so often whether the index has caught up.
const INDEX_WAIT: Duration = Duration::from_millis(2);

/// Waits until the index has all that is durable now.
pub fn catch_up(shared: &Shared) -> Result<(), Error> {
    let wanted = shared.state().end.sequence;
    while shared.state().indexed < wanted {
        shared.check_open()?;
        if let Some(trouble) = shared.index_trouble() {
            return Err(shared.index_error(rusqlite::Error::InvalidParameterName(trouble)));
        }
        std::thread::sleep(INDEX_WAIT);
    }
    shared.check_open()
}

/// How the index is read.
#[derive(Clone, Debug)]
pub enum Way {
    /// The batches of a message.
    Message(mail::MessageId),
    /// What is held, by this hold or any.
    Held(Option<crate::HoldId>),
    /// Those of destinations, by number.
    Destinations(Vec<u32>),
    /// All of them.
    All,
}

/// Where a selection has got to.
#[derive(Debug)]
pub struct Candidates {
    way: Way,
    /// How far the index was read.
    after: Option<BatchId>,
    /// Whether it has none behind that.
    all_read: bool,
    /// What was read of it and comes next.
    ids: VecDeque<BatchId>,
    /// Being attempted, with orders that only memory knows.
    ordered: Vec<BatchId>,
    /// So many at once.
    page: usize,
}

impl Candidates {
    /// Those behind `after` that may be meant, in pages of this size.
    pub fn new(
        shared: &Shared,
        predicate: &Predicate,
        after: Option<BatchId>,
        page: usize,
    ) -> Self {
        let state = shared.state();
        let mut ordered = Vec::new();
        let way = if let Some(message) = predicate.message {
            Way::Message(message)
        } else if predicate.hold.is_some() || predicate.held == Some(true) {
            // What their attempts leave may be held.
            let all = state.leases.all().filter(|one| !one.selections.is_empty());
            ordered.extend(all.map(|one| one.entry.id));
            Way::Held(predicate.hold)
        } else if let Some(destinations) = &predicate.destinations {
            let known = |destination: &Destination| state.numbers.known(destination);
            Way::Destinations(destinations.iter().filter_map(known).collect())
        } else {
            Way::All
        };
        ordered.retain(|id| after.is_none_or(|after| *id > after));
        ordered.sort();
        Self {
            way,
            after,
            all_read: false,
            ids: VecDeque::new(),
            ordered,
            page,
        }
    }

    /// The next ones as the index has them, by id; none when there are no more.
    pub fn page(&mut self, shared: &Shared) -> Result<Vec<Entry>, Error> {
        if let Way::All = self.way {
            let page = shared.read(|index| lookup::batches_after(index, self.after, self.page))?;
            self.after = page.last().map(|last| last.id).or(self.after);
            return Ok(page);
        }
        loop {
            if self.ids.len() < self.page && !self.all_read {
                self.gather(shared)?;
            }
            let some = self.ids.len().min(self.page);
            let some: Vec<BatchId> = self.ids.drain(..some).collect();
            if some.is_empty() {
                return Ok(Vec::new());
            }
            // What is gone meanwhile has ended.
            let page = entries(shared, &some)?;
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    /// Puts what comes next behind the ids at hand.
    fn gather(&mut self, shared: &Shared) -> Result<(), Error> {
        // The batches of a destination are sorted anew with every reading: a listing reads few, a selection many at once.
        let limit = match self.page {
            PAGE => IDS_MAX,
            page => page,
        };
        let (way, after) = (&self.way, self.after);
        let mut next = shared.read(|index| lookup::ids_after(index, way, after, limit))?;
        self.all_read = next.len() < limit;
        self.after = next.last().copied().or(after);
        let upto = self.after.filter(|_| !self.all_read);
        let among = |id: &BatchId| upto.is_none_or(|upto| *id <= upto);
        let cut = self.ordered.partition_point(among);
        next.extend(self.ordered.drain(..cut));
        next.sort();
        next.dedup();
        self.ids.extend(next);
        Ok(())
    }
}

/// Batches as the index has them.
pub fn entries(shared: &Shared, ids: &[BatchId]) -> Result<Vec<Entry>, Error> {
    shared.read(|index| {
        let found = ids.iter().map(|id| lookup::entry(index, *id));
        found.filter_map(Result::transpose).collect()
    })
}
