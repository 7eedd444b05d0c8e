//! One site's part of the hand: its gate, what waits for it, and whether more of it is wanted.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mail::{MessageId, Timestamp};
use spool::{Destination, Ends, Lane, Lease};
use tokio::time::Instant;

use crate::board::{GateState, SiteState};
use crate::breaker::{Crossing, Gate, Limits};
use crate::lane::{Age, index};
use crate::pace::Pace;
use crate::rules::{Action, Order};
use crate::site::Site;

/// Domains remembered of one site at most, to leave them out of claims while it is shut or busy.
const DESTINATIONS_MAX: usize = 4096;

/// What a rule has heard is forgotten after this.
const HEARD: Duration = Duration::from_secs(3600);
/// Rules whose messages are counted at one site at once, at most.
const RULES_HEARD_MAX: usize = 8;

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

/// What a way allows, by configuration and by its provider's known limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ceiling {
    /// Attempts at once.
    pub(crate) attempts: usize,
    /// Messages a second.
    pub(crate) rate: Option<f64>,
}

/// A claimed batch.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) lease: Lease,
    pub(crate) lane: Lane,
    /// When it was claimed.
    pub(crate) claimed: Instant,
    /// How recipients of the lease ended that are not in its batch any more, because it stayed in hand after an attempt.
    pub(crate) ends: Ends,
}

impl Work {
    pub(crate) fn new(lease: Lease, now: Timestamp) -> Self {
        let batch = &lease.batch;
        Self {
            lane: Lane::of(batch.class, lease.head.arrival, batch.attempts, now),
            lease,
            claimed: Instant::now(),
            ends: Ends::default(),
        }
    }

    /// The age of its lane.
    pub(crate) fn age(&self) -> Age {
        Age::of(index(self.lane))
    }
}

/// One site's part of the hand.
pub(crate) struct Seat {
    pub(crate) gate: Gate,
    pub(crate) waiting: [VecDeque<Work>; 4],
    /// It has its place in the turns of these lanes.
    pub(crate) queued: [bool; 4],
    /// What of it can go at once, as the hand has counted it.
    pub(crate) ready: [usize; 4],
    pub(crate) running: usize,
    /// Of these, backlog and retries.
    pub(crate) running_old: usize,
    destinations: HashSet<Destination>,
    /// It is left out of claims of what is fresh, of what is old.
    pub(crate) unwanted: [bool; 2],
    /// It is shut, and what waits for it is looked through for what is too old to wait on.
    pub(crate) look: Option<Look>,
    pub(crate) used: Instant,
    /// Why it could not be reached last, in one line.
    pub(crate) trouble: Box<str>,
    /// That trouble is a provider's rule against this host: nobody is to be blamed for it.
    pub(crate) policy: bool,
    /// How many messages a second.
    pub(crate) pace: Arc<Pace>,
    /// A wake is due then because of the pace.
    pub(crate) paced: Option<Instant>,
    heard: Vec<Heard>,
}

/// How much more of what waits for a shut site is looked through, and until when: then what was given back would come again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) left: usize,
    pub(crate) until: Instant,
}

/// Messages of the last hour that a rule for shutting has heard of.
struct Heard {
    rule: Box<str>,
    since: Instant,
    messages: u32,
    last: MessageId,
}

impl Seat {
    pub(crate) fn new(limits: Limits, ceiling: Ceiling, now: Instant) -> Self {
        Self {
            gate: Gate::new(limits, ceiling.attempts),
            waiting: Default::default(),
            queued: [false; 4],
            ready: [0; 4],
            running: 0,
            running_old: 0,
            destinations: HashSet::new(),
            unwanted: [false; 2],
            look: None,
            used: now,
            trouble: Box::default(),
            policy: false,
            pace: Arc::new(Pace::new(ceiling.rate, now)),
            paced: None,
            heard: Vec::new(),
        }
    }

    /// Does what a provider's rule says.
    pub(crate) fn obey(&mut self, order: &Order, now: Instant) -> Option<Crossing> {
        let until = now + order.duration;
        match order.action {
            Action::Slow => {
                if let Some(max) = order.connections_max {
                    self.gate.cap(max, until);
                }
                if let Some(rate) = order.rate_max {
                    self.pace.order(rate, until);
                }
                None
            }
            Action::Shut if self.hear(order, now) >= order.messages => {
                self.heard.retain(|heard| heard.rule != order.rule);
                self.gate.shut(until)
            }
            Action::Shut | Action::Away | Action::Recipient | Action::Message => None,
        }
    }

    /// Counts different messages of which a rule has heard lately.
    fn hear(&mut self, order: &Order, now: Instant) -> u32 {
        self.heard.retain(|heard| now < heard.since + HEARD);
        let known = self.heard.iter_mut().find(|h| h.rule == order.rule);
        if let Some(heard) = known {
            if heard.last != order.message {
                heard.last = order.message;
                heard.messages += 1;
            }
            return heard.messages;
        }
        if self.heard.len() >= RULES_HEARD_MAX {
            self.heard.remove(0);
        }
        self.heard.push(Heard {
            rule: order.rule.clone(),
            since: now,
            messages: 1,
            last: order.message,
        });
        1
    }

    /// Whether what waits for it is looked through.
    pub(crate) fn looks(&self, now: Instant) -> bool {
        self.look
            .is_some_and(|look| look.left > 0 && now < look.until)
    }

    /// Batches that wait.
    pub(crate) fn waits(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Batches of an age that wait.
    pub(crate) fn waits_of(&self, age: Age) -> usize {
        let lanes = self.waiting.iter().enumerate();
        let lanes = lanes.filter(|(lane, _)| Age::of(*lane) == age);
        lanes.map(|(_, waiting)| waiting.len()).sum()
    }

    /// Whether one more may go. A batch holds its place for a hundred messages: what is old leaves a quarter of the places free, so that
    /// what is fresh does not have to wait for its end.
    pub(crate) fn admits(&self, now: Instant, age: Age) -> bool {
        let window = self.gate.window(now);
        let reserved = match (age, window) {
            (Age::Fresh, _) | (_, ..=1) => 0,
            (Age::Old, _) => (window / 4).max(1),
        };
        let old_fits = age == Age::Fresh || self.running_old < window - reserved;
        old_fits && self.gate.admits(now, self.running) && self.pace.free_at(now).is_none()
    }

    /// Notes that this destination leads here; returns whether it is new.
    pub(crate) fn leads_from(&mut self, destination: &Destination) -> bool {
        self.destinations.len() < DESTINATIONS_MAX
            && !self.destinations.contains(destination)
            && self.destinations.insert(destination.clone())
    }

    /// The destinations that lead here, as far as they are remembered.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter()
    }

    /// As it stands, for others.
    pub(crate) fn shown(&self, key: &Key, now: Instant, wall: Timestamp) -> SiteState {
        let until = self.gate.shut_until();
        SiteState {
            site: key.to_string().into(),
            gate: match (
                self.gate.is_shut(),
                self.gate.is_limited() || self.pace.rate(now).is_some(),
            ) {
                (true, _) => GateState::Shut,
                (false, true) => GateState::Limited,
                (false, false) => GateState::Open,
            },
            window: self.gate.window(now),
            rate: self.pace.rate(now),
            in_flight: self.running,
            in_hand: self.waits(),
            trouble: self.trouble.clone(),
            probe: until.map(|until| wall.after(until.saturating_duration_since(now))),
        }
    }

    /// Takes out all that waits but so many.
    pub(crate) fn give_back(&mut self, but: usize) -> Vec<Work> {
        let mut back = Vec::new();
        let mut waits = self.waits();
        for queue in &mut self.waiting {
            while waits > but
                && let Some(work) = queue.pop_back()
            {
                waits -= 1;
                back.push(work);
            }
        }
        back
    }

    /// Whether it should be left out of claims: shut and not to be probed yet, or with enough in hand. It is wanted again
    /// when half of that has gone, so that claims are not made for one batch at a time.
    pub(crate) fn is_unwanted(&self, now: Instant, age: Age) -> bool {
        if self.gate.is_shut() {
            let busy = self.waits() > 0 || self.running > 0;
            return !self.looks(now) && (busy || !self.admits(now, age));
        }
        let waits = self.waits_of(age);
        let enough = self.gate.window(now);
        match self.unwanted[age as usize] {
            true => waits > enough / 2,
            false => waits >= enough,
        }
    }
}
