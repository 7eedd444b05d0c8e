//! Who has passed the screen, so that nobody waits twice a day: in memory, bounded, kept on disk over restarts. Losing some minutes of it in
//! a crash costs these clients one more wait.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use mail::Timestamp;

/// The file's first line; another one's content is left alone and started anew.
const HEAD: &[u8] = b"mailflow passes 1\n";
/// Address, and seconds since 1970.
const ENTRY_BYTES: usize = 16 + 8;

/// Clients by when their pass ends, in seconds since 1970.
#[derive(Debug)]
pub struct Passes {
    until: HashMap<IpAddr, u64>,
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
        let until = self.until.get(&client.to_canonical());
        until.is_some_and(|until| *until > now.seconds())
    }

    /// A client has passed, and need not wait until then. When all are taken those that have ended are forgotten first, then
    /// those that end soonest.
    pub fn grant(&mut self, client: IpAddr, until: Timestamp, now: Timestamp) {
        if self.passes_max == 0 {
            return;
        }
        if self.until.len() >= self.passes_max && !self.until.contains_key(&client) {
            self.until.retain(|_, until| *until > now.seconds());
            if self.until.len() >= self.passes_max {
                self.forget_soonest();
            }
        }
        self.until.insert(client.to_canonical(), until.seconds());
        self.changed = true;
    }

    /// A tenth of them, so that it is not done for each newcomer.
    fn forget_soonest(&mut self) {
        let ends = self.until.iter().map(|(client, until)| (*until, *client));
        let mut ends: Vec<(u64, IpAddr)> = ends.collect();
        let place = ends.len() / 10;
        ends.select_nth_unstable(place);
        for (_, client) in ends.into_iter().take(place + 1) {
            self.until.remove(&client);
        }
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
        let (address, until) = entry.split_at(16);
        let (Ok(address), Ok(until)) = (address.try_into(), until.try_into()) else {
            return;
        };
        let address = std::net::Ipv6Addr::from_bits(u128::from_be_bytes(address));
        let until = u64::from_be_bytes(until);
        if until > now.seconds() {
            self.until.insert(IpAddr::V6(address).to_canonical(), until);
        }
    }

    /// What is to be written, when something has changed since the last time.
    pub fn snapshot(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut bytes = Vec::with_capacity(HEAD.len() + ENTRY_BYTES * self.until.len());
        bytes.extend_from_slice(HEAD);
        for (client, until) in &self.until {
            if *until > now.seconds() {
                let client = match client {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => *v6,
                };
                bytes.extend_from_slice(&client.octets());
                bytes.extend_from_slice(&until.to_be_bytes());
            }
        }
        Some(bytes)
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
        assert!(passes.len() == 0 && trouble.is_some());
        let mut passes = Passes::new(100);
        passes.grant(client(1), at(50), at(0));
        passes.grant(client(2), at(50), at(0));
        let bytes = passes.snapshot(at(0)).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let (passes, trouble) = Passes::load(&path, 100, at(0));
        assert_eq!((passes.len(), trouble), (1, None));
    }
}
