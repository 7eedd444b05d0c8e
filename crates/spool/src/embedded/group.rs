//! A group: the journal's unit of writing, syncing and believing. Header, records, bodies, zeros up to the next page.
//!
//! The header is checked alone (so that its lengths can be trusted), the records by a checksum in it, each body by one in its
//! message's record. Groups start at page boundaries: a write never touches a page that an earlier acknowledged group stands in,
//! and never makes the system read a page back first. The spool's secret in the header keeps a message body, whose
//! bytes a stranger chose, from ever being taken for a group.

use bytes::Bytes;
use mail::Timestamp;

use super::codec::{Malformed, Put, Take};
use super::record::Records;

/// Groups start at multiples of this.
pub const PAGE: u64 = 4096;
/// Length of a header.
pub const HEADER: usize = 64;
const MAGIC: &[u8; 4] = b"MFG\n";
const VERSION: u8 = 1;

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The spool's secret.
    pub secret: u64,
    /// The use of the segment that it was written for.
    pub generation: u64,
    /// Its number, one more than the group's before it.
    pub sequence: u64,
    /// When it was written.
    pub time: Timestamp,
    /// Length of its records.
    pub records: u32,
    /// Length of its bodies.
    pub bodies: u64,
    /// crc32c of its records.
    pub checksum: u32,
}

impl Header {
    /// Where its bodies start, counted from the group's start.
    pub fn bodies_at(&self) -> u64 {
        HEADER as u64 + u64::from(self.records)
    }

    /// The room it takes.
    pub fn length(&self) -> u64 {
        (self.bodies_at() + self.bodies).next_multiple_of(PAGE)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.put_u64(self.secret);
        out.put_u64(self.generation);
        out.put_u64(self.sequence);
        out.put_u64(self.time.0);
        out.put_u64(self.bodies);
        out.put_u32(self.records);
        out.put_u32(self.checksum);
        out.put_u32(0);
        super::codec::seal(&mut out, 0);
        out
    }

    /// The secret that a header of this use of the segment names, whatever spool's it is.
    pub fn secret_of(bytes: &[u8], generation: u64) -> Option<u64> {
        let secret = bytes.get(8..16)?.try_into().ok().map(u64::from_le_bytes)?;
        let found = Self::decode(bytes, secret, generation);
        found.ok().flatten().map(|header| header.secret)
    }

    /// Reads a header of this spool and this use of the segment; `None` when there is none.
    pub fn decode(bytes: &[u8], secret: u64, generation: u64) -> Result<Option<Self>, Malformed> {
        let Some(content) = bytes
            .get(..HEADER)
            .filter(|bytes| bytes.starts_with(MAGIC))
            .and_then(|bytes| super::codec::unseal(bytes, "group header").ok())
        else {
            return Ok(None);
        };
        let mut take = Take::new(content);
        take.slice(4, "magic")?;
        let version = take.version("group", VERSION);
        take.slice(3, "reserved")?;
        if take.u64("secret")? != secret || take.u64("generation")? != generation {
            return Ok(None);
        }
        // Only now: a foreign or an old group may be of any version.
        version?;
        let sequence = take.u64("sequence")?;
        let time = Timestamp(take.u64("time")?);
        let bodies = take.u64("bodies")?;
        let records = take.u32("records")?;
        let checksum = take.u32("checksum")?;
        Ok(Some(Self {
            secret,
            generation,
            sequence,
            time,
            records,
            bodies,
            checksum,
        }))
    }
}

/// A group being put together.
#[derive(Debug, Default)]
pub struct Draft {
    /// Its records.
    pub records: Records,
    bodies: Vec<Bytes>,
    bodies_length: u64,
}

impl Draft {
    /// Adds the parts of a body; returns where it starts, counted from the start of the bodies.
    pub fn body(&mut self, parts: &[Bytes]) -> u64 {
        let offset = self.bodies_length;
        for part in parts {
            self.bodies_length += part.len() as u64;
            self.bodies.push(part.clone());
        }
        offset
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.records.bytes().is_empty()
    }

    /// Bytes so far, not counting header and padding.
    pub fn size(&self) -> u64 {
        self.records.bytes().len() as u64 + self.bodies_length
    }

    /// The room it will take.
    pub fn length(&self) -> u64 {
        (HEADER as u64 + self.size()).next_multiple_of(PAGE)
    }

    /// The whole group, ready to be written.
    pub fn encode(&self, secret: u64, generation: u64, sequence: u64, time: Timestamp) -> Vec<u8> {
        let records = self.records.bytes();
        let header = Header {
            secret,
            generation,
            sequence,
            time,
            records: u32::try_from(records.len())
                .expect("a group's records are bounded far below 4 GiB"),
            bodies: self.bodies_length,
            checksum: crc32c::crc32c(records),
        };
        let mut out = Vec::with_capacity(header.length() as usize);
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(records);
        for body in &self.bodies {
            out.extend_from_slice(body);
        }
        out.resize(header.length() as usize, 0);
        out
    }
}
