//! Aliases in the directory: an address and the forward-paths it stands for.

use mail::Address;
use rusqlite::params;
use serde::Serialize;

use super::{Error, Store, stored};

/// Forward-paths of one alias at most; more is a list.
const PATHS_MAX: usize = 100;

/// An alias as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// Its address.
    pub address: String,
    /// Where its mail goes.
    pub paths: Vec<String>,
}

impl Store {
    /// Makes the alias if it is new and adds forward-paths to it, all or none; returns those that are new.
    pub fn add_alias(&mut self, alias: &Address, paths: &[Address]) -> Result<Vec<String>, Error> {
        if paths.is_empty() {
            return Err(Error::Invalid(format!("{alias} needs a forward-path")));
        }
        if super::is_role(alias) {
            return Err(Error::Invalid(format!(
                "{alias} is a role; its mail goes to `postmaster` of the configuration"
            )));
        }
        let change = self.change()?;
        let list: bool = change.query_row(
            "SELECT EXISTS (SELECT 1 FROM list WHERE key = ?1)",
            [alias.key()],
            |row| row.get(0),
        )?;
        if list {
            return Err(Error::Taken(format!("the list {alias}")));
        }
        change.execute(
            "INSERT INTO alias (key, address) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![alias.key(), alias.to_string()],
        )?;
        let mut added = Vec::new();
        for path in paths {
            let new = change.execute(
                "INSERT INTO forward (alias, key, address) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![alias.key(), path.key(), path.to_string()],
            )?;
            if new > 0 {
                added.push(path.to_string());
            }
        }
        let count: i64 = change.query_row(
            "SELECT count(*) FROM forward WHERE alias = ?1",
            [alias.key()],
            |row| row.get(0),
        )?;
        if count as usize > PATHS_MAX {
            return Err(Error::Invalid(format!(
                "more than {PATHS_MAX} forward-paths; make it a list"
            )));
        }
        change.commit()?;
        Ok(added)
    }

    /// Removes forward-paths, or the whole alias when none are named or none is left; returns those removed.
    pub fn remove_alias(
        &mut self,
        alias: &Address,
        paths: &[Address],
    ) -> Result<Vec<String>, Error> {
        let before = self.alias(alias)?;
        let change = self.change()?;
        let mut removed = Vec::new();
        for path in before {
            if paths.is_empty() || paths.iter().any(|other| other.key() == path.key()) {
                change.execute(
                    "DELETE FROM forward WHERE alias = ?1 AND key = ?2",
                    params![alias.key(), path.key()],
                )?;
                removed.push(path.to_string());
            }
        }
        change.execute(
            "DELETE FROM alias WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM forward WHERE alias = ?1)",
            [alias.key()],
        )?;
        change.commit()?;
        Ok(removed)
    }

    /// Where an alias's mail goes.
    pub fn alias(&mut self, alias: &Address) -> Result<Vec<Address>, Error> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT address FROM forward WHERE alias = ?1 ORDER BY key")?;
        let paths = statement
            .query_map([alias.key()], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        if paths.is_empty() {
            return Err(Error::Missing(alias.to_string()));
        }
        paths.iter().map(|text| stored(text)).collect()
    }

    /// All aliases, by address.
    pub fn aliases(&mut self) -> Result<Vec<Alias>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT alias.address, forward.address FROM alias JOIN forward ON forward.alias = alias.key
             ORDER BY alias.key, forward.key",
        )?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(String, String)>, _>>()?;
        let mut aliases: Vec<Alias> = Vec::new();
        for (address, path) in rows {
            match aliases.last_mut() {
                Some(last) if last.address == address => last.paths.push(path),
                _ => aliases.push(Alias {
                    address,
                    paths: vec![path],
                }),
            }
        }
        Ok(aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_lives_as_long_as_it_has_paths() {
        let address = |text| Address::parse(text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let mut store = Store::open(&path, true, std::time::Duration::ZERO).unwrap();
        let joe = address("Joe@lists.example");
        let (a, b) = (address("a@one.example"), address("b@two.example"));
        assert!(matches!(store.add_alias(&joe, &[]), Err(Error::Invalid(_))));
        store.add_alias(&joe, std::slice::from_ref(&b)).unwrap();
        assert_eq!(
            store.add_alias(&joe, &[a.clone(), b.clone()]).unwrap(),
            ["a@one.example"]
        );
        assert_eq!(
            store.alias(&address("JOE@lists.example")).unwrap(),
            [a.clone(), b]
        );
        assert!(matches!(store.create_list(&joe, &[]), Err(Error::Taken(_))));
        assert_eq!(store.remove_alias(&joe, &[a]).unwrap(), ["a@one.example"]);
        assert_eq!(store.aliases().unwrap().len(), 1);
        assert_eq!(store.remove_alias(&joe, &[]).unwrap(), ["b@two.example"]);
        assert!(matches!(store.alias(&joe), Err(Error::Missing(_))));
        assert!(store.names().unwrap().is_empty());
    }
}
