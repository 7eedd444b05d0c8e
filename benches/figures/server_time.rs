//! Processor time of a server: a process with all that descends from it, those that have ended too.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// A process writes down its time in these, a second.
const TICKS: f64 = 100.0;

/// Processor time so far, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerTime {
    /// Of all but those that only write logs.
    pub work: f64,
    /// Of those that only write logs.
    pub log: f64,
}

struct Stat {
    name: String,
    parent: u32,
    own: f64,
    /// Of children that have ended and were waited for.
    ended: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Stat {
        name,
        parent: number(1)? as u32,
        own: (number(11)? + number(12)?) / TICKS,
        ended: (number(13)? + number(14)?) / TICKS,
    })
}

impl ServerTime {
    /// Of a process and its descendants. `postlogd` does for Postfix what journald does for a program that logs to stderr, so it is
    /// kept apart.
    pub fn of(pid: u32) -> Self {
        let mut all: BTreeMap<u32, Stat> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let found = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = found
                && let Some(stat) = stat(pid)
            {
                all.insert(pid, stat);
            }
        }
        let mut family = BTreeSet::from([pid]);
        loop {
            let children = all.iter().filter(|(_, stat)| family.contains(&stat.parent));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            let before = family.len();
            family.extend(children);
            if family.len() == before {
                break;
            }
        }
        let mut time = Self::default();
        for stat in family.iter().filter_map(|pid| all.get(pid)) {
            match stat.name.as_str() {
                "postlogd" => time.log += stat.own,
                _ => time.work += stat.own + stat.ended,
            }
        }
        time
    }

    /// What has come since.
    pub fn since(self, before: Self) -> Self {
        Self {
            work: self.work - before.work,
            log: self.log - before.log,
        }
    }
}

/// A line of a process's `/proc/PID/status` that is in kB (`VmRSS`), KiB.
pub fn memory_kib(pid: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    lines
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(f64::NAN)
}
