//! Figures: what a benchmark states, kept in `target/figures.json` and printed as a row of a table. Every benchmark of
//! `figures/` reports through here, so that they all read alike. Never decides whether a build is good: a goal that is missed is
//! told, not failed, since the machine may have been busy with something else.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
    /// Nothing; it is stated so that it can be compared with later ones.
    Stated,
}

impl Goal {
    /// Whether a value reaches it; nothing when none is set.
    pub fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
            Self::Stated => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::Stated => f.write_str("stated"),
        }
    }
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name; a later one of the same name takes its place.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what: `ratio`, `seconds`, `bytes`, ...
    pub unit: &'static str,
    /// What is wanted.
    pub goal: Goal,
    /// What it was measured against in the same run; empty where there is nothing.
    pub peer: &'static str,
    /// Sizes, single measurements, and what else one must know to believe it.
    pub detail: String,
}

impl Figure {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "goal": self.goal.to_string(),
            "peer": self.peer,
            "detail": self.detail,
        })
    }
}

impl fmt::Display for Figure {
    /// A row of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = match self.goal.is_met(self.value) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        write!(
            f,
            "{:<32} {:>14} {:<12} {:<10} {met:<7} {}",
            self.name,
            readable(self.value),
            self.unit,
            self.goal.to_string(),
            self.detail
        )
    }
}

/// As many digits as mean something.
fn readable(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Where the figures are kept: `FIGURES` names another file.
pub fn path() -> PathBuf {
    std::env::var_os("FIGURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/figures.json"),
        PathBuf::from,
    )
}

/// Prints a figure's row and keeps it among the others.
pub fn report(figure: &Figure) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{figure}")?;
    merge(&path(), figure)
}

/// Prints all that is kept, as a table.
pub fn show() -> io::Result<()> {
    let path = path();
    let list: Vec<Value> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) => {
            let why = format!("{}: {error}; `make figures` makes it", path.display());
            return Err(io::Error::new(error.kind(), why));
        }
    };
    let mut out = io::stdout().lock();
    for figure in &list {
        let text = |key| figure.get(key).and_then(Value::as_str).unwrap_or_default();
        let value = figure.get("value").and_then(Value::as_f64);
        writeln!(
            out,
            "{:<34} {:>12} {:<12} {:<10} {}",
            text("name"),
            value.map_or_else(|| "-".to_owned(), readable),
            text("unit"),
            text("goal"),
            text("peer")
        )?;
    }
    writeln!(out, "details: {}", path.display())
}

/// Puts a figure into the list at `path`, in place of an earlier one of its name. What cannot be read as a list is an error:
/// it may be somebody's.
fn merge(path: &Path, figure: &Figure) -> io::Result<()> {
    // Two benchmarks may end at the same time.
    let lock = std::fs::File::create(path.with_extension("lock"))?;
    lock.lock()?;
    let mut list: Vec<Value> = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    list.retain(|kept| kept.get("name").and_then(Value::as_str) != Some(figure.name));
    list.push(figure.json());
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec_pretty(&list)?)?;
    std::fs::rename(&new, path)
}

/// The middle one of an odd number of values, the mean of the two in the middle of an even one; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => at(count / 2),
        count => f64::midpoint(at(count / 2 - 1), at(count / 2)),
    }
}

/// Whether a benchmark runs at its full size (`-- --full`) or at one that is over in a minute.
pub fn is_full() -> bool {
    std::env::args().any(|argument| argument == "--full")
}

/// Whether a figure is asked for: `ONLY` names some, all when it is not set.
pub fn is_wanted(name: &str) -> bool {
    match std::env::var("ONLY") {
        Ok(only) if !only.is_empty() => only.split(',').any(|wanted| wanted == name),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, value: f64) -> Figure {
        Figure {
            name,
            value,
            unit: "ratio",
            goal: Goal::AtLeast(0.7),
            peer: "a bare loop",
            detail: "64 producers".into(),
        }
    }

    #[test]
    fn a_later_figure_takes_the_place_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        for (name, value) in [("a", 1.0), ("b", 2.0), ("a", 3.0)] {
            merge(&path, &figure(name, value)).unwrap();
        }
        let list: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let kept: Vec<_> = list
            .iter()
            .map(|figure| {
                (
                    figure["name"].as_str().unwrap(),
                    figure["value"].as_f64().unwrap(),
                )
            })
            .collect();
        assert_eq!(kept, [("b", 2.0), ("a", 3.0)]);
        assert_eq!(list[0]["goal"], ">= 0.7");
        std::fs::write(&path, "{}").unwrap();
        assert!(merge(&path, &figure("a", 1.0)).is_err());
    }

    #[test]
    fn goals_are_met_or_missed_or_not_set() {
        for (goal, value, met) in [
            (Goal::AtLeast(0.7), 0.7, Some(true)),
            (Goal::AtLeast(0.7), 0.69, Some(false)),
            (Goal::AtMost(1.2), 1.2, Some(true)),
            (Goal::AtMost(1.2), 1.3, Some(false)),
            (Goal::AtMost(1.2), f64::NAN, Some(false)),
            (Goal::Stated, 5.0, None),
        ] {
            assert_eq!(goal.is_met(value), met, "{goal} {value}");
        }
        assert!(figure("a", 0.5).to_string().contains("MISSED"));
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
    }
}
