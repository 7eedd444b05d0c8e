//! Selections while the spool works: pages of batches are looked at, those that are meant are borrowed for a moment as a claim
//! does, and settled. What is being attempted gets an order instead. A crash leaves each batch treated or not.

use std::collections::HashSet;
use std::sync::Arc;

use mail::Timestamp;

use super::candidates::{self, Candidates, PAGE};
use super::counting;
use super::entry::{Entry, Hold};
use super::job::{Attempted, Job};
use super::leases::{Leased, Stage};
use super::looking::{AGAIN_AFTER, Looker, Meant, Now, Read, look_at};
use super::shared::Shared;
use super::treating::{settle, submit};
use crate::selection::{Selection, treat};
use crate::{Action, Batch, BatchId, Error, Selected};

/// So many batches, and about so many bytes of them, are treated in one group.
const GROUP_BATCHES: usize = 256;
const GROUP_BYTES: u64 = 512 * 1024;

/// Does what an operator asked for.
pub fn select(shared: &Arc<Shared>, selection: &Arc<Selection>) -> Result<Selected, Error> {
    if selection.action == Action::Count {
        if let Some(known) = counting::known(shared, &selection.predicate) {
            return Ok(known);
        }
        candidates::catch_up(shared)?;
        return count(shared, selection);
    }
    if let Some(refusal) = shared.refusal() {
        return Err(refusal);
    }
    let _under_way = UnderWay::begin(shared, selection)?;
    candidates::catch_up(shared)?;
    let mut candidates = Candidates::new(shared, &selection.predicate, None, PAGE);
    let mut step = Step {
        shared,
        selection,
        looker: Looker::new(shared, selection),
        selected: Selected::default(),
        counted: HashSet::new(),
    };
    loop {
        shared.check_open()?;
        let page = candidates.page(shared)?;
        if page.is_empty() {
            return Ok(step.selected);
        }
        step.page(page)?;
    }
}

fn count(shared: &Shared, selection: &Selection) -> Result<Selected, Error> {
    let mut candidates = Candidates::new(shared, &selection.predicate, None, PAGE);
    let mut looker = Looker::new(shared, selection);
    let mut selected = Selected::default();
    loop {
        shared.check_open()?;
        let page = candidates.page(shared)?;
        if page.is_empty() {
            return Ok(selected);
        }
        looker.step();
        let unreadable = look_at(shared, page, &mut looker, |_, meant| {
            selected.add(&meant);
            Ok(())
        })?;
        selected.unreadable += unreadable;
    }
}

impl Selected {
    fn add(&mut self, meant: &Meant) {
        self.batches += 1;
        self.recipients += meant.recipients;
        self.in_flight += u64::from(meant.now.in_flight());
    }
}

/// A selection that expansions heed as long as it is under way.
struct UnderWay<'a> {
    shared: &'a Shared,
    selection: &'a Arc<Selection>,
}

impl<'a> UnderWay<'a> {
    /// Waits for what was being settled when nobody heeded it yet: what takes its place must be looked at like all else.
    fn begin(shared: &'a Shared, selection: &'a Arc<Selection>) -> Result<Self, Error> {
        let mut state = shared.state();
        state.selecting.push(selection.clone());
        let settling = |leased: &&Leased| leased.stage == Stage::Settling;
        let settled = state.leases.all().filter(settling);
        let mut before: Vec<_> = settled.map(|one| (one.entry.id, one.token)).collect();
        drop(state);
        let this = Self { shared, selection };
        while !before.is_empty() {
            shared.check_open()?;
            std::thread::sleep(AGAIN_AFTER);
            let state = shared.state();
            before.retain(|(id, token)| {
                let leased = state.leases.of(*id);
                leased.is_some_and(|one| one.token == *token && one.stage == Stage::Settling)
            });
        }
        Ok(this)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let selecting = &mut state.selecting;
        if let Some(at) = (selecting.iter()).position(|one| Arc::ptr_eq(one, self.selection)) {
            selecting.swap_remove(at);
        }
    }
}

/// One page after the other is treated.
struct Step<'a> {
    shared: &'a Arc<Shared>,
    selection: &'a Arc<Selection>,
    looker: Looker<'a>,
    selected: Selected,
    /// Batches of this page that were counted.
    counted: HashSet<BatchId>,
}

impl Step<'_> {
    fn page(&mut self, mut rows: Vec<Entry>) -> Result<(), Error> {
        self.counted.clear();
        loop {
            let again = self.round(rows)?;
            if again.is_empty() {
                return Ok(());
            }
            self.shared.check_open()?;
            std::thread::sleep(AGAIN_AFTER);
            rows = candidates::entries(self.shared, &again)?;
        }
    }

    /// Treats what can be treated now; returns the others.
    fn round(&mut self, rows: Vec<Entry>) -> Result<Vec<BatchId>, Error> {
        self.looker.step();
        let (shared, selection) = (self.shared, self.selection);
        let mut waiting: Vec<(Entry, Arc<Batch>)> = Vec::new();
        let mut attempted = Vec::new();
        let mut again = Vec::new();
        let (selected, counted) = (&mut self.selected, &mut self.counted);
        let mut unreadable = 0;
        let not_looked_at = look_at(shared, rows, &mut self.looker, |looker, mut meant| {
            let id = meant.now.entry().id;
            if let Now::Leased(leased, _) = &meant.now
                && leased.stage != Stage::HandedOn
            {
                again.push(id);
                return Ok(());
            }
            let changes = match &meant.now {
                Now::Leased(..) => false,
                Now::Waits(entry, _) => changes(selection, entry, looker.at),
            };
            if changes && meant.batch.is_none() {
                meant.batch = match looker.batch(&meant.now)? {
                    Read::Here(batch) => Some(batch),
                    Read::Moved => {
                        again.push(id);
                        return Ok(());
                    }
                    Read::Unreadable => {
                        unreadable += 1;
                        return Ok(());
                    }
                };
            }
            if counted.insert(id) {
                selected.add(&meant);
            }
            match (meant.now, meant.batch) {
                (Now::Leased(leased, _), _) => {
                    let durable = wants_order(selection, &leased, looker.at);
                    attempted.push((leased, durable));
                }
                (Now::Waits(entry, _), Some(batch)) if changes => waiting.push((entry, batch)),
                (Now::Waits(..), _) => {}
            }
            Ok(())
        })?;
        self.selected.unreadable += unreadable + not_looked_at;
        let at = self.looker.at;
        again.extend(order(shared, selection, attempted)?);
        let mut rest = waiting.as_slice();
        while !rest.is_empty() {
            let (some, others) = rest.split_at(group_of(rest));
            rest = others;
            again.extend(settle(shared, &[selection.order()], some, at)?);
        }
        Ok(again)
    }
}

/// How many of the first of these go into one group.
fn group_of(waiting: &[(Entry, Arc<Batch>)]) -> usize {
    let mut bytes = 0;
    let fits = |(entry, _): &&(Entry, Arc<Batch>)| {
        bytes += u64::from(entry.span.length);
        bytes <= GROUP_BYTES
    };
    let fitting = waiting.iter().take(GROUP_BATCHES).take_while(fits).count();
    fitting.max(1)
}

/// Whether a batch that waits would not be what it is; all that can be told without its content.
fn changes(selection: &Selection, entry: &Entry, now: Timestamp) -> bool {
    match selection.action {
        Action::Count => false,
        Action::Hold(_) => entry.hold == Hold::Free,
        Action::Release => entry.is_held(),
        Action::Retry => entry.due > now.0,
        Action::Drop => true,
    }
}

/// Whether an order changes what an attempt may leave of its batch; what comes of an expansion is lost with the process. When
/// the batch will be due nobody knows.
fn wants_order(selection: &Selection, leased: &Leased, now: Timestamp) -> bool {
    let Some(batch) = &leased.batch else {
        return false;
    };
    let order = selection.order();
    let mut orders = leased.orders();
    if selection.action == Action::Retry {
        return !orders.contains(&order);
    }
    let before = treat(&orders, Batch::clone(batch), now, &mut || batch.id);
    orders.push(order);
    before.batches != treat(&orders, Batch::clone(batch), now, &mut || batch.id).batches
}

/// Gives orders to attempts, durably where that is needed; returns those that have ended meanwhile.
fn order(
    shared: &Shared,
    selection: &Arc<Selection>,
    attempted: Vec<(Leased, bool)>,
) -> Result<Vec<BatchId>, Error> {
    let mut again = Vec::new();
    let mut ordered = Vec::new();
    {
        let mut state = shared.state();
        for (old, durable) in attempted {
            let (batch, token) = (old.entry.id, old.token);
            match state.leases.of_mut(batch) {
                Some(leased) if leased.token == token && leased.stage == Stage::HandedOn => {
                    leased.selections.push(selection.clone());
                    ordered.extend(durable.then_some(Attempted { batch, token }));
                }
                _ => again.push(batch),
            }
        }
    }
    for some in ordered.chunks(GROUP_BATCHES) {
        submit(shared, |answer| Job::Order(some.to_vec(), answer))?;
    }
    Ok(again)
}
