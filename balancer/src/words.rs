//! Operators' words about nodes, kept over restarts in `words.json` below the state folder. Owns that file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use service::state;

use crate::node::Word;

/// Where they are kept.
#[derive(Clone, Debug)]
pub struct Words(PathBuf);

impl Words {
    /// Below this folder.
    pub fn below(folder: &Path) -> Self {
        Self(folder.join("words.json"))
    }

    /// What was said before; nothing, with the reason, when that cannot be read: mail must flow all the same.
    pub fn read(&self) -> (BTreeMap<String, Word>, Result<(), String>) {
        let read = state::read(&self.0).and_then(|content| match content {
            Some(content) => serde_json::from_slice(&content).map_err(io::Error::from),
            None => Ok(BTreeMap::new()),
        });
        match read {
            Ok(words) => (words, Ok(())),
            Err(error) => (BTreeMap::new(), Err(self.error(&error))),
        }
    }

    /// Remembers all of them, durably.
    pub fn write(&self, words: &BTreeMap<String, Word>) -> Result<(), String> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        let content = serde_json::to_vec_pretty(words).map_err(io::Error::from);
        content
            .and_then(|content| {
                state::make_folder(folder)?;
                state::write_synced(&self.0, &content)
            })
            .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Mode;

    #[test]
    fn what_was_said_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let words = Words::below(&state);
        assert_eq!(words.read(), (BTreeMap::new(), Ok(())));
        let word = Word {
            mode: Mode::Maint,
            weight: 50,
        };
        let said = BTreeMap::from([("scan-1".to_owned(), word)]);
        words.write(&said).unwrap();
        assert_eq!(words.read(), (said, Ok(())));
        let file = state.join("words.json");
        std::fs::write(&file, "{ \"scan-1\": ").unwrap();
        let (none, problem) = words.read();
        assert!(none.is_empty());
        assert!(problem.unwrap_err().contains("words.json"));
    }
}
