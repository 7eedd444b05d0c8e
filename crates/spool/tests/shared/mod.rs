//! What the spool's tests share: messages to accept, claims of everything, a clock that is set by hand.
#![allow(dead_code, clippy::unwrap_used)]

pub mod conformance;
pub mod faults;
pub mod mounts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mail::{Address, Domain, MailParameters, Recipient, ReversePath, Timestamp};
use spool::embedded::{Embedded, Options};
use spool::{
    Class, Clock, Destination, Destinations, Ends, Lease, NewBatch, NewMessage, Outcome, Replies,
    Settlement, Spool, Wanted,
};

/// A clock that stands still until it is set.
#[derive(Clone, Debug)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    /// Noon of some day.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_800_000_000_000)))
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    pub fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }

    pub fn clock(&self) -> Clock {
        let this = self.clone();
        Clock::new(move || this.now())
    }
}

/// Small segments in a folder, on a machine whose disk may be nearly full.
pub fn options(path: &std::path::Path) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..Options::new(path.join("spool"))
    }
}

pub fn open(path: &std::path::Path) -> Embedded {
    Embedded::open(options(path)).unwrap()
}

pub fn recipient(text: &str) -> Recipient {
    Address::parse(text).unwrap().into()
}

pub fn domain(text: &str) -> Destination {
    Destination::Domain(Domain::parse(text).unwrap())
}

pub fn batch(destination: Destination, due: Timestamp, recipients: &[&str]) -> NewBatch {
    NewBatch {
        destination,
        class: Class::Ordinary,
        due,
        recipients: recipients.iter().map(|text| recipient(text)).collect(),
        template: Bytes::from_static(b"template"),
        replies: Replies::default(),
    }
}

pub fn message(arrival: Timestamp, body: &str, batches: Vec<NewBatch>) -> NewMessage {
    NewMessage {
        arrival,
        reverse_path: ReversePath::parse("sender@example.org").unwrap(),
        parameters: MailParameters::default(),
        facts: Bytes::from_static(b"{}"),
        body: vec![
            Bytes::from_static(b"Subject: test\r\n\r\n"),
            Bytes::copy_from_slice(body.as_bytes()),
        ],
        batches,
    }
}

/// A message for one recipient inside, due at its arrival.
pub fn simple(arrival: Timestamp, to: &str) -> NewMessage {
    let batches = vec![batch(Destination::Inside, arrival, &[to])];
    message(arrival, to, batches)
}

pub fn everything() -> Wanted {
    Wanted {
        destinations: Destinations::Except([].into()),
        lanes: [1_000_000; 4],
    }
}

pub async fn claim_all(spool: &dyn Spool) -> Vec<Lease> {
    spool.claim("here", &everything()).await.unwrap()
}

/// The first recipients of leases, in their order.
pub fn names(leases: &[Lease]) -> Vec<String> {
    leases
        .iter()
        .map(|lease| lease.batch.recipients[0].address.to_string())
        .collect()
}

pub fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome,
        ends: Ends::default(),
    }
}

/// A settlement of a batch whose recipients were all delivered to.
pub fn delivered(lease: &Lease) -> Settlement {
    Settlement {
        ends: Ends {
            delivered: lease.batch.recipients.len() as u64,
            ..Ends::default()
        },
        ..settlement(lease, Outcome::Finished)
    }
}

pub async fn finish(spool: &dyn Spool, leases: &[Lease]) -> usize {
    let settlements = leases
        .iter()
        .map(|lease| settlement(lease, Outcome::Finished))
        .collect();
    spool.settle(settlements).await.unwrap()
}

pub fn deferred(lease: &Lease, until: Timestamp) -> Outcome {
    Outcome::Deferred {
        until,
        replies: Replies::all("450 4.2.1 try again"),
        note: Bytes::from_static(b"note"),
        recipients: lease.batch.recipients.clone(),
        attempted: true,
        moved: Vec::new(),
    }
}

/// Bytes of all files below a folder; files may come and go.
pub fn folder_bytes(path: &std::path::Path) -> u64 {
    std::fs::read_dir(path)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let data = entry.metadata().ok()?;
            Some(match data.is_dir() {
                true => folder_bytes(&entry.path()),
                false => data.len(),
            })
        })
        .sum()
}

/// What a spool holds, as a claim of everything after a reopen tells it: for each batch (by its first recipient's name)
/// attempts, recipients and the body.
pub async fn contents(
    spool: &dyn Spool,
) -> std::collections::BTreeMap<String, (u32, usize, Bytes)> {
    let mut found = std::collections::BTreeMap::new();
    for lease in claim_all(spool).await {
        let body = spool.body(lease.head.id).await.unwrap();
        let name = lease.batch.recipients[0].address.to_string();
        let content = (lease.batch.attempts, lease.batch.recipients.len(), body);
        assert_eq!(found.insert(name, content), None, "twice in the spool");
    }
    found
}

/// Copies a folder.
pub fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.metadata().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Makes the engine read the whole journal at its next start.
pub fn lose_index(path: &std::path::Path) {
    for suffix in ["sqlite", "sqlite-wal", "sqlite-shm"] {
        let _ = std::fs::remove_file(path.join("spool/index").with_extension(suffix));
    }
}

/// The segments in use, oldest first.
pub fn segments(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(path.join("spool/journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "segment")
        })
        .collect();
    found.sort();
    found
}

/// Where groups start in a segment, going by their first bytes.
pub fn groups(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len())
        .step_by(4096)
        .filter(|at| bytes[*at..].starts_with(b"MFG\n"))
        .collect()
}
