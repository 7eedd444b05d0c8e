//! The hand: what was claimed and is not attempted yet, by site and lane, and which of it goes next.
//!
//! Owns the gates. A pure value: it never waits, claims or connects; the clock is passed in. Its size is bounded by what the
//! engine claims into it ([`Hand::room`]) and by [`SITES_MAX`].

mod claimable;
mod locating;
mod sites;
mod waking;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::waking::Wake;
use crate::breaker::{Crossing, Limits, Signal};
use crate::domains::Domains;
use crate::lane::{Age, Shares, index};
use crate::left_out::LeftOut;
use crate::pace::Pace;
use crate::rules::Order;
use crate::seat::{Ceiling, Key, Look, Seat, Work};

/// Sites remembered at most; beyond it those with nothing in hand are forgotten, and with them what their gates have learnt.
pub(crate) const SITES_MAX: usize = 20_000;
/// Shut sites that keep a batch in hand as their next probe, at most; the others claim one when its time has come.
const PROBES_HELD_MAX: usize = 1000;
/// Stocks of one lane that may be in hand altogether.
const HELD_STOCKS: usize = 16;
/// Batches that are not too old to wait on, behind which others are looked for that are: mail to a list, whose delay nobody is told
/// of, may stand before a person's. Each one is written once more for it.
const LOOK_MAX: usize = 4096;
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
        let looked = seat.looks(now);
        if let Some(look) = &mut seat.look {
            look.left = look.left.saturating_sub(1);
        }
        if let Some(until) = seat.gate.shut_until()
            && until > now
            && seat.waits() > 0
        {
            if looked && !seat.looks(now) {
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
    /// of it is paid for. `old`: whether it may be one of backlog and retries.
    pub(crate) fn next(&mut self, now: Instant, old: bool) -> Option<(Arc<Key>, Arc<Pace>, Work)> {
        let drains = old && self.drain.free_at(now).is_none();
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

    /// Looks through what waits for a shut site for what is too old to wait on, oldest first: more is claimed at once, until
    /// [`LOOK_MAX`] batches in a row were not, or its next probe is due.
    pub(crate) fn look(&mut self, key: &Arc<Key>, now: Instant) {
        let Some(seat) = self.seats.get_mut(key) else {
            return;
        };
        let looked = seat.looks(now);
        let until = seat.gate.shut_until();
        seat.look = Some(Look {
            left: LOOK_MAX,
            until: until.unwrap_or(now + self.limits.probe_interval),
        });
        if !looked {
            self.queue(key, now);
        }
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
}

/// Whether a lane is what an operator's rate limits: not what people wait for.
fn is_drained(lane: usize) -> bool {
    Age::of(lane) == Age::Old
}

#[cfg(test)]
mod tests;
