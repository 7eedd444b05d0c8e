//! What a source has sent, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::histogram::{Histogram, Snapshot};
use crate::lock::lock;

/// Different refusals that are told apart.
const REFUSALS_MAX: usize = 50;

/// Counted by all sessions.
#[derive(Debug, Default)]
pub struct Tally {
    pub sessions: AtomicU64,
    /// Connections that could not be opened, or broke.
    pub broken: AtomicU64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub accepted: AtomicU64,
    pub deferred: AtomicU64,
    pub refused: AtomicU64,
    /// The connection broke when the message had been sent: nobody knows.
    pub unknown: AtomicU64,
    /// It broke before, or there was none.
    pub unsent: AtomicU64,
    pub connect: Histogram,
    pub transaction: Histogram,
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Keeps what was said instead of a yes.
    pub fn refusal(&self, text: &str) {
        let mut refusals = lock(&self.refusals);
        let full = refusals.len() >= REFUSALS_MAX;
        let key = if full && !refusals.contains_key(text) {
            "others"
        } else {
            text
        };
        *refusals.entry(key.to_owned()).or_default() += 1;
    }

    /// As it is after so long.
    pub fn report(&self, elapsed: Duration) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            elapsed,
            sessions: get(&self.sessions),
            broken: get(&self.broken),
            messages: get(&self.messages),
            bytes: get(&self.bytes),
            accepted: get(&self.accepted),
            deferred: get(&self.deferred),
            refused: get(&self.refused),
            unknown: get(&self.unknown),
            unsent: get(&self.unsent),
            connect: self.connect.snapshot(),
            transaction: self.transaction.snapshot(),
            refusals: lock(&self.refusals).clone(),
        }
    }
}

/// What came of a run, or of its part until now. Messages are transactions; the five that follow `bytes` count recipients.
#[derive(Clone, Debug)]
pub struct Report {
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Connections that were opened.
    pub sessions: u64,
    /// Connections that could not be opened, or broke.
    pub broken: u64,
    /// Messages that were answered.
    pub messages: u64,
    /// Of these.
    pub bytes: u64,
    /// 2xx: they own it.
    pub accepted: u64,
    /// 4xx.
    pub deferred: u64,
    /// 5xx.
    pub refused: u64,
    /// The connection broke behind the message: perhaps it was taken.
    pub unknown: u64,
    /// Surely not taken: no connection, or it broke before.
    pub unsent: u64,
    /// From connect to the last reply before the first MAIL.
    pub connect: Snapshot,
    /// From MAIL to the last reply; from when it was due, if that was before all sessions were busy.
    pub transaction: Snapshot,
    /// What was said instead of a yes, how often.
    pub refusals: BTreeMap<String, u64>,
}

impl Report {
    /// Messages that were answered, a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// All of it.
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "messages_per_second": self.rate(),
            "sessions": self.sessions,
            "broken": self.broken,
            "messages": self.messages,
            "bytes": self.bytes,
            "accepted": self.accepted,
            "deferred": self.deferred,
            "refused": self.refused,
            "unknown": self.unknown,
            "unsent": self.unsent,
            "connect": self.connect.json(),
            "transaction": self.transaction.json(),
            "refusals": self.refusals,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds =
            |snapshot: &Snapshot, share| snapshot.quantile(share).as_secs_f64() * 1e3;
        writeln!(
            f,
            "{} messages of {} bytes in {:.2} s: {:.0} a second",
            self.messages,
            self.bytes,
            self.elapsed.as_secs_f64(),
            self.rate()
        )?;
        writeln!(
            f,
            "recipients: {} accepted, {} deferred, {} refused, {} unknown, {} unsent",
            self.accepted, self.deferred, self.refused, self.unknown, self.unsent
        )?;
        for (what, times) in [
            ("transaction", &self.transaction),
            ("connect", &self.connect),
        ] {
            writeln!(
                f,
                "{what}: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, longest {:.2}",
                milliseconds(times, 0.5),
                milliseconds(times, 0.9),
                milliseconds(times, 0.99),
                milliseconds(times, 1.0)
            )?;
        }
        write!(f, "{} sessions, {} broken", self.sessions, self.broken)?;
        for (text, count) in &self.refusals {
            write!(f, "\n{count} x {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_up_to_a_bound() {
        let tally = Tally::default();
        for number in 0..REFUSALS_MAX + 5 {
            tally.refusal(&format!("450 {number}"));
        }
        tally.refusal("450 0");
        let report = tally.report(Duration::from_secs(2));
        assert_eq!(report.refusals.len(), REFUSALS_MAX + 1);
        assert_eq!(report.refusals["450 0"], 2);
        assert_eq!(report.refusals["others"], 5);
    }

    #[test]
    fn a_report_says_it_in_words_and_in_json() {
        let tally = Tally::default();
        tally.messages.store(10, Ordering::Relaxed);
        tally.accepted.store(20, Ordering::Relaxed);
        tally.transaction.add(Duration::from_millis(4));
        let report = tally.report(Duration::from_secs(2));
        assert_eq!(report.json()["messages_per_second"], 5.0);
        assert_eq!(report.json()["accepted"], 20);
        let text = report.to_string();
        assert!(
            text.contains("10 messages of 0 bytes in 2.00 s: 5 a second"),
            "{text}"
        );
        assert!(text.contains("20 accepted, 0 deferred"), "{text}");
    }
}
