//! Which versions of the directory were published, and whether edges hold ones that were not: kept beside the names, so that a restored
//! copy goes back with them and knows where it stands.

use mail::Timestamp;
use mail::directory::{Digest, Version};
use rusqlite::{OptionalExtension, params};

use super::{Error, Store};

/// So many versions are told apart from foreign ones of the same number; an edge that is further behind is believed.
const REMEMBERED: i64 = 1000;

/// Tables of this room, made in any directory that does not have them.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS edition (
    id INTEGER PRIMARY KEY AUTOINCREMENT, epoch TEXT NOT NULL, serial INTEGER NOT NULL, digest TEXT NOT NULL,
    signers TEXT NOT NULL, time INTEGER NOT NULL, UNIQUE (epoch, serial)
);
CREATE TABLE IF NOT EXISTS edition_parted (epoch TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// A version that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place.
    pub version: Version,
    /// Of its content.
    pub digest: Digest,
    /// The public keys that it was signed with.
    pub signers: String,
}

/// What a version that an edge holds is to this list host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// One of ours, or too old to tell.
    Ours,
    /// Of our epoch, and never published here: this host was restored from a backup, or runs behind another one.
    Parted,
    /// Of another epoch.
    Foreign,
}

impl Store {
    /// The newest version.
    pub fn published(&mut self) -> Result<Option<Published>, Error> {
        let query = "SELECT epoch, serial, digest, signers FROM edition ORDER BY id DESC LIMIT 1";
        let found = self.connection.query_row(query, [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        let Some((epoch, serial, digest, signers)) = found.optional()? else {
            return Ok(None);
        };
        let (epoch, digest): (String, String) = (epoch, digest);
        let serial: i64 = serial;
        let damaged = |why: String| Error::Unavailable(format!("stored edition: {why}"));
        Ok(Some(Published {
            version: format!("{epoch}.{serial}").parse().map_err(damaged)?,
            digest: Digest::try_from(digest).map_err(damaged)?,
            signers,
        }))
    }

    /// Makes the next version. Its epoch is `chance` for the first one, and after an edge was seen that holds a version of ours which
    /// we never published: whatever comes now parts from that, and must not be taken for its successor.
    pub fn publish(
        &mut self,
        digest: Digest,
        signers: &str,
        chance: u64,
    ) -> Result<Published, Error> {
        let before = self.published()?;
        let change = self.change()?;
        let parted = |epoch: u64| {
            let query = "SELECT 1 FROM edition_parted WHERE epoch = ?1";
            let found = change.query_row(query, [epoch_text(epoch)], |_| Ok(()));
            found.optional().map(|found| found.is_some())
        };
        let version = match &before {
            Some(Published { version, .. }) if !parted(version.epoch)? => Version {
                epoch: version.epoch,
                serial: version.serial + 1,
            },
            _ => Version {
                epoch: chance,
                serial: 1,
            },
        };
        change.execute(
            "INSERT INTO edition (epoch, serial, digest, signers, time) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                epoch_text(version.epoch),
                version.serial as i64,
                digest.to_string(),
                signers,
                Timestamp::now().0 as i64
            ],
        )?;
        let forget = "DELETE FROM edition WHERE id <= (SELECT max(id) FROM edition) - ?1";
        change.execute(forget, [REMEMBERED])?;
        change.commit()?;
        Ok(Published {
            version,
            digest,
            signers: signers.into(),
        })
    }

    /// Judges what an edge holds, and remembers it when it tells that our history has parted from it.
    pub fn judge(&mut self, held: Version, digest: Digest) -> Result<Kin, Error> {
        let Some(newest) = self.published()? else {
            return Ok(Kin::Foreign);
        };
        if held.epoch != newest.version.epoch {
            return Ok(Kin::Foreign);
        }
        let query = "SELECT digest FROM edition WHERE epoch = ?1 AND serial = ?2";
        let serial = i64::try_from(held.serial).unwrap_or(i64::MAX);
        let ours =
            self.connection
                .query_row(query, params![epoch_text(held.epoch), serial], |row| {
                    row.get::<_, String>(0)
                });
        let ours = ours.optional()?;
        let differs = ours.is_some_and(|ours| ours != digest.to_string());
        if held.serial <= newest.version.serial && !differs {
            return Ok(Kin::Ours);
        }
        let note = "INSERT OR IGNORE INTO edition_parted (epoch) VALUES (?1)";
        self.connection.execute(note, [epoch_text(held.epoch)])?;
        Ok(Kin::Parted)
    }
}

fn epoch_text(epoch: u64) -> String {
    format!("{epoch:016x}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn open(path: &Path) -> Store {
        Store::open(path, true, Duration::ZERO).unwrap()
    }

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn version(epoch: u64, serial: u64) -> Version {
        Version { epoch, serial }
    }

    #[test]
    fn versions_count_on_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.sqlite");
        let mut store = open(&path);
        assert_eq!(store.published().unwrap(), None);
        assert_eq!(
            store.publish(digest(1), "", 7).unwrap().version,
            version(7, 1)
        );
        assert_eq!(
            store.publish(digest(2), "", 8).unwrap().version,
            version(7, 2)
        );
        drop(store);
        let mut store = open(&path);
        let newest = store.published().unwrap().unwrap();
        assert_eq!((newest.version, newest.digest), (version(7, 2), digest(2)));
        assert_eq!(
            store.publish(digest(3), "", 9).unwrap().version,
            version(7, 3)
        );
    }

    #[test]
    fn a_restored_copy_begins_a_new_epoch_once_it_knows() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder.path().join("directory.sqlite"));
        for byte in 1..=3 {
            store.publish(digest(byte), "", 7).unwrap();
        }
        // An edge that is where we are, or behind us, tells nothing.
        for (held, byte, kin) in [
            (version(7, 3), 3, Kin::Ours),
            (version(7, 1), 1, Kin::Ours),
            (version(8, 9), 9, Kin::Foreign),
        ] {
            assert_eq!(store.judge(held, digest(byte)).unwrap(), kin);
        }
        assert_eq!(
            store.publish(digest(4), "", 8).unwrap().version,
            version(7, 4)
        );
        // One that is ahead does, and so does another content under a number of ours.
        for (held, byte) in [(version(7, 9), 9), (version(7, 2), 9)] {
            assert_eq!(store.judge(held, digest(byte)).unwrap(), Kin::Parted);
        }
        assert_eq!(
            store.publish(digest(5), "", 9).unwrap().version,
            version(9, 1)
        );
        assert_eq!(
            store.publish(digest(6), "", 10).unwrap().version,
            version(9, 2)
        );
        assert_eq!(store.judge(version(7, 9), digest(9)).unwrap(), Kin::Foreign);
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder.path().join("directory.sqlite"));
        for _ in 0..REMEMBERED + 2 {
            store.publish(digest(1), "", 7).unwrap();
        }
        assert_eq!(store.judge(version(7, 2), digest(2)).unwrap(), Kin::Ours);
        assert_eq!(store.judge(version(7, 3), digest(2)).unwrap(), Kin::Parted);
    }
}
