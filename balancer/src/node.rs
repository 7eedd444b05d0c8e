//! One node of the pool: what is known of it, and the state that follows. Pure; time comes as an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::agent::{Agent, Told};
use crate::config::{Pick, Probe};
use crate::latency::Latency;
use crate::moves::Moves;
use crate::pick::Candidate;

/// How a node stands (lexicon: node).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Known, not yet seen to answer.
    Joining,
    /// Gets connections.
    Ready,
    /// Gets no new ones; those it has go on.
    Draining,
    /// Gets none and is not probed: somebody works on it.
    Maint,
    /// Gets none: unreachable, mute, silent beyond its lease, or unfit by its own word.
    Down,
}

impl State {
    /// All states, for metrics.
    pub const ALL: [Self; 5] = [
        Self::Joining,
        Self::Ready,
        Self::Draining,
        Self::Maint,
        Self::Down,
    ];

    /// The word in logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Maint => "maint",
            Self::Down => "down",
        }
    }
}

/// How we know of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the configuration.
    Static,
    /// It registered.
    Registered {
        /// What it said last.
        told: Told,
        /// Until when that holds.
        until: Instant,
    },
}

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It works.
    #[default]
    Ready,
    /// It gets nothing new.
    Drain,
    /// It gets nothing and is not probed.
    Maint,
}

/// An operator's word about a node; it belongs to the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// What is wanted.
    pub mode: Mode,
    /// Of its capacity so much is used, percent.
    pub weight: u32,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            mode: Mode::Ready,
            weight: 100,
        }
    }
}

/// What we have seen of a node ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// So many good probes in a row, not enough yet.
    Unknown(u32),
    /// It answered, and has failed so many probes in a row since.
    Up(u32),
    /// Set aside after so many failures; so many probes in a row were good since.
    Aside {
        /// How often in a row it failed: the pause doubles with each.
        failures: u32,
        /// Good probes since.
        rises: u32,
        /// What went wrong last.
        reason: Box<str>,
    },
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// How we know of it.
    pub origin: Origin,
    /// What we have seen.
    pub health: Health,
    /// An operator's word.
    pub word: Word,
    /// Messages that it works on at once, by its own word or the configuration's; 0 where nobody has said.
    pub slots: u32,
    /// What its agent said; nothing, where it has none.
    pub said: Agent,
    /// Whether it is told who the client is (PROXY protocol).
    pub proxy_protocol: bool,
    /// Where its agent answers.
    pub agent: Option<SocketAddr>,
    /// Connections it has from us, by the count of their pick, with when they began.
    pub running: BTreeMap<u64, (Instant, Moves)>,
    /// How long they last.
    pub latency: Latency,
    /// Connections in a row that it left without an answer.
    pub cuts: u32,
    /// When it came (back): its share grows from then on. `None`: it was there when we began.
    pub risen: Option<Instant>,
    /// What it says it works on, from everybody.
    pub told_in_flight: u64,
    /// When it was picked last, as a count of picks.
    pub last_picked: u64,
    /// When it is to be probed next.
    pub probe_at: Instant,
    /// Tells this node from an earlier one of the same name.
    pub generation: u64,
}

impl Node {
    /// A node nothing is known of; it is probed at once.
    pub fn new(address: SocketAddr, origin: Origin, generation: u64, now: Instant) -> Self {
        Self {
            address,
            origin,
            health: Health::Unknown(0),
            word: Word::default(),
            slots: 0,
            said: Agent::default(),
            proxy_protocol: false,
            agent: None,
            running: BTreeMap::new(),
            latency: Latency::default(),
            cuts: 0,
            risen: None,
            told_in_flight: 0,
            last_picked: 0,
            probe_at: now,
            generation,
        }
    }

    /// How it stands, and why if it does not get connections.
    pub fn state(&self, now: Instant) -> (State, String) {
        let told = match self.origin {
            Origin::Static => self.said.told(),
            Origin::Registered { until, .. } if until <= now => {
                return (State::Down, "its lease has lapsed".into());
            }
            Origin::Registered { told, .. } => told,
        };
        match (told, &self.health) {
            _ if self.word.mode == Mode::Maint => (State::Maint, "in an operator's hands".into()),
            (Told::Maint, _) => (State::Maint, "under maintenance by its own word".into()),
            (Told::Leaving, _) => (State::Down, "it has left".into()),
            (Told::Down, _) => (State::Down, "unfit by its own word".into()),
            (_, Health::Aside { reason, .. }) => (State::Down, format!("set aside: {reason}")),
            _ if self.word.mode == Mode::Drain => {
                (State::Draining, "drained by an operator".into())
            }
            _ if self.word.weight == 0 => (State::Draining, "its weight is 0".into()),
            _ if self.said.percent == 0 => (State::Draining, "at 0 % by its own word".into()),
            (Told::Draining, _) => (State::Draining, "draining by its own word".into()),
            (Told::Ready, Health::Unknown(_)) => (State::Joining, "not probed yet".into()),
            (Told::Ready, Health::Up(_)) => (State::Ready, String::new()),
        }
    }

    /// Whether it is time to probe it. A registered node that is up is not probed: its lease and real mail say enough.
    pub fn is_probe_due(&self, now: Instant) -> bool {
        let is_up = matches!(self.health, Health::Up(_));
        let wanted = match self.origin {
            Origin::Static => true,
            Origin::Registered { until, told } => !is_up && until > now && told != Told::Leaving,
        };
        wanted && self.word.mode != Mode::Maint && self.probe_at <= now
    }

    /// A probe was answered by a greeting.
    pub fn probe_good(&mut self, settings: &Probe, now: Instant) {
        let rise = match self.origin {
            Origin::Registered { .. } if matches!(self.health, Health::Unknown(_)) => 1,
            _ => settings.rise,
        };
        match &mut self.health {
            Health::Up(failures) => *failures = 0,
            Health::Unknown(rises) | Health::Aside { rises, .. } => {
                *rises += 1;
                if *rises >= rise {
                    self.health = Health::Up(0);
                    self.cuts = 0;
                    self.risen = Some(now);
                }
            }
        }
        let pause = match self.health {
            Health::Up(_) => settings.interval,
            // Once it answers, the rest of the proof should not take long.
            _ => settings.backoff_min.min(settings.interval),
        };
        self.probe_at = now + pause;
    }

    /// A connection has ended; `is_cut`: the node left a client without an answer. Several in a row say that it is broken.
    pub fn ended(&mut self, pick: u64, is_cut: bool, settings: &Probe, now: Instant) {
        let Some((began, _)) = self.running.remove(&pick) else {
            return;
        };
        if !is_cut {
            self.cuts = 0;
            self.latency
                .observe(now.saturating_duration_since(began), now);
            return;
        }
        self.cuts += 1;
        if self.cuts >= settings.fall && self.state(now).0 == State::Ready {
            let reason = format!("left {} clients in a row without an answer", self.cuts);
            self.cuts = 0;
            self.set_aside(&reason, settings, now);
        }
    }

    /// What counts when a node is picked.
    pub fn candidate(&self, settings: &Pick, now: Instant) -> Candidate {
        let usable = |whole: u32| {
            let percent = f64::from(self.word.weight) * f64::from(self.said.percent) / 10_000.0;
            f64::from(whole) * percent * self.share(settings.slow_start, now)
        };
        let limit = settings.connections_max;
        let by_slots = (self.slots as usize).saturating_mul(settings.connections_per_slot);
        let limits = [self.said.connections_max as usize, by_slots];
        let limits = limits.into_iter().filter(|&limit| limit > 0);
        let connections_max = limits.fold(limit, usize::min);
        let connections_max = usable(u32::try_from(connections_max).unwrap_or(u32::MAX));
        let waits = self
            .running
            .values()
            .filter_map(|(_, moves)| moves.waits(now));
        Candidate {
            in_flight: self.running.len(),
            // However small its share is, it must get some mail to grow by.
            connections_max: (connections_max as usize).max(1),
            slots: (self.slots > 0).then(|| usable(self.slots).max(0.01)),
            seconds: self.latency.seconds(),
            certainty: self.latency.certainty(now),
            waits: waits.max().unwrap_or_default().as_secs_f64(),
            last_picked: self.last_picked,
        }
    }

    /// The share of its capacity that a node gets: from a tenth to all of it within `slow_start` after it came (back), so that its caches
    /// fill before its slots do.
    fn share(&self, slow_start: Duration, now: Instant) -> f64 {
        let age = self.risen.map(|risen| now.saturating_duration_since(risen));
        match age {
            Some(age) if age < slow_start => {
                0.1 + 0.9 * age.as_secs_f64() / slow_start.as_secs_f64()
            }
            _ => 1.0,
        }
    }

    /// A probe was not.
    pub fn probe_failed(&mut self, reason: &str, settings: &Probe, now: Instant) {
        let failed = match &self.health {
            Health::Up(failures) => failures + 1,
            _ => settings.fall,
        };
        if failed < settings.fall {
            self.health = Health::Up(failed);
            self.probe_at = now + settings.interval;
        } else {
            self.set_aside(reason, settings, now);
        }
    }

    /// It failed, with a probe or with real mail: aside with it, for longer each time.
    pub fn set_aside(&mut self, reason: &str, settings: &Probe, now: Instant) {
        let failures = match &self.health {
            Health::Aside { failures, .. } => failures.saturating_add(1),
            _ => 1,
        };
        self.health = Health::Aside {
            failures,
            rises: 0,
            reason: reason.into(),
        };
        self.probe_at = now + pause(failures, settings);
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32, settings: &Probe) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = settings.backoff_min.saturating_mul(1 << doublings);
    pause.min(settings.backoff_max)
}

#[cfg(test)]
mod tests;
