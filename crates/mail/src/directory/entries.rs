//! A set of names that many versions share: kept in buckets, of which a new version copies only those that differ. A million
//! names take little more than their text; looking one up is a hash and a search in one bucket.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ring::digest::{Context, SHA256, digest};
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::AddressError;
use crate::{Address, Domain};

/// Part of the digest's definition: a name's bucket is the low twelve bits of its hash. At a million names a bucket holds some 250:
/// few enough to copy and hash for one change, many enough that their bookkeeping does not count.
const BUCKETS: usize = 4096;

/// Names, each once.
#[derive(Clone)]
pub struct Entries {
    buckets: Vec<Arc<Bucket>>,
    len: usize,
}

/// The names of one bucket in order, one behind the other.
#[derive(Default)]
struct Bucket {
    text: String,
    /// Where each ends in `text`, in bytes.
    ends: Vec<u32>,
    digest: OnceLock<[u8; 32]>,
}

/// Checks that a text is an [`Address::key`], and says whose. The local part is unquoted and may hold anything but the domain's `@`.
pub fn key(text: &str) -> Result<Address, AddressError> {
    let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Incomplete)?;
    let address = Address::new(local, Domain::parse(domain)?)?;
    match address.key() == text {
        true => Ok(address),
        false => Err(AddressError::BadDomain),
    }
}

impl Entries {
    /// Whether a name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.buckets[bucket_of(name)].find(name).is_ok()
    }

    /// Adds a name; false when it was there.
    pub fn insert(&mut self, name: &str) -> bool {
        let bucket = &mut self.buckets[bucket_of(name)];
        let Err(at) = bucket.find(name) else {
            return false;
        };
        Arc::make_mut(bucket).insert(at, name);
        self.len += 1;
        true
    }

    /// Takes a name out; false when it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let bucket = &mut self.buckets[bucket_of(name)];
        let Ok(at) = bucket.find(name) else {
            return false;
        };
        Arc::make_mut(bucket).remove(at);
        self.len -= 1;
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them; in an order that depends on the names alone.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.buckets.iter().flat_map(|bucket| bucket.names())
    }

    /// Those that `other` lacks. What both versions share is not looked at.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let pairs = self.buckets.iter().zip(&other.buckets);
        let differing = pairs.filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs));
        differing.flat_map(|(ours, theirs)| {
            let names = ours.names();
            names.filter(|name| theirs.find(name).is_err())
        })
    }

    /// Gives back what was reserved for names to come.
    pub fn shrink(&mut self) {
        for bucket in &mut self.buckets {
            // One that is shared was shrunken when it was made.
            if let Some(bucket) = Arc::get_mut(bucket) {
                bucket.text.shrink_to_fit();
                bucket.ends.shrink_to_fit();
            }
        }
    }

    /// SHA-256 over every bucket's number and SHA-256, in order; empty buckets do not count.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for (number, bucket) in self.buckets.iter().enumerate() {
            if !bucket.ends.is_empty() {
                context.update(&(number as u16).to_be_bytes());
                context.update(bucket.digest());
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// FNV-1a of 64 bits, folded.
fn bucket_of(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as usize % BUCKETS
}

impl Bucket {
    fn start(&self, at: usize) -> usize {
        at.checked_sub(1)
            .map_or(0, |before| self.ends[before] as usize)
    }

    fn name(&self, at: usize) -> &str {
        &self.text[self.start(at)..self.ends[at] as usize]
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|at| self.name(at))
    }

    /// Where the name is, or where it would have to be.
    fn find(&self, name: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    fn insert(&mut self, at: usize, name: &str) {
        let start = self.start(at);
        self.text.insert_str(start, name);
        self.ends.insert(at, start as u32);
        for end in &mut self.ends[at..] {
            *end += name.len() as u32;
        }
        self.digest = OnceLock::new();
    }

    fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends[at] as usize);
        self.text.replace_range(start..end, "");
        self.ends.remove(at);
        for later in &mut self.ends[at..] {
            *later -= (end - start) as u32;
        }
        self.digest = OnceLock::new();
    }

    /// Over the names, each behind its length.
    fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut framed = Vec::with_capacity(self.text.len() + 4 * self.ends.len());
            for name in self.names() {
                framed.extend_from_slice(&(name.len() as u32).to_be_bytes());
                framed.extend_from_slice(name.as_bytes());
            }
            let mut of = [0; 32];
            of.copy_from_slice(digest(&SHA256, &framed).as_ref());
            of
        })
    }
}

/// Without what was reserved: a copy is made to change one name.
impl Clone for Bucket {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            ends: self.ends.clone(),
            digest: OnceLock::new(),
        }
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            buckets: vec![Arc::default(); BUCKETS],
            len: 0,
        }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        let same = |(ours, theirs): (&Arc<Bucket>, &Arc<Bucket>)| {
            Arc::ptr_eq(ours, theirs) || (ours.text == theirs.text && ours.ends == theirs.ends)
        };
        self.len == other.len && self.buckets.iter().zip(&other.buckets).all(same)
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<&'a str> for Entries {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut entries = Self::default();
        for name in names {
            entries.insert(name);
        }
        entries.shrink();
        entries
    }
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Each name must be a [`key`]; one that is not refuses all. Names go from the text read straight into their bucket.
impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while names.next_element_seed(Inserting(&mut entries))?.is_some() {}
        entries.shrink();
        Ok(entries)
    }
}

struct Inserting<'a>(&'a mut Entries);

impl<'de> DeserializeSeed<'de> for Inserting<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Inserting<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        key(text).map_err(|error| E::custom(format!("entry {text:?}: {error}")))?;
        self.0.insert(text);
        Ok(())
    }
}
