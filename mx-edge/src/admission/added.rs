//! Lines that operators add to the access list while the edge runs: they stand before those of the files, the newest first, end by
//! themselves, outlast restarts, and say who added them. Owns one file in the state folder.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::Door;
use super::access::{Access, Entry, Word};
use crate::network::Network;
use crate::state;

/// Lines at once; a program that adds them must not fill the disk.
const LINES_MAX: usize = 10_000;
/// What is to last longer belongs into a file that is kept with the configuration.
const LASTS_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whom it is about.
    pub network: Network,
    /// What is done.
    pub word: Word,
    /// Until when.
    #[serde(with = "time")]
    pub until: Timestamp,
    /// Why; the client is told.
    pub note: String,
    /// Who added it: `uid 0`.
    pub by: String,
    /// When.
    #[serde(with = "time")]
    pub added: Timestamp,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Added {
    path: PathBuf,
    lines: RwLock<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// The newest first.
    list: Vec<Line>,
    /// The same, to be searched.
    access: Access,
}

impl Lines {
    fn new(list: Vec<Line>) -> Result<Self, String> {
        let mut access = Access::default();
        for line in &list {
            let entry = Entry {
                word: line.word,
                until: Some(line.until),
                note: line.note.as_str().into(),
            };
            access.push(line.network, entry)?;
        }
        Ok(Self { list, access })
    }
}

impl Added {
    /// Reads what was added before the last stop.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join("access.json");
        let said = |why: String| format!("{}: {why}", path.display());
        let bytes = state::read(&path).map_err(|error| said(error.to_string()))?;
        let list = match bytes {
            None => Vec::new(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| said(error.to_string()))?
            }
        };
        let lines = RwLock::new(Lines::new(list).map_err(said)?);
        Ok(Self { path, lines })
    }

    /// The newest line that has the client and is not over.
    pub fn lookup(&self, client: IpAddr, now: Timestamp) -> Option<Entry> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.access.lookup(client, now).cloned()
    }

    /// Those in force, the newest first.
    pub fn list(&self, now: Timestamp) -> Vec<Line> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let in_force = lines.list.iter().filter(|line| line.until > now);
        in_force.cloned().collect()
    }

    /// Adds a line, in place of one on the same network, durably. The error says what is wrong with it.
    pub fn add(&self, line: Line, door: &Door) -> Result<(), String> {
        check(&line, door)?;
        let added = line.clone();
        self.change(|list| {
            list.retain(|other| other.network != line.network && other.until > line.added);
            if list.len() >= LINES_MAX {
                return Err(format!(
                    "there are {LINES_MAX} lines already; put them into a file of access.files"
                ));
            }
            list.insert(0, line);
            Ok(())
        })?;
        log(&added, &added.by, "added");
        Ok(())
    }

    /// Ends the line on exactly this network, durably; none when there is none.
    pub fn remove(&self, network: Network, by: &str) -> Result<Option<Line>, String> {
        let mut removed = None;
        self.change(|list| {
            let at = list.iter().position(|line| line.network == network);
            removed = at.map(|at| list.remove(at));
            Ok(())
        })?;
        if let Some(line) = &removed {
            log(line, by, "removed");
        }
        Ok(removed)
    }

    /// Takes out what is over.
    pub fn sweep(&self, now: Timestamp) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let over = |line: &Line| line.until <= now;
        let gone: Vec<Line> = lines
            .list
            .iter()
            .filter(|line| over(line))
            .cloned()
            .collect();
        drop(lines);
        if gone.is_empty() {
            return;
        }
        let changed = self.change(|list| {
            list.retain(|line| !over(line));
            Ok(())
        });
        match changed {
            Ok(()) => gone.iter().for_each(|line| log(line, "its end", "over")),
            Err(why) => error!(event = "access_list", %why, "lines that are over stay in the file"),
        }
    }

    /// On disk first: what is in force must be in force after a crash too.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Line>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = lines.list.clone();
        change(&mut list)?;
        let next = Lines::new(list)?;
        let write = || -> io::Result<()> {
            state::write_synced(&self.path, &serde_json::to_vec_pretty(&next.list)?)
        };
        write().map_err(|error| format!("{}: {error}", self.path.display()))?;
        *lines = next;
        Ok(())
    }
}

/// What must be true of a line. No list hits a proxy or a host of ours (they are looked at first), so a line that would is a mistake.
fn check(line: &Line, door: &Door) -> Result<(), String> {
    if line.until <= line.added {
        return Err(format!("its end {} is over", line.until.rfc3339()));
    }
    if line.until > line.added.after(LASTS_MAX) {
        return Err(
            "it lasts longer than a year; what is to last belongs into a file of access.files"
                .into(),
        );
    }
    if line.note.trim().is_empty() {
        return Err("say why with --note; the client is told".into());
    }
    super::access::check_note(&line.note)?;
    if matches!(line.word, Word::Permit | Word::Warn | Word::Dunno) {
        return Ok(());
    }
    for (networks, what) in [
        (&door.own_networks, "our own (mail.own_networks)"),
        (&door.proxies, "a proxy (mail.proxies)"),
        (
            &door.xclient_networks,
            "a trusted host (mail.xclient_networks)",
        ),
    ] {
        if let Some(ours) = networks.iter().find(|ours| ours.overlaps(line.network)) {
            return Err(format!(
                "{} is or has {}, {what}: no line may stop that; name smaller networks beside it",
                String::from(line.network),
                String::from(*ours)
            ));
        }
    }
    Ok(())
}

/// The audit: who changed what is done with whom.
fn log(line: &Line, by: &str, outcome: &str) {
    info!(
        event = "audit",
        by,
        change = format_args!("access {outcome}"),
        network = %String::from(line.network),
        word = line.word.as_str(),
        until = %line.until.rfc3339(),
        note = line.note
    );
}

/// RFC 3339 in files and answers.
mod time {
    use mail::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        time.rfc3339().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        let time = Timestamp::parse_rfc3339(&text);
        time.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp((1_795_000_000 + seconds) * 1000)
    }

    fn line(network: &str, word: Word, from: u64, until: u64) -> Line {
        Line {
            network: network.parse().unwrap(),
            word,
            until: at(until),
            note: "sends spam".into(),
            by: "uid 0".into(),
            added: at(from),
        }
    }

    fn door() -> Door {
        Door {
            own_networks: vec!["198.51.100.0/24".parse().unwrap()],
            proxies: vec!["192.0.2.80".parse().unwrap()],
            ..Door::default()
        }
    }

    #[test]
    fn lines_outlast_a_restart_and_end_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let client: IpAddr = "203.0.113.7".parse().unwrap();
        let word = |added: &Added, now| added.lookup(client, at(now)).map(|entry| entry.word);
        let added = Added::open(folder.path()).unwrap();
        let network = "203.0.113.0/24";
        added
            .add(line(network, Word::Drop, 0, 100), &door())
            .unwrap();
        // The newer one stands first, and one on the same network takes its place.
        added
            .add(line("203.0.113.7", Word::Permit, 1, 50), &door())
            .unwrap();
        added
            .add(line(network, Word::Reject, 2, 200), &door())
            .unwrap();
        drop(added);
        let added = Added::open(folder.path()).unwrap();
        assert_eq!(added.list(at(3)).len(), 2);
        assert_eq!(word(&added, 3), Some(Word::Reject));
        added
            .remove(network.parse().unwrap(), "uid 1")
            .unwrap()
            .unwrap();
        assert_eq!(word(&added, 3), Some(Word::Permit));
        assert_eq!(word(&added, 50), None);
        added.sweep(at(51));
        drop(added);
        let file = std::fs::read_to_string(folder.path().join("access.json")).unwrap();
        assert_eq!(file, "[]");
    }

    #[test]
    fn what_no_list_may_stop_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let added = Added::open(folder.path()).unwrap();
        for (network, word, until, said) in [
            ("198.51.100.7", Word::Drop, 9, "our own"),
            ("0.0.0.0/0", Word::Reject, 9, "our own"),
            ("192.0.2.0/24", Word::Reject, 9, "a proxy"),
            ("203.0.113.7", Word::Reject, 0, "is over"),
            ("203.0.113.7", Word::Reject, 367 * 86_400, "a year"),
        ] {
            let error = added
                .add(line(network, word, 0, until), &door())
                .unwrap_err();
            assert!(error.contains(said), "{network}: {error}");
        }
        let mute = Line {
            note: " ".into(),
            ..line("203.0.113.7", Word::Reject, 0, 9)
        };
        assert!(added.add(mute, &door()).unwrap_err().contains("--note"));
        assert!(added.list(at(0)).is_empty());
        added
            .add(line("192.0.2.0/24", Word::Permit, 0, 9), &door())
            .unwrap();
    }
}
