//! Reports that are gathered before they are sent: one of a kind for each message, with a line for each recipient. What a line says
//! is its writer's; here it is text.

use mail::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::bounces::take_allowance;
use super::{Error, Store};

/// Reports that are taken at once to be sent.
const DUE_MAX: u32 = 64;

/// Tables of this room. They are made in any directory that does not have them: releases that do not know them leave them alone.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS report (
    id TEXT PRIMARY KEY, due INTEGER NOT NULL, sending INTEGER, head TEXT NOT NULL, returned BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS report_due ON report (due);
CREATE TABLE IF NOT EXISTS report_line (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, report TEXT NOT NULL REFERENCES report(id) ON DELETE CASCADE,
    key TEXT NOT NULL, line TEXT NOT NULL,
    UNIQUE (report, key)
);
";

/// What is gathered.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Message and kind.
    pub id: String,
    /// What is common to all lines.
    pub head: String,
    /// What is needed of the message.
    pub returned: Vec<u8>,
    /// Recipients' keys, and what is said of each.
    pub lines: Vec<(String, String)>,
}

/// A report that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Message and kind.
    pub id: String,
    /// The last of its lines: with the id the report's name, the same however often it is taken.
    pub last: i64,
    /// As gathered.
    pub head: String,
    /// As gathered.
    pub returned: Vec<u8>,
    /// As gathered, in order.
    pub lines: Vec<String>,
}

impl Store {
    /// Adds lines to a report, or begins one, which is due then. A recipient that is in it already stays as it was. `allowance`: an
    /// address, and how many reports may be begun for it in a day; false when there is none left.
    pub fn gather_report(
        &mut self,
        report: &Gathered,
        due: Timestamp,
        allowance: Option<(&str, u32)>,
    ) -> Result<bool, Error> {
        let change = self.change()?;
        let begun: Option<i64> = change
            .query_row("SELECT 1 FROM report WHERE id = ?1", [&report.id], |row| {
                row.get(0)
            })
            .optional()?;
        if begun.is_none() {
            if let Some((key, per_day)) = allowance
                && !take_allowance(&change, "dsn", key, per_day)?
            {
                return Ok(false);
            }
            change.execute(
                "INSERT INTO report (id, due, head, returned) VALUES (?1, ?2, ?3, ?4)",
                params![report.id, due.0 as i64, report.head, report.returned],
            )?;
        }
        for (key, line) in &report.lines {
            change.execute(
                "INSERT INTO report_line (report, key, line) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![report.id, key, line],
            )?;
        }
        change.commit()?;
        Ok(true)
    }

    /// Reports that are due, oldest first. Which lines go into each is settled now: taken again after a crash it is the same.
    pub fn due_reports(&mut self, now: Timestamp) -> Result<Vec<Due>, Error> {
        let change = self.change()?;
        change.execute(
            "UPDATE report SET sending = (SELECT max(seq) FROM report_line WHERE report = id)
             WHERE due <= ?1 AND sending IS NULL",
            [now.0 as i64],
        )?;
        let mut all = Vec::new();
        {
            let mut reports = change.prepare_cached(
                "SELECT id, sending, head, returned FROM report WHERE sending IS NOT NULL ORDER BY due LIMIT ?1",
            )?;
            let mut lines = change.prepare_cached(
                "SELECT line FROM report_line WHERE report = ?1 AND seq <= ?2 ORDER BY seq",
            )?;
            let mut rows = reports.query([DUE_MAX])?;
            while let Some(row) = rows.next()? {
                let (id, last): (String, i64) = (row.get(0)?, row.get(1)?);
                let lines = lines.query_map(params![id, last], |row| row.get(0))?;
                let lines = lines.collect::<Result<_, _>>()?;
                all.push(Due {
                    id,
                    last,
                    head: row.get(2)?,
                    returned: row.get(3)?,
                    lines,
                });
            }
        }
        change.commit()?;
        Ok(all)
    }

    /// A report was sent: forgets it, but for lines that came meanwhile, which are due then.
    pub fn end_report(&mut self, sent: &Due, due: Timestamp) -> Result<(), Error> {
        let change = self.change()?;
        change.execute(
            "DELETE FROM report_line WHERE report = ?1 AND seq <= ?2",
            params![sent.id, sent.last],
        )?;
        change.execute(
            "DELETE FROM report WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM report_line WHERE report = ?1)",
            [&sent.id],
        )?;
        change.execute(
            "UPDATE report SET sending = NULL, due = ?2 WHERE id = ?1",
            params![sent.id, due.0 as i64],
        )?;
        Ok(change.commit()?)
    }

    /// When the next report is due.
    pub fn next_report(&mut self) -> Result<Option<Timestamp>, Error> {
        let due: Option<i64> =
            self.connection
                .query_row("SELECT min(due) FROM report", [], |row| row.get(0))?;
        Ok(due.map(|due| Timestamp(due as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, keys: &[&str]) -> Gathered {
        Gathered {
            id: id.into(),
            head: format!("head of {id}"),
            returned: b"Subject: x\r\n".to_vec(),
            lines: keys
                .iter()
                .map(|key| ((*key).to_owned(), format!("line of {key}")))
                .collect(),
        }
    }

    fn lines(due: &[Due]) -> Vec<Vec<&str>> {
        due.iter()
            .map(|one| one.lines.iter().map(String::as_str).collect())
            .collect()
    }

    #[test]
    fn lines_are_gathered_and_sent_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let open = || Store::open(&path, true, std::time::Duration::ZERO).unwrap();
        let mut store = open();
        let at = Timestamp;
        assert_eq!(store.next_report(), Ok(None));
        assert_eq!(
            store.gather_report(&report("m1", &["a"]), at(100), None),
            Ok(true)
        );
        // Said again after a crash, and a second one, which does not make it later.
        store
            .gather_report(&report("m1", &["a", "b"]), at(200), None)
            .unwrap();
        store
            .gather_report(&report("m2", &["c"]), at(150), None)
            .unwrap();
        assert_eq!(store.next_report(), Ok(Some(at(100))));
        assert_eq!(store.due_reports(at(99)), Ok(Vec::new()));
        let due = store.due_reports(at(100)).unwrap();
        assert_eq!(lines(&due), [["line of a", "line of b"]]);

        // One more comes before it is known to be sent; a crash; it is the same report that is sent again.
        store
            .gather_report(&report("m1", &["d"]), at(300), None)
            .unwrap();
        drop(store);
        let mut store = open();
        assert_eq!(store.due_reports(at(120)), Ok(due.clone()));
        store.end_report(&due[0], at(400)).unwrap();
        assert_eq!(store.next_report(), Ok(Some(at(150))));
        let later = store.due_reports(at(400)).unwrap();
        assert_eq!(lines(&later), [["line of c"], ["line of d"]]);
        assert!(later[1].last > due[0].last, "another name");
        for one in &later {
            store.end_report(one, at(500)).unwrap();
        }
        assert_eq!(store.next_report(), Ok(None));
        assert_eq!(store.due_reports(at(1000)), Ok(Vec::new()));
    }

    #[test]
    fn an_allowance_is_for_a_report_and_not_for_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let mut store = Store::open(&path, true, std::time::Duration::ZERO).unwrap();
        let mut gather = |id: &str, key: &str| {
            let report = report(id, &[key]);
            store.gather_report(&report, Timestamp(1), Some(("joe@one.example", 2)))
        };
        let table = [
            ("m1", "a", true),
            ("m1", "b", true),
            ("m2", "a", true),
            ("m3", "a", false),
            ("m2", "b", true), // it has begun
        ];
        for (id, key, allowed) in table {
            assert_eq!(gather(id, key), Ok(allowed), "{id} {key}");
        }
    }
}
