//! The directory for edges as a value: who exists, the digest by which two hosts know that they have the same one, and what
//! changes between two versions. listserv makes versions of it, edges keep them; `wire` is how they travel.

mod entries;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::Domain;

pub use entries::{Entries, key};
pub use wire::{Delta, Seal, Whole};

/// Who exists, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Domains that are ours.
    pub domains: BTreeSet<Domain>,
    /// Lists, by [`Address::key`](crate::Address::key); each means all that [`crate::recipient::parse`] understands.
    pub lists: Entries,
    /// Exact addresses, likewise by key.
    pub addresses: Entries,
}

/// Which state of the directory: its place in one list host's history.
///
/// Serials are compared within one epoch alone. A list host begins a new epoch when it knows that its own history has parted from what
/// edges hold, as after a restore from a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which history; made by chance.
    pub epoch: u64,
    /// Counts the changes of this history, from 1.
    pub serial: u64,
}

/// SHA-256 over all of a [`Content`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(pub [u8; 32]);

/// Names of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Part {
    /// Domains.
    pub domains: BTreeSet<Box<str>>,
    /// Keys of lists.
    pub lists: BTreeSet<Box<str>>,
    /// Keys of addresses.
    pub addresses: BTreeSet<Box<str>>,
}

/// What turns one content into another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What comes.
    pub add: Part,
    /// What goes.
    pub remove: Part,
}

/// A change that was not made for this content, or names what no directory can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change does not fit: {0}")]
pub struct Misfit(pub String);

impl Content {
    /// Addresses and lists.
    pub fn entries(&self) -> usize {
        self.lists.len() + self.addresses.len()
    }

    /// The same for the same content, in whatever order it came. After a change only what the change touched is hashed again.
    pub fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(b"mailflow directory 1\n");
        for domain in &self.domains {
            context.update(domain.as_str().as_bytes());
            context.update(b"\n");
        }
        context.update(b"\n");
        for entries in [&self.lists, &self.addresses] {
            context.update(&entries.digest());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Digest(digest)
    }

    /// What `newer` has and lacks beside this.
    pub fn change_to(&self, newer: &Self) -> Change {
        let gone = |old: &Self, new: &Self| Part {
            domains: (&old.domains - &new.domains)
                .iter()
                .map(|domain| domain.as_str().into())
                .collect(),
            lists: old.lists.without(&new.lists).map(Into::into).collect(),
            addresses: old
                .addresses
                .without(&new.addresses)
                .map(Into::into)
                .collect(),
        };
        Change {
            add: gone(newer, self),
            remove: gone(self, newer),
        }
    }

    /// Makes a change. It must fit: what it adds is absent, what it removes is there.
    pub fn apply(&mut self, change: &Change) -> Result<(), Misfit> {
        for text in &change.remove.domains {
            let domain = domain(text)?;
            fits(self.domains.remove(&domain), text)?;
        }
        for text in &change.add.domains {
            fits(self.domains.insert(domain(text)?), text)?;
        }
        let kinds = [
            (&mut self.lists, &change.remove.lists, &change.add.lists),
            (
                &mut self.addresses,
                &change.remove.addresses,
                &change.add.addresses,
            ),
        ];
        for (entries, remove, add) in kinds {
            for text in remove {
                fits(entries.remove(text), text)?;
            }
            for text in add {
                key(text).map_err(|error| Misfit(format!("entry {text:?}: {error}")))?;
                fits(entries.insert(text), text)?;
            }
        }
        Ok(())
    }
}

fn domain(text: &str) -> Result<Domain, Misfit> {
    Domain::parse(text).map_err(|error| Misfit(format!("domain {text:?}: {error}")))
}

fn fits(done: bool, text: &str) -> Result<(), Misfit> {
    match done {
        true => Ok(()),
        false => Err(Misfit(format!("{text:?} is there already, or is not"))),
    }
}

impl Part {
    fn kinds(&mut self) -> [&mut BTreeSet<Box<str>>; 3] {
        [&mut self.domains, &mut self.lists, &mut self.addresses]
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.domains.len() + self.lists.len() + self.addresses.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About what it takes in memory and on the wire, in bytes.
    fn bytes(&self) -> usize {
        /// A set's place for a name beside its text.
        const PLACE: usize = 32;
        let kinds = [&self.domains, &self.lists, &self.addresses];
        let names = kinds.into_iter().flatten();
        names.map(|name| name.len() + PLACE).sum()
    }
}

impl Change {
    /// This change and then a later one, as one: what came and went again is not in it.
    pub fn then(&mut self, mut later: Self) {
        let (added, removed) = (self.add.kinds(), self.remove.kinds());
        let later = later.add.kinds().into_iter().zip(later.remove.kinds());
        for ((added, removed), (add, remove)) in added.into_iter().zip(removed).zip(later) {
            for name in std::mem::take(remove) {
                if !added.remove(&name) {
                    removed.insert(name);
                }
            }
            for name in std::mem::take(add) {
                if !removed.remove(&name) {
                    added.insert(name);
                }
            }
        }
    }

    /// How many names come and go.
    pub fn len(&self) -> usize {
        self.add.len() + self.remove.len()
    }

    /// Whether nothing comes or goes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About what it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.add.bytes() + self.remove.bytes()
    }
}

/// `EPOCH.SERIAL`, the epoch as sixteen hexadecimal digits.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch, self.serial)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let version = || {
            let (epoch, serial) = text.split_once('.')?;
            let digits = |text: &str, digit: fn(&u8) -> bool| text.as_bytes().iter().all(digit);
            let plain = epoch.len() == 16
                && digits(epoch, u8::is_ascii_hexdigit)
                && digits(serial, u8::is_ascii_digit);
            Some(Self {
                epoch: plain.then(|| u64::from_str_radix(epoch, 16).ok())??,
                serial: serial.parse().ok()?,
            })
        };
        version().ok_or_else(|| format!("{text:?} is no version of a directory"))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read = || {
            let mut digest = [0; 32];
            if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            }
            Some(Self(digest))
        };
        read().ok_or_else(|| format!("{text:?} is no digest of 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests;
