//! The seam to the disk: every call that the journal makes goes through [`Disk`] and [`File`], so that tests can make each
//! one fail, be short, tear or be slow. Owns no policy: it retries nothing and decides nothing. The index's SQLite keeps its
//! own way to the disk; it is a view and may be lost.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::group::PAGE;

/// Free room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes that this process may still use.
    pub bytes: u64,
    /// Inodes that this process may still use.
    pub inodes: u64,
}

/// The file system, as far as the spool needs it.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a folder, mode 0700; fine when it is there.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for reading and writing; made when missing, mode 0600.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file that is there, for reading alone: the disk that a copy is taken from may be mounted so.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// The whole of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Renames a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; fine when it is not there.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// What is free.
    fn free(&self, path: &Path) -> io::Result<Free>;
}

/// An open file.
pub trait File: Debug + Send + Sync + 'static {
    /// Writes at `offset`; may be short.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads at `offset`; may be short.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Reserves room for `bytes` and makes the file so long.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes it so long; what was never written reads as zeros and takes no room.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Its length.
    fn length(&self) -> io::Result<u64>;
}

/// Writes all of `bytes` at `offset`.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads `length` bytes at `offset`; fewer only at the end of the file.
pub fn read_at(file: &dyn File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads what the disk gives of `length` bytes at `offset`, page by page; zeros stand for what it refuses, which is told.
pub fn read_around(
    file: &dyn File,
    offset: u64,
    length: usize,
    mut refused: impl FnMut(u64, usize),
) -> Vec<u8> {
    if let Ok(bytes) = read_at(file, offset, length) {
        return bytes;
    }
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        let at = offset + all.len() as u64;
        let want = ((PAGE - at % PAGE) as usize).min(length - all.len());
        match read_at(file, at, want) {
            Ok(bytes) if bytes.len() < want => {
                all.extend(bytes);
                break;
            }
            Ok(bytes) => all.extend(bytes),
            Err(_) => {
                refused(at, want);
                all.resize(all.len() + want, 0);
            }
        }
    }
    all
}

/// Whether an error says that there is no room; a quota is no room either.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Writes a small file anew, durable with its name.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path)?;
    // What a longer one of this name said must not stand behind it.
    file.set_length(0)?;
    write_all_at(file.as_ref(), bytes, 0)?;
    file.sync()?;
    disk.sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

#[derive(Debug)]
struct SystemFile(std::fs::File);

impl Disk for System {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        // A folder made by hand may be wider; mail is nobody else's business.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SystemFile(std::fs::File::open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn free(&self, path: &Path) -> io::Result<Free> {
        let stat = rustix::fs::statvfs(path)?;
        // A file system without a fixed number of inodes (btrfs) says that it has none at all.
        let inodes = if stat.f_files == 0 {
            u64::MAX
        } else {
            stat.f_favail
        };
        Ok(Free {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes,
        })
    }
}

impl File for SystemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // Not every file system can; then the file is only made long, and grows as it is first written.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(bytes)?,
            other => other?,
        }
        self.0.sync_all()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
