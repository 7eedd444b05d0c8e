//! What an operator set that outlasts a restart: the pause, the drain's rate, and the names of holds. One small file in the state folder,
//! written whole and synced before the command is answered.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spool::HoldId;

/// The file's name below `state`.
const FILE: &str = "queue.json";
/// Holds remembered with the words that made them, the newest; an older one can still be released by its number.
const HOLDS_MAX: usize = 1000;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    paused: bool,
    /// Recipients a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// Number of the last hold that was made.
    last_hold: u64,
    holds: Vec<Hold>,
}

/// A hold as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its name.
    pub hold: u64,
    /// When, RFC 3339.
    pub made: String,
    /// What was meant.
    pub words: String,
}

impl Kept {
    /// Reads the file of this state folder; none means that nothing was set.
    pub fn open(state: &Path) -> Result<Self, String> {
        let path = state.join(FILE);
        let wrong = |why: String| {
            format!(
                "{}: {why}; mend it, or move it away to start with delivery neither paused nor limited",
                path.display()
            )
        };
        let found = service::state::read(&path).map_err(|error| wrong(error.to_string()))?;
        let state: State = match found {
            None => State::default(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?
            }
        };
        Ok(Self {
            path,
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Whether delivery was paused.
    pub fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// The drain's rate, recipients a second.
    pub fn rate(&self) -> Option<f64> {
        self.lock().rate
    }

    /// The holds, oldest first.
    pub fn holds(&self) -> Vec<Hold> {
        self.lock().holds.clone()
    }

    /// Writes durably; on an error what was before stays.
    pub(super) fn pause(&self, paused: bool) -> Result<(), String> {
        self.change(|state| state.paused = paused)
    }

    /// Writes durably; on an error what was before stays.
    pub(super) fn limit(&self, rate: Option<f64>) -> Result<(), String> {
        self.change(|state| state.rate = rate)
    }

    /// A name that no hold has or had: also not those that the spool knows, of which `highest` is the last.
    pub(super) fn name_hold(
        &self,
        highest: u64,
        made: String,
        words: String,
    ) -> Result<HoldId, String> {
        let mut hold = 0;
        self.change(|state| {
            state.last_hold = state.last_hold.max(highest) + 1;
            hold = state.last_hold;
            state.holds.push(Hold { hold, made, words });
            let excess = state.holds.len().saturating_sub(HOLDS_MAX);
            state.holds.drain(..excess);
        })?;
        Ok(HoldId(hold))
    }

    /// Whether a hold was ever named here.
    pub(super) fn named_any(&self) -> bool {
        self.lock().last_hold > 0
    }

    /// Forgets holds that hold nothing any more.
    pub(super) fn forget(&self, over: &[u64]) -> Result<(), String> {
        match over.is_empty() {
            true => Ok(()),
            false => self.change(|state| state.holds.retain(|h| !over.contains(&h.hold))),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut state = self.lock();
        let mut new = state.clone();
        change(&mut new);
        if new != *state {
            let text = serde_json::to_vec_pretty(&new).map_err(|error| error.to_string())?;
            service::state::write_synced(&self.path, &text)
                .map_err(|error| format!("{}: {error}", self.path.display()))?;
            *state = new;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_there_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path()).unwrap();
        assert!(!kept.is_paused() && kept.rate().is_none());
        kept.pause(true).unwrap();
        kept.limit(Some(12.5)).unwrap();
        let first = kept.name_hold(0, "then".into(), "--all".into()).unwrap();
        let kept = Kept::open(folder.path()).unwrap();
        assert!(kept.is_paused());
        assert_eq!(kept.rate(), Some(12.5));
        assert_eq!(kept.holds()[0].words, "--all");
        // A number is never given twice, and never to one that the spool knows.
        kept.forget(&[first.0]).unwrap();
        let second = kept.name_hold(0, "then".into(), "--held".into()).unwrap();
        assert_eq!((first, second), (HoldId(1), HoldId(2)));
        let third = kept.name_hold(9, "then".into(), "--held".into()).unwrap();
        assert_eq!(third, HoldId(10));
    }

    #[test]
    fn a_broken_file_is_named_and_nothing_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"paused\":").unwrap();
        let error = Kept::open(folder.path()).unwrap_err();
        assert!(
            error.contains("queue.json") && error.contains("move it away"),
            "{error}"
        );
    }
}
