//! Names for messages on the inner hops: `edge.boot.counter`. Owns the boot counter on disk; no name is ever given twice, not
//! after a crash, and not after the state folder was lost.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use mail::{Ident, Timestamp};

use crate::state;

/// Gives out idents.
#[derive(Debug)]
pub struct Idents {
    name: Box<str>,
    boot: u64,
    counter: AtomicU64,
}

impl Idents {
    /// Takes the next boot number and makes it durable before any ident is given out.
    pub fn open(name: &str, folder: &Path) -> io::Result<Self> {
        let path = folder.join("boot");
        let last = match state::read(&path)? {
            None => None,
            Some(content) => Some(parse(&content).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a boot number in hexadecimal; remove the file if the clock of this host is right",
                )
            })?),
        };
        let boot = next_boot(last, Timestamp::now().seconds());
        state::write_synced(&path, format!("{boot:x}\n").as_bytes())?;
        Ident::new(name, boot, 0)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self {
            name: name.into(),
            boot,
            counter: AtomicU64::new(1),
        })
    }

    /// A name that no other message has.
    pub fn next(&self) -> Ident {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        Ident::new(&self.name, self.boot, counter).expect("the name was checked by open")
    }
}

fn parse(content: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(content).ok()?.trim(), 16).ok()
}

/// One more than the last one, and never behind the clock: a lost file does not bring old numbers back, neither does a clock
/// that was set back.
fn next_boot(last: Option<u64>, now_seconds: u64) -> u64 {
    last.map_or(1, |last| last.saturating_add(1))
        .max(now_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_numbers_only_grow() {
        for (last, now, expected) in [
            (None, 1_000, 1_000),
            (None, 0, 1),
            (Some(7), 1_000, 1_000),
            (Some(1_000), 1_000, 1_001),
            (Some(2_000), 1_000, 2_001),
        ] {
            assert_eq!(next_boot(last, now), expected, "{last:?} at {now}");
        }
    }

    #[test]
    fn a_restart_repeats_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let first = Idents::open("mx1", folder.path()).unwrap();
        let mut names = vec![first.next(), first.next()];
        drop(first);
        let second = Idents::open("mx1", folder.path()).unwrap();
        names.push(second.next());
        names.push(second.next());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn an_unreadable_boot_number_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("boot"), "what?").unwrap();
        let error = Idents::open("mx1", folder.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
