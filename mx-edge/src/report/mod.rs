//! What was counted day by day, kept on disk over restarts: for the daily report. Takes what the metrics have grown by at short
//! intervals, so that nothing is counted twice and no session pays for it. A kill -9 loses at most one interval of the counts
//! (never mail); days are UTC.

mod print;
mod summary;
mod top;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mail::Timestamp;
use prometheus::Registry;
use prometheus::proto::MetricType;
use serde::{Deserialize, Serialize};
use service::shutdown::Shutdown;
use tracing::warn;

use crate::config;
use crate::state;

pub use print::text;
pub use summary::summary;
pub use top::{Tables, Tops};

/// Where days are kept, in the state folder.
const FOLDER: &str = "report";
/// Counters of this program; others are no matter of mail.
const PREFIX: &str = "mx_edge_";
/// Counters of one day. Labels are words of ours and names of lists; the bound is for what nobody thought of.
const COUNTS_MAX: usize = 10_000;

/// One day's counts: `recipients_total{reason=accepted}` each.
pub type Counts = BTreeMap<String, u64>;

/// One day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// `2026-11-25`.
    pub day: String,
    /// How often the program was started on it.
    pub starts: u64,
    /// What was counted.
    pub counts: Counts,
    /// Of whom most.
    #[serde(default)]
    pub top: Tables,
}

/// All days.
pub struct Days {
    folder: PathBuf,
    registry: Registry,
    tops: Arc<Tops>,
    settings: config::Report,
    present: Mutex<Present>,
    /// One writes at a time: two would share a temporary file.
    writing: Mutex<()>,
}

struct Present {
    day: Day,
    /// What the metrics said the last time.
    seen: Counts,
}

impl Days {
    /// Goes on with what was counted today.
    pub fn open(
        state: &Path,
        registry: &Registry,
        tops: &Arc<Tops>,
        settings: &config::Report,
    ) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        state::make_folder(&folder)?;
        let today = date(Timestamp::now());
        let mut day = read(&folder, &today)?.unwrap_or_default();
        day.day = today;
        day.starts += 1;
        tops.with(|tables| tables.clone_from(&day.top));
        Ok(Self {
            folder,
            registry: registry.clone(),
            tops: Arc::clone(tops),
            settings: settings.clone(),
            present: Mutex::new(Present {
                day,
                seen: Counts::new(),
            }),
            writing: Mutex::new(()),
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        // A panic elsewhere leaves counts that are whole each.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes and writes from time to time, until shutdown.
    pub async fn keep(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.settings.write_interval) => {}
                () = shutdown.wait() => return,
            }
            let this = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || this.write()).await;
            if let Ok(Err(error)) = written {
                warn!(event = "report", path = %self.folder.display(), %error, "counts not written");
            }
        }
    }

    /// Takes what was counted since the last time and writes it, synced.
    pub fn write(&self) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, present) = self.take(Timestamp::now());
        if let Some(ended) = ended {
            put(&self.folder, &ended)?;
            self.forget(Timestamp::now())?;
        }
        put(&self.folder, &present)
    }

    /// The day that has just ended, and the present one. What was counted around midnight is the old day's.
    fn take(&self, now: Timestamp) -> (Option<Day>, Day) {
        let mut present = self.present();
        let said = counts(&self.registry);
        for (name, value) in &said {
            let grown = value.saturating_sub(present.seen.get(name).copied().unwrap_or(0));
            let day = &mut present.day.counts;
            if grown > 0 && (day.contains_key(name) || day.len() < COUNTS_MAX) {
                *day.entry(name.clone()).or_default() += grown;
            }
        }
        present.seen = said;
        let today = date(now);
        let over = present.day.day != today;
        present.day.top = self.tops.with(|tables| match over {
            true => std::mem::take(tables),
            false => tables.clone(),
        });
        let ended = over.then(|| {
            let next = Day {
                day: today,
                ..Day::default()
            };
            std::mem::replace(&mut present.day, next)
        });
        (ended, present.day.clone())
    }

    /// A day's counts; none when nothing is known of it. `2026-11-25`, `today` or `yesterday`.
    pub fn day(&self, asked: &str) -> Result<Option<Day>, String> {
        let now = Timestamp::now();
        let asked = match asked {
            "today" => date(now),
            "yesterday" => date(Timestamp(now.0.saturating_sub(24 * 3600 * 1000))),
            date if is_date(date) => date.to_owned(),
            other => {
                return Err(format!(
                    "{other:?} is no day; give one like 2026-11-25, today or yesterday"
                ));
            }
        };
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, present) = self.take(now);
        for day in ended.into_iter().chain([present]) {
            if day.day == asked {
                return Ok(Some(day));
            }
            put(&self.folder, &day).map_err(|error| error.to_string())?;
        }
        read(&self.folder, &asked).map_err(|error| error.to_string())
    }

    /// Whether a day is not over yet.
    pub fn is_today(&self, day: &Day) -> bool {
        self.present().day.day == day.day
    }

    /// Takes a client out of the days that are kept; returns of how many.
    pub fn erase(&self, client: IpAddr) -> io::Result<u64> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut erased = u64::from(self.tops.with(|tables| tables.erase(client)));
        let (ended, present) = self.take(Timestamp::now());
        for day in ended.into_iter().chain([present]) {
            put(&self.folder, &day)?;
        }
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let day = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let Some(mut day) = day
                .filter(|day| is_date(day))
                .map(|day| read(&self.folder, day))
                .transpose()?
                .flatten()
            else {
                continue;
            };
            if day.top.erase(client) {
                put(&self.folder, &day)?;
                erased += 1;
            }
        }
        Ok(erased)
    }

    /// Removes days that are older than is kept.
    fn forget(&self, now: Timestamp) -> io::Result<()> {
        let oldest = Duration::from_millis(now.0).saturating_sub(self.settings.retention);
        let oldest = date(Timestamp(oldest.as_millis() as u64));
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let day = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if day.is_some_and(|day| is_date(day) && day < oldest.as_str()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn file(folder: &Path, day: &str) -> PathBuf {
    folder.join(format!("{day}.json"))
}

fn put(folder: &Path, day: &Day) -> io::Result<()> {
    state::write_synced(&file(folder, &day.day), &serde_json::to_vec(day)?)
}

fn read(folder: &Path, day: &str) -> io::Result<Option<Day>> {
    let path = file(folder, day);
    match state::read(&path)? {
        None => Ok(None),
        Some(bytes) => match serde_json::from_slice(&bytes) {
            Ok(day) => Ok(Some(day)),
            Err(error) => {
                warn!(event = "report", path = %path.display(), %error, "not read; the day begins anew");
                Ok(None)
            }
        },
    }
}

fn date(now: Timestamp) -> String {
    now.rfc3339().chars().take(10).collect()
}

fn is_date(text: &str) -> bool {
    let form = |(at, b): (usize, u8)| match at {
        4 | 7 => b == b'-',
        _ => b.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(form)
}

/// All counters of this program as they stand.
fn counts(registry: &Registry) -> Counts {
    let mut counts = Counts::new();
    for family in registry.gather() {
        let Some(name) = family.name().strip_prefix(PREFIX) else {
            continue;
        };
        if family.get_field_type() != MetricType::COUNTER {
            continue;
        }
        for metric in family.get_metric() {
            let labels: Vec<String> = (metric.get_label().iter())
                .map(|label| format!("{}={}", label.name(), label.value()))
                .collect();
            let value = metric.get_counter().get_value();
            counts.insert(format!("{name}{{{}}}", labels.join(",")), value as u64);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts};

    use super::*;

    const CLIENT: &str = "192.0.2.7";

    fn counters(registry: &Registry) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new("mx_edge_x_total", "x"), &["a"]).unwrap();
        registry.register(Box::new(counters.clone())).unwrap();
        counters
    }

    #[test]
    fn counts_go_on_over_a_restart_and_a_midnight() {
        let folder = tempfile::tempdir().unwrap();
        let settings = config::Report::default();
        for life in 1..=2 {
            let registry = Registry::new();
            let x = counters(&registry);
            let tops = Arc::new(Tops::default());
            let days = Days::open(folder.path(), &registry, &tops, &settings).unwrap();
            x.with_label_values(&["b"]).inc_by(3);
            tops.taken("ann@a.example");
            tops.refused(CLIENT.parse().unwrap(), 550);
            days.write().unwrap();
            days.write().unwrap();
            let today = days.day("today").unwrap().unwrap();
            assert_eq!(today.counts["x_total{a=b}"], 3 * life);
            assert_eq!(today.starts, life);
            for table in ["senders", "refused_clients"] {
                assert_eq!(today.top.shown()[table]["all"], life, "{table}");
            }
        }
        let registry = Registry::new();
        let x = counters(&registry);
        let tops = Arc::new(Tops::default());
        let days = Days::open(folder.path(), &registry, &tops, &settings).unwrap();
        x.with_label_values(&["b"]).inc();
        let now = Timestamp::now();
        let (ended, present) = days.take(now.after(Duration::from_secs(24 * 3600)));
        let ended = ended.unwrap();
        assert_eq!(ended.counts["x_total{a=b}"], 7);
        assert_eq!(ended.top.shown()["senders"]["all"], 2);
        assert_eq!((present.counts.len(), present.starts), (0, 0));
        assert_eq!(present.top, Tables::default());
    }

    #[test]
    fn a_client_is_taken_out_of_every_day() {
        let folder = tempfile::tempdir().unwrap();
        let tops = Arc::new(Tops::default());
        let settings = config::Report::default();
        let days = Days::open(folder.path(), &Registry::new(), &tops, &settings).unwrap();
        let client = CLIENT.parse().unwrap();
        tops.refused(client, 550);
        let old = Day {
            day: "2001-01-01".into(),
            top: tops.with(|tables| tables.clone()),
            ..Day::default()
        };
        put(&days.folder, &old).unwrap();
        assert_eq!(days.erase(client).unwrap(), 2);
        for day in ["2001-01-01", "today"] {
            let top = days.day(day).unwrap().unwrap().top.shown();
            assert!(!top.to_string().contains(CLIENT), "{day}: {top}");
            assert_eq!(top["refused_clients"]["others"], 1, "{day}");
        }
        assert_eq!(days.erase(client).unwrap(), 0);
    }

    #[test]
    fn what_is_no_day_is_said_and_old_days_go() {
        let folder = tempfile::tempdir().unwrap();
        let settings = config::Report::default();
        let days = Days::open(folder.path(), &Registry::new(), &Arc::default(), &settings).unwrap();
        for wrong in ["", "tomorrow", "2026-1-1", "../../etc/x", "2026-11-2x"] {
            assert!(days.day(wrong).is_err(), "{wrong}");
        }
        assert_eq!(days.day("2001-01-01"), Ok(None));
        let old = file(&days.folder, "2001-01-01");
        std::fs::write(&old, "{}").unwrap();
        days.forget(Timestamp::now()).unwrap();
        assert!(!old.exists());
    }
}
