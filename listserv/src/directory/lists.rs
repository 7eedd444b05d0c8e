//! Lists and their owners in the directory.

use mail::{Address, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::names::Names;
use super::{Error, Store, stored};

/// Owners of one list at most.
const OWNERS_MAX: usize = 100;

/// A list as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListEntry {
    /// Its address.
    pub address: String,
    /// Who runs it.
    pub owners: Vec<String>,
    /// How many members it has.
    pub members: u64,
    /// The number of its last post.
    pub last_post: u64,
    /// When it was made.
    pub created: String,
}

impl Store {
    /// Makes a list.
    pub fn create_list(&mut self, list: &Address, owners: &[Address]) -> Result<(), Error> {
        if super::is_role(list) {
            return Err(Error::Invalid(format!(
                "{list} is a role of its domain; choose another name"
            )));
        }
        if owners.len() > OWNERS_MAX {
            return Err(Error::Invalid(format!("more than {OWNERS_MAX} owners")));
        }
        let change = self.change()?;
        let taken: bool = change.query_row(
            "SELECT EXISTS (SELECT 1 FROM list WHERE key = ?1) OR EXISTS (SELECT 1 FROM alias WHERE key = ?1)",
            [list.key()],
            |row| row.get(0),
        )?;
        if taken {
            return Err(Error::Taken(list.to_string()));
        }
        change.execute(
            "INSERT INTO list (key, address, created) VALUES (?1, ?2, ?3)",
            params![list.key(), list.to_string(), now()],
        )?;
        let id = change.last_insert_rowid();
        for owner in owners {
            insert_owner(&change, id, owner)?;
        }
        Ok(change.commit()?)
    }

    /// Ends a list, its members, its numbers and its bounces.
    pub fn delete_list(&mut self, list: &Address) -> Result<(), Error> {
        match self
            .connection
            .execute("DELETE FROM list WHERE key = ?1", [list.key()])?
        {
            0 => Err(Error::Missing(list.to_string())),
            _ => Ok(()),
        }
    }

    /// One list.
    pub fn show_list(&mut self, list: &Address) -> Result<ListEntry, Error> {
        self.entries(Some(&list.key()))?
            .pop()
            .ok_or_else(|| Error::Missing(list.to_string()))
    }

    /// All lists, by address.
    pub fn lists(&mut self) -> Result<Vec<ListEntry>, Error> {
        self.entries(None)
    }

    fn entries(&mut self, key: Option<&str>) -> Result<Vec<ListEntry>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, address, created, last_post, (SELECT count(*) FROM member WHERE list = list.id)
             FROM list WHERE ?1 IS NULL OR key = ?1 ORDER BY key",
        )?;
        let rows = statement
            .query_map([key], |row| {
                let created: i64 = row.get(2)?;
                Ok((
                    row.get::<_, i64>(0)?,
                    ListEntry {
                        address: row.get(1)?,
                        owners: Vec::new(),
                        members: row.get::<_, i64>(4)? as u64,
                        last_post: row.get::<_, i64>(3)? as u64,
                        created: Timestamp(created as u64).rfc3339(),
                    },
                ))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        rows.into_iter()
            .map(|(id, entry)| {
                let owners = owners_of(&self.connection, id)?;
                Ok(ListEntry { owners, ..entry })
            })
            .collect()
    }

    /// Adds owners; returns those that were none before.
    pub fn add_owners(&mut self, list: &Address, owners: &[Address]) -> Result<Vec<String>, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let mut added = Vec::new();
        for owner in owners {
            if insert_owner(&change, id, owner)? {
                added.push(owner.to_string());
            }
        }
        if owners_of(&change, id)?.len() > OWNERS_MAX {
            return Err(Error::Invalid(format!("more than {OWNERS_MAX} owners")));
        }
        change.commit()?;
        Ok(added)
    }

    /// Removes owners; returns those that were.
    pub fn remove_owners(
        &mut self,
        list: &Address,
        owners: &[Address],
    ) -> Result<Vec<String>, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let mut removed = Vec::new();
        for owner in owners {
            let gone = change.execute(
                "DELETE FROM owner WHERE list = ?1 AND key = ?2",
                params![id, owner.key()],
            )?;
            if gone > 0 {
                removed.push(owner.to_string());
            }
        }
        change.commit()?;
        Ok(removed)
    }

    /// Who runs a list.
    pub fn owners(&mut self, list: &Address) -> Result<Vec<Address>, Error> {
        let id = list_id(&self.connection, list)?;
        owners_of(&self.connection, id)?
            .iter()
            .map(|text| stored(text))
            .collect()
    }

    /// Every name there is.
    pub fn names(&mut self) -> Result<Names, Error> {
        let read = self.connection.transaction()?; // lists and aliases of one state
        let texts = |sql: &str| -> Result<Vec<Address>, Error> {
            let mut statement = read.prepare_cached(sql)?;
            let texts = statement
                .query_map([], |row| row.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()?;
            texts.iter().map(|text| stored(text)).collect()
        };
        let lists = texts("SELECT address FROM list ORDER BY key")?;
        let aliases = texts("SELECT address FROM alias ORDER BY key")?;
        Ok(Names::new(lists, aliases))
    }
}

/// The list's row, or that there is none.
pub(super) fn list_id(connection: &Connection, list: &Address) -> Result<i64, Error> {
    connection
        .query_row("SELECT id FROM list WHERE key = ?1", [list.key()], |row| {
            row.get(0)
        })
        .optional()?
        .ok_or_else(|| Error::Missing(list.to_string()))
}

pub(super) fn now() -> i64 {
    Timestamp::now().0 as i64
}

fn insert_owner(connection: &Connection, list: i64, owner: &Address) -> Result<bool, Error> {
    let added = connection.execute(
        "INSERT INTO owner (list, key, address) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![list, owner.key(), owner.to_string()],
    )?;
    Ok(added > 0)
}

fn owners_of(connection: &Connection, list: i64) -> Result<Vec<String>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT address FROM owner WHERE list = ?1 ORDER BY key")?;
    let owners = statement
        .query_map([list], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(owners)
}
