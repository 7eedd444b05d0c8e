//! Readiness for work as a watched value: open, limited to so many at once, or shut with a reason (lexicon: gate).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What a gate lets through.
#[derive(Clone, Debug)]
pub enum State {
    /// Everything.
    Open,
    /// So many at once.
    Limited(Arc<Semaphore>),
    /// Nothing, and why.
    Shut(Arc<str>),
}

/// Who holds it decides.
pub struct Keeper(watch::Sender<State>);

/// Who holds it asks.
#[derive(Clone)]
pub struct Gate(watch::Receiver<State>);

/// Held while passing; `None` inside when the gate is open.
pub struct Pass(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

/// Makes a gate.
pub fn gate(state: State) -> (Keeper, Gate) {
    let (keeper, gate) = watch::channel(state);
    (Keeper(keeper), Gate(gate))
}

impl Keeper {
    /// Changes the state; returns whether it differs in kind from the one before, so that the caller logs a crossing once.
    pub fn set(&self, state: State) -> bool {
        let _ = (&self.0, state);
        todo!()
    }
}

impl Gate {
    /// Goes through at once, or says why not (`busy` when limited and full).
    pub fn try_pass(&self) -> Result<Pass, Arc<str>> {
        let _ = &self.0;
        todo!()
    }

    /// Waits until it can go through.
    pub async fn pass(&self) -> Pass {
        todo!()
    }
}
