//! The tables of the quarantine.

use std::path::Path;
use std::time::Duration;

use mail::{Recipient, ReversePath, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Error, Item, Line};
use crate::wire;

const SCHEMA_VERSION: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `body` is NULL once an item has ended; `path` remembers what an ident brought, so that it is not kept twice.
const TABLES: &str = "
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, arrival INTEGER NOT NULL, ident TEXT NOT NULL,
    reverse_path TEXT NOT NULL, parameters TEXT NOT NULL, recipients TEXT NOT NULL, facts BLOB NOT NULL,
    reason TEXT NOT NULL, state TEXT NOT NULL, bytes INTEGER NOT NULL, body BLOB
);
CREATE INDEX item_held ON item (id) WHERE state = 'held';
CREATE TABLE path (
    ident TEXT NOT NULL, key TEXT NOT NULL, item INTEGER NOT NULL REFERENCES item(id) ON DELETE CASCADE,
    PRIMARY KEY (ident, key)
) WITHOUT ROWID;
CREATE INDEX path_item ON path (item);
";

const LINE: &str = "id, time, ident, reverse_path, recipients, reason, state, bytes";

/// An open quarantine.
pub struct Store {
    connection: Connection,
}

impl Store {
    /// Opens or makes the file; every commit is synced.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        let change = connection.transaction()?;
        let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            SCHEMA_VERSION => {}
            0 => {
                change.execute_batch(TABLES)?;
                change.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION}"))?;
            }
            other => {
                return Err(Error::Unavailable(format!(
                    "schema version {other}, this program knows {SCHEMA_VERSION}"
                )));
            }
        }
        change.commit()?;
        Ok(Self { connection })
    }

    pub fn keep(&mut self, item: &Item, ident: &str, bytes_max: u64) -> Result<bool, Error> {
        let change = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut new: Vec<&Recipient> = Vec::new();
        for recipient in &item.recipients {
            let known: bool = change.query_row(
                "SELECT EXISTS (SELECT 1 FROM path WHERE ident = ?1 AND key = ?2)",
                params![ident, recipient.address.key()],
                |row| row.get(0),
            )?;
            if !known {
                new.push(recipient);
            }
        }
        if new.is_empty() {
            return Ok(false);
        }
        let kept: i64 = change.query_row(
            "SELECT coalesce(sum(bytes), 0) FROM item WHERE state = 'held'",
            [],
            |row| row.get(0),
        )?;
        if kept as u64 + item.body.len() as u64 > bytes_max {
            return Err(Error::Full(kept as u64));
        }
        let paths: Vec<wire::Path> = new.iter().map(|path| wire::Path::from(*path)).collect();
        change.execute(
            "INSERT INTO item (time, arrival, ident, reverse_path, parameters, recipients, facts, reason, state, bytes, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'held', ?9, ?10)",
            params![
                Timestamp::now().0 as i64,
                item.arrival.0 as i64,
                ident,
                item.reverse_path.to_string(),
                json(&wire::Parameters::from(&item.parameters))?,
                json(&paths)?,
                item.facts.as_ref(),
                item.reason,
                item.body.len() as i64,
                item.body.as_ref(),
            ],
        )?;
        let id = change.last_insert_rowid();
        for recipient in new {
            change.execute(
                "INSERT INTO path (ident, key, item) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![ident, recipient.address.key(), id],
            )?;
        }
        change.commit()?;
        Ok(true)
    }

    pub fn list(&mut self, all: bool, limit: u32) -> Result<Vec<Line>, Error> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {LINE} FROM item WHERE ?1 OR state = 'held' ORDER BY id DESC LIMIT ?2"
        ))?;
        let lines = statement
            .query_map(params![all, limit], line)?
            .collect::<Result<_, _>>()?;
        Ok(lines)
    }

    pub fn line(&mut self, id: i64) -> Result<Line, Error> {
        self.connection
            .query_row(
                &format!("SELECT {LINE} FROM item WHERE id = ?1"),
                [id],
                line,
            )
            .optional()?
            .ok_or(Error::Missing(id))
    }

    pub fn item(&mut self, id: i64) -> Result<Item, Error> {
        type Stored = (i64, String, String, String, Vec<u8>, String, Vec<u8>);
        let stored: Option<Stored> = self
            .connection
            .query_row(
                "SELECT arrival, reverse_path, parameters, recipients, facts, reason, body
                 FROM item WHERE id = ?1 AND state = 'held'",
                [id],
                |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                        row.get(4)?,
                        row.get(5)?,
                        row.get(6)?,
                    ))
                },
            )
            .optional()?;
        let (arrival, reverse_path, parameters, recipients, facts, reason, body) =
            stored.ok_or(Error::Missing(id))?;
        let damaged = |error: String| Error::Unavailable(format!("item {id}: {error}"));
        let parameters: wire::Parameters =
            serde_json::from_str(&parameters).map_err(|error| damaged(error.to_string()))?;
        let paths: Vec<wire::Path> =
            serde_json::from_str(&recipients).map_err(|error| damaged(error.to_string()))?;
        Ok(Item {
            arrival: Timestamp(arrival as u64),
            reverse_path: ReversePath::parse(&reverse_path)
                .map_err(|error| damaged(error.to_string()))?,
            parameters: parameters.into(),
            recipients: paths
                .into_iter()
                .map(Recipient::try_from)
                .collect::<Result<_, _>>()
                .map_err(damaged)?,
            facts: facts.into(),
            reason,
            body: body.into(),
        })
    }

    pub fn end(&mut self, id: i64, state: &str) -> Result<(), Error> {
        let ended = self.connection.execute(
            "UPDATE item SET state = ?2, body = NULL WHERE id = ?1 AND state = 'held'",
            params![id, state],
        )?;
        match ended {
            0 => Err(Error::Missing(id)),
            _ => Ok(()),
        }
    }

    pub fn expire(&mut self, before: Timestamp, forget: Timestamp) -> Result<usize, Error> {
        let change = self.connection.transaction()?;
        let ended = change.execute(
            "UPDATE item SET state = 'expired', body = NULL WHERE state = 'held' AND time < ?1",
            [before.0 as i64],
        )?;
        change.execute(
            "DELETE FROM item WHERE state <> 'held' AND time < ?1",
            [forget.0 as i64],
        )?;
        change.commit()?;
        Ok(ended)
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let time: i64 = row.get(1)?;
    let recipients: String = row.get(4)?;
    let paths: Vec<wire::Path> = serde_json::from_str(&recipients).unwrap_or_default();
    Ok(Line {
        id: row.get(0)?,
        time: Timestamp(time as u64).rfc3339(),
        ident: row.get(2)?,
        reverse_path: row.get(3)?,
        recipients: paths.into_iter().map(|path| path.address).collect(),
        reason: row.get(5)?,
        state: row.get(6)?,
        bytes: row.get::<_, i64>(7)? as u64,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::{Address, MailParameters};

    fn item(recipients: &[&str], body: &'static str) -> Item {
        Item {
            arrival: Timestamp(1),
            reverse_path: ReversePath::parse("joe@one.example").unwrap(),
            parameters: MailParameters::default(),
            recipients: recipients
                .iter()
                .map(|text| Recipient::from(Address::parse(text).unwrap()))
                .collect(),
            facts: "{}".into(),
            reason: "spam".into(),
            body: body.into(),
        }
    }

    #[test]
    fn kept_once_and_ended_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.sqlite");
        let mut store = Store::open(&path).unwrap();
        assert!(
            store
                .keep(&item(&["a@l.example"], "x"), "e.1.1", 10)
                .unwrap()
        );
        assert!(
            !store
                .keep(&item(&["A@l.example"], "x"), "e.1.1", 10)
                .unwrap()
        );
        // Only the path that is new is kept under a repeated ident.
        let both = item(&["a@l.example", "b@l.example"], "x");
        assert!(store.keep(&both, "e.1.1", 10).unwrap());
        let lines = store.list(false, 10).unwrap();
        assert_eq!(lines[0].recipients, ["b@l.example"]);
        assert!(matches!(
            store.keep(&item(&["c@l.example"], "xxxxxxxxxx"), "e.1.2", 10),
            Err(Error::Full(2))
        ));
        drop(store);

        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.item(lines[0].id).unwrap().body, "x");
        store.end(lines[0].id, "released").unwrap();
        assert!(matches!(
            store.end(lines[0].id, "dropped"),
            Err(Error::Missing(_))
        ));
        assert!(matches!(store.item(lines[0].id), Err(Error::Missing(_))));
        assert_eq!(store.list(false, 10).unwrap().len(), 1);
        assert!(!store.keep(&both, "e.1.1", 10).unwrap());

        let later = Timestamp::now().after(Duration::from_secs(1));
        assert_eq!(store.expire(later, Timestamp(0)).unwrap(), 1);
        assert_eq!(store.list(true, 10).unwrap().len(), 2);
        store.expire(later, later).unwrap();
        assert_eq!(store.list(true, 10).unwrap(), []);
    }
}
