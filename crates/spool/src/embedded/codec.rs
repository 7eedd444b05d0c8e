//! The primitives of the records: variable-length numbers, counted bytes, checksums. Reading is total: bad bytes make an
//! error that says where, never a panic, and nothing is allocated on the word of a length that was not checked.

/// Bytes that do not follow the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end too early, or say something that cannot be.
    #[error("byte {at}: bad {what}")]
    Bad {
        /// What was being read.
        what: &'static str,
        /// Where, counted from the start of what was being decoded.
        at: usize,
    },
    /// Written by a later version of this program.
    #[error("{what} of version {found}, this program reads up to {known}: use the newer program")]
    Version {
        /// What was being read.
        what: &'static str,
        /// Its version.
        found: u8,
        /// The last one that is known here.
        known: u8,
    },
}

/// Appends to a buffer.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// A fixed 32-bit number.
    fn put_u32(&mut self, value: u32);
    /// A fixed 64-bit number.
    fn put_u64(&mut self, value: u64);
    /// A fixed 128-bit number.
    fn put_u128(&mut self, value: u128);
    /// A number in seven-bit groups, least first.
    fn put_number(&mut self, value: u64);
    /// Counted bytes.
    fn put_bytes(&mut self, value: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u128(&mut self, value: u128) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_number(value.len() as u64);
        self.extend_from_slice(value);
    }
}

/// Reads from a slice.
#[derive(Clone, Debug)]
pub struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Take<'a> {
    /// From its start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it has read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether all is read.
    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The error for `what` here.
    pub fn bad(&self, what: &'static str) -> Malformed {
        Malformed::Bad { what, at: self.at }
    }

    /// So many bytes.
    pub fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or_else(|| self.bad(what))?;
        let slice = self.bytes.get(self.at..end).ok_or_else(|| self.bad(what))?;
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let bad = self.bad(what);
        self.slice(N, what)?.try_into().map_err(|_| bad)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A fixed 32-bit number.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// A fixed 64-bit number.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A fixed 128-bit number.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, Malformed> {
        self.array(what).map(u128::from_le_bytes)
    }

    /// A number in seven-bit groups.
    pub fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.bad(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.bad(what))
    }

    /// A number that fits 32 bits.
    pub fn number_u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let value = self.number(what)?;
        u32::try_from(value).map_err(|_| self.bad(what))
    }

    /// Counted bytes.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.number(what)?;
        let length = usize::try_from(length).map_err(|_| self.bad(what))?;
        self.slice(length, what)
    }

    /// Counted bytes that are UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let bad = self.bad(what);
        std::str::from_utf8(self.bytes(what)?).map_err(|_| bad)
    }

    /// A version byte that must not be above `known`.
    pub fn version(&mut self, what: &'static str, known: u8) -> Result<u8, Malformed> {
        match self.u8(what)? {
            0 => Err(self.bad(what)),
            found if found > known => Err(Malformed::Version { what, found, known }),
            found => Ok(found),
        }
    }
}

/// Appends the checksum of all bytes from `start` on.
pub fn seal(buffer: &mut Vec<u8>, start: usize) {
    let checksum = crc32c::crc32c(buffer.get(start..).unwrap_or_default());
    buffer.put_u32(checksum);
}

/// The bytes before a trailing checksum, when it is right.
pub fn unseal<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], Malformed> {
    let bad = Malformed::Bad { what, at: 0 };
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(bad.clone())?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(bad);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut buffer = Vec::new();
            buffer.put_number(value);
            let mut take = Take::new(&buffer);
            assert_eq!(take.number("n"), Ok(value));
            assert!(take.is_done());
            buffer.pop();
            assert!(Take::new(&buffer).number("n").is_err());
        }
        assert!(Take::new(&[0xff; 10]).number("n").is_err());
    }

    #[test]
    fn seal_notices_every_flipped_bit() {
        let mut buffer = b"something".to_vec();
        seal(&mut buffer, 0);
        assert_eq!(unseal(&buffer, "x"), Ok(b"something".as_slice()));
        for bit in 0..buffer.len() * 8 {
            let mut flipped = buffer.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&flipped, "x").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_is_not_believed() {
        let mut buffer = Vec::new();
        buffer.put_number(u64::MAX);
        assert!(Take::new(&buffer).bytes("b").is_err());
    }
}
