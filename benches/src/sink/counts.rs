//! What a sink has taken, and how often: by kind of the source's stamp, each delivery once, and how long it was on its way.

use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::histogram::Histogram;
use crate::lock;
use crate::seen::{Arrival, Seen};
use crate::stamp::{Stamp, Time};

/// Kinds told apart at most; the stamps of strangers must not fill the memory.
const KINDS_MAX: usize = 64;

/// What a sink has taken. Any number of threads count.
#[derive(Debug)]
pub struct Counts {
    /// Connections that were taken.
    pub sessions: AtomicU64,
    /// Those that stand.
    pub sessions_open: AtomicU64,
    /// Messages, each with one or more recipients.
    pub messages: AtomicU64,
    /// Copies: a recipient of a message each.
    pub recipients: AtomicU64,
    /// Of messages, as they came.
    pub bytes: AtomicU64,
    /// Stages that were answered with 4xx.
    pub deferred: AtomicU64,
    /// Stages that were answered with 5xx.
    pub refused: AtomicU64,
    /// Connections that were closed without a word.
    pub dropped: AtomicU64,
    kinds: RwLock<Vec<Arc<Kind>>>,
    seen: Seen,
}

/// What has come of one kind.
#[derive(Debug)]
pub struct Kind {
    name: Box<str>,
    /// Copies.
    pub recipients: AtomicU64,
    /// Copies that had come before.
    pub duplicates: AtomicU64,
    /// Copies of which it is not known, since the memory for it is used up.
    pub unknown: AtomicU64,
    /// From the moment that the source put into its stamp.
    pub delay: Histogram,
}

impl Counts {
    /// Nothing yet, and memory for so many deliveries.
    pub fn new(remember: usize) -> Self {
        Self {
            sessions: AtomicU64::new(0),
            sessions_open: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            recipients: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            kinds: RwLock::default(),
            seen: Seen::new(remember),
        }
    }

    /// A message that was taken for these recipients.
    pub fn take<'a>(&self, header: &[u8], bytes: u64, recipients: impl Iterator<Item = &'a [u8]>) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let stamp = Stamp::find(header);
        let kind = stamp.and_then(|stamp| self.kind(stamp.kind));
        let mut count = 0;
        for recipient in recipients {
            count += 1;
            if let (Some(kind), Some(stamp)) = (&kind, &stamp) {
                match self.seen.note(recipient, stamp) {
                    Arrival::First => {}
                    Arrival::Again => _ = kind.duplicates.fetch_add(1, Ordering::Relaxed),
                    Arrival::Unknown => _ = kind.unknown.fetch_add(1, Ordering::Relaxed),
                }
                kind.delay.add(Time::now().since(stamp.sent));
            }
        }
        self.recipients.fetch_add(count, Ordering::Relaxed);
        if let Some(kind) = kind {
            kind.recipients.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What has come of a kind; none when nothing has, or when there are too many.
    pub fn kind(&self, name: &str) -> Option<Arc<Kind>> {
        let of_name = |kinds: &[Arc<Kind>]| kinds.iter().find(|kind| &*kind.name == name).cloned();
        if let Some(kind) = of_name(&lock::read(&self.kinds)) {
            return Some(kind);
        }
        let mut kinds = lock::write(&self.kinds);
        if let Some(kind) = of_name(&kinds) {
            return Some(kind);
        }
        if kinds.len() >= KINDS_MAX {
            return None;
        }
        let kind = Arc::new(Kind {
            name: name.into(),
            recipients: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            delay: Histogram::default(),
        });
        kinds.push(kind.clone());
        Some(kind)
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kinds = lock::read(&self.kinds);
        let sum = |of: fn(&Kind) -> &AtomicU64| kinds.iter().map(|kind| get(of(kind))).sum::<u64>();
        let by_kind = kinds.iter().map(|kind| {
            let told = json!({
                "recipients": get(&kind.recipients),
                "duplicates": get(&kind.duplicates),
                "unknown": get(&kind.unknown),
                "delay": kind.delay.snapshot().json(),
            });
            (kind.name.to_string(), told)
        });
        json!({
            "sessions": get(&self.sessions),
            "sessions_open": get(&self.sessions_open),
            "messages": get(&self.messages),
            "recipients": get(&self.recipients),
            "bytes": get(&self.bytes),
            "deferred": get(&self.deferred),
            "refused": get(&self.refused),
            "dropped": get(&self.dropped),
            "duplicates": sum(|kind| &kind.duplicates),
            "unknown": sum(|kind| &kind.unknown),
            "kinds": Value::Object(by_kind.collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted_by_kind_and_once() {
        let counts = Counts::new(3);
        let header = |kind: &str, number| {
            let mut header = Vec::new();
            let stamp = Stamp {
                kind,
                run: 1,
                number,
                sent: Time::now(),
            };
            stamp.write(&mut header);
            header
        };
        for (kind, number, recipients) in [
            ("live", 1, &["a@x", "b@x"][..]),
            ("backlog", 2, &["a@x"]),
            ("live", 1, &["B@x"]),
            ("live", 3, &["a@x"]),
        ] {
            let recipients = recipients.iter().map(|recipient| recipient.as_bytes());
            counts.take(&header(kind, number), 10, recipients);
        }
        counts.take(b"Subject: x\r\n\r\n", 5, [&b"a@x"[..]].into_iter());
        let told = counts.json();
        assert_eq!(told["messages"], 5);
        assert_eq!(told["recipients"], 6);
        assert_eq!(told["bytes"], 45);
        assert_eq!(told["duplicates"], 1);
        assert_eq!(told["unknown"], 1);
        assert_eq!(told["kinds"]["live"]["recipients"], 4);
        assert_eq!(told["kinds"]["live"]["duplicates"], 1);
        assert_eq!(told["kinds"]["backlog"]["recipients"], 1);
        assert_eq!(told["kinds"]["live"]["delay"]["count"], 4);
    }

    #[test]
    fn kinds_are_bounded() {
        let counts = Counts::new(1);
        for number in 0..KINDS_MAX {
            assert!(counts.kind(&format!("k{number}")).is_some());
        }
        assert!(counts.kind("one more").is_none());
        assert!(counts.kind("k0").is_some());
    }
}
