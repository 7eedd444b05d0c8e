//! Members in the directory, and the snapshot of them that a post is expanded to.

use mail::Address;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::lists::{list_id, now};
use super::{Error, Store, stored};

/// What adding a member found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Joined {
    /// It is a member now.
    New,
    /// It was one already, perhaps in another spelling, which is kept.
    Already,
}

/// A post as it is expanded: its number, and every member in the order of domains, all of one state of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The post's number.
    pub number: u64,
    /// The members, those of one domain together.
    pub members: Vec<Address>,
}

impl Store {
    /// Adds members, all or none; returns what was found for each.
    pub fn add_members(
        &mut self,
        list: &Address,
        members: &[Address],
    ) -> Result<Vec<Joined>, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            if member.key() == list.key() {
                return Err(Error::Invalid(format!(
                    "{list} cannot be a member of itself"
                )));
            }
            let added = change.execute(
                "INSERT INTO member (list, domain, key, address, joined) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
                params![id, member.domain().as_str(), member.key(), member.to_string(), now()],
            )?;
            found.push(match added {
                0 => Joined::Already,
                _ => Joined::New,
            });
        }
        change.commit()?;
        Ok(found)
    }

    /// Removes members, all or none; returns for each whether it was one.
    pub fn remove_members(
        &mut self,
        list: &Address,
        members: &[Address],
    ) -> Result<Vec<bool>, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            let gone = change.execute(
                "DELETE FROM member WHERE list = ?1 AND domain = ?2 AND key = ?3",
                params![id, member.domain().as_str(), member.key()],
            )?;
            change.execute(
                "DELETE FROM bounce WHERE list = ?1 AND key = ?2",
                params![id, member.key()],
            )?;
            found.push(gone > 0);
        }
        change.commit()?;
        Ok(found)
    }

    /// The spelling under which an address is a member, if it is one.
    pub fn member(&mut self, list: &Address, member: &Address) -> Result<Option<Address>, Error> {
        let id = list_id(&self.connection, list)?;
        self.connection
            .query_row(
                "SELECT address FROM member WHERE list = ?1 AND domain = ?2 AND key = ?3",
                params![id, member.domain().as_str(), member.key()],
                |row| row.get::<_, String>(0),
            )
            .optional()?
            .map(|text| stored(&text))
            .transpose()
    }

    /// All members, those of one domain together.
    pub fn members(&mut self, list: &Address) -> Result<Vec<Address>, Error> {
        let id = list_id(&self.connection, list)?;
        members_of(&self.connection, id)
    }

    /// The number of this message on this list, allotted once however often it is asked for, and the members at this moment.
    pub fn posting(&mut self, list: &Address, message: &str) -> Result<Posting, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let known: Option<i64> = change
            .query_row(
                "SELECT number FROM post WHERE list = ?1 AND message = ?2",
                params![id, message],
                |row| row.get(0),
            )
            .optional()?;
        let number = match known {
            Some(number) => number,
            None => {
                let number: i64 = change.query_row(
                    "UPDATE list SET last_post = last_post + 1 WHERE id = ?1 RETURNING last_post",
                    [id],
                    |row| row.get(0),
                )?;
                change.execute(
                    "INSERT INTO post (list, message, number, time) VALUES (?1, ?2, ?3, ?4)",
                    params![id, message, number, now()],
                )?;
                number
            }
        };
        let members = members_of(&change, id)?;
        change.commit()?;
        Ok(Posting {
            number: number as u64,
            members,
        })
    }
}

fn members_of(connection: &rusqlite::Connection, list: i64) -> Result<Vec<Address>, Error> {
    let mut statement = connection
        .prepare_cached("SELECT address FROM member WHERE list = ?1 ORDER BY domain, key")?;
    let mut rows = statement.query([list])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        members.push(stored(row.get_ref(0)?.as_str().map_err(|error| {
            Error::Unavailable(format!("stored member: {error}"))
        })?)?);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("d.sqlite"), true, Duration::ZERO).unwrap();
        (folder, store)
    }

    #[test]
    fn spelling_is_kept_and_case_does_not_matter() {
        let (_folder, mut store) = store();
        let list = address("Dev@lists.example");
        store.create_list(&list, &[]).unwrap();
        let added = store
            .add_members(
                &address("dev@LISTS.example"),
                &[address("Joe@One.example"), address("joe@one.example")],
            )
            .unwrap();
        assert_eq!(added, [Joined::New, Joined::Already]);
        assert_eq!(store.members(&list).unwrap(), [address("Joe@one.example")]);
        assert_eq!(
            store.member(&list, &address("JOE@one.example")).unwrap(),
            Some(address("Joe@one.example"))
        );
        assert_eq!(
            store
                .remove_members(
                    &list,
                    &[address("jOE@one.example"), address("x@one.example")]
                )
                .unwrap(),
            [true, false]
        );
        assert_eq!(store.members(&list).unwrap(), []);
    }

    #[test]
    fn one_bad_member_adds_none() {
        let (_folder, mut store) = store();
        let list = address("dev@lists.example");
        store.create_list(&list, &[]).unwrap();
        let refused = store.add_members(&list, &[address("a@one.example"), list.clone()]);
        assert!(matches!(refused, Err(Error::Invalid(_))));
        assert_eq!(store.members(&list).unwrap(), []);
    }

    #[test]
    fn a_message_has_one_number_however_often_it_is_expanded() {
        let (_folder, mut store) = store();
        let list = address("dev@lists.example");
        store.create_list(&list, &[]).unwrap();
        store
            .add_members(&list, &[address("b@two.example"), address("a@one.example")])
            .unwrap();
        let first = store.posting(&list, "m1").unwrap();
        assert_eq!(first.number, 1);
        assert_eq!(
            first.members,
            [address("a@one.example"), address("b@two.example")]
        );
        assert_eq!(store.posting(&list, "m2").unwrap().number, 2);
        assert_eq!(store.posting(&list, "m1").unwrap().number, 1);
        assert_eq!(store.show_list(&list).unwrap().last_post, 2);
        assert!(matches!(
            store.posting(&address("other@lists.example"), "m1"),
            Err(Error::Missing(_))
        ));
    }
}
