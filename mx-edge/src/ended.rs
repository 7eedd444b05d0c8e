//! The list of forward-paths that were taken and not passed in: refused beside accepted ones of the same message, held, or
//! dropped by an operator. No stranger gets a DSN about them, so they must be findable here. Owns two files of JSON lines, the
//! present one and the one before; their size is bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use mail::Timestamp;
use serde::Serialize;
use tracing::error;

use crate::trail;
use crate::why::Who;

/// Bytes of one file; at some 200 a line about 300,000 forward-paths.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a forward-path is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Refused inside while others of the message were taken; the client had its 250.
    Refused,
    /// Refused inside after it was spooled, or held by a rule; kept in the spool for an operator.
    Held,
    /// A rule had it end here.
    Discarded,
    /// An operator sent it inside again.
    Released,
    /// An operator ended it.
    Dropped,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// Why.
    pub kind: Kind,
    /// The message.
    pub ident: &'a str,
    /// Its session.
    pub session: &'a str,
    /// Its reverse-path.
    pub from: &'a str,
    /// The forward-path.
    pub to: &'a str,
    /// What the inside said, or which rule holds it.
    pub reply: &'a str,
}

/// The list.
pub struct Ended {
    path: PathBuf,
    file: Mutex<Open>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Ended {
    /// Opens or makes the list.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ended.jsonl");
        let file = Mutex::new(open(&path)?);
        Ok(Self { path, file })
    }

    /// Adds lines and syncs them, once for all. A disk that refuses is no reason to refuse mail: the log has the same facts.
    pub fn add(&self, now: Timestamp, lines: &[Line<'_>]) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = self.try_add(now, lines) {
            error!(event = "ended_not_listed", path = %self.path.display(), %error);
        }
    }

    fn try_add(&self, now: Timestamp, lines: &[Line<'_>]) -> io::Result<()> {
        #[derive(Serialize)]
        struct Dated<'a> {
            time: String,
            #[serde(flatten)]
            line: &'a Line<'a>,
        }
        let mut text = Vec::new();
        for line in lines {
            let time = now.rfc3339();
            serde_json::to_writer(&mut text, &Dated { time, line })?;
            text.push(b'\n');
        }
        let mut open_file = self.file.lock().expect("no holder panics");
        if open_file.bytes > 0 && open_file.bytes + text.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("1.jsonl"))?;
            *open_file = open(&self.path)?;
        }
        open_file.file.write_all(&text)?;
        open_file.bytes += text.len() as u64;
        open_file.file.sync_data()
    }

    /// Both files, the older one first.
    fn paths(&self) -> [PathBuf; 2] {
        [self.path.with_extension("1.jsonl"), self.path.clone()]
    }

    /// The lines that name somebody or something.
    pub fn find(&self, who: &Who) -> io::Result<Vec<serde_json::Value>> {
        let mut lines = self.tail(usize::MAX)?;
        lines.retain(|line| who.is_in(line));
        Ok(lines)
    }

    /// Takes them out; returns how many.
    pub fn erase(&self, who: &Who) -> io::Result<u64> {
        self.rewrite(|path| trail::erase(path, who))
    }

    /// Takes out the lines from before a time, in whole days (UTC), so that a file is written anew once a day; returns how many. Reads no
    /// further than to the first line that stays, and holds no more than a line of it.
    pub fn forget(&self, before: Timestamp) -> io::Result<u64> {
        let day: String = before.rfc3339().chars().take(10).collect();
        self.rewrite(|path| cut(path, &day))
    }

    /// Has both files written anew while nothing is added.
    fn rewrite(&self, each: impl Fn(&Path) -> io::Result<u64>) -> io::Result<u64> {
        let mut open_file = self.file.lock().expect("no holder panics");
        let mut lines = 0;
        for path in self.paths() {
            lines += each(&path)?;
        }
        *open_file = open(&self.path)?;
        Ok(lines)
    }

    /// The newest `count` lines, oldest first.
    pub fn tail(&self, count: usize) -> io::Result<Vec<serde_json::Value>> {
        let mut lines = Vec::new();
        for path in self.paths() {
            let content = crate::state::read(&path)?.unwrap_or_default();
            lines.extend(
                content
                    .split(|byte| *byte == b'\n')
                    .filter_map(|line| serde_json::from_slice(line).ok()),
            );
        }
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }
}

/// Takes the lines from before a day off the front of a file; lines are in the order of time.
fn cut(path: &Path, day: &str) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let (mut line, mut lines, mut bytes) = (Vec::new(), 0, 0);
    while file.read_until(b'\n', &mut line)? > 0 {
        let parsed: Option<serde_json::Value> = serde_json::from_slice(&line).ok();
        let time = parsed.as_ref().and_then(|line| line["time"].as_str());
        if time.is_none_or(|time| time >= day) {
            break;
        }
        (lines, bytes) = (lines + 1, bytes + line.len() as u64);
        line.clear();
    }
    if bytes > 0 {
        file.seek(SeekFrom::Start(bytes))?;
        let rest = path.with_extension("rest");
        let mut kept = OpenOptions::new();
        let kept = kept.create(true).write(true).truncate(true).mode(0o600);
        let mut kept = kept.open(&rest)?;
        io::copy(&mut file, &mut kept)?;
        kept.sync_all()?;
        std::fs::rename(&rest, path)?;
    }
    Ok(lines)
}

fn open(path: &Path) -> io::Result<Open> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_goes_and_a_person_can_be_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let ended = Ended::open(folder.path()).unwrap();
        let line = |to| Line {
            kind: Kind::Refused,
            ident: "mx1.1.1",
            session: "s",
            from: "ann@x.example",
            to,
            reply: "550 5.1.1 no",
        };
        let day = |day: u64| Timestamp(1_795_000_000_000 + day * 86_400_000);
        for at in 0..4 {
            ended.add(day(at), &[line("joe@b.example"), line("eve@b.example")]);
        }
        // Later on the same day: whole days go.
        let later = day(2).after(std::time::Duration::from_secs(3600));
        assert_eq!(ended.forget(later).unwrap(), 4);
        assert_eq!(ended.forget(later).unwrap(), 0);
        let joe = Who::parse("Joe@b.example").unwrap();
        assert_eq!(ended.find(&joe).unwrap().len(), 2);
        assert_eq!(ended.erase(&joe).unwrap(), 2);
        ended.add(day(5), &[line("eve@b.example")]);
        let left = ended.tail(10).unwrap();
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|line| line["to"] == "eve@b.example"));
    }

    #[test]
    fn lines_are_kept_over_a_restart_and_the_newest_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let ended = Ended::open(folder.path()).unwrap();
            let to = format!("u{round}@a.example");
            let line = Line {
                kind: Kind::Refused,
                ident: "mx1.1.1",
                session: "s",
                from: "",
                to: &to,
                reply: "550 5.1.1 no",
            };
            ended.add(Timestamp(1_000), &[line]);
        }
        let ended = Ended::open(folder.path()).unwrap();
        let shown = ended.tail(2).unwrap();
        let to: Vec<_> = shown
            .iter()
            .map(|line| line["to"].as_str().unwrap())
            .collect();
        assert_eq!(to, ["u1@a.example", "u2@a.example"]);
        assert_eq!(shown[0]["kind"], "refused");
        assert_eq!(shown[0]["reply"], "550 5.1.1 no");
    }
}
