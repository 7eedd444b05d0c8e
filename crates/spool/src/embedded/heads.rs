//! The scheduler's heads: of every destination and track the batches that come next, in memory, in order; the rest stays in the
//! index until these are used up. Pure: it reads no clock, no disk and no index; it says what must be read (a [`Gap`]).
//!
//! Every window has a horizon: all batches up to it are in memory, behind it only those that the index does not have yet. Without a
//! horizon all are in memory. A window whose front is its horizon must be refilled before it is served, so order and
//! completeness do not depend on how much is kept.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::entry::{Entry, Track};
use super::fronts::Fronts;
use super::window::{Gap, Key, Place, Queue, Window};
use crate::{BatchId, Lane};

/// A window that was used up is refilled with so many batches at least, however many destinations share the memory.
const SHARE_MIN: usize = 8;

/// All windows.
#[derive(Debug)]
pub struct Heads {
    queues: HashMap<(u32, Window), Queue>,
    fronts: Fronts,
    /// Ripe batches that arrived before this are backlog.
    young_from: u64,
    window_max: usize,
    heads_max: usize,
    /// Batches in memory.
    held: usize,
    /// The windows that have any, what is urgent or live first, then by what came first when they got them.
    filled: BTreeSet<(bool, u64, Place)>,
    /// When there are so many, some are let go of: more than `heads_max` where most could not be.
    shed_from: usize,
}

/// How far waiting batches that became due were moved to where they are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ripened {
    /// All.
    All,
    /// Some wait for room.
    NoRoom,
    /// This must be read first.
    Gap(Gap),
}

/// The answer to "which comes next?".
#[derive(Debug)]
pub enum Next {
    /// This one; it was taken out.
    Entry(Entry),
    /// This must be read first.
    Gap(Gap),
    /// None is due.
    Nothing,
}

impl Heads {
    /// With at most about `window_max` batches in memory for each destination and track, and `heads_max` for all together.
    pub fn new(window_max: usize, heads_max: usize, young_from: u64) -> Self {
        Self {
            queues: HashMap::new(),
            fronts: Fronts::default(),
            young_from,
            window_max,
            heads_max,
            held: 0,
            filled: BTreeSet::new(),
            shed_from: heads_max,
        }
    }

    /// Batches in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many of a window's batches are read at once: its share of what is in memory altogether, so that what was read for one
    /// is not let go of for the next before it was served.
    pub fn share(&self) -> usize {
        let share = self.heads_max / self.filled.len().max(1);
        share.max(SHARE_MIN).min(self.window_max)
    }

    fn window(&self, entry: &Entry) -> Window {
        match entry.track {
            Track::Urgent => Window::Urgent,
            Track::Ripe if entry.arrival >= self.young_from => Window::Live,
            Track::Ripe => Window::Backlog,
            Track::Waiting => Window::Waiting,
            Track::Retry => Window::Retry,
            Track::UrgentRetry => Window::UrgentRetry,
        }
    }

    /// Says that the index has batches in a track of a destination of which none is in memory.
    pub fn unknown(&mut self, destination: u32, track: Track) {
        let start = |key| Some((key, BatchId(0)));
        let windows = match track {
            Track::Ripe => {
                self.queue(destination, Window::Live).horizon = start(self.young_from);
                self.settle_front(destination, Window::Live);
                Window::Backlog
            }
            Track::Urgent => Window::Urgent,
            Track::Waiting => Window::Waiting,
            Track::Retry => Window::Retry,
            Track::UrgentRetry => Window::UrgentRetry,
        };
        self.queue(destination, windows).horizon = start(0);
        self.settle_front(destination, windows);
    }

    fn queue(&mut self, destination: u32, window: Window) -> &mut Queue {
        self.queues.entry((destination, window)).or_default()
    }

    /// Brings fronts and counts in line with a queue, and drops an empty one.
    fn settle_front(&mut self, destination: u32, window: Window) {
        let place = (destination, window);
        let Some(queue) = self.queues.get_mut(&place) else {
            return;
        };
        self.held = self.held + queue.map.len() - queue.counted;
        queue.counted = queue.map.len();
        let waits = !matches!(window, Window::Urgent | Window::Live);
        match (queue.filled, queue.first()) {
            (None, Some(first)) => {
                queue.filled = Some((waits, first.0));
                self.filled.insert((waits, first.0, place));
            }
            (Some((waits, key)), None) => {
                queue.filled = None;
                self.filled.remove(&(waits, key, place));
            }
            _ => {}
        }
        let front = queue.front_key();
        if front != queue.front {
            self.fronts.change(window, destination, queue.front, front);
            queue.front = front;
        }
        if front.is_none() {
            self.queues.remove(&(destination, window));
        }
    }

    /// Adds a batch that the index may not have yet.
    pub fn insert(&mut self, entry: Entry) {
        let window = self.window(&entry);
        self.insert_into(window, entry);
    }

    fn insert_into(&mut self, window: Window, entry: Entry) {
        let destination = entry.destination;
        // In the live and the backlog window also those wait that were put off once.
        let key = match window {
            Window::Live | Window::Backlog => (entry.arrival, entry.id),
            _ => entry.key(),
        };
        self.queue(destination, window)
            .map
            .insert(key, Box::new(entry));
        self.settle_front(destination, window);
    }

    /// Takes a batch out wherever it waits.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        let ripened = (entry.arrival, entry.id);
        let places = match entry.track {
            Track::Ripe | Track::Waiting => vec![
                (Window::Live, ripened),
                (Window::Backlog, ripened),
                (Window::Waiting, entry.key()),
            ],
            _ => vec![(self.window(entry), entry.key())],
        };
        for (window, key) in places {
            let removed = self
                .queues
                .get_mut(&(entry.destination, window))
                .and_then(|queue| queue.map.remove(&key));
            if removed.is_some() {
                self.settle_front(entry.destination, window);
                return true;
            }
        }
        false
    }

    fn holds(&self, entry: &Entry) -> bool {
        let ripened = (entry.arrival, entry.id);
        [Window::Live, Window::Backlog].iter().any(|window| {
            self.queues
                .get(&(entry.destination, *window))
                .is_some_and(|queue| queue.map.contains_key(&ripened))
        })
    }

    /// Says that the index has a batch now: behind the horizon it need not be kept.
    pub fn indexed(&mut self, entry: &Entry) {
        let window = self.window(entry);
        let key = entry.key();
        let Some(queue) = self.queues.get_mut(&(entry.destination, window)) else {
            return;
        };
        if queue.horizon.is_some_and(|horizon| key > horizon) {
            queue.map.remove(&key);
            self.settle_front(entry.destination, window);
        }
    }

    /// Lets go of what exceeds a window; `unindexed` are kept.
    pub fn trim(&mut self, entry: &Entry, unindexed: impl Fn(BatchId) -> bool) {
        let window = self.window(entry);
        let window_max = self.window_max;
        let Some(queue) = self.queues.get_mut(&(entry.destination, window)) else {
            return;
        };
        if queue.map.len() <= 2 * window_max {
            return;
        }
        let may_drop = |entry: &Entry| entry.track == window.track() && !unindexed(entry.id);
        queue.keep(window_max, may_drop);
        self.settle_front(entry.destination, window);
    }

    /// Lets go of what exceeds the memory for all together, so that a quarter is free again: first of what comes last. Every
    /// destination keeps its share of half of it or, where that is none, the mark of where to read on. `unindexed` are kept, so
    /// many as there are; so is all of the window `except`.
    pub fn shed(
        &mut self,
        unindexed: (usize, impl Fn(BatchId) -> bool),
        except: Option<(u32, Window)>,
    ) {
        let (kept, is_unindexed) = unindexed;
        let mut sheddable = self.held.saturating_sub(kept);
        if sheddable <= self.heads_max {
            self.shed_from = self.heads_max;
        }
        if sheddable <= self.shed_from {
            return;
        }
        let keep = self.heads_max / 2 / self.filled.len().max(1);
        let places: Vec<Place> = self.filled.iter().rev().map(|(.., place)| *place).collect();
        for place in places {
            if sheddable <= self.heads_max - self.heads_max / 4 {
                break;
            }
            if except == Some(place) {
                continue;
            }
            if let Some(queue) = self.queues.get_mut(&place) {
                let track = place.1.track();
                let may_drop = |entry: &Entry| entry.track == track && !is_unindexed(entry.id);
                sheddable = sheddable.saturating_sub(queue.keep(keep, may_drop));
                self.settle_front(place.0, place.1);
            }
        }
        self.shed_from = self.heads_max.max(sheddable + self.heads_max / 4);
    }

    /// Takes over what was read for a gap. `wanted` says whether a row is still as the index says and not borrowed.
    pub fn refill(
        &mut self,
        gap: Gap,
        rows: Vec<Entry>,
        limit: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) {
        let key = (gap.destination, gap.window);
        let horizon = self.queues.get(&key).and_then(|queue| queue.horizon);
        let border_moved = gap.window == Window::Backlog && gap.below != self.young_from;
        if horizon != Some(gap.after) || border_moved {
            // Something else was quicker; whoever wants it asks again.
            return;
        }
        let horizon = (rows.len() >= limit)
            .then(|| rows.last().map(Entry::key))
            .flatten();
        for row in rows {
            if wanted(&row) && !(row.track == Track::Waiting && self.holds(&row)) {
                self.queue(gap.destination, gap.window)
                    .map
                    .insert(row.key(), Box::new(row));
            }
        }
        self.queue(gap.destination, gap.window).horizon = horizon;
        self.settle_front(gap.destination, gap.window);
    }

    fn gap(&self, destination: u32, window: Window, after: Key) -> Gap {
        let below = match window {
            Window::Backlog => self.young_from,
            _ => u64::MAX,
        };
        Gap {
            destination,
            window,
            after,
            below,
        }
    }

    /// Moves the border between live and backlog on to `young_from`; it never moves back.
    pub fn age(&mut self, young_from: u64, unindexed: impl Fn(BatchId) -> bool) {
        if young_from <= self.young_from {
            return;
        }
        self.young_from = young_from;
        let border = (young_from, BatchId(0));
        let aged = self.fronts.all_below(Window::Live, young_from);
        for destination in aged {
            let live = self.queue(destination, Window::Live);
            let young = live.map.split_off(&border);
            let old = std::mem::replace(&mut live.map, young);
            let known_to = live.horizon.filter(|horizon| *horizon < border);
            if known_to.is_some() {
                live.horizon = Some(border);
            }
            self.settle_front(destination, Window::Live);
            let backlog = self.queue(destination, Window::Backlog);
            backlog.horizon = backlog.horizon.or(known_to);
            for (key, entry) in old {
                let behind = backlog.horizon.is_some_and(|horizon| key > horizon);
                if !behind || entry.track != Track::Ripe || unindexed(entry.id) {
                    backlog.map.insert(key, entry);
                }
            }
            self.settle_front(destination, Window::Backlog);
        }
    }

    /// From now on these destinations are left out where all others are served. Returns the view of that, for [`Self::see`].
    pub fn leave_out(&mut self, these: HashSet<u32>) -> usize {
        let queues = &self.queues;
        let front = |destination, window| queues.get(&(destination, window))?.front;
        self.fronts.leave_out(these, front)
    }

    /// The same with the destinations of a view that [`Self::leave_out`] made.
    pub fn see(&mut self, view: usize) {
        self.fronts.see(view);
    }

    /// Moves waiting batches that are due by `now` to the live and the backlog window, as far as there is room in them: those
    /// of `only`, or of all that are not left out.
    pub fn ripen(&mut self, now: u64, only: Option<&[u32]>) -> Ripened {
        let mut ripened = Ripened::All;
        // What has ripened stays in memory until it is served.
        let share = self.share();
        let due = match only {
            Some(these) => these.to_vec(),
            None => self.fronts.up_to(Window::Waiting, now),
        };
        for destination in due {
            loop {
                let room = [Window::Live, Window::Backlog].iter().all(|window| {
                    self.queues
                        .get(&(destination, *window))
                        .is_none_or(|queue| queue.map.len() < 2 * share)
                });
                let Some(queue) = self.queues.get_mut(&(destination, Window::Waiting)) else {
                    break;
                };
                if queue.front_key().is_none_or(|front| front > now) {
                    break;
                }
                if !room {
                    ripened = Ripened::NoRoom;
                    break;
                }
                if let Some(horizon) = queue.blind() {
                    return Ripened::Gap(self.gap(destination, Window::Waiting, horizon));
                }
                let Some((_, entry)) = queue.map.pop_first() else {
                    break;
                };
                self.settle_front(destination, Window::Waiting);
                let window = match entry.arrival >= self.young_from {
                    true => Window::Live,
                    false => Window::Backlog,
                };
                self.insert_into(window, *entry);
            }
        }
        ripened
    }

    /// The next batch of a lane: of `only`, or of all that are not left out.
    pub fn next(&mut self, lane: Lane, now: u64, only: Option<&[u32]>) -> Next {
        let mut best: Option<(u64, u32, Window)> = None;
        for window in Window::of_lane(lane) {
            let front = match only {
                Some(destinations) => destinations
                    .iter()
                    .filter_map(|destination| {
                        let queue = self.queues.get(&(*destination, *window))?;
                        Some((queue.front?, *destination))
                    })
                    .min(),
                None => self.fronts.first(*window),
            };
            if let Some((key, destination)) = front
                && !(window.by_due() && key > now)
                && best.is_none_or(|(least, ..)| key < least)
            {
                best = Some((key, destination, *window));
            }
        }
        let Some((_, destination, window)) = best else {
            return Next::Nothing;
        };
        let Some(queue) = self.queues.get_mut(&(destination, window)) else {
            return Next::Nothing;
        };
        if let Some(horizon) = queue.blind() {
            return Next::Gap(self.gap(destination, window, horizon));
        }
        let Some((_, entry)) = queue.map.pop_first() else {
            return Next::Nothing;
        };
        self.settle_front(destination, window);
        Next::Entry(*entry)
    }

    /// When the next batch that is not due at `now` will be.
    pub fn next_due(&self, now: u64) -> Option<u64> {
        Window::ALL
            .iter()
            .filter(|window| window.by_due())
            .filter_map(|window| self.fronts.first_above(*window, now))
            .min()
    }

    /// The front of a window of a destination: its key, or the gap that must be read to know it.
    pub fn front(&self, destination: u32, window: Window) -> Result<Option<u64>, Gap> {
        let Some(queue) = self.queues.get(&(destination, window)) else {
            return Ok(None);
        };
        match queue.blind() {
            Some(horizon) => Err(self.gap(destination, window, horizon)),
            None => Ok(queue.first().map(|key| key.0)),
        }
    }
}

#[cfg(test)]
mod tests;
