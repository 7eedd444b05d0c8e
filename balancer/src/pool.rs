//! The pool: all nodes by name, what happens to them, and who is picked. Pure; time comes as an argument.
//!
//! An operator's word belongs to the name: it outlives re-registration, lapse and a new address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::is_node_name;
use tokio::time::Instant;

use crate::agent::Told;
use crate::config::{Config, Pick, Probe, StaticNode};
use crate::moves::Moves;
use crate::node::{Health, Node, Origin, State, Word};
use crate::pick::pick;

/// How long a node whose lease has lapsed is still shown.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a node sends when it registers.
#[derive(Clone, Debug, Deserialize)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Where it takes mail.
    pub address: SocketAddr,
    /// How it stands.
    pub state: Told,
    /// What it works on.
    #[serde(default)]
    pub in_flight: u64,
    /// How many messages it scans at once; 0 for no word.
    #[serde(default)]
    pub slots: u32,
}

/// Why a registration is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a name.
    #[error("a name is 1 to 64 letters, digits, dots, hyphens or underscores")]
    BadName,
    /// The certificate that was shown is another node's.
    #[error(
        "the certificate shown does not name this node; make one with `ca node DIR NAME --role scanner`"
    )]
    Foreign,
    /// The name is in the configuration.
    #[error("this name belongs to a static node")]
    Static,
    /// Two nodes use one name.
    #[error("this name is held by {0} until its lease lapses; give each node a name of its own")]
    Held(SocketAddr),
    /// `registration.nodes_max`.
    #[error("the pool is full (registration.nodes_max)")]
    Full,
}

/// A connection's claim on a node; give it back with [`Pool::release`].
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The node.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is told who the client is.
    pub proxy_protocol: bool,
    /// Where its agent answers.
    pub agent: Option<SocketAddr>,
    /// Who says something on it.
    pub moves: Moves,
    generation: u64,
    pick: u64,
}

/// A node as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it stands.
    pub state: State,
    /// Why it gets no connections; empty when it does.
    pub reason: String,
    /// `static` or `registered`.
    pub origin: &'static str,
    /// Connections it has from us.
    pub in_flight: usize,
    /// What it says it works on.
    pub told_in_flight: u64,
    /// How many messages it says it scans at once; 0 for no word.
    pub slots: u32,
    /// Of its capacity so much is used, by its own word, percent.
    pub percent: u32,
    /// And by an operator's, percent.
    pub weight: u32,
    /// How long its connections last, seconds; `None` before the first has ended.
    pub seconds: Option<f64>,
}

/// A node's state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node.
    pub name: String,
    /// Its state now; `None` when it is no longer in the pool.
    pub state: Option<State>,
    /// Why.
    pub reason: String,
}

/// All nodes.
#[derive(Debug)]
pub struct Pool {
    nodes: BTreeMap<String, Node>,
    words: BTreeMap<String, Word>,
    began: Instant,
    seen: BTreeMap<String, State>,
    picks: u64,
    generations: u64,
}

impl Node {
    fn claim(&self, name: &str, pick: u64, now: Instant) -> Claim {
        Claim {
            name: name.into(),
            address: self.address,
            proxy_protocol: self.proxy_protocol,
            agent: self.agent,
            moves: Moves::new(now),
            generation: self.generation,
            pick,
        }
    }
}

impl Pool {
    /// With the words of operators that are remembered.
    pub fn new(words: BTreeMap<String, Word>, now: Instant) -> Self {
        Self {
            nodes: BTreeMap::new(),
            words,
            began: now,
            seen: BTreeMap::new(),
            picks: 0,
            generations: 0,
        }
    }

    /// Takes the static nodes of a configuration in, and those out that are no longer in it.
    pub fn set_static(&mut self, nodes: &[StaticNode], now: Instant) {
        self.nodes.retain(|name, node| {
            node.origin != Origin::Static || nodes.iter().any(|wanted| wanted.name == *name)
        });
        for wanted in nodes {
            let is_same = self.nodes.get(&wanted.name).is_some_and(|node| {
                node.origin == Origin::Static && node.address == wanted.address
            });
            if !is_same {
                self.insert(&wanted.name, wanted.address, Origin::Static, now);
            }
            if let Some(node) = self.nodes.get_mut(&wanted.name) {
                node.slots = wanted.slots;
                node.proxy_protocol = wanted.proxy_protocol;
                node.agent = wanted.agent;
            }
        }
    }

    fn insert(&mut self, name: &str, address: SocketAddr, origin: Origin, now: Instant) {
        self.generations += 1;
        let mut node = Node::new(address, origin, self.generations, now);
        node.word = self.words.get(name).copied().unwrap_or_default();
        self.nodes.insert(name.into(), node);
    }

    /// A node registers, or repeats it.
    pub fn register(
        &mut self,
        registration: &Registration,
        config: &Config,
        now: Instant,
    ) -> Result<(), Refusal> {
        let name = &registration.name;
        let (lease, nodes_max) = (config.registration.lease, config.registration.nodes_max);
        if !is_node_name(name) {
            return Err(Refusal::BadName);
        }
        let is_new = match self.nodes.get(name) {
            None => true,
            Some(node) => match node.origin {
                Origin::Static => return Err(Refusal::Static),
                Origin::Registered { until, .. } => {
                    let is_moved = node.address != registration.address;
                    if is_moved && until > now {
                        return Err(Refusal::Held(node.address));
                    }
                    is_moved
                }
            },
        };
        if registration.state == Told::Leaving {
            self.nodes.remove(name);
            return Ok(());
        }
        let origin = Origin::Registered {
            told: registration.state,
            until: now + lease,
        };
        if is_new {
            if !self.nodes.contains_key(name) && self.nodes.len() >= nodes_max {
                return Err(Refusal::Full);
            }
            self.insert(name, registration.address, origin, now);
        }
        if let Some(node) = self.nodes.get_mut(name) {
            if matches!(node.origin, Origin::Registered { until, .. } if until <= now) {
                // What was seen before a lapse says little about a node that comes back; its connections may still stand.
                node.health = Health::Unknown(0);
                node.probe_at = now;
            }
            node.origin = origin;
            node.told_in_flight = registration.in_flight;
            node.slots = registration.slots;
        }
        Ok(())
    }

    /// Picks a ready node that is not among `tried`, and counts the connection.
    pub fn claim(&mut self, tried: &[String], settings: &Pick, now: Instant) -> Option<Claim> {
        let ready: Vec<(&String, &mut Node)> = self
            .nodes
            .iter_mut()
            .filter(|(name, node)| node.state(now).0 == State::Ready && !tried.contains(name))
            .collect();
        let picked = pick(ready.iter().map(|(_, node)| node.candidate(settings, now)))?;
        let (name, node) = ready.into_iter().nth(picked)?;
        self.picks += 1;
        node.last_picked = self.picks;
        let claim = node.claim(name, self.picks, now);
        node.running.insert(self.picks, (now, claim.moves.clone()));
        Some(claim)
    }

    fn claimed(&mut self, claim: &Claim) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&claim.name)?;
        (node.generation == claim.generation).then_some(node)
    }

    /// A connection has ended; `is_cut`: the node left a client without an answer.
    pub fn ended(&mut self, claim: &Claim, is_cut: bool, settings: &Probe, now: Instant) {
        if let Some(node) = self.claimed(claim) {
            node.ended(claim.pick, is_cut, settings, now);
        }
    }

    /// A connection came to nothing.
    pub fn release(&mut self, claim: &Claim) {
        if let Some(node) = self.claimed(claim) {
            node.running.remove(&claim.pick);
        }
    }

    /// A node failed a real connection before its greeting was whole.
    pub fn failed(&mut self, claim: &Claim, reason: &str, settings: &Probe, now: Instant) {
        if let Some(node) = self.claimed(claim) {
            // Many connections may fail at one moment: that is one failure.
            if node.state(now).0 == State::Ready {
                node.set_aside(reason, settings, now);
            }
        }
    }

    /// Nodes to be probed now; each is not due again before its probe has been judged or `settings.interval` is over.
    pub fn probes_due(&mut self, settings: &Probe, now: Instant) -> Vec<Claim> {
        let due = self
            .nodes
            .iter_mut()
            .filter(|(_, node)| node.is_probe_due(now));
        due.map(|(name, node)| {
            node.probe_at = now + settings.interval;
            node.claim(name, 0, now)
        })
        .collect()
    }

    /// What a probe brought.
    pub fn probed(
        &mut self,
        claim: &Claim,
        result: Result<(), String>,
        settings: &Probe,
        now: Instant,
    ) {
        // Whoever answers soon after our own start was there before us, and is warm.
        let was_there = now < self.began + settings.backoff_max;
        if let Some(node) = self.claimed(claim) {
            match result {
                Ok(()) => {
                    node.probe_good(settings, now);
                    if was_there {
                        node.risen = None;
                    }
                }
                Err(reason) => node.probe_failed(&reason, settings, now),
            }
        }
    }

    /// A static node's agent said this line.
    pub fn heard(&mut self, claim: &Claim, line: &str) {
        if let Some(node) = self.claimed(claim) {
            node.said.hear(line);
        }
    }

    /// Changes an operator's word about a name; `false` when there is no such node. Taking a word back needs none.
    pub fn say(&mut self, name: &str, change: impl FnOnce(&mut Word)) -> bool {
        let was_said = self.words.contains_key(name);
        let mut word = self.words.get(name).copied().unwrap_or_default();
        change(&mut word);
        let is_plain = word == Word::default();
        let known = match self.nodes.get_mut(name) {
            Some(node) => {
                node.word = word;
                true
            }
            // About a node that is away it could be a slip of the pen.
            None => is_plain && was_said,
        };
        match known && !is_plain {
            true => drop(self.words.insert(name.into(), word)),
            false if known => drop(self.words.remove(name)),
            false => {}
        }
        known
    }

    /// All words of operators, to be remembered.
    pub fn words(&self) -> &BTreeMap<String, Word> {
        &self.words
    }

    /// Forgets nodes that are long gone, and says whose state has changed since the last sweep.
    pub fn sweep(&mut self, now: Instant) -> Vec<Change> {
        self.nodes.retain(|_, node| match node.origin {
            Origin::Static => true,
            Origin::Registered { until, .. } => until + REMEMBERED > now,
        });
        let mut changes = Vec::new();
        for (name, node) in &self.nodes {
            let (state, reason) = node.state(now);
            if self.seen.insert(name.clone(), state) != Some(state) {
                changes.push(Change {
                    name: name.clone(),
                    state: Some(state),
                    reason,
                });
            }
        }
        let nodes = &self.nodes;
        self.seen.retain(|name, _| {
            let stays = nodes.contains_key(name);
            if !stays {
                changes.push(Change {
                    name: name.clone(),
                    state: None,
                    reason: "it has left".into(),
                });
            }
            stays
        });
        changes
    }

    /// All nodes, by name.
    pub fn shown(&self, now: Instant) -> Vec<Shown> {
        let nodes = self.nodes.iter();
        nodes
            .map(|(name, node)| {
                let (state, reason) = node.state(now);
                Shown {
                    name: name.clone(),
                    address: node.address,
                    state,
                    reason,
                    origin: if node.origin == Origin::Static {
                        "static"
                    } else {
                        "registered"
                    },
                    in_flight: node.running.len(),
                    told_in_flight: node.told_in_flight,
                    slots: node.slots,
                    percent: node.said.percent,
                    weight: node.word.weight,
                    seconds: node.latency.seconds(),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
