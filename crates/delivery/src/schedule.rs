//! The hand: what was claimed and is not attempted yet, by site and lane, and which of it goes next.
//!
//! Owns the gates. A pure value: it never waits, claims or connects; the clock is passed in. Its size is bounded by what the
//! engine claims into it ([`Hand::room`]) and by [`SITES_MAX`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mail::{Domain, Timestamp};
use spool::{Destination, Lane, Lease};
use tokio::time::Instant;

use crate::breaker::{Crossing, Gate, Limits, Signal};
use crate::lane::{Shares, index};
use crate::site::Site;

/// Sites remembered at most; beyond it those with nothing to do are forgotten, and with them what their gates have learnt.
pub(crate) const SITES_MAX: usize = 20_000;
/// Domains remembered of one site at most, to leave them out of claims while it is shut or busy.
const DESTINATIONS_MAX: usize = 4096;
/// Domains whose lookup failed, remembered at most.
const UNRESOLVED_MAX: usize = 20_000;
/// A site not needed for so long may be forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// The site of a domain is asked for again after this; the resolver keeps answers for as long as they say.
const REMEMBER: Duration = Duration::from_secs(30);
/// Stocks of one lane that may be in hand altogether.
const HELD_STOCKS: usize = 16;
/// What is given back because the hand is full is due again after this.
const BACK: Duration = Duration::from_secs(1);
/// Batches of one domain taken in while it is being looked up.
const LOCATING_MAX: usize = 32;

/// Where mail really goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A configured route; `""` is inside.
    Route(Box<str>),
    /// A set of mail exchangers.
    Site(Site),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Route(name) if name.is_empty() => f.write_str("inside"),
            Self::Route(name) => f.write_str(name),
            Self::Site(site) => site.fmt(f),
        }
    }
}

/// A claimed batch.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) lease: Lease,
    pub(crate) lane: Lane,
}

impl Work {
    pub(crate) fn new(lease: Lease, now: Timestamp) -> Self {
        let batch = &lease.batch;
        Self {
            lane: Lane::of(batch.class, lease.head.arrival, batch.attempts, now),
            lease,
        }
    }
}

/// See the module.
pub(crate) struct Hand {
    limits: Limits,
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
    /// Sites of domains looked up lately.
    sites: HashMap<Domain, (Arc<Key>, Instant)>,
    locating: HashMap<Domain, Vec<Work>>,
    unresolved: HashMap<Domain, Instant>,
    wakes: BinaryHeap<Reverse<(Instant, Wake)>>,
    shut: usize,
    /// The set of destinations not wanted has changed since it was last asked for.
    changed: bool,
    /// It has shrunk, or a gate may be probed: a claim may find more than the last one.
    widened: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Seat(Arc<Key>),
    Domain(Domain),
}

/// One site's part of the hand.
struct Seat {
    gate: Gate,
    waiting: [VecDeque<Work>; 4],
    queued: [bool; 4],
    /// What of it is counted in [`Hand::ready`].
    ready: [usize; 4],
    running: usize,
    destinations: HashSet<Destination>,
    unwanted: bool,
    used: Instant,
    /// Why it could not be reached last, in one line.
    trouble: Box<str>,
}

impl Seat {
    fn waits(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Shut and not to be probed yet, or with enough in hand. It is wanted again when half of that has gone, so that claims
    /// are not made for one batch at a time.
    fn is_unwanted(&self, now: Instant) -> bool {
        let waits = self.waits();
        if self.gate.is_shut() {
            return waits > 0 || self.running > 0 || !self.gate.admits(now, self.running);
        }
        let enough = self.gate.window();
        match self.unwanted {
            true => waits > enough / 2,
            false => waits >= enough,
        }
    }
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
    pub(crate) fn new(limits: Limits, stock: usize) -> Self {
        Self {
            limits,
            stock,
            seats: HashMap::new(),
            turns: Default::default(),
            shares: Shares::default(),
            ready: [0; 4],
            held: 0,
            sites: HashMap::new(),
            locating: HashMap::new(),
            unresolved: HashMap::new(),
            wakes: BinaryHeap::new(),
            shut: 0,
            changed: false,
            widened: false,
        }
    }

    /// How many more batches are wanted of each lane. A lane is refilled when half of its stock has gone.
    pub(crate) fn room(&self) -> [usize; 4] {
        if self.is_full() {
            return [0; 4];
        }
        self.ready.map(|ready| match ready * 2 <= self.stock {
            true => self.stock - ready,
            false => 0,
        })
    }

    /// Batches in hand that wait: for a turn, for a gate, for their domain's lookup.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Shut sites keep one batch each beyond this bound; their number has its own.
    fn is_full(&self) -> bool {
        self.held.saturating_sub(self.shut) >= HELD_STOCKS * self.stock
    }

    /// Gates that are shut.
    pub(crate) fn shut(&self) -> usize {
        self.shut
    }

    /// The site of a domain that was looked up just now.
    pub(crate) fn site_of(&self, domain: &Domain, now: Instant) -> Option<Arc<Key>> {
        let (key, until) = self.sites.get(domain)?;
        (*until > now).then(|| key.clone())
    }

    /// Remembers the site of a domain for a while.
    pub(crate) fn remember(&mut self, domain: Domain, site: Site, now: Instant) -> Arc<Key> {
        let key = Arc::new(Key::Site(site));
        let key = match self.seats.get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => key,
        };
        if self.sites.len() >= SITES_MAX {
            self.sites.clear();
        }
        self.sites.insert(domain, (key.clone(), now + REMEMBER));
        key
    }

    /// Puts a batch of a domain aside until its site is known; true when the lookup must be started.
    pub(crate) fn locate(&mut self, domain: &Domain, work: Work) -> bool {
        self.held += 1;
        let works = self.locating.entry(domain.clone()).or_default();
        works.push(work);
        if works.len() == LOCATING_MAX {
            self.changed = true;
        }
        works.len() == 1
    }

    /// The lookup has ended: these batches waited for it.
    pub(crate) fn located(&mut self, domain: &Domain) -> Vec<Work> {
        let works = self.locating.remove(domain).unwrap_or_default();
        self.held -= works.len();
        if works.len() >= LOCATING_MAX {
            self.changed = true;
            self.widened = true;
        }
        works
    }

    /// The lookup failed for now: the domain is left out of claims until then.
    pub(crate) fn unresolved(&mut self, domain: Domain, until: Instant) {
        if self.unresolved.len() < UNRESOLVED_MAX {
            self.wakes
                .push(Reverse((until, Wake::Domain(domain.clone()))));
            self.unresolved.insert(domain, until);
            self.changed = true;
        }
    }

    /// Puts a batch into the hand. `ceiling`: attempts at once to its site at most.
    pub(crate) fn put(
        &mut self,
        key: &Arc<Key>,
        ceiling: usize,
        work: Work,
        now: Instant,
    ) -> Placed {
        let limits = self.limits;
        let full = self.is_full();
        if !self.seats.contains_key(key) {
            self.forget(now);
        }
        let seat = self.seats.entry(key.clone()).or_insert_with(|| Seat {
            gate: Gate::new(limits, ceiling),
            waiting: Default::default(),
            queued: [false; 4],
            ready: [0; 4],
            running: 0,
            destinations: HashSet::new(),
            unwanted: false,
            used: now,
            trouble: Box::default(),
        });
        seat.used = now;
        let destination = &work.lease.batch.destination;
        if seat.destinations.len() < DESTINATIONS_MAX && !seat.destinations.contains(destination) {
            seat.destinations.insert(destination.clone());
            self.changed |= seat.unwanted;
        }
        if let Some(until) = seat.gate.shut_until()
            && until > now
            && seat.waits() > 0
        {
            return Placed::Back(Box::new(work), until);
        }
        if full && seat.waits() >= seat.gate.window() {
            return Placed::Back(Box::new(work), now + BACK);
        }
        seat.waiting[index(work.lane)].push_back(work);
        self.held += 1;
        self.queue(key, now);
        Placed::Waits
    }

    /// The batch whose turn it is; its site counts it as under way until [`Self::ended`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Arc<Key>, Work)> {
        let able = std::array::from_fn(|lane| self.clear_front(lane, now));
        let lane = index(self.shares.pick(able)?);
        let key = self.turns[lane].pop_front()?;
        let seat = self.seats.get_mut(&key)?;
        let work = seat.waiting[lane].pop_front()?;
        seat.queued[lane] = false;
        seat.gate.go();
        seat.running += 1;
        self.held -= 1;
        self.queue(&key, now);
        Some((key, work))
    }

    /// An attempt has ended. Returns what crossed, and what is given back because the gate has shut.
    pub(crate) fn ended(
        &mut self,
        key: &Arc<Key>,
        signal: Signal,
        trouble: Option<Box<str>>,
        now: Instant,
    ) -> (Option<Crossing>, Vec<Work>) {
        let Some(seat) = self.seats.get_mut(key) else {
            return (None, Vec::new());
        };
        seat.running = seat.running.saturating_sub(1);
        seat.used = now;
        if let Some(trouble) = trouble {
            seat.trouble = trouble;
        }
        let before = seat.gate.is_shut();
        let crossing = seat.gate.ended(signal, now);
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
                for lane in 0..4 {
                    while seat.waits() > 1
                        && let Some(work) = seat.waiting[lane].pop_back()
                    {
                        self.held -= 1;
                        back.push(work);
                    }
                }
            }
        }
        self.queue(key, now);
        (crossing, back)
    }

    /// Whether a shut site has nothing in hand by which it could be probed.
    pub(crate) fn lacks_probe(&self, key: &Key) -> bool {
        self.seats
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

    /// When something changes by time alone.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets probes go whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while self.wake_at().is_some_and(|at| at <= now) {
            match self.wakes.pop() {
                Some(Reverse((_, Wake::Seat(key)))) => self.queue(&key, now),
                Some(Reverse((_, Wake::Domain(domain))))
                    if self.unresolved.get(&domain).is_some_and(|at| *at <= now) =>
                {
                    self.unresolved.remove(&domain);
                    self.changed = true;
                    self.widened = true;
                }
                Some(Reverse((_, Wake::Domain(_)))) | None => {}
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
        if !self.unresolved.is_empty() {
            self.unresolved.clear();
            self.changed = true;
        }
        self.widened = true;
    }

    /// Takes everything out that waits.
    pub(crate) fn empty(&mut self) -> Vec<Work> {
        let mut all: Vec<Work> = self.locating.drain().flat_map(|(_, works)| works).collect();
        for seat in self.seats.values_mut() {
            all.extend(seat.waiting.iter_mut().flat_map(|queue| queue.drain(..)));
        }
        for seat in self.seats.values_mut() {
            seat.ready = [0; 4];
        }
        self.ready = [0; 4];
        self.held = 0;
        all
    }

    /// The destinations not wanted now, when they have changed since the last call.
    pub(crate) fn changed(&mut self) -> Option<Unwanted> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut unwanted = Unwanted::default();
        for (key, seat) in self.seats.iter().filter(|(_, seat)| seat.unwanted) {
            unwanted
                .destinations
                .extend(seat.destinations.iter().cloned());
            if let Key::Route(name) = &**key {
                unwanted.routes.push(name.clone());
            }
        }
        let domains = self.unresolved.keys().chain(
            self.locating
                .iter()
                .filter(|(_, works)| works.len() >= LOCATING_MAX)
                .map(|(domain, _)| domain),
        );
        unwanted
            .destinations
            .extend(domains.cloned().map(Destination::Domain));
        Some(unwanted)
    }

    /// Whether a claim may find more than before, since the last call.
    pub(crate) fn widened(&mut self) -> bool {
        std::mem::take(&mut self.widened)
    }

    /// Gives a site its place in the turns of the lanes in which something may go, and notes whether more of it is wanted.
    fn queue(&mut self, key: &Arc<Key>, now: Instant) {
        let Some(seat) = self.seats.get_mut(key) else {
            return;
        };
        let admits = seat.gate.admits(now, seat.running);
        for lane in 0..4 {
            let waiting = seat.waiting[lane].len();
            if admits && waiting > 0 && !seat.queued[lane] {
                seat.queued[lane] = true;
                self.turns[lane].push_back(key.clone());
            }
            let ready = if admits { waiting } else { 0 };
            self.ready[lane] = self.ready[lane] + ready - seat.ready[lane];
            seat.ready[lane] = ready;
        }
        let unwanted = seat.is_unwanted(now);
        if unwanted != seat.unwanted {
            seat.unwanted = unwanted;
            self.changed = true;
            self.widened |= !unwanted;
        }
    }

    /// Drops sites from the front of a lane's turns that cannot go now; they come back by [`Self::queue`]. True when one can.
    fn clear_front(&mut self, lane: usize, now: Instant) -> bool {
        while let Some(key) = self.turns[lane].front() {
            if let Some(seat) = self.seats.get_mut(key) {
                if !seat.waiting[lane].is_empty() && seat.gate.admits(now, seat.running) {
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
        if self.seats.len() < SITES_MAX {
            return;
        }
        let shut = &mut self.shut;
        self.seats.retain(|_, seat| {
            let busy = seat.running > 0 || seat.waits() > 0;
            let keep = busy || !seat.gate.is_shut() && now.duration_since(seat.used) < FORGET;
            *shut -= usize::from(!keep && seat.gate.is_shut());
            keep
        });
        self.changed = true;
    }
}

/// What a claim leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unwanted {
    pub(crate) destinations: HashSet<Destination>,
    /// Routes of which nothing is wanted, whatever is pinned to them.
    pub(crate) routes: Vec<Box<str>>,
}

#[cfg(test)]
mod tests;
