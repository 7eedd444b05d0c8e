//! How this node stands in the pool: ready, draining, down or leaving. One value, told to balancers, to HAProxy and to `/readyz`.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// The node's state as balancers hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Send mail.
    Ready,
    /// Send nothing new.
    Draining,
    /// The canary did not come back: mail would be deferred.
    Down,
    /// Gone; forget the node.
    Leaving,
}

impl State {
    /// What HAProxy's agent-check is told, with `percent` of the node's slots in service. Its words, its line end: anything else is
    /// ignored there and leaves the node as it was.
    pub fn agent(self, percent: usize) -> String {
        match self {
            // At 0 % it would get nothing, and that is for `drain` to say.
            Self::Ready => format!("ready up {}%\n", percent.clamp(1, 100)),
            Self::Draining => "drain\n".into(),
            Self::Down | Self::Leaving => "down\n".into(),
        }
    }
}

#[derive(Default)]
struct Facts {
    unfit: Option<String>,
    drained: bool,
    stopping: bool,
    left: bool,
}

impl Facts {
    fn state(&self) -> State {
        match self {
            Self { left: true, .. } => State::Leaving,
            Self { stopping: true, .. } | Self { drained: true, .. } => State::Draining,
            Self { unfit: Some(_), .. } => State::Down,
            _ => State::Ready,
        }
    }
}

/// Holds what the state depends on.
pub struct Standing {
    facts: Mutex<Facts>,
    state: watch::Sender<State>,
}

impl Default for Standing {
    fn default() -> Self {
        let unfit = Some("no canary has come back yet".into());
        let facts = Facts {
            unfit,
            ..Facts::default()
        };
        Self {
            state: watch::Sender::new(facts.state()),
            facts: facts.into(),
        }
    }
}

impl Standing {
    fn change(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut facts);
        let new = facts.state();
        self.state
            .send_if_modified(|state| std::mem::replace(state, new) != new);
    }

    /// What the canary says.
    pub fn fit(&self, fit: Result<(), String>) {
        self.change(|facts| facts.unfit = fit.err());
    }

    /// The operator's word; stays until taken back.
    pub fn drain(&self, drained: bool) {
        self.change(|facts| facts.drained = drained);
    }

    /// The program is ending.
    pub fn stop(&self) {
        self.change(|facts| facts.stopping = true);
    }

    /// It has ended its work.
    pub fn leave(&self) {
        self.change(|facts| facts.left = true);
    }

    /// The state, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_its_facts() {
        let standing = Standing::default();
        let state = standing.watch();
        let check = |expected| assert_eq!(*state.borrow(), expected);
        check(State::Down);
        standing.fit(Ok(()));
        check(State::Ready);
        standing.drain(true);
        check(State::Draining);
        standing.fit(Err("spamd".into()));
        check(State::Draining);
        standing.drain(false);
        check(State::Down);
        standing.fit(Ok(()));
        check(State::Ready);
        standing.stop();
        standing.drain(false);
        check(State::Draining);
        standing.leave();
        check(State::Leaving);
    }

    #[test]
    fn the_agent_speaks_in_whole_lines() {
        for state in [State::Ready, State::Draining, State::Down, State::Leaving] {
            assert!(state.agent(50).ends_with('\n'));
        }
    }
}
