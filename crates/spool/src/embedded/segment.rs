//! The segment files: which there are, open ones, free ones for use again. Owns their names; never what stands in them.
//!
//! `journal/GENERATION.segment` is in use, `journal/GENERATION.free` waits to be used again under a new generation. Use and
//! release are renames, so a crash leaves either name and never a half-marked segment.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{self, Disk, File};
use super::entry::Span;

/// Open files at most; the rest are opened when read.
const OPEN_MAX: usize = 64;
/// Free segments kept for use again; more are removed. Under full load half a dozen come free at once.
pub const FREE_MAX: usize = 8;

/// What the name of a free one starts with that was never used: not a number, so it is never a released one's.
const NEW: &str = "new-";

/// All segments.
#[derive(Debug)]
pub struct Segments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segment_bytes: u64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Length by generation.
    live: BTreeMap<u64, u64>,
    open: HashMap<u64, Arc<dyn File>>,
    free: Vec<PathBuf>,
    made: u64,
}

impl Segments {
    /// Reads the folder.
    pub fn open(disk: Arc<dyn Disk>, folder: PathBuf, segment_bytes: u64) -> io::Result<Self> {
        let mut table = Table::default();
        for path in disk.list(&folder)? {
            let (Some(stem), Some(extension)) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            match (extension, u64::from_str_radix(stem, 16)) {
                ("segment", Ok(generation)) => {
                    let length = disk.open(&path)?.length()?;
                    table.live.insert(generation, length);
                }
                // A free one of another size: the setting was changed, or it was being made when the process ended.
                ("free", _) if disk.open(&path)?.length()? != segment_bytes => {
                    disk.remove(&path)?
                }
                ("free", _) => {
                    let number = stem.strip_prefix(NEW).and_then(|rest| rest.parse().ok());
                    table.made = table.made.max(number.unwrap_or(0));
                    table.free.push(path);
                }
                _ => {}
            }
        }
        Ok(Self {
            disk,
            folder,
            segment_bytes,
            table: Mutex::new(table),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves the table whole: every change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("{generation:016x}.segment"))
    }

    /// Generations in use, with lengths.
    pub fn live(&self) -> BTreeMap<u64, u64> {
        self.table().live.clone()
    }

    /// Whether a generation is in use.
    pub fn is_live(&self, generation: u64) -> bool {
        self.table().live.contains_key(&generation)
    }

    /// Bytes of all, also of those that wait to be used again.
    pub fn bytes(&self) -> u64 {
        let table = self.table();
        table.live.values().sum::<u64>() + table.free.len() as u64 * self.segment_bytes
    }

    /// How many wait to be used again.
    pub fn free(&self) -> usize {
        self.table().free.len()
    }

    /// The file of a generation.
    pub fn file(&self, generation: u64) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.table().open.get(&generation) {
            return Ok(file.clone());
        }
        if !self.is_live(generation) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.disk.open(&self.path(generation))?;
        let mut table = self.table();
        if !table.live.contains_key(&generation) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if table.open.len() >= OPEN_MAX
            && let Some(oldest) = table.open.keys().min().copied()
        {
            table.open.remove(&oldest);
        }
        table.open.insert(generation, file.clone());
        Ok(file)
    }

    /// Reads a span.
    pub fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        self.read_at(
            span.generation,
            u64::from(span.offset),
            span.length as usize,
        )
    }

    /// Reads from a segment.
    pub fn read_at(&self, generation: u64, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        disk::read_at(self.file(generation)?.as_ref(), offset, length)
    }

    /// Makes sure that a free segment waits.
    pub fn prepare(&self) -> io::Result<()> {
        if self.free() == 0 {
            let path = self.make(self.segment_bytes)?;
            self.table().free.push(path);
        }
        Ok(())
    }

    fn make(&self, length: u64) -> io::Result<PathBuf> {
        let number = {
            let mut table = self.table();
            table.made += 1;
            table.made
        };
        let path = self.folder.join(format!("{NEW}{number}.free"));
        let made = self.disk.open(&path).and_then(|file| file.allocate(length));
        if let Err(error) = made {
            // What could not be made whole takes room for nothing.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(path)
    }

    /// Takes a segment of at least `length` bytes into use under a new generation, durably.
    pub fn take(&self, generation: u64, length: u64) -> io::Result<(Arc<dyn File>, u64)> {
        let (from, length) = if length > self.segment_bytes {
            (self.make(length)?, length)
        } else {
            let free = self.table().free.pop();
            let path = match free {
                Some(path) => path,
                None => self.make(self.segment_bytes)?,
            };
            (path, self.segment_bytes)
        };
        let to = self.path(generation);
        self.disk.rename(&from, &to)?;
        self.disk.sync_folder(&self.folder)?;
        let file = self.disk.open(&to)?;
        let mut table = self.table();
        table.live.insert(generation, length);
        table.open.insert(generation, file.clone());
        Ok((file, length))
    }

    /// Makes names durable.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// Takes a segment out of use. The caller made sure that nothing in it is needed, and calls [`Self::sync`] before it
    /// lets anything rely on it.
    pub fn release(&self, generation: u64) -> io::Result<()> {
        let path = self.path(generation);
        let (length, free) = {
            let mut table = self.table();
            let Some(length) = table.live.remove(&generation) else {
                return Ok(());
            };
            table.open.remove(&generation);
            (length, table.free.len())
        };
        let done = if length == self.segment_bytes && free < FREE_MAX {
            let to = path.with_extension("free");
            self.disk.rename(&path, &to).map(|()| Some(to))
        } else {
            self.disk.remove(&path).map(|()| None)
        };
        match done {
            Ok(freed) => {
                self.table().free.extend(freed);
                Ok(())
            }
            Err(error) => {
                self.table().live.insert(generation, length);
                Err(error)
            }
        }
    }

    /// The folder they stand in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
