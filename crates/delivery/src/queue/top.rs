//! Where the backlog is: recipients that wait by site, domain, list or sender, in columns by age.

use std::collections::HashMap;
use std::time::Duration;

use mail::Timestamp;
use serde_json::{Value, json};
use service::config::duration;
use spool::Found;

use super::walk::{meant, walk};
use super::{Queue, Refusal, Words, destination};

/// What lines are made by.
pub(super) const BY: [&str; 4] = ["site", "domain", "list", "sender"];
/// The ends of the columns.
pub(super) const AGES: &str = "5m,10m,20m,40m,80m,4h,1d,5d";
/// Columns that a line may have.
const COLUMNS_MAX: usize = 20;
/// Lines that are told apart while it is counted; the rest is one line.
const LINES_MAX: usize = 100_000;

/// What is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Site,
    Domain,
    List,
    Sender,
}

/// A line in the making.
#[derive(Clone, Debug)]
struct Line {
    /// One more than there are ages: what is older than the last.
    columns: Vec<u64>,
    total: u64,
    held: u64,
    oldest: Timestamp,
}

impl Line {
    fn new(columns: usize) -> Self {
        Self {
            columns: vec![0; columns],
            total: 0,
            held: 0,
            oldest: Timestamp(u64::MAX),
        }
    }

    fn add(&mut self, column: usize, recipients: u64, found: &Found) {
        self.columns[column] += recipients;
        self.total += recipients;
        self.held += u64::from(found.batch.held.is_some()) * recipients;
        self.oldest = self.oldest.min(found.head.arrival);
    }

    fn json(&self, name: &str, now: Timestamp) -> Value {
        json!({
            "name": name,
            "recipients": self.total,
            "held": self.held,
            "ages": self.columns,
            "oldest": self.oldest.rfc3339(),
            "oldest_seconds": now.since(self.oldest).as_secs(),
        })
    }
}

impl Queue {
    /// The `limit` lines with most recipients, all others as one, and the sum.
    pub(super) async fn top(
        &self,
        words: &Words,
        by: &str,
        ages: &str,
        limit: usize,
    ) -> Result<Value, Refusal> {
        let by = parse_by(by)?;
        let ages = parse_ages(ages)?;
        let (predicate, unknown) = self.predicate(words).await?;
        let now = Timestamp::now();
        let mut total = Line::new(ages.len() + 1);
        let mut others = total.clone();
        let mut lines: HashMap<String, Line> = HashMap::new();
        walk(&*self.spool, &predicate, |found| {
            let recipients = meant(&predicate, found);
            let column = column(&ages, now.since(found.head.arrival));
            total.add(column, recipients, found);
            let name = self.name(by, found);
            let line = match lines.len() < LINES_MAX || lines.contains_key(&name) {
                true => lines
                    .entry(name)
                    .or_insert_with(|| Line::new(ages.len() + 1)),
                false => &mut others,
            };
            line.add(column, recipients, found);
            true
        })
        .await?;
        let mut lines: Vec<(String, Line)> = lines.into_iter().collect();
        lines.sort_by(|(a, one), (b, other)| other.total.cmp(&one.total).then(a.cmp(b)));
        for (_, line) in lines.split_off(lines.len().min(limit)) {
            for (sum, more) in others.columns.iter_mut().zip(line.columns) {
                *sum += more;
            }
            others.total += line.total;
            others.held += line.held;
            others.oldest = others.oldest.min(line.oldest);
        }
        let ages: Vec<String> = ages.into_iter().filter_map(duration::format).collect();
        Ok(json!({
            "by": BY[by as usize],
            "unknown_domains": unknown,
            "ages": ages,
            "total": (total.total > 0).then(|| total.json("total", now)),
            "lines": lines.iter().map(|(name, line)| line.json(name, now)).collect::<Vec<_>>(),
            "others": (others.total > 0).then(|| others.json("others", now)),
        }))
    }

    fn name(&self, by: By, found: &Found) -> String {
        let place = &found.batch.destination;
        match by {
            By::Site => self.site_name(place),
            By::Domain => match self.names.by_domain() {
                true => destination(place),
                false => {
                    let first = found.batch.recipients.first();
                    first.map_or_else(String::new, |r| r.address.domain().to_string())
                }
            },
            By::List => {
                let list = self.names.list(&found.head, &found.batch);
                list.unwrap_or_else(|| "none".into())
            }
            By::Sender => match found.head.reverse_path.address() {
                None => "<>".into(),
                Some(address) => address.to_string(),
            },
        }
    }
}

fn column(ages: &[Duration], age: Duration) -> usize {
    ages.iter().position(|end| age < *end).unwrap_or(ages.len())
}

fn parse_by(text: &str) -> Result<By, Refusal> {
    match text {
        "site" => Ok(By::Site),
        "domain" => Ok(By::Domain),
        "list" => Ok(By::List),
        "sender" => Ok(By::Sender),
        other => Err(Refusal::asked(format!(
            "--by {other:?} is not one of {}",
            BY.join(", ")
        ))),
    }
}

fn parse_ages(text: &str) -> Result<Vec<Duration>, Refusal> {
    let wrong = |why: &str| {
        Refusal::asked(format!(
            "--ages {text:?}: {why}; give up to {COLUMNS_MAX} ages that grow, such as {AGES}"
        ))
    };
    let ages = text.split(',').map(duration::parse);
    let ages: Vec<Duration> = ages.collect::<Result<_, _>>().map_err(|why| wrong(&why))?;
    match ages.len() <= COLUMNS_MAX && ages.is_sorted_by(|a, b| a < b) {
        true => Ok(ages),
        false => Err(wrong("they do not grow, or are too many")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_columns() {
        let ages = parse_ages("5m,10m,1d").unwrap();
        for (seconds, expected) in [(0, 0), (299, 0), (300, 1), (599, 1), (600, 2), (90_000, 3)] {
            assert_eq!(
                column(&ages, Duration::from_secs(seconds)),
                expected,
                "{seconds}"
            );
        }
        assert_eq!(parse_ages(AGES).unwrap().len(), 8);
        for wrong in ["", "5m,", "10m,5m", "5m,5m", "5"] {
            assert!(parse_ages(wrong).is_err(), "{wrong}");
        }
        for by in BY {
            assert!(parse_by(by).is_ok());
        }
        let told = parse_by("colour").unwrap_err().1;
        assert!(told.contains("site, domain, list, sender"), "{told}");
    }
}
