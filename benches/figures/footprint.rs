//! What a process takes in memory and a folder on the disk, and how to make the system forget what it has cached of it.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A line of `/proc/self/status` that is in kB (`VmRSS`, `VmHWM`, `RssAnon`), in bytes.
pub fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
        .map_or(f64::NAN, |kilobytes| kilobytes * 1024.0)
}

/// What a folder takes on the disk, bytes, counting files that `counts` says so of.
pub fn room(folder: &Path, counts: &impl Fn(&Path) -> bool) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        bytes += match metadata.is_dir() {
            true => room(&path, counts)?,
            false if counts(&path) => metadata.blocks() * 512,
            false => 0,
        };
    }
    Ok(bytes)
}

/// Makes the system forget what it has cached of a folder, or all that it has cached when that is wanted and allowed. Says what was
/// done.
pub fn drop_caches(folder: &Path, all: bool) -> io::Result<&'static str> {
    rustix::fs::sync();
    let drop = || -> io::Result<()> {
        let path = "/proc/sys/vm/drop_caches";
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        file.write_all(b"3")
    };
    if all && drop().is_ok() {
        return Ok("the whole page cache dropped");
    }
    forget(folder)?;
    Ok("the spool's files dropped from the page cache")
}

fn forget(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let file = std::fs::File::open(&path)?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
