//! Overload as states, each with a high and a low water and one log line a crossing: too many sessions, too little
//! memory. While one of them is above, the edge is under stress: deadlines are short and few errors are borne.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

/// Memory is enough again below this share of the high water.
const MEMORY_LOW: f64 = 0.9;

/// Places are enough again below this share of all.
const PLACES_LOW: f64 = 0.9;

/// A way in must have been open so long: while the inside is away, each try of it looks like one for a moment.
const WAY_OPEN_MIN: Duration = Duration::from_secs(2);

/// Above, from the high water on until below the low one.
#[derive(Debug, Default)]
struct Watermark(bool);

impl Watermark {
    /// Whether this is a crossing.
    fn crosses(&mut self, value: f64, high: f64, low: f64) -> bool {
        let above = if self.0 { value > low } else { value >= high };
        std::mem::replace(&mut self.0, above) != above
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pressure {
    stress: watch::Sender<bool>,
    sessions: Mutex<Watermark>,
    memory: Mutex<Watermark>,
    memory_short: AtomicBool,
    full: Mutex<Watermark>,
    /// When neither way in was open last; none when one has been for long enough.
    shut: Mutex<Option<Instant>>,
    spool_short: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pressure {
    /// Turns true while there is stress.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.stress.subscribe()
    }

    /// Whether there is.
    pub fn is_stressed(&self) -> bool {
        *self.stress.borrow()
    }

    /// So many sessions are open; stress from `high` on, until below `low`.
    pub fn sessions(&self, open: usize, high: usize, low: usize) {
        let mut mark = lock(&self.sessions);
        if mark.crosses(open as f64, high as f64, low as f64) {
            if mark.0 {
                warn!(
                    event = "stress",
                    cause = "sessions",
                    open,
                    high,
                    "deadlines are short now"
                );
            } else {
                info!(event = "stress_over", cause = "sessions", open, low);
            }
            drop(mark);
            self.settle();
        }
    }

    /// So many bytes are in use of so many.
    pub fn memory(&self, used: u64, most: u64) {
        let mut mark = lock(&self.memory);
        if mark.crosses(used as f64, most as f64, most as f64 * MEMORY_LOW) {
            self.memory_short.store(mark.0, Ordering::Relaxed);
            if mark.0 {
                warn!(
                    event = "stress",
                    cause = "memory",
                    used,
                    most,
                    "new clients are told to come later"
                );
            } else {
                info!(event = "stress_over", cause = "memory", used, most);
            }
            drop(mark);
            self.settle();
        }
    }

    /// So many of all places are taken: told once, until a tenth of them is free.
    pub fn places(&self, taken: usize, most: usize) {
        let mut mark = lock(&self.full);
        if mark.crosses(taken as f64, most as f64, most as f64 * PLACES_LOW) {
            match mark.0 {
                true => warn!(
                    event = "full",
                    most, "new connections are told to come later"
                ),
                false => info!(event = "full_over", taken, most),
            }
        }
    }

    /// Whether a message that came now would find no way in, since the spool does not take it and the inside does not answer, and
    /// why; over when a way has been open for a while.
    pub fn ways(&self, shut: Option<&'static str>, now: Instant) {
        let mut last = lock(&self.shut);
        match (shut, *last) {
            (Some(why), before) => {
                *last = Some(now);
                if before.is_none() {
                    self.spool_short.store(true, Ordering::Relaxed);
                    warn!(
                        event = "spool_short",
                        why, "new clients are told to come later"
                    );
                }
            }
            (None, Some(then)) if now.saturating_duration_since(then) >= WAY_OPEN_MIN => {
                *last = None;
                self.spool_short.store(false, Ordering::Relaxed);
                info!(event = "spool_short_over");
            }
            (None, _) => {}
        }
    }

    /// The same, for readiness.
    pub fn ways_in(&self) -> Result<(), String> {
        match self.spool_is_short() {
            true => Err("the spool takes nothing and the inside does not answer".into()),
            false => Ok(()),
        }
    }

    /// Whether new clients must be turned away, since nothing could be done with their mail.
    pub fn spool_is_short(&self) -> bool {
        self.spool_short.load(Ordering::Relaxed)
    }

    /// Whether new clients must be turned away.
    pub fn memory_is_short(&self) -> bool {
        self.memory_short.load(Ordering::Relaxed)
    }

    fn settle(&self) {
        let stressed = lock(&self.sessions).0 || lock(&self.memory).0;
        self.stress
            .send_if_modified(|now| std::mem::replace(now, stressed) != stressed);
    }
}

/// Bytes that this process has in memory; none where that cannot be read.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Three quarters of what this process may have: its control group's limit, else the host's memory.
pub fn memory_bytes_max() -> Option<u64> {
    let host = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = host
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let host: u64 = kib.trim().trim_end_matches(" kB").parse().ok()?;
    let most = group_bytes_max().unwrap_or(u64::MAX).min(host * 1024);
    Some(most / 4 * 3)
}

/// The limit of the control group (version 2).
fn group_bytes_max() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
    limit.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stress_begins_high_and_ends_low() {
        let pressure = Pressure::default();
        let mut seen = Vec::new();
        for open in [79, 80, 79, 61, 60, 79, 80] {
            pressure.sessions(open, 80, 60);
            seen.push(pressure.is_stressed());
        }
        assert_eq!(seen, [false, true, true, true, false, false, true]);
    }

    #[test]
    fn stress_is_over_when_every_cause_is() {
        let pressure = Pressure::default();
        pressure.sessions(100, 80, 60);
        pressure.memory(100, 100);
        assert!(pressure.memory_is_short());
        pressure.sessions(0, 80, 60);
        pressure.memory(95, 100);
        assert!(pressure.is_stressed() && pressure.memory_is_short());
        pressure.memory(89, 100);
        assert!(!pressure.is_stressed() && !pressure.memory_is_short());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_way_in_clients_are_turned_away_until_one_stays_open() {
        let pressure = Pressure::default();
        let start = Instant::now();
        let mut seen = Vec::new();
        for (at, shut) in [
            (0, false),
            (1, true),
            (2, false),
            (3, true),
            (4, false),
            (5, false),
            (6, false),
        ] {
            let now = start + Duration::from_secs(at);
            pressure.ways(shut.then_some("full"), now);
            seen.push(pressure.spool_is_short());
        }
        assert_eq!(seen, [false, true, true, true, true, false, false]);
    }

    #[test]
    fn memory_can_be_read() {
        let (used, most) = (resident_bytes().unwrap(), memory_bytes_max().unwrap());
        assert!(used > 1 << 20 && used < 1 << 32, "{used}");
        assert!(most > 1 << 27, "{most}");
    }
}
