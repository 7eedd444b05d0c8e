//! Tar archives as a stream: names (GNU's and pax' long ones too) and the bytes of each file.

use std::io::{self, Read};

/// Bytes of a block.
const BLOCK: usize = 512;
/// Bytes of a long name that are read; file systems take 4096.
const NAME_BYTES_MAX: u64 = 65_536;

/// Calls `visit` with the names (one, or two where readers differ) and the bytes of each file. Ends at the first block that is no
/// header: what follows is nobody's.
pub fn each<E>(
    reader: &mut dyn Read,
    mut visit: impl FnMut(&[Vec<u8>], &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut long: Vec<Vec<u8>> = Vec::new();
    let mut block = [0; BLOCK];
    while reader.read_exact(&mut block).is_ok() && is_header(&block) {
        let size = number(&block[124..136]);
        let padded = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        let mut content = Limited {
            inner: reader,
            left: padded,
        };
        match block[156] {
            b'L' | b'x' => {
                let mut text = Vec::new();
                let _ = (&mut content)
                    .take(size.min(NAME_BYTES_MAX))
                    .read_to_end(&mut text);
                if let Some(name) = long_name(block[156], text) {
                    long.push(name);
                }
            }
            // A file, or a link to one: both are made under their name.
            b'0' | b'1' | b'2' | b'7' | 0 => {
                let mut names = std::mem::take(&mut long);
                names.push(name(&block));
                let mut file = (&mut content).take(size);
                visit(&names, &mut file)?;
            }
            _ => long.clear(),
        }
        let left = content.left;
        let skipped = io::copy(&mut reader.take(left), &mut io::sink());
        if skipped.ok() != Some(left) {
            break;
        }
    }
    Ok(())
}

/// The long name that an extension block tells of the next file.
fn long_name(kind: u8, text: Vec<u8>) -> Option<Vec<u8>> {
    if kind == b'L' {
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        return Some(text[..end].to_vec());
    }
    // pax: `LENGTH path=NAME\n` records.
    text.split(|b| *b == b'\n').find_map(|line| {
        let space = line.iter().position(|b| *b == b' ')?;
        line[space + 1..].strip_prefix(b"path=").map(<[u8]>::to_vec)
    })
}

/// The name in a header; ustar's prefix in front.
fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        field[..end].to_vec()
    };
    let name = text(&block[..100]);
    match text(&block[345..500]) {
        prefix if prefix.is_empty() || &block[257..263] != b"ustar\0" => name,
        prefix => [prefix, name].join(&b'/'),
    }
}

/// Whether the checksum is right (spaces in its place, unsigned or signed as old writers had it).
fn is_header(block: &[u8; BLOCK]) -> bool {
    let of = |value: fn(u8) -> i64| -> i64 {
        let bytes = block.iter().enumerate();
        bytes
            .map(|(at, b)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    value(*b)
                }
            })
            .sum()
    };
    let told = number(&block[148..156]) as i64;
    block[0] != 0 && (told == of(i64::from) || told == of(|b| i64::from(b as i8)))
}

/// An octal number, or GNU's binary one.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        let bytes = field[1..].iter();
        return bytes.fold(0, |number: u64, b| {
            number.wrapping_mul(256).wrapping_add(u64::from(*b))
        });
    }
    let digits = field.iter().skip_while(|b| **b == b' ');
    digits
        .take_while(|b| (b'0'..=b'7').contains(*b))
        .fold(0, |number: u64, b| {
            number.wrapping_mul(8).wrapping_add(u64::from(b - b'0'))
        })
}

/// A reader that counts down.
struct Limited<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}
