//! The system's disk with a longer sync, and a note of what the journal wrote and synced, so that a bare loop can do the same.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spool::embedded::disk::{Disk, File, Free, System};

/// The disk.
#[derive(Clone, Debug)]
pub struct SlowDisk {
    /// So much longer every sync of a file takes.
    pub slower: Duration,
    /// What was written.
    pub noted: Arc<Noted>,
}

/// What was written to segments: the length of every group.
#[derive(Debug, Default)]
pub struct Noted {
    groups: Mutex<Vec<u64>>,
    unsynced: AtomicU64,
}

impl Noted {
    /// The groups since this was asked last.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SlowDisk {
    /// With syncs that take so much longer.
    pub fn new(slower: Duration) -> Self {
        Self {
            slower,
            noted: Arc::default(),
        }
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn File>,
    disk: SlowDisk,
    is_segment: bool,
}

impl Disk for SlowDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        System.make_folder(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SlowFile {
            file: System.open(path)?,
            disk: self.clone(),
            is_segment: path.extension().is_some_and(|name| name == "segment"),
        }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        System.open_to_read(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        System.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        System.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        System.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        System.sync_folder(path)
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        System.free(path)
    }
}

impl File for SlowFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let written = self.file.write_at(bytes, offset)?;
        if self.is_segment {
            let noted = &self.disk.noted;
            noted.unsynced.fetch_add(written as u64, Ordering::Relaxed);
        }
        Ok(written)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if !self.disk.slower.is_zero() {
            std::thread::sleep(self.disk.slower);
        }
        self.file.sync()?;
        if self.is_segment {
            let noted = &self.disk.noted;
            let group = noted.unsynced.swap(0, Ordering::Relaxed);
            let mut groups = noted.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.push(group);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}
