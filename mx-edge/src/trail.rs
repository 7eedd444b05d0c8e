//! What became of every message and of every session that something was refused in, kept for `mx-edge why`: a line of JSON each, a
//! file a day (UTC), for so long and so much as `[records]` says. Owns these files. A line costs one write and no sync: a power
//! cut may lose the last seconds of it, never mail.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mail::Timestamp;
use serde_json::Value;
use tracing::error;

use crate::config;
use crate::state;
use crate::why::Who;

/// Where days are kept, in the state folder.
const FOLDER: &str = "records";
/// Lines that are shown at most, the newest.
const SHOWN_MAX: usize = 500;

/// See the module.
#[derive(Debug)]
pub struct Trail {
    folder: PathBuf,
    settings: config::Records,
    present: Mutex<Option<Present>>,
}

#[derive(Debug)]
struct Present {
    day: String,
    file: File,
}

/// What is known of somebody or something.
#[derive(Debug, Default)]
pub struct Known {
    /// The newest lines, oldest first.
    pub lines: Vec<Value>,
    /// There are older ones.
    pub more: bool,
    /// Since when there are records; none when there are none.
    pub since: Option<String>,
}

impl Trail {
    /// Goes on with what is there.
    pub fn open(state: &Path, settings: &config::Records) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        state::make_folder(&folder)?;
        let trail = Self {
            folder,
            settings: settings.clone(),
            present: Mutex::default(),
        };
        trail.sweep(Timestamp::now())?;
        Ok(trail)
    }

    /// Adds a line; it gets the time in front.
    pub fn add(&self, line: Value) {
        self.add_at(Timestamp::now(), line);
    }

    fn add_at(&self, now: Timestamp, mut line: Value) {
        line["time"] = now.rfc3339().into();
        let mut text = line.to_string().into_bytes();
        text.push(b'\n');
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.write(&mut present, &date(now), &text) {
            // The log has the same facts; the next line tries a file of its own.
            if present.take().is_some() {
                error!(event = "not_recorded", path = %self.folder.display(), %error);
            }
        }
    }

    fn write(&self, present: &mut Option<Present>, day: &str, text: &[u8]) -> io::Result<()> {
        let file = match present {
            Some(present) if present.day == day => &mut present.file,
            _ => {
                let mut options = OpenOptions::new();
                options.create(true).append(true).mode(0o600);
                let file = options.open(self.folder.join(format!("{day}.jsonl")))?;
                let day = day.to_owned();
                &mut present.insert(Present { day, file }).file
            }
        };
        file.write_all(text)
    }

    /// The days' files, oldest first.
    fn days(&self) -> io::Result<Vec<PathBuf>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "jsonl") {
                days.push(path);
            }
        }
        days.sort();
        Ok(days)
    }

    /// Removes days that are older than is kept, and the oldest ones while there is too much in all; never the present one.
    pub fn sweep(&self, now: Timestamp) -> io::Result<()> {
        let oldest = Duration::from_millis(now.0).saturating_sub(self.settings.retention);
        let oldest = date(Timestamp(oldest.as_millis() as u64));
        let today = date(now);
        let days = self.days()?;
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |facts| facts.len());
        let mut bytes: u64 = days.iter().map(size).sum();
        for path in &days {
            let day = path.file_stem().and_then(|day| day.to_str());
            let day = day.unwrap_or_default();
            if day >= today.as_str() || (day >= oldest.as_str() && bytes <= self.settings.bytes_max)
            {
                break;
            }
            bytes -= size(path).min(bytes);
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// What is known of it: the lines that name it, and those of the messages that they name.
    pub fn find(&self, who: &Who) -> io::Result<Known> {
        let mut idents = HashSet::new();
        let mut known = Known::default();
        let mut found: VecDeque<Value> = VecDeque::new();
        self.each(|text| {
            if known.since.is_none() {
                known.since = parse(text).and_then(|line| Some(line["time"].as_str()?.to_owned()));
            }
            if let Some(line) = who.named_in(text).then(|| parse(text)).flatten()
                && who.is_in(&line)
                && let Some(ident) = line["ident"].as_str()
            {
                idents.insert(ident.to_owned());
            }
            true
        })?;
        self.each(|text| {
            let Some(line) = parse(text) else { return true };
            let of_message = (line["ident"].as_str()).is_some_and(|ident| idents.contains(ident));
            if of_message || who.is_in(&line) {
                found.push_back(line);
                if found.len() > SHOWN_MAX {
                    found.pop_front();
                    known.more = true;
                }
            }
            true
        })?;
        known.lines = found.into();
        Ok(known)
    }

    /// Takes out the lines that name it; returns how many.
    pub fn erase(&self, who: &Who) -> io::Result<u64> {
        // Nothing is added meanwhile.
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        *present = None;
        let mut erased = 0;
        for path in self.days()? {
            erased += erase(&path, who)?;
        }
        Ok(erased)
    }

    /// Shows all lines, oldest first, until it says no.
    fn each(&self, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        for path in self.days()? {
            let mut file = match File::open(&path) {
                Ok(file) => BufReader::with_capacity(1 << 16, file),
                // Swept just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line)? > 0 {
                if !look(&line) {
                    return Ok(());
                }
                line.clear();
            }
        }
        Ok(())
    }
}

/// Writes a file of lines anew without those that name somebody; returns how many these were.
pub fn erase(path: &Path, who: &Who) -> io::Result<u64> {
    let content = state::read(path)?.unwrap_or_default();
    let mut kept = Vec::with_capacity(content.len());
    let mut erased = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let named = who.named_in(line) && parse(line).is_some_and(|line| who.is_in(&line));
        match named {
            true => erased += 1,
            false => kept.extend_from_slice(line),
        }
    }
    if erased > 0 {
        state::write_synced(path, &kept)?;
    }
    Ok(erased)
}

fn parse(line: &[u8]) -> Option<Value> {
    serde_json::from_slice(line).ok()
}

fn date(now: Timestamp) -> String {
    now.rfc3339().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn trail(folder: &Path, retention: Duration, bytes_max: u64) -> Trail {
        let settings = config::Records {
            retention,
            bytes_max,
            ..config::Records::default()
        };
        Trail::open(folder, &settings).unwrap()
    }

    fn days(trail: &Trail) -> usize {
        trail.days().unwrap().len()
    }

    #[test]
    fn what_is_old_or_too_much_goes_day_by_day() {
        let folder = tempfile::tempdir().unwrap();
        let trail_of = |days: u32, bytes| trail(folder.path(), DAY * days, bytes);
        let trail = trail_of(3, u64::MAX);
        let start = Timestamp(1_795_000_000_000);
        for day in 0..10 {
            let now = start.after(DAY * day);
            trail.sweep(now).unwrap();
            trail.add_at(now, json!({ "event": "message", "ident": "mx1.1.1" }));
            assert!(days(&trail) <= 4, "the present one and three before");
        }
        assert_eq!(days(&trail), 4);
        trail.sweep(start.after(DAY * 30)).unwrap();
        assert_eq!(days(&trail), 0);
        for day in 30..34 {
            trail.add_at(start.after(DAY * day), json!({ "event": "message" }));
        }
        let small = trail_of(1000, 150);
        // Today may be more than all may be, and stays.
        small.sweep(start.after(DAY * 33)).unwrap();
        assert!((1..=3).contains(&days(&small)), "{}", days(&small));
    }

    #[test]
    fn what_is_known_is_found_with_what_became_of_it_and_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let trail = trail(folder.path(), DAY, u64::MAX);
        trail.add(json!({ "event": "message", "ident": "mx1.1.1", "session": "aa", "client": "192.0.2.7",
            "from": "Ann@x.example", "to": ["joe@b.example"], "message_id": "<1@x.example>", "outcome": "spooled" }));
        trail.add(
            json!({ "event": "session", "session": "bb", "client": "192.0.2.8", "outcome": "quit",
            "refused": [{ "to": "nobody@b.example", "reason": "unknown_recipient" }] }),
        );
        trail.add(json!({ "event": "passed", "ident": "mx1.1.1", "to": ["joe@b.example"] }));
        let events = |what: &str| -> Vec<String> {
            let known = trail.find(&Who::parse(what).unwrap()).unwrap();
            assert!(known.since.is_some());
            let event = |line: &Value| line["event"].as_str().unwrap().to_owned();
            known.lines.iter().map(event).collect()
        };
        for what in [
            "192.0.2.7",
            "<1@x.example>",
            "joe@b.example",
            "ann@X.example",
            "mx1.1.1",
        ] {
            assert_eq!(events(what), ["message", "passed"], "{what}");
        }
        assert_eq!(events("aa"), ["message", "passed"]);
        assert_eq!(events("nobody@b.example"), ["session"]);
        assert_eq!(events("::ffff:192.0.2.8"), ["session"]);
        assert!(events("192.0.2.9").is_empty());
        assert!(events("oe@b.example").is_empty());
        let joe = Who::parse("joe@b.example").unwrap();
        assert_eq!(trail.erase(&joe).unwrap(), 2);
        assert!(events("joe@b.example").is_empty());
        trail.add(json!({ "event": "message", "to": ["joe@b.example"] }));
        assert_eq!(
            events("joe@b.example"),
            ["message"],
            "new lines come in again"
        );
        assert_eq!(events("192.0.2.8"), ["session"]);
    }
}
