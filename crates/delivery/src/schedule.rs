//! The hand: what was claimed and is not attempted yet, by site and lane, and which of it goes next.
//!
//! Owns the gates. A pure value: it never waits, claims or connects; the clock is passed in. Its size is bounded by what the
//! engine claims into it ([`Hand::room`]) and by [`SITES_MAX`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mail::{Domain, Timestamp};
use spool::Destination;
use tokio::time::Instant;

use crate::board::{SITES_SHOWN_MAX, SiteState};
use crate::breaker::{Crossing, Limits, Signal};
use crate::domains::{Domains, LOCATING_MAX};
use crate::lane::{Age, Shares, index};
use crate::left_out::{LeftOut, Unwanted};
use crate::pace::Pace;
use crate::rules::Order;
use crate::seat::{Ceiling, Key, Seat, Work};
use crate::site::Site;

/// Sites remembered at most; beyond it those with nothing in hand are forgotten, and with them what their gates have learnt.
pub(crate) const SITES_MAX: usize = 20_000;
/// Shut sites that keep a batch in hand as their next probe, at most; the others claim one when its time has come.
const PROBES_HELD_MAX: usize = 1000;
/// A site not needed for so long may be forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Forgetting looks at every site; it is not tried more often than this.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// Stocks of one lane that may be in hand altogether.
const HELD_STOCKS: usize = 16;
/// What is given back because the hand is full is due again after this.
const BACK: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Hand {
    limits: Limits,
    /// How fast what is old may go: recipients a second of the backlog and the retry lane.
    drain: Arc<Pace>,
    /// Batches that can go at once, wanted in hand for each lane.
    stock: usize,
    seats: HashMap<Arc<Key>, Seat>,
    /// Sites that may have something to go, by lane; each at most once.
    turns: [VecDeque<Arc<Key>>; 4],
    shares: Shares,
    /// Batches that can go at once. What waits for a busy or a shut site does not keep others from being claimed.
    ready: [usize; 4],
    /// All that wait, for whatever; bounded by [`HELD_STOCKS`] stocks.
    held: usize,
    domains: Domains,
    /// Sites left out of claims, and destinations whose lookup fails or takes long.
    left_out: LeftOut,
    forget_at: Option<Instant>,
    wakes: BinaryHeap<Reverse<(Instant, Wake)>>,
    shut: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Seat(Arc<Key>),
    Domain(Domain),
}

/// What is to be done with a batch that has just been put into the hand.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It waits for its turn.
    Waits,
    /// It is given back until then: its site is shut and has its probe in hand, or the hand is full.
    Back(Box<Work>, Instant),
}

impl Hand {
    /// Empty.
    pub(crate) fn new(limits: Limits, stock: usize, drain: Arc<Pace>) -> Self {
        Self {
            limits,
            drain,
            stock,
            seats: HashMap::new(),
            turns: Default::default(),
            shares: Shares::default(),
            ready: [0; 4],
            held: 0,
            domains: Domains::default(),
            left_out: LeftOut::default(),
            forget_at: None,
            wakes: BinaryHeap::new(),
            shut: 0,
        }
    }

    /// How many more batches are wanted of each lane. A lane is refilled when half of its stock has gone.
    pub(crate) fn room(&self) -> [usize; 4] {
        std::array::from_fn(|lane| {
            let ready = self.ready[lane];
            match ready * 2 <= self.stock && !self.is_full(Age::of(lane)) {
                true => self.stock - ready,
                false => 0,
            }
        })
    }

    /// Batches in hand that wait: for a turn, for a gate, for their domain's lookup.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Shut sites keep one batch each beyond this bound; their number has its own.
    fn is_full(&self, age: Age) -> bool {
        let stocks = match age {
            Age::Fresh => HELD_STOCKS,
            // Else a backlog whose sites are busy would keep live mail from being claimed.
            Age::Old => HELD_STOCKS - HELD_STOCKS / 4,
        };
        self.held.saturating_sub(self.shut) >= stocks * self.stock
    }

    /// Gates that are shut.
    pub(crate) fn shut(&self) -> usize {
        self.shut
    }

    /// The site of a domain that was looked up just now.
    pub(crate) fn site_of(&self, domain: &Domain, now: Instant) -> Option<Arc<Key>> {
        self.domains.site_of(domain, now)
    }

    /// Remembers the site of a domain for a while.
    pub(crate) fn remember(&mut self, domain: Domain, site: Site, now: Instant) -> Arc<Key> {
        self.domains.remember(domain, site, now)
    }

    /// Puts a batch of a domain aside until its site is known; true when the lookup must be started.
    pub(crate) fn locate(&mut self, domain: &Domain, work: Work) -> bool {
        self.held += 1;
        let waiting = self.domains.locate(domain, work);
        if waiting == LOCATING_MAX {
            self.left_out.change_all();
        }
        waiting == 1
    }

    /// The lookup has ended: these batches waited for it.
    pub(crate) fn located(&mut self, domain: &Domain) -> Vec<Work> {
        let works = self.domains.located(domain);
        self.held -= works.len();
        if works.len() >= LOCATING_MAX {
            self.left_out.change_all();
            self.left_out.widen();
        }
        works
    }

    /// The lookup failed for now: the domain is left out of claims until then.
    pub(crate) fn unresolved(&mut self, domain: Domain, until: Instant) {
        let wake = Wake::Domain(domain.clone());
        if self.domains.fail(domain, until) {
            self.wakes.push(Reverse((until, wake)));
            self.left_out.change_all();
        }
    }

    /// Puts a batch into the hand. `ceiling`: attempts at once to its site at most.
    pub(crate) fn put(
        &mut self,
        key: &Arc<Key>,
        ceiling: Ceiling,
        work: Work,
        now: Instant,
    ) -> Placed {
        let limits = self.limits;
        let age = Age::of(index(work.lane));
        let full = self.is_full(age);
        if !self.seats.contains_key(key) {
            self.forget(now);
        }
        let seat = self
            .seats
            .entry(key.clone())
            .or_insert_with(|| Seat::new(limits, ceiling, now));
        seat.used = now;
        if seat.leads_from(&work.lease.batch.destination) {
            for age in Age::ALL {
                if seat.unwanted[age as usize] {
                    self.left_out.change(age);
                }
            }
        }
        let expired = std::mem::take(&mut seat.expires);
        if let Some(until) = seat.gate.shut_until()
            && until > now
            && seat.waits() > 0
        {
            if expired {
                self.queue(key, now);
            }
            return Placed::Back(Box::new(work), until);
        }
        if full && seat.waits_of(age) >= seat.gate.window(now) {
            return Placed::Back(Box::new(work), now + BACK);
        }
        seat.waiting[index(work.lane)].push_back(work);
        self.held += 1;
        self.queue(key, now);
        Placed::Waits
    }

    /// The batch whose turn it is, with the pace of its site; the site counts it as under way until [`Self::ended`]. One message
    /// of it is paid for.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Arc<Key>, Arc<Pace>, Work)> {
        let drains = self.drain.free_at(now).is_none();
        let able = std::array::from_fn(|lane| {
            (drains || !is_drained(lane)) && self.clear_front(lane, now)
        });
        let lane = index(self.shares.pick(able)?);
        let key = self.turns[lane].pop_front()?;
        let seat = self.seats.get_mut(&key)?;
        let work = seat.waiting[lane].pop_front()?;
        seat.queued[lane] = false;
        seat.gate.go();
        seat.running += 1;
        seat.running_old += usize::from(is_drained(lane));
        self.held -= 1;
        // What is free now is free for this one: nobody else begins anything here.
        let pace = seat.pace.clone();
        pace.pay(now);
        if is_drained(lane) {
            self.drain.pay(now);
        }
        self.queue(&key, now);
        Some((key, pace, work))
    }

    /// An attempt has ended. Returns what crossed, and what is given back because the gate has shut.
    pub(crate) fn ended(
        &mut self,
        key: &Arc<Key>,
        lane: spool::Lane,
        signal: Signal,
        order: Option<&Order>,
        trouble: Option<Box<str>>,
        now: Instant,
    ) -> (Option<Crossing>, Vec<Work>) {
        let Some(seat) = self.seats.get_mut(key) else {
            return (None, Vec::new());
        };
        seat.running = seat.running.saturating_sub(1);
        let old = usize::from(is_drained(index(lane)));
        seat.running_old = seat.running_old.saturating_sub(old);
        seat.used = now;
        if let Some(trouble) = trouble {
            seat.trouble = trouble;
            seat.policy = order.is_some();
        }
        let before = seat.gate.is_shut();
        let crossing = seat.gate.ended(signal, now);
        match signal {
            Signal::PushedBack => seat.pace.cut(now),
            Signal::Reached => seat.pace.took(now),
            Signal::TurnedAway | Signal::Unreached | Signal::Nothing => {}
        }
        let ordered = order.and_then(|order| seat.obey(order, now));
        let crossing = ordered.or(crossing);
        let shut = seat.gate.is_shut();
        match (before, shut) {
            (false, true) => self.shut += 1,
            (true, false) => self.shut -= 1,
            _ => {}
        }
        let mut back = Vec::new();
        if let Some(until) = seat.gate.shut_until() {
            self.wakes.push(Reverse((until, Wake::Seat(key.clone()))));
            if until > now {
                // One stays as the next probe.
                back = seat.give_back(usize::from(self.shut <= PROBES_HELD_MAX));
                self.held -= back.len();
            }
        }
        self.queue(key, now);
        (crossing, back)
    }

    /// Whether a shut site has nothing in hand by which it could be probed, and may have.
    pub(crate) fn lacks_probe(&self, key: &Key) -> bool {
        self.shut <= PROBES_HELD_MAX
            && self
                .seats
                .get(key)
                .is_some_and(|seat| seat.gate.is_shut() && seat.waits() == 0)
    }

    /// Why a site could not be reached last, in one line.
    pub(crate) fn trouble(&self, key: &Key) -> &str {
        self.seats.get(key).map_or("", |seat| &seat.trouble)
    }

    /// When the next probe of a site may go, while it is shut.
    pub(crate) fn shut_until(&self, key: &Key) -> Option<Instant> {
        self.seats.get(key)?.gate.shut_until()
    }

    /// Whether nothing but the probe that is under way, if any, goes to a site now.
    pub(crate) fn keeps_out(&self, key: &Key, now: Instant) -> bool {
        self.seats.get(key).is_some_and(|seat| {
            seat.gate.is_shut() && seat.gate.shut_until().is_none_or(|until| until > now)
        })
    }

    /// What was claimed of it was too old to wait for a shut site; more is claimed at once, until something is not.
    pub(crate) fn expires(&mut self, key: &Arc<Key>, now: Instant) {
        if let Some(seat) = self.seats.get_mut(key)
            && !std::mem::replace(&mut seat.expires, true)
        {
            self.queue(key, now);
        }
    }

    /// The sites as they stand, those first that are shut, then those with most to do; at most [`SITES_SHOWN_MAX`].
    pub(crate) fn sites(&self, now: Instant, wall: Timestamp) -> Vec<SiteState> {
        let weight = |seat: &Seat| (seat.gate.is_shut(), seat.running + seat.waits());
        let mut all: Vec<_> = self
            .seats
            .iter()
            .map(|(key, seat)| (weight(seat), key, seat))
            .collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        all.truncate(SITES_SHOWN_MAX);
        all.into_iter()
            .map(|(_, key, seat)| seat.shown(key, now, wall))
            .collect()
    }

    /// Whether that was a provider's rule against this host.
    pub(crate) fn is_policy(&self, key: &Key) -> bool {
        self.seats.get(key).is_some_and(|seat| seat.policy)
    }

    /// When something changes by time alone.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = (0..4).any(|lane| is_drained(lane) && !self.turns[lane].is_empty());
        let drain = self.drain.free_at(now).filter(|_| waits);
        self.next_wake().into_iter().chain(drain).min()
    }

    fn next_wake(&self) -> Option<Instant> {
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets probes go whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while self.next_wake().is_some_and(|at| at <= now) {
            match self.wakes.pop() {
                Some(Reverse((_, Wake::Seat(key)))) => self.queue(&key, now),
                Some(Reverse((_, Wake::Domain(domain)))) => {
                    let over = self.domains.retry(&domain, now);
                    if over {
                        self.left_out.change_all();
                        self.left_out.widen();
                    }
                }
                None => {}
            }
        }
    }

    /// Lets every shut site be probed, every failed lookup be made again, at once.
    pub(crate) fn nudge(&mut self, now: Instant) {
        let keys: Vec<_> = self
            .seats
            .iter_mut()
            .filter_map(|(key, seat)| seat.gate.nudge(now).then(|| key.clone()))
            .collect();
        for key in keys {
            self.queue(&key, now);
        }
        if self.domains.retry_all() {
            self.left_out.change_all();
        }
        self.left_out.widen();
    }

    /// Takes everything out that waits.
    pub(crate) fn empty(&mut self) -> Vec<Work> {
        let mut all: Vec<Work> = self.domains.empty().collect();
        for seat in self.seats.values_mut() {
            all.extend(seat.give_back(0));
            seat.ready = [0; 4];
        }
        self.ready = [0; 4];
        self.held = 0;
        all
    }

    /// Whether the destinations not wanted of an age have changed since [`Self::changed`] was last called.
    pub(crate) fn has_changed(&self, age: Age) -> bool {
        self.left_out.has_changed(age)
    }

    /// The destinations of which nothing of an age is wanted now, when they have changed since the last call.
    pub(crate) fn changed(&mut self, age: Age) -> Option<Unwanted> {
        if !self.left_out.take_changed(age) {
            return None;
        }
        let mut unwanted = Unwanted::default();
        for key in self.left_out.sites(age) {
            if let Some(seat) = self.seats.get(key) {
                unwanted.destinations.extend(seat.destinations().cloned());
            }
            if let Key::Route(name) = &**key {
                unwanted.routes.push(name.clone());
            }
        }
        let domains = self.domains.unwanted();
        unwanted
            .destinations
            .extend(domains.cloned().map(Destination::Domain));
        Some(unwanted)
    }

    /// Whether a claim may find more than before, since the last call.
    pub(crate) fn widened(&mut self) -> bool {
        self.left_out.take_widened()
    }

    /// Gives a site its place in the turns of the lanes in which something may go, and notes whether more of it is wanted.
    fn queue(&mut self, key: &Arc<Key>, now: Instant) {
        let Some(seat) = self.seats.get_mut(key) else {
            return;
        };
        if seat.waits() > 0
            && seat.paced.is_none_or(|at| at <= now)
            && let Some(at) = seat.pace.free_at(now)
        {
            seat.paced = Some(at);
            self.wakes.push(Reverse((at, Wake::Seat(key.clone()))));
        }
        for lane in 0..4 {
            let admits = seat.admits(now, Age::of(lane));
            let waiting = seat.waiting[lane].len();
            if admits && waiting > 0 && !seat.queued[lane] {
                seat.queued[lane] = true;
                self.turns[lane].push_back(key.clone());
            }
            let ready = if admits { waiting } else { 0 };
            self.ready[lane] = self.ready[lane] + ready - seat.ready[lane];
            seat.ready[lane] = ready;
        }
        for age in Age::ALL {
            let unwanted = seat.is_unwanted(now, age);
            if unwanted != seat.unwanted[age as usize] {
                seat.unwanted[age as usize] = unwanted;
                self.left_out.set(age, key, unwanted);
            }
        }
    }

    /// Drops sites from the front of a lane's turns that cannot go now; they come back by [`Self::queue`]. True when one can.
    fn clear_front(&mut self, lane: usize, now: Instant) -> bool {
        while let Some(key) = self.turns[lane].front() {
            if let Some(seat) = self.seats.get_mut(key) {
                if !seat.waiting[lane].is_empty() && seat.admits(now, Age::of(lane)) {
                    return true;
                }
                seat.queued[lane] = false;
            }
            self.turns[lane].pop_front();
        }
        false
    }

    /// Forgets sites that have nothing to do, when there are too many.
    fn forget(&mut self, now: Instant) {
        if self.seats.len() < SITES_MAX || self.forget_at.is_some_and(|at| at > now) {
            return;
        }
        self.forget_at = Some(now + FORGET_INTERVAL);
        let shut = &mut self.shut;
        self.seats.retain(|_, seat| {
            let busy = seat.running > 0 || seat.waits() > 0;
            let keep = busy || !seat.gate.is_shut() && now.duration_since(seat.used) < FORGET;
            *shut -= usize::from(!keep && seat.gate.is_shut());
            keep
        });
        self.left_out.retain(|key| self.seats.contains_key(key));
    }
}

/// Whether a lane is what an operator's rate limits: not what people wait for.
fn is_drained(lane: usize) -> bool {
    Age::of(lane) == Age::Old
}

#[cfg(test)]
mod tests;
