//! Zip archives as all readers see them: by the directory at the end, and by the headers in front of each file. Names only, and
//! where the bytes are; inflating is the caller's.

use super::budget::{Budget, Excess};

/// The directory's end record is looked for in so many bytes: itself and the longest comment.
const END_BYTES_MAX: usize = 22 + 65_535;

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name in the directory, and in front of it: each that there is.
    pub names: Vec<&'a [u8]>,
    /// 0 stored, 8 deflated; others are not read.
    pub method: u16,
    /// Whether a password is needed.
    pub encrypted: bool,
    /// Its bytes as they stand; up to the archive's end when the size is not told.
    pub data: &'a [u8],
    at: usize,
}

/// All files, within the budget.
pub fn entries<'a>(bytes: &'a [u8], budget: &Budget<'_>) -> Result<Vec<Entry<'a>>, Excess> {
    let mut entries = directory(bytes, budget)?;
    // Headers that the directory does not tell of: readers that go from the front see them.
    let mut known: Vec<(usize, usize)> = entries
        .iter()
        .map(|entry| (entry.at, entry.at + 30 + entry.data.len()))
        .collect();
    known.sort_unstable();
    let mut covered = 0;
    let mut next = known.iter().peekable();
    let mut at = 0;
    while let Some(found) = find(bytes, b"PK\x03\x04", at) {
        at = found + 4;
        while let Some((_, end)) = next.next_if(|(start, _)| *start <= found) {
            covered = covered.max(*end);
        }
        if found < covered {
            continue;
        }
        if let Some(entry) = local(bytes, found) {
            budget.file()?;
            // Its size may be told behind it only: what follows may hold more.
            covered = covered.max(found + 30);
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// The directory's records, each counted before the next is made: a directory may tell of far more than the budget has.
fn directory<'a>(bytes: &'a [u8], budget: &Budget<'_>) -> Result<Vec<Entry<'a>>, Excess> {
    let tail = bytes.len().saturating_sub(END_BYTES_MAX);
    let Some(end) = bytes[tail..]
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .map(|at| tail + at)
    else {
        return Ok(Vec::new());
    };
    let (Some(size), Some(told)) = (u32_at(bytes, end + 12), u32_at(bytes, end + 16)) else {
        return Ok(Vec::new());
    };
    // Something may stand in front of the archive: offsets count from its own start.
    let start = end.saturating_sub(size);
    let shift = start.saturating_sub(told);
    let mut entries = Vec::new();
    let mut at = start;
    while at < end && bytes.get(at..at + 4) == Some(b"PK\x01\x02") {
        let Some((entry, length)) = record(bytes, at, shift) else {
            break;
        };
        budget.file()?;
        entries.push(entry);
        at += length;
    }
    Ok(entries)
}

/// One record of the directory and its length.
fn record(bytes: &[u8], at: usize, shift: usize) -> Option<(Entry<'_>, usize)> {
    let flags = u16_at(bytes, at + 8)?;
    let method = u16_at(bytes, at + 10)?;
    let packed = u32_at(bytes, at + 20)?;
    let [name, extra, comment] = [28, 30, 32].map(|offset| u16_at(bytes, at + offset));
    let (name, extra, comment) = (name?, extra?, comment?);
    let offset = u32_at(bytes, at + 42)?.checked_add(shift)?;
    let end = at + 46 + usize::from(name);
    let told = bytes.get(at + 46..end)?;
    let mut entry = Entry {
        names: vec![told],
        method,
        encrypted: flags & 1 != 0 || method == 99,
        data: &[],
        at: offset,
    };
    if let Some(local) = local(bytes, offset) {
        entry.encrypted |= local.encrypted;
        entry.data = &local.data[..packed.min(local.data.len())];
        if local.names[0] != told {
            entry.names.extend(local.names);
        }
    }
    Some((
        entry,
        46 + [name, extra, comment]
            .map(usize::from)
            .iter()
            .sum::<usize>(),
    ))
}

/// The header in front of a file.
fn local(bytes: &[u8], at: usize) -> Option<Entry<'_>> {
    if bytes.get(at..at.checked_add(4)?)? != b"PK\x03\x04" {
        return None;
    }
    let version = u16_at(bytes, at + 4)?;
    let flags = u16_at(bytes, at + 6)?;
    let method = u16_at(bytes, at + 8)?;
    let packed = u32_at(bytes, at + 18)?;
    let name = usize::from(u16_at(bytes, at + 26)?);
    let extra = usize::from(u16_at(bytes, at + 28)?);
    let told = bytes.get(at + 30..at + 30 + name)?;
    let rest = bytes.get(at + 30 + name + extra..).unwrap_or_default();
    // Such a mark also occurs by chance in packed bytes.
    let is_plausible = version & 0xff < 100 && method < 100 && name > 0;
    let is_told = flags & 8 == 0 && packed != u32::MAX as usize;
    is_plausible.then(|| Entry {
        names: vec![told],
        method,
        encrypted: flags & 1 != 0 || method == 99,
        data: if is_told {
            &rest[..packed.min(rest.len())]
        } else {
            rest
        },
        at,
    })
}

fn find(bytes: &[u8], mark: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(mark.len())
        .position(|window| window == mark)
        .map(|at| from + at)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes([two[0], two[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
}
