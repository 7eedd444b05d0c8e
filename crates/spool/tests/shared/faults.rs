//! A disk that fails as told: at its n-th call, in one of several ways; and one that forgets what was not synced.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spool::embedded::disk::{Disk, File, Free, System};

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and so does every later one: the process is as good as dead.
    Dies,
    /// It alone fails, with this error.
    Once(io::ErrorKind),
    /// It alone fails as on a bad sector (EIO).
    Eio,
    /// A write does half its work, then all fails; another call dies.
    Tears,
    /// A write does half its work and says so; all goes on.
    IsShort,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    at: AtomicU64,
    calls: AtomicU64,
    dead: AtomicBool,
    free: Mutex<Free>,
    /// How much longer a sync takes, milliseconds.
    slower: AtomicU64,
    /// Every call of this name fails.
    failing: Mutex<&'static str>,
    /// Reading these stretches of files fails (EIO).
    refused: Mutex<Vec<(PathBuf, Range<u64>)>>,
    /// Calls that were told to fail by name or stretch.
    failed: AtomicU64,
    last: Mutex<Vec<&'static str>>,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Plan>);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn File>,
    path: PathBuf,
    plan: Arc<Plan>,
}

impl FaultyDisk {
    /// With this fault at the call of this number, counted from 1; 0 is never.
    pub fn new(fault: Fault, at: u64) -> Self {
        Self(Arc::new(Plan {
            fault,
            at: AtomicU64::new(at),
            calls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            free: Mutex::new(Free {
                bytes: u64::MAX,
                inodes: u64::MAX,
            }),
            slower: AtomicU64::new(0),
            failing: Mutex::new(""),
            refused: Mutex::default(),
            failed: AtomicU64::new(0),
            last: Mutex::new(Vec::new()),
        }))
    }

    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub fn struck(&self) -> bool {
        let at = self.0.at.load(Ordering::SeqCst);
        at > 0 && self.calls() >= at
    }

    /// The fault comes with the call of this number from now on, counted from 1.
    pub fn strike_in(&self, calls: u64) {
        self.0.at.store(self.calls() + calls, Ordering::SeqCst);
    }

    /// The call that was struck.
    pub fn struck_call(&self) -> Option<&'static str> {
        self.0
            .last
            .lock()
            .unwrap()
            .get(self.0.at.load(Ordering::SeqCst) as usize - 1)
            .copied()
    }

    /// Makes every sync of a file take so much longer.
    pub fn set_slower(&self, by: Duration) {
        self.0.slower.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Makes every call of a name fail from now on; "" for none.
    pub fn set_failing(&self, name: &'static str) {
        *self.0.failing.lock().unwrap() = name;
    }

    /// Makes reading a stretch of a file fail from now on, as a bad sector does.
    pub fn refuse(&self, path: &Path, stretch: Range<u64>) {
        let mut refused = self.0.refused.lock().unwrap();
        refused.push((path.to_owned(), stretch));
    }

    /// How many calls have failed by their name or their stretch.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::SeqCst)
    }

    /// All can be read again.
    pub fn heal(&self) {
        self.0.refused.lock().unwrap().clear();
    }

    pub fn set_free(&self, bytes: u64, inodes: u64) {
        *self.0.free.lock().unwrap() = Free { bytes, inodes };
    }
}

impl Plan {
    /// Counts a call; whether it does half its work.
    fn call(&self, name: &'static str) -> io::Result<bool> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.last.lock().unwrap().push(name);
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("dead"));
        }
        if *self.failing.lock().unwrap() == name {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::other("fails as told"));
        }
        if number != self.at.load(Ordering::SeqCst) {
            return Ok(false);
        }
        match self.fault {
            Fault::Dies => {
                self.dead.store(true, Ordering::SeqCst);
                Err(io::Error::other("dies here"))
            }
            Fault::Once(kind) => Err(kind.into()),
            Fault::Eio => Err(rustix::io::Errno::IO.into()),
            Fault::Tears => {
                self.dead.store(true, Ordering::SeqCst);
                match name {
                    "write" => Ok(true),
                    _ => Err(io::Error::other("dies here")),
                }
            }
            Fault::IsShort => Ok(true),
        }
    }
}

impl Disk for FaultyDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.0.call("make_folder")?;
        System.make_folder(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.call("open")?;
        Ok(Arc::new(FaultyFile {
            file: System.open(path)?,
            path: path.to_owned(),
            plan: self.0.clone(),
        }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.call("open_to_read")?;
        Ok(Arc::new(FaultyFile {
            file: System.open_to_read(path)?,
            path: path.to_owned(),
            plan: self.0.clone(),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.call("read file")?;
        System.read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.call("list")?;
        System.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.call("rename")?;
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.call("remove")?;
        System.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.0.call("remove_folder")?;
        System.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.0.call("sync_folder")?;
        System.sync_folder(path)
    }

    fn free(&self, _path: &Path) -> io::Result<Free> {
        self.0.call("free")?;
        Ok(*self.0.free.lock().unwrap())
    }
}

impl File for FaultyFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.plan.call("write")? {
            true => self.file.write_at(&bytes[..bytes.len() / 2], offset),
            false => self.file.write_at(bytes, offset),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + bytes.len() as u64;
        let refused = self.plan.refused.lock().unwrap();
        let mut refused = refused.iter().filter(|(path, _)| *path == self.path);
        if refused.any(|(_, stretch)| stretch.start < end && offset < stretch.end) {
            self.plan.failed.fetch_add(1, Ordering::SeqCst);
            return Err(rustix::io::Errno::IO.into());
        }
        match self.plan.call("read")? {
            true => {
                let half = bytes.len().div_ceil(2);
                self.file.read_at(&mut bytes[..half], offset)
            }
            false => self.file.read_at(bytes, offset),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let slower = self.plan.slower.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(slower));
        self.plan.call("sync")?;
        self.file.sync()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.plan.call("allocate")?;
        self.file.allocate(bytes)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.plan.call("set_length")?;
        self.file.set_length(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.plan.call("length")?;
        self.file.length()
    }
}

/// A disk whose files keep what was written in memory until they are synced: dropping it is a power cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolatileDisk;

#[derive(Debug)]
struct VolatileFile {
    file: Arc<dyn File>,
    pending: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Disk for VolatileDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        System.make_folder(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(VolatileFile {
            file: System.open(path)?,
            pending: Mutex::new(Vec::new()),
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

impl File for VolatileFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.pending.lock().unwrap().push((offset, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        for (offset, bytes) in self.pending.lock().unwrap().drain(..) {
            spool::embedded::disk::write_all_at(self.file.as_ref(), &bytes, offset)?;
        }
        self.file.sync()
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
