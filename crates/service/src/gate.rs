//! Readiness for work as a watched value: open, limited to so many at once, or shut with a reason (lexicon: gate).
//! Who keeps it decides and logs the crossing; it never measures anything itself.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What a gate lets through.
#[derive(Clone, Debug)]
pub enum State {
    /// Everything.
    Open,
    /// So many at once. A new semaphore does not count those who passed by the old one.
    Limited(Arc<Semaphore>),
    /// Nothing, and why.
    Shut(Arc<str>),
}

/// Who holds it decides. Dropped, the gate stays as it was last.
pub struct Keeper(watch::Sender<State>);

/// Who holds it asks.
#[derive(Clone)]
pub struct Gate(watch::Receiver<State>);

/// Held while passing; `None` inside when the gate is open.
#[derive(Debug)]
pub struct Pass(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

/// Makes a gate.
pub fn gate(state: State) -> (Keeper, Gate) {
    let (keeper, gate) = watch::channel(state);
    (Keeper(keeper), Gate(gate))
}

impl Keeper {
    /// Changes the state; returns whether it differs in kind from the one before, so that the caller logs a crossing once.
    pub fn set(&self, state: State) -> bool {
        let kind = std::mem::discriminant(&state);
        let before = self.0.send_replace(state);
        std::mem::discriminant(&before) != kind
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }
}

impl Gate {
    /// Goes through at once, or says why not (`busy` when limited and full).
    pub fn try_pass(&self) -> Result<Pass, Arc<str>> {
        match &*self.0.borrow() {
            State::Open => Ok(Pass(None)),
            State::Limited(room) => match room.clone().try_acquire_owned() {
                Ok(permit) => Ok(Pass(Some(permit))),
                Err(_) => Err("busy".into()),
            },
            State::Shut(reason) => Err(reason.clone()),
        }
    }

    /// Waits until it can go through; for ever at a shut gate whose keeper is gone, so wait for shutdown as well.
    pub async fn pass(&self) -> Pass {
        let mut states = self.0.clone();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Open => return Pass(None),
                State::Limited(room) => tokio::select! {
                    permit = room.acquire_owned() => match permit {
                        Ok(permit) => return Pass(Some(permit)),
                        // A closed semaphore lets nobody through: wait for the next state.
                        Err(_) => changed(&mut states).await,
                    },
                    () = changed(&mut states) => {}
                },
                State::Shut(_) => changed(&mut states).await,
            }
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.0.borrow().clone()
    }
}

/// Resolves at the next state; never when there can be none.
async fn changed(states: &mut watch::Receiver<State>) {
    if states.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_of_kind_is_told_once() {
        let (keeper, _gate) = gate(State::Open);
        for (state, crossing) in [
            (State::Open, false),
            (State::Shut("spamd is down".into()), true),
            (State::Shut("clamd is down".into()), false),
            (State::Limited(Arc::new(Semaphore::new(1))), true),
            (State::Limited(Arc::new(Semaphore::new(2))), false),
            (State::Open, true),
        ] {
            assert_eq!(keeper.set(state.clone()), crossing, "{state:?}");
        }
    }

    #[test]
    fn try_pass_says_why_not() {
        let (keeper, gate) = gate(State::Shut("starting".into()));
        assert_eq!(gate.try_pass().unwrap_err().as_ref(), "starting");
        keeper.set(State::Limited(Arc::new(Semaphore::new(1))));
        let pass = gate.try_pass().unwrap();
        assert_eq!(gate.try_pass().unwrap_err().as_ref(), "busy");
        drop(pass);
        assert!(gate.try_pass().is_ok());
        keeper.set(State::Open);
        assert!(gate.try_pass().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn pass_waits_for_room_or_for_another_state() {
        let room = Arc::new(Semaphore::new(1));
        let (keeper, gate) = gate(State::Limited(room));
        let held = gate.pass().await;
        let waits = |gate: Gate| async move {
            tokio::time::timeout(Duration::from_secs(1), gate.pass())
                .await
                .is_err()
        };
        assert!(waits(gate.clone()).await, "full");
        keeper.set(State::Shut("no".into()));
        drop(held);
        assert!(waits(gate.clone()).await, "shut");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        keeper.set(State::Open);
        waiting.await.unwrap();
        keeper.set(State::Shut("for good".into()));
        drop(keeper);
        assert!(waits(gate).await, "shut for good");
    }
}
