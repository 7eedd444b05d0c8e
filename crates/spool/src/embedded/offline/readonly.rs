//! A disk that is only read, and of which some may be unreadable: what the system cannot read counts as zeros, so that all around it
//! can still be got. Shows segments in use alone.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::disk::{Disk, File, Free, System};
use super::super::group::PAGE;

/// See the module.
#[derive(Debug, Default)]
pub struct ReadOnly {
    unreadable: Arc<AtomicU64>,
}

impl ReadOnly {
    /// Bytes that the system could not read; those read twice count twice.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct OldFile {
    file: std::fs::File,
    unreadable: Arc<AtomicU64>,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OldFile {
            file: std::fs::File::open(path)?,
            unreadable: self.unreadable.clone(),
        }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut all = System.list(path)?;
        all.retain(|path| path.extension().is_some_and(|name| name == "segment"));
        Ok(all)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        System.free(path)
    }
}

impl File for OldFile {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        refused()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match FileExt::read_at(&self.file, bytes, offset) {
            Ok(read) => Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(_) => {
                // To the next page: the disk may be able to read that one.
                let page = (PAGE - offset % PAGE) as usize;
                let length = page.min(bytes.len());
                let bytes = bytes.get_mut(..length).unwrap_or_default();
                match FileExt::read_at(&self.file, bytes, offset) {
                    Ok(read) => Ok(read),
                    Err(error) => {
                        bytes.fill(0);
                        let lost = self.unreadable.fetch_add(length as u64, Ordering::Relaxed);
                        if lost == 0 {
                            tracing::error!(event = "disk_unreadable", offset, %error);
                        }
                        Ok(length)
                    }
                }
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_counts_as_zeros_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let disk = ReadOnly::default();
        // The system opens a folder and refuses to read from it, as a dying disk does.
        let file = disk.open(folder.path()).unwrap();
        let mut bytes = [7; 8192];
        assert_eq!(file.read_at(&mut bytes, 100).unwrap(), 4096 - 100);
        assert!(bytes[..3996].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[3996], 7);
        assert_eq!(disk.unreadable(), 3996);
        assert!(file.write_at(b"x", 0).is_err());
        assert!(disk.remove(folder.path()).is_err());
    }
}
