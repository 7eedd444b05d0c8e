//! Counts in the directory: bounces of members, allowances of a day, and the reports that were not sent.

use mail::{Address, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;

use super::lists::{list_id, now};
use super::{Error, Store};

/// Suppressed reports that are kept for showing; the oldest leave first.
const SUPPRESSED_MAX: i64 = 10_000;
/// A bounce's reason is cut to so many octets.
const REASON_BYTES_MAX: usize = 400;

/// What bounced of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BounceLine {
    /// The member.
    pub member: String,
    /// How many posts bounced.
    pub posts: u64,
    /// The last of them.
    pub last_post: u64,
    /// When.
    pub last: String,
    /// Why, as far as it was told.
    pub reason: String,
}

/// A report that was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// When.
    pub time: String,
    /// Of which message.
    pub message: String,
    /// To whom it would have gone.
    pub reverse_path: String,
    /// Why it did not.
    pub reason: String,
    /// Of whom it would have told.
    pub recipients: String,
    /// What of them: `failed`, `relayed`, `delivered`.
    pub action: String,
}

impl Store {
    /// Counts that post `number` bounced for a member, once. False when it was counted before, or is no post to a member.
    pub fn count_bounce(
        &mut self,
        list: &Address,
        member: &Address,
        number: u64,
        reason: &str,
    ) -> Result<bool, Error> {
        let change = self.change()?;
        let id = list_id(&change, list)?;
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let counted = change.execute(
            "INSERT INTO bounce (list, key, number, time, reason)
             SELECT ?1, ?3, ?4, ?5, ?6
             WHERE EXISTS (SELECT 1 FROM member WHERE list = ?1 AND domain = ?2 AND key = ?3)
               AND EXISTS (SELECT 1 FROM list WHERE id = ?1 AND ?4 BETWEEN 1 AND last_post)
             ON CONFLICT DO NOTHING",
            params![
                id,
                member.domain().as_str(),
                member.key(),
                number,
                now(),
                cut(reason)
            ],
        )?;
        change.commit()?;
        Ok(counted > 0)
    }

    /// What bounced of a list's members, worst first.
    pub fn bounces(&mut self, list: &Address) -> Result<Vec<BounceLine>, Error> {
        let id = list_id(&self.connection, list)?;
        // SQLite gives the bare columns of the row that holds the maximum.
        let mut statement = self.connection.prepare_cached(
            "SELECT coalesce((SELECT address FROM member WHERE list = ?1 AND member.key = bounce.key), bounce.key),
                    count(*), number, max(time), reason
             FROM bounce WHERE list = ?1 GROUP BY bounce.key ORDER BY count(*) DESC, bounce.key",
        )?;
        let lines = statement
            .query_map([id], |row| {
                Ok(BounceLine {
                    member: row.get(0)?,
                    posts: row.get::<_, i64>(1)? as u64,
                    last_post: row.get::<_, i64>(2)? as u64,
                    last: Timestamp(row.get::<_, i64>(3)? as u64).rfc3339(),
                    reason: row.get(4)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(lines)
    }

    /// Forgets bounces from before `before`; returns how many.
    pub fn forget_bounces(&mut self, before: Timestamp) -> Result<usize, Error> {
        Ok(self
            .connection
            .execute("DELETE FROM bounce WHERE time < ?1", [before.0 as i64])?)
    }

    /// Takes one of `per_day` allowances of a kind that an address has today (UTC); false when none is left.
    pub fn allow(&mut self, kind: &str, key: &str, per_day: u32) -> Result<bool, Error> {
        let change = self.change()?;
        let taken = take_allowance(&change, kind, key, per_day)?;
        change.commit()?;
        Ok(taken)
    }

    /// Notes a report that was not sent.
    pub fn note_suppressed(
        &mut self,
        message: &str,
        reverse_path: &str,
        (action, reason): (&str, &str),
        recipients: &str,
    ) -> Result<(), Error> {
        let change = self.change()?;
        change.execute(
            "INSERT INTO suppressed (time, message, reverse_path, reason, recipients, action) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![now(), message, reverse_path, reason, cut(recipients), action],
        )?;
        change.execute(
            "DELETE FROM suppressed WHERE id <= (SELECT max(id) FROM suppressed) - ?1",
            [SUPPRESSED_MAX],
        )?;
        Ok(change.commit()?)
    }

    /// The reports that were not sent, newest first.
    pub fn suppressed(&mut self, limit: u32) -> Result<Vec<Suppressed>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT time, message, reverse_path, reason, recipients, action FROM suppressed ORDER BY id DESC LIMIT ?1",
        )?;
        let lines = statement
            .query_map([limit], |row| {
                Ok(Suppressed {
                    time: Timestamp(row.get::<_, i64>(0)? as u64).rfc3339(),
                    message: row.get(1)?,
                    reverse_path: row.get(2)?,
                    reason: row.get(3)?,
                    recipients: row.get(4)?,
                    action: row.get(5)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(lines)
    }
}

/// [`Store::allow`] within a change.
pub(super) fn take_allowance(
    change: &Transaction<'_>,
    kind: &str,
    key: &str,
    per_day: u32,
) -> Result<bool, Error> {
    let day = now() / 86_400_000;
    change.execute("DELETE FROM allowance WHERE day < ?1", [day])?;
    let used: Option<u32> = change
        .query_row(
            "SELECT used FROM allowance WHERE kind = ?1 AND key = ?2 AND day = ?3",
            params![kind, key, day],
            |row| row.get(0),
        )
        .optional()?;
    if used.unwrap_or(0) >= per_day {
        return Ok(false);
    }
    change.execute(
        "INSERT INTO allowance (kind, key, day, used) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT DO UPDATE SET used = used + 1",
        params![kind, key, day],
    )?;
    Ok(true)
}

/// At most [`REASON_BYTES_MAX`] octets, whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let store = Store::open(&path, true, std::time::Duration::ZERO).unwrap();
        (folder, store)
    }

    #[test]
    fn a_post_counts_once_a_member() {
        let (_folder, mut store) = store();
        let list = address("dev@lists.example");
        let joe = address("Joe@one.example");
        store.create_list(&list, &[]).unwrap();
        store
            .add_members(&list, std::slice::from_ref(&joe))
            .unwrap();
        store.posting(&list, "m1").unwrap();
        let table = [
            ("joe@one.example", 1, true),
            ("Joe@one.example", 1, false),  // again
            ("joe@one.example", 2, false),  // no such post yet
            ("joe@one.example", 0, false),  // nor this
            ("else@one.example", 1, false), // no member
        ];
        for (member, number, counted) in table {
            let got = store.count_bounce(&list, &address(member), number, "550 no");
            assert_eq!(got, Ok(counted), "{member} {number}");
        }
        let lines = store.bounces(&list).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0].member.as_str(), lines[0].posts, lines[0].last_post),
            ("Joe@one.example", 1, 1)
        );
        assert_eq!(store.forget_bounces(Timestamp(u64::MAX >> 1)).unwrap(), 1);
    }

    #[test]
    fn allowances_end() {
        let (_folder, mut store) = store();
        for left in [true, true, false, false] {
            assert_eq!(store.allow("answer", "joe@one.example", 2), Ok(left));
        }
        assert_eq!(store.allow("answer", "ann@one.example", 2), Ok(true));
        assert_eq!(store.allow("dsn", "joe@one.example", 2), Ok(true));
    }
}
