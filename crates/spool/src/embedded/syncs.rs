//! What waits to be made durable, how long that takes, and when so much waits that more is refused. Measures and decides; never
//! asks the disk. A slow disk is a state with a high and a low water mark and one log line a crossing, not a longer and longer
//! queue: who is told to come again at once is better off than who waits until his own deadline and then sends twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// A new measurement counts for one part in so many of the average.
const AVERAGE_OVER: u32 = 8;
/// The worst of the last minute is kept in so many parts of so many seconds.
const PARTS: usize = 6;
const PART_SECONDS: u64 = 10;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of messages; a single one may be larger.
    pub bytes: u64,
    /// Time.
    pub time: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Syncs {
    limits: Limits,
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// Since when they wait, in the order in which they came.
    waiting: BTreeMap<u64, Instant>,
    bytes: u64,
    running: Option<Instant>,
    average: Duration,
    worst: [(u64, Duration); PARTS],
    slow: Option<String>,
}

/// How syncs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The moving average; no less than what the one under way has taken.
    pub average: Duration,
    /// The longest of the last minute, likewise.
    pub worst: Duration,
    /// Bytes that wait.
    pub waiting_bytes: u64,
    /// Whether more is refused early.
    pub slow: bool,
}

/// A message that waits, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    syncs: Arc<Syncs>,
    number: u64,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.syncs.inner();
        inner.waiting.remove(&self.number);
        inner.bytes -= self.bytes;
    }
}

impl Syncs {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            start: Instant::now(),
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before anything could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a message of so many bytes wait, or refuses it.
    pub fn admit(self: &Arc<Self>, bytes: u64) -> Result<Ticket, Error> {
        self.admit_at(bytes, Instant::now())
    }

    fn admit_at(self: &Arc<Self>, bytes: u64, now: Instant) -> Result<Ticket, Error> {
        let mut inner = self.inner();
        if let Some(why) = inner.refuses(bytes, self.limits, self.part(now), now) {
            return Err(Error::Slow(why));
        }
        let number = inner.next;
        inner.next += 1;
        inner.waiting.insert(number, now);
        inner.bytes += bytes;
        Ok(Ticket {
            syncs: Arc::clone(self),
            number,
            bytes,
        })
    }

    /// What the next message would be told.
    pub fn refuses(&self) -> Option<Error> {
        let now = Instant::now();
        let mut inner = self.inner();
        let why = inner.refuses(1, self.limits, self.part(now), now);
        why.map(Error::Slow)
    }

    /// Writing and syncing begins.
    pub fn begin(&self) {
        self.inner().running = Some(Instant::now());
    }

    /// It has ended, one way or the other.
    pub fn end(&self) {
        self.end_at(Instant::now());
    }

    fn end_at(&self, now: Instant) {
        let part = self.part(now);
        let mut inner = self.inner();
        let Some(began) = inner.running.take() else {
            return;
        };
        let took = now.duration_since(began);
        inner.average = match inner.average {
            Duration::ZERO => took,
            average => average - average / AVERAGE_OVER + took / AVERAGE_OVER,
        };
        let slot = &mut inner.worst[part as usize % PARTS];
        *slot = match slot {
            (of, worst) if *of == part => (part, took.max(*worst)),
            _ => (part, took),
        };
        inner.cross(self.limits, part, now, None);
    }

    /// As of now.
    pub fn measured(&self) -> Measured {
        let now = Instant::now();
        let part = self.part(now);
        let mut inner = self.inner();
        inner.cross(self.limits, part, now, None);
        Measured {
            average: inner.average(part).max(inner.running(now)),
            worst: inner.worst(part).max(inner.running(now)),
            waiting_bytes: inner.bytes,
            slow: inner.slow.is_some(),
        }
    }

    /// Why more is refused early, if it is.
    pub fn slow(&self) -> Option<String> {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.cross(self.limits, self.part(now), now, None);
        inner.slow.clone()
    }

    /// The number of the present part of a minute; 0 is none.
    fn part(&self, now: Instant) -> u64 {
        1 + now.duration_since(self.start).as_secs() / PART_SECONDS
    }
}

impl Inner {
    /// How long the first has waited.
    fn age(&self, now: Instant) -> Duration {
        let first = self.waiting.first_key_value();
        first.map_or(Duration::ZERO, |(_, since)| now.duration_since(*since))
    }

    fn running(&self, now: Instant) -> Duration {
        self.running
            .map_or(Duration::ZERO, |began| now.duration_since(began))
    }

    /// Without any sync in the last minute nothing is known, and that counts as good: what is idle must not stay refused.
    fn average(&self, part: u64) -> Duration {
        match self.worst(part) {
            Duration::ZERO => Duration::ZERO,
            _ => self.average,
        }
    }

    fn worst(&self, part: u64) -> Duration {
        let recent = |(of, _): &&(u64, Duration)| *of > 0 && *of + PARTS as u64 > part;
        let worst = self.worst.iter().filter(recent).map(|(_, worst)| *worst);
        worst.max().unwrap_or_default()
    }

    /// Half as much may wait while it is slow.
    fn refuses(&mut self, bytes: u64, limits: Limits, part: u64, now: Instant) -> Option<String> {
        self.cross(limits, part, now, None);
        let why = self.too_much(bytes, limits, now)?;
        self.cross(limits, part, now, Some(&why));
        Some(why)
    }

    fn too_much(&self, bytes: u64, limits: Limits, now: Instant) -> Option<String> {
        let share = if self.slow.is_some() { 2 } else { 1 };
        let (time_max, bytes_max) = (limits.time / share, limits.bytes / u64::from(share));
        let age = self.age(now);
        if age > time_max {
            return Some(format!(
                "a message has waited {} ms for the disk, {} ms at most are wanted",
                age.as_millis(),
                time_max.as_millis()
            ));
        }
        let all = self.bytes.saturating_add(bytes);
        (self.bytes > 0 && all > bytes_max)
            .then(|| format!("{all} bytes would wait for the disk, {bytes_max} at most are wanted"))
    }

    /// Enters or leaves the state, with a line.
    fn cross(&mut self, limits: Limits, part: u64, now: Instant, refused: Option<&str>) {
        let (average, age) = (self.average(part), self.age(now));
        let why = || match refused {
            Some(why) => why.to_owned(),
            None if age > limits.time => {
                format!("a message has waited {} ms for the disk", age.as_millis())
            }
            None => format!("making a group durable takes {} ms", average.as_millis()),
        };
        match self.slow {
            None if refused.is_some() || average > limits.time / 2 || age > limits.time => {
                let why = why();
                tracing::error!(
                    event = "spool_slow",
                    why,
                    sync_ms = average.as_millis(),
                    waiting = self.waiting.len(),
                    waiting_bytes = self.bytes,
                    "the disk does not keep up; what comes beyond is told to come again"
                );
                self.slow = Some(why);
            }
            Some(_)
                if average < limits.time / 4
                    && age < limits.time / 4
                    && self.bytes <= limits.bytes / 4 =>
            {
                self.slow = None;
                tracing::info!(
                    event = "spool_keeps_up",
                    sync_ms = average.as_millis(),
                    waiting_bytes = self.bytes
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        syncs: Arc<Syncs>,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let limits = Limits {
                bytes: 1000,
                time: Duration::from_secs(4),
            };
            let syncs = Arc::new(Syncs::new(limits));
            let now = syncs.start;
            Self { syncs, now }
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn admit(&self, bytes: u64) -> Result<Ticket, Error> {
            self.syncs.admit_at(bytes, self.now)
        }

        fn sync(&mut self, ms: u64) {
            self.syncs.inner().running = Some(self.now);
            self.pass(ms);
            self.syncs.end_at(self.now);
        }

        fn measured(&self) -> (Duration, Duration, bool) {
            let (part, inner) = (self.syncs.part(self.now), self.syncs.inner());
            (
                inner.average(part),
                inner.worst(part).max(inner.running(self.now)),
                inner.slow.is_some(),
            )
        }
    }

    #[test]
    fn bytes_are_bounded_with_hysteresis() {
        let mut bench = Bench::new();
        let alone = bench.admit(5000).unwrap();
        assert!(bench.admit(1).is_err(), "more than the limit waits");
        drop(alone);
        bench.sync(1);
        assert!(!bench.measured().2, "left again");
        let stays = bench.admit(400).unwrap();
        let goes = bench.admit(500).unwrap();
        assert!(matches!(bench.admit(101), Err(Error::Slow(_))));
        assert!(bench.measured().2);
        drop(goes);
        assert!(
            bench.admit(101).is_err(),
            "half as much until it has left the state"
        );
        let _rest = bench.admit(100).unwrap();
        drop(stays);
        let _left = bench.admit(800).unwrap();
    }

    #[test]
    fn a_stuck_sync_refuses_and_lets_go() {
        let mut bench = Bench::new();
        bench.sync(10);
        let waits = bench.admit(1).unwrap();
        bench.syncs.inner().running = Some(bench.now);
        bench.pass(3999);
        drop(bench.admit(1).unwrap());
        bench.pass(2);
        assert!(bench.admit(1).is_err());
        assert_eq!(bench.measured().1, Duration::from_millis(4001));
        drop(waits);
        bench.syncs.end_at(bench.now);
        // One out of eight is an average of half a second.
        assert!(!bench.measured().2);
        drop(bench.admit(1).unwrap());
    }

    #[test]
    fn slow_syncs_are_told_before_anything_waits_too_long() {
        let mut bench = Bench::new();
        for (ms, slow) in [
            (100, false),
            (2100, false),
            (9000, false),
            (9000, true),
            (1, true),
        ] {
            bench.sync(ms);
            assert_eq!(bench.measured().2, slow, "{ms} {:?}", bench.measured());
        }
        // Under way too.
        let _waits = bench.admit(1).unwrap();
        bench.pass(2001);
        assert!(bench.admit(1).is_err(), "half as long while it is slow");
    }

    #[test]
    fn a_minute_without_a_sync_is_forgotten() {
        let mut bench = Bench::new();
        bench.sync(9000);
        assert!(bench.measured().2);
        bench.pass(40_000);
        assert_eq!(bench.measured().1, Duration::from_secs(9));
        bench.pass(30_000);
        assert_eq!(bench.measured().1, Duration::ZERO);
        drop(bench.admit(1).unwrap());
        assert!(!bench.measured().2);
    }
}
