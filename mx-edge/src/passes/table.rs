//! Who has passed, as a table of keys by when each ends: in memory, bounded, with the form it has on disk.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use mail::Timestamp;

/// The file's first line; another one's content is left alone and started anew.
const HEAD: &[u8] = b"mailflow passes 1\n";
/// Key, and seconds since 1970.
const ENTRY_BYTES: usize = 16 + 8;

/// Keys by when their pass ends, in seconds since 1970. A key is an address, or the digest of what it stands for.
#[derive(Debug)]
pub struct Passes {
    until: HashMap<u128, u64>,
    passes_max: usize,
    changed: bool,
}

impl Passes {
    /// Nobody; at most so many, some 50 bytes each.
    pub fn new(passes_max: usize) -> Self {
        Self {
            until: HashMap::new(),
            passes_max,
            changed: false,
        }
    }

    /// Whether a client need not wait now.
    pub fn has(&self, client: IpAddr, now: Timestamp) -> bool {
        self.has_key(key(client), now)
    }

    /// Whether a key has not ended.
    pub fn has_key(&self, key: u128, now: Timestamp) -> bool {
        self.until(key).is_some_and(|until| until > now.seconds())
    }

    /// When a key ends.
    pub fn until(&self, key: u128) -> Option<u64> {
        self.until.get(&key).copied()
    }

    /// A client has passed, and need not wait until then.
    pub fn grant(&mut self, client: IpAddr, until: Timestamp, now: Timestamp) {
        self.grant_key(key(client), until, now);
    }

    /// Remembers a key until then. When all places are taken those that have ended are forgotten first, then those that end soonest.
    pub fn grant_key(&mut self, key: u128, until: Timestamp, now: Timestamp) {
        if self.passes_max == 0 {
            return;
        }
        if self.until.len() >= self.passes_max && !self.until.contains_key(&key) {
            self.until.retain(|_, until| *until > now.seconds());
            if self.until.len() >= self.passes_max {
                self.forget_soonest();
            }
        }
        self.until.insert(key, until.seconds());
        self.changed = true;
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: u128) {
        self.changed |= self.until.remove(&key).is_some();
    }

    /// Forgets all of them.
    pub fn forget_all(&mut self) {
        self.changed |= !self.until.is_empty();
        self.until.clear();
    }

    /// A tenth of them, so that it is not done for each newcomer.
    fn forget_soonest(&mut self) {
        let ends = self.until.iter().map(|(key, until)| (*until, *key));
        let mut ends: Vec<(u64, u128)> = ends.collect();
        let place = ends.len() / 10;
        ends.select_nth_unstable(place);
        for (_, key) in ends.into_iter().take(place + 1) {
            self.until.remove(&key);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Reads them back; those that have ended are left out. A file that cannot be read as one gives none, and says why.
    pub fn load(path: &Path, passes_max: usize, now: Timestamp) -> (Self, Option<String>) {
        let mut passes = Self::new(passes_max);
        let mut bytes = Vec::new();
        let limit = (HEAD.len() + ENTRY_BYTES.saturating_mul(passes_max)) as u64;
        let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        let trouble = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
            Ok(_) => match bytes.strip_prefix(HEAD) {
                Some(entries) => {
                    for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
                        passes.take(entry, now);
                    }
                    None
                }
                None => Some("it is not of this version".into()),
            },
        };
        (passes, trouble)
    }

    fn take(&mut self, entry: &[u8; ENTRY_BYTES], now: Timestamp) {
        let (key, until) = entry.split_at(16);
        let (Ok(key), Ok(until)) = (key.try_into(), until.try_into()) else {
            return;
        };
        let until = u64::from_be_bytes(until);
        if until > now.seconds() {
            self.until.insert(u128::from_be_bytes(key), until);
        }
    }

    /// What is to be written, when something has changed since the last time.
    pub fn snapshot(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut bytes = Vec::with_capacity(HEAD.len() + ENTRY_BYTES * self.until.len());
        bytes.extend_from_slice(HEAD);
        for (key, until) in &self.until {
            if *until > now.seconds() {
                bytes.extend_from_slice(&key.to_be_bytes());
                bytes.extend_from_slice(&until.to_be_bytes());
            }
        }
        Some(bytes)
    }
}

/// An address as a key: IPv4 as IPv6 maps it.
pub fn key(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Writes a snapshot whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::File::create(&new)?.write_all(bytes)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_pass_ends_and_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passes");
        let six: IpAddr = "2001:db8::7".parse().unwrap();
        let (mut passes, trouble) = Passes::load(&path, 100, at(0));
        assert_eq!((passes.len(), trouble), (0, None));
        passes.grant(client(1), at(50), at(0));
        passes.grant(six, at(90), at(0));
        write(&path, &passes.snapshot(at(1)).unwrap()).unwrap();
        assert!(passes.snapshot(at(2)).is_none(), "nothing has changed");
        let (passes, trouble) = Passes::load(&path, 100, at(60));
        assert_eq!((passes.len(), trouble), (1, None));
        assert!(passes.has(six, at(60)) && !passes.has(six, at(90)));
        assert!(!passes.has(client(1), at(60)));
    }

    #[test]
    fn the_ended_and_then_the_soonest_make_room() {
        let mut passes = Passes::new(100);
        for number in 0..100 {
            passes.grant(client(number), at(10 + u64::from(number)), at(0));
        }
        // Twenty have ended by now.
        passes.grant(client(200), at(500), at(29));
        assert_eq!(passes.len(), 81);
        for number in 300..350 {
            passes.grant(client(number), at(600), at(29));
        }
        assert!(passes.len() <= 100);
        assert!((300..350).all(|number| passes.has(client(number), at(29))));
        assert!(
            !passes.has(client(20), at(29)),
            "it would have ended soonest"
        );
    }

    #[test]
    fn a_foreign_or_cut_file_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passes");
        fs::write(&path, b"something else").unwrap();
        let (passes, trouble) = Passes::load(&path, 100, at(0));
        assert!(passes.is_empty() && trouble.is_some());
        let mut passes = Passes::new(100);
        passes.grant(client(1), at(50), at(0));
        passes.grant(client(2), at(50), at(0));
        let bytes = passes.snapshot(at(0)).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let (passes, trouble) = Passes::load(&path, 100, at(0));
        assert_eq!((passes.len(), trouble), (1, None));
    }
}
