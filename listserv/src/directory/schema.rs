//! Opening the directory's file: pragmas, tables, schema version.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Error;

/// The version of the tables below; a file with a later one is not touched.
const SCHEMA_VERSION: i64 = 2;

/// An open directory. All methods block; they run where blocking is allowed.
pub struct Store {
    pub(super) connection: Connection,
}

/// Addresses are kept as first spelled and compared by `key`, their lower-case form. Times are milliseconds since the epoch.
const TABLES: &str = "
CREATE TABLE list (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, address TEXT NOT NULL,
    created INTEGER NOT NULL, last_post INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE owner (
    list INTEGER NOT NULL REFERENCES list(id) ON DELETE CASCADE, key TEXT NOT NULL, address TEXT NOT NULL,
    PRIMARY KEY (list, key)
) WITHOUT ROWID;
CREATE TABLE member (
    list INTEGER NOT NULL REFERENCES list(id) ON DELETE CASCADE, domain TEXT NOT NULL, key TEXT NOT NULL,
    address TEXT NOT NULL, joined INTEGER NOT NULL,
    PRIMARY KEY (list, domain, key)
) WITHOUT ROWID;
CREATE TABLE post (
    list INTEGER NOT NULL REFERENCES list(id) ON DELETE CASCADE, message TEXT NOT NULL, number INTEGER NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (list, message), UNIQUE (list, number)
) WITHOUT ROWID;
CREATE TABLE bounce (
    list INTEGER NOT NULL REFERENCES list(id) ON DELETE CASCADE, key TEXT NOT NULL, number INTEGER NOT NULL,
    time INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (list, key, number)
) WITHOUT ROWID;
CREATE INDEX bounce_time ON bounce (time);
CREATE TABLE alias (key TEXT PRIMARY KEY, address TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE forward (
    alias TEXT NOT NULL REFERENCES alias(key) ON DELETE CASCADE, key TEXT NOT NULL, address TEXT NOT NULL,
    PRIMARY KEY (alias, key)
) WITHOUT ROWID;
CREATE TABLE allowance (
    kind TEXT NOT NULL, key TEXT NOT NULL, day INTEGER NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (kind, key, day)
) WITHOUT ROWID;
CREATE TABLE suppressed (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, message TEXT NOT NULL, reverse_path TEXT NOT NULL,
    reason TEXT NOT NULL, recipients TEXT NOT NULL, action TEXT NOT NULL DEFAULT 'failed'
);
";

/// From version 1 to 2.
const ACTIONS: &str = "ALTER TABLE suppressed ADD COLUMN action TEXT NOT NULL DEFAULT 'failed';";

impl Store {
    /// Opens the file; makes it when it is missing and `may_create` says so. Every commit is synced.
    pub fn open(path: &Path, may_create: bool, busy: Duration) -> Result<Self, Error> {
        let found = path
            .try_exists()
            .map_err(|error| unavailable(path, error))?;
        if !found && !may_create {
            return Err(Error::Unavailable(format!(
                "{} is missing though mail was kept beside it; restore it from the last copy",
                path.display()
            )));
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !found {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let connection =
            Connection::open_with_flags(path, flags).map_err(|error| unavailable(path, error))?;
        connection.busy_timeout(busy)?;
        let mut store = Self { connection };
        store.prepare().map_err(|error| unavailable(path, error))?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), Error> {
        self.connection
            .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        self.connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        let change = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            SCHEMA_VERSION => {}
            0 => change.execute_batch(TABLES)?,
            1 => change.execute_batch(ACTIONS)?,
            other => {
                return Err(Error::Unavailable(format!(
                    "schema version {other}, this program knows {SCHEMA_VERSION}; run the release that wrote it"
                )));
            }
        }
        change.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}"))?;
        change.execute_batch(super::reports::TABLES)?;
        change.execute_batch(super::editions::TABLES)?;
        Ok(change.commit()?)
    }

    /// A transaction that holds the write lock from its start, so that what it read stays true until it commits.
    pub(super) fn change(&mut self) -> Result<rusqlite::Transaction<'_>, Error> {
        Ok(self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?)
    }
}

fn unavailable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_first_version_is_taken_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directory.db");
        let busy = Duration::from_secs(1);
        let store = Store::open(&path, true, busy).unwrap();
        store
            .connection
            .execute_batch(
                "ALTER TABLE suppressed DROP COLUMN action; PRAGMA user_version = 1;
                 INSERT INTO suppressed (time, message, reverse_path, reason, recipients) VALUES (1, 'm', '', 'null-sender', 'a@b.example');",
            )
            .unwrap();
        drop(store);
        let mut store = Store::open(&path, false, busy).unwrap();
        let listed = store.suppressed(10).unwrap();
        assert_eq!((listed.len(), listed[0].action.as_str()), (1, "failed"));
        store
            .note_suppressed("n", "a@c.example", ("relayed", "spf-fail"), "a@b.example")
            .unwrap();
        assert_eq!(store.suppressed(1).unwrap()[0].action, "relayed");
        drop(store);
        Store::open(&path, false, busy).unwrap();
    }
}
