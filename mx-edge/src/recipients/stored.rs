//! The copy on disk of the directory in force: the whole, and beside it the changes since, a line each. A change is appended and
//! synced, so that a crash leaves the version in force or the one before; when the lines get many the whole is written anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use mail::directory::{Delta, Seal, Whole};

use super::catalog::Catalog;
use crate::state;

/// From so many bytes of changes on the whole is written anew: reading them at start takes a fraction of a second.
const CHANGES_BYTES_MAX: u64 = 4 << 20;

/// Where it is.
#[derive(Debug)]
pub struct Stored {
    whole: PathBuf,
    changes: PathBuf,
    /// Bytes in the file of changes; `None` when nothing can be appended to it.
    appended: Option<u64>,
}

impl Stored {
    /// Nothing is read or written yet.
    pub fn new(whole: PathBuf) -> Self {
        Self {
            changes: whole.with_extension("changes"),
            whole,
            appended: None,
        }
    }

    /// The file whose time says when it was confirmed last.
    pub fn path(&self) -> &Path {
        &self.whole
    }

    /// What was in force. A whole that is torn or is not what its seal says is an error. Changes are taken as long as each leads
    /// to its seal; a torn last one was never in force.
    pub fn read(&mut self) -> Result<Option<Catalog>, String> {
        let said = |error: io::Error| format!("{}: {error}", self.whole.display());
        let Some(text) = state::read(&self.whole).map_err(said)? else {
            return Ok(None);
        };
        let whole: Whole = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        drop(text);
        let (mut seal, mut content) = whole.content().map_err(|error| error.to_string())?;
        let changes = state::read(&self.changes)
            .map_err(said)?
            .unwrap_or_default();
        self.appended = Some(changes.len() as u64);
        for line in changes.split_inclusive(|byte| *byte == b'\n') {
            let Ok(delta) = serde_json::from_slice::<Delta>(line) else {
                self.appended = None;
                break;
            };
            if is_before(&delta.seal, &seal) {
                continue;
            }
            match delta.apply(seal.version, &content) {
                Ok(after) => (seal, content) = after,
                Err(_) => {
                    self.appended = None;
                    break;
                }
            }
        }
        Ok(Some(Catalog::of_directory(seal, content)))
    }

    /// Makes a version the stored one: by the change that led to it from the stored one, or as a whole.
    pub fn write(&mut self, catalog: &Catalog, delta: Option<&Delta>) -> io::Result<()> {
        let Some(seal) = &catalog.seal else {
            return Ok(());
        };
        if let (Some(delta), Some(appended)) = (delta, self.appended)
            && appended < CHANGES_BYTES_MAX
        {
            self.appended = None;
            let mut line = serde_json::to_vec(delta)?;
            line.push(b'\n');
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.changes)?;
            file.write_all(&line)?;
            file.sync_all()?;
            if appended == 0 {
                sync_folder(&self.changes)?;
            }
            self.appended = Some(appended + line.len() as u64);
            return Ok(());
        }
        self.appended = None;
        self.write_whole(&Whole::new(seal.clone(), &catalog.content))?;
        // Old lines are passed over when they are read, should this not come to its end.
        match fs::remove_file(&self.changes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.appended = Some(0),
        }
        Ok(())
    }

    /// Written piece by piece: a million names are not held as text as well.
    fn write_whole(&self, whole: &Whole) -> io::Result<()> {
        let temporary = self.whole.with_extension("new");
        let mut file = BufWriter::new(File::create(&temporary)?);
        serde_json::to_writer(&mut file, whole)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, &self.whole)?;
        sync_folder(&self.whole)
    }
}

/// Whether a change was made before the whole beside it was written.
fn is_before(change: &Seal, whole: &Seal) -> bool {
    change.version.epoch != whole.version.epoch || change.version.serial <= whole.version.serial
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::directory::{Content, Version};

    /// Version `serial` has as many addresses.
    fn catalog(serial: u64) -> Catalog {
        let names: Vec<String> = (0..serial).map(|n| format!("u{n}@a.example")).collect();
        let content = Content {
            addresses: names.iter().map(String::as_str).collect(),
            ..Content::default()
        };
        let seal = Seal {
            version: Version { epoch: 1, serial },
            digest: content.digest(),
            signatures: Vec::new(),
        };
        Catalog::of_directory(seal, content)
    }

    fn delta(from: u64, to: u64) -> Delta {
        let (old, new) = (catalog(from), catalog(to));
        Delta {
            from: old.seal.unwrap().version,
            seal: new.seal.unwrap(),
            change: old.content.change_to(&new.content),
        }
    }

    fn entries(path: &Path) -> usize {
        Stored::new(path.into()).read().unwrap().unwrap().entries()
    }

    #[test]
    fn changes_are_appended_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let mut stored = Stored::new(path.clone());
        assert!(stored.read().unwrap().is_none());
        // Nothing to append to: the whole.
        stored.write(&catalog(3), Some(&delta(2, 3))).unwrap();
        assert_eq!(entries(&path), 3);
        for to in 4..=6 {
            stored
                .write(&catalog(to), Some(&delta(to - 1, to)))
                .unwrap();
            assert_eq!(entries(&path), to as usize);
        }
        // A restart appends further.
        let mut stored = Stored::new(path.clone());
        stored.read().unwrap();
        stored.write(&catalog(7), Some(&delta(6, 7))).unwrap();
        assert_eq!(entries(&path), 7);
        let lines = fs::read(folder.path().join("directory.changes")).unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 4);
    }

    #[test]
    fn a_torn_change_was_never_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let changes = folder.path().join("directory.changes");
        let mut stored = Stored::new(path.clone());
        stored.write(&catalog(3), None).unwrap();
        stored.write(&catalog(4), Some(&delta(3, 4))).unwrap();
        let first = fs::read(&changes).unwrap();
        stored.write(&catalog(5), Some(&delta(4, 5))).unwrap();
        let both = fs::read(&changes).unwrap();
        for end in first.len()..both.len() - 1 {
            fs::write(&changes, &both[..end]).unwrap();
            let mut stored = Stored::new(path.clone());
            assert_eq!(stored.read().unwrap().unwrap().entries(), 4, "{end} bytes");
        }
        // What comes next is not written behind the torn line.
        let mut stored = Stored::new(path.clone());
        stored.read().unwrap();
        stored.write(&catalog(6), Some(&delta(4, 6))).unwrap();
        assert_eq!(entries(&path), 6);
    }

    #[test]
    fn a_crash_between_whole_and_changes_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        let changes = folder.path().join("directory.changes");
        let mut stored = Stored::new(path.clone());
        stored.write(&catalog(3), None).unwrap();
        stored.write(&catalog(4), Some(&delta(3, 4))).unwrap();
        let before = fs::read(&changes).unwrap();
        stored.write(&catalog(9), None).unwrap();
        assert!(!changes.exists());
        fs::write(&changes, before).unwrap();
        assert_eq!(entries(&path), 9);
    }

    #[test]
    fn half_a_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.json");
        Stored::new(path.clone()).write(&catalog(3), None).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(Stored::new(path.clone()).read().is_err(), "{end} bytes");
        }
        let other = String::from_utf8(whole).unwrap().replace("u1@", "u7@");
        fs::write(&path, other).unwrap();
        assert!(Stored::new(path).read().is_err());
    }
}
