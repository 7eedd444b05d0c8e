//! One node of the pool: what is known of it, and the state that follows. Pure; time comes as an argument.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::Probe;

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
    /// Gets none: unreachable, mute, silent beyond its lease, or unfit by its own word.
    Down,
}

impl State {
    /// All states, for metrics.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Ready, Self::Draining, Self::Down];

    /// The word in logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// What a node says of itself when it registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Send mail.
    Ready,
    /// Send nothing new.
    Draining,
    /// Its own canary failed.
    Down,
    /// Forget it.
    Leaving,
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
    /// Taken out by an operator.
    pub drained: bool,
    /// Connections it has from us.
    pub in_flight: usize,
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
            drained: false,
            in_flight: 0,
            told_in_flight: 0,
            last_picked: 0,
            probe_at: now,
            generation,
        }
    }

    /// How it stands, and why if it does not get connections.
    pub fn state(&self, now: Instant) -> (State, String) {
        let told = match self.origin {
            Origin::Static => Told::Ready,
            Origin::Registered { until, .. } if until <= now => {
                return (State::Down, "its lease has lapsed".into());
            }
            Origin::Registered { told, .. } => told,
        };
        match (told, &self.health) {
            (Told::Leaving, _) => (State::Down, "it has left".into()),
            (Told::Down, _) => (State::Down, "unfit by its own word".into()),
            (_, Health::Aside { reason, .. }) => (State::Down, format!("set aside: {reason}")),
            _ if self.drained => (State::Draining, "drained by an operator".into()),
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
        wanted && self.probe_at <= now
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
mod tests {
    use super::*;

    fn settings() -> Probe {
        Probe::default()
    }

    fn node(origin: Origin, now: Instant) -> Node {
        Node::new("127.0.0.1:10025".parse().unwrap(), origin, 0, now)
    }

    fn registered(told: Told, until: Instant) -> Origin {
        Origin::Registered { told, until }
    }

    #[test]
    fn pauses_double_up_to_their_limit() {
        let pauses: Vec<u128> = [0, 1, 2, 3, 5, 6, 40, u32::MAX]
            .map(|failures| pause(failures, &settings()).as_millis())
            .to_vec();
        assert_eq!(pauses, [500, 500, 1000, 2000, 8000, 10_000, 10_000, 10_000]);
    }

    /// What happens to a node, a letter each: `+` a good probe, `-` a failed one, `x` a failure with real mail,
    /// `d`/`u` an operator's drain and its end; then the state.
    fn check(origin: Origin, events: &str, expected: State) {
        let now = Instant::now();
        let mut node = node(origin, now);
        for event in events.chars() {
            match event {
                '+' => node.probe_good(&settings(), now),
                '-' => node.probe_failed("mute", &settings(), now),
                'x' => node.set_aside("refused", &settings(), now),
                'd' => node.drained = true,
                'u' => node.drained = false,
                _ => unreachable!(),
            }
        }
        let (state, reason) = node.state(now);
        assert_eq!(state, expected, "{origin:?} {events} {reason}");
        assert_eq!(reason.is_empty(), state == State::Ready);
    }

    #[test]
    fn a_static_node_rises_and_falls() {
        check(Origin::Static, "", State::Joining);
        check(Origin::Static, "+", State::Joining);
        check(Origin::Static, "++", State::Ready);
        check(Origin::Static, "-", State::Down);
        check(Origin::Static, "++--", State::Ready);
        check(Origin::Static, "++---", State::Down);
        check(Origin::Static, "++--+--", State::Ready);
        check(Origin::Static, "++x", State::Down);
        check(Origin::Static, "++x+", State::Down);
        check(Origin::Static, "++x++", State::Ready);
        check(Origin::Static, "++x+-+", State::Down);
    }

    #[test]
    fn a_registered_node_joins_with_one_probe() {
        let until = Instant::now() + Duration::from_secs(60);
        let ready = registered(Told::Ready, until);
        check(ready, "", State::Joining);
        check(ready, "+", State::Ready);
        check(ready, "-", State::Down);
        check(ready, "+x", State::Down);
        check(ready, "+x++", State::Ready);
        check(ready, "+d", State::Draining);
        check(ready, "+dx", State::Down);
        check(ready, "+du", State::Ready);
        check(registered(Told::Draining, until), "+", State::Draining);
        check(registered(Told::Down, until), "+", State::Down);
        check(registered(Told::Leaving, until), "+", State::Down);
        check(registered(Told::Ready, Instant::now()), "+", State::Down);
    }

    #[test]
    fn probes_are_made_where_they_tell_something() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut node = node(registered(Told::Ready, later), now);
        assert!(node.is_probe_due(now));
        node.probe_good(&settings(), now);
        assert!(!node.is_probe_due(later - Duration::from_secs(1)));
        node.set_aside("mute", &settings(), now);
        assert!(!node.is_probe_due(now));
        assert!(node.is_probe_due(now + Duration::from_millis(500)));
        assert!(!node.is_probe_due(later), "a lapsed lease is not probed");
        node.origin = Origin::Static;
        node.probe_good(&settings(), now);
        node.probe_good(&settings(), now);
        assert!(!node.is_probe_due(now + Duration::from_secs(1)));
        assert!(node.is_probe_due(now + Duration::from_secs(2)));
    }
}
