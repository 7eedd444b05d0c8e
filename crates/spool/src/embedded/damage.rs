//! Damage in the journal: groups that should stand between two good ones, and what the disk refuses behind the last. A stretch is copied
//! to `corrupt/` and told; what is whole of it counts; what was refused is neither written over nor let go of.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{self, Disk};
use super::entry::Position;
use super::group::PAGE;
use super::record;
use super::replay::{Group, Replay, ReplayError};

/// A stretch of the journal in which acknowledged groups cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The use of the segment.
    pub generation: u64,
    /// Where the stretch starts in it.
    pub offset: u64,
    /// Its length, bytes.
    pub length: u64,
    /// Groups that are not whole.
    pub groups: u64,
    /// Records of them that count all the same, and records that are lost, as far as they can be counted.
    pub records: (u64, u64),
    /// Where a copy of the stretch was put.
    pub set_aside: PathBuf,
}

impl Replay<'_> {
    /// Where the next group goes. What the disk refuses behind the end may be groups that were acknowledged: they are set aside, and the
    /// next one goes into another segment.
    pub(super) fn behind(&self, mut end: Position) -> Result<Position, ReplayError> {
        let from = (end.generation, end.offset / PAGE * PAGE);
        let refused: Vec<_> = self.refused.borrow().range(from..).copied().collect();
        for (generation, page) in &refused {
            let start = match *generation == end.generation {
                true => end.offset,
                false => 0,
            };
            let Some(length) = self.segments.live().get(generation).copied() else {
                continue;
            };
            // The last page of each segment closes its stretch.
            let next = (*generation, page + PAGE)..(*generation + 1, 0);
            if self.refused.borrow().range(next).next().is_none() {
                self.set_aside((*generation, start), page + PAGE, 0, (0, 0))?;
                end.generation = *generation;
                end.offset = length;
            }
        }
        Ok(end)
    }

    /// Tells of groups that should stand between `last` and `group`, and sets the stretch aside. Returns what is whole of them.
    pub(super) fn notice_gap(
        &self,
        last: Position,
        group: &Group,
        expected: u64,
    ) -> Result<Vec<Group>, ReplayError> {
        let header = &group.header;
        // Between segments that do not follow each other others were used again: no gap can be seen there. Each is written from its
        // start, so that in a segment none can be missed.
        let adjacent = header.generation <= last.generation + 1 && last.generation > 0;
        let before = adjacent && header.sequence != last.sequence + 1;
        if !before && group.offset == expected {
            return Ok(Vec::new());
        }
        let mut missing = last.sequence + 1..header.sequence;
        let count = match adjacent {
            true => header.sequence.saturating_sub(last.sequence + 1),
            false => 1,
        };
        let mut stretches = vec![((header.generation, expected), group.offset)];
        if before && header.generation != last.generation {
            // They stood at the end of the segment before.
            let length = self.segments.live().get(&last.generation).copied();
            stretches.insert(0, ((last.generation, last.offset), length.unwrap_or(0)));
        }
        let mut saved = Vec::new();
        for ((generation, from), to) in stretches {
            if from >= to {
                continue;
            }
            let (groups, lost) = self.salvage((generation, from), to, &mut missing)?;
            let records = groups.iter().map(|one| one.records.len() as u64).sum();
            self.set_aside((generation, from), to, count, (records, lost))?;
            saved.extend(groups);
        }
        Ok(saved)
    }

    /// What is whole of the groups in a stretch; also how many records are lost in those whose header is whole.
    fn salvage(
        &self,
        (generation, from): (u64, u64),
        to: u64,
        missing: &mut std::ops::Range<u64>,
    ) -> Result<(Vec<Group>, u64), ReplayError> {
        let file = self.segments.file(generation)?;
        let (mut groups, mut all_lost) = (Vec::new(), 0);
        let mut offset = from;
        while offset + PAGE <= to {
            let Some((header, bytes)) = self.bytes(file.as_ref(), generation, to, offset)? else {
                offset += PAGE;
                continue;
            };
            if missing.contains(&header.sequence) {
                missing.start = header.sequence + 1;
                let (records, lost) = record::read_what_is_whole(&bytes, header.bodies);
                all_lost += lost;
                groups.push(Group {
                    header,
                    offset,
                    records,
                });
            }
            offset += header.length();
        }
        Ok((groups, all_lost))
    }

    /// Copies a stretch, and tells of it.
    fn set_aside(
        &self,
        (generation, from): (u64, u64),
        to: u64,
        groups: u64,
        records: (u64, u64),
    ) -> Result<(), ReplayError> {
        let file = self.segments.file(generation)?;
        let mut bytes = self.read(file.as_ref(), generation, from, (to - from) as usize)?;
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        bytes.truncate(used.next_multiple_of(PAGE as usize));
        let pages = (generation, from)..(generation, to);
        let is_refused = self.refused.borrow().range(pages).next().is_some();
        let name = format!("journal-{generation:016x}-{from}");
        let path = self.corrupt.join(match is_refused {
            true => format!("{name}{REFUSED}"),
            false => name,
        });
        let saved = disk::write_file(self.disk.as_ref(), &path, &bytes);
        tracing::error!(
            event = "journal_damaged",
            generation,
            offset = from,
            length = to - from,
            groups_missing = groups,
            records_saved = records.0,
            records_lost = records.1,
            refused = is_refused,
            set_aside = %path.display(),
            saved = saved.is_ok(),
            "groups that were acknowledged cannot be read; look at the disk, and at what was set aside"
        );
        self.damage.borrow_mut().push(Damage {
            generation,
            offset: from,
            length: to - from,
            groups,
            records,
            set_aside: path,
        });
        Ok(())
    }
}

/// What the name of a stretch ends with of which the disk refused some.
const REFUSED: &str = ".refused";

/// The segments of which the disk refused some, and gave it to nobody: as long as their stretches lie in `corrupt`, they are not used
/// again, so that a disk that comes back can still give it.
pub fn kept_segments(disk: &dyn Disk, corrupt: &Path) -> io::Result<BTreeSet<u64>> {
    let names = disk.list(corrupt)?;
    let names = names.iter().filter_map(|path| path.file_name()?.to_str());
    let generation = |name: &str| {
        let number = name.strip_suffix(REFUSED)?.strip_prefix("journal-")?;
        u64::from_str_radix(number.split('-').next()?, 16).ok()
    };
    Ok(names.filter_map(generation).collect())
}
