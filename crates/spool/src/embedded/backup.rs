//! A consistent copy of a running spool, and putting one in place. The copy is the journal up to one moment, and the index as it
//! was a little before; while it is made no segment is taken out of use, and mail goes on. It is marked as a copy (`copy.rs`), however
//! it is put in place.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::copy;
use super::disk::{self, Disk, File, System};
use super::recover::failed;
use super::shared::Shared;
use crate::Error;

/// Files that make a spool, beside its segments.
const FORMAT: &str = "format";
const INDEX: &str = "index.sqlite";
/// Copied at once, bytes.
const CHUNK: u64 = 1024 * 1024;

fn taken(to: &Path) -> Error {
    failed(to)(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "is there already; name a folder that is not",
    ))
}

/// Copies a running spool to the folder `to`, which must not be there; it appears when it is complete and durable. Returns the bytes
/// copied.
pub fn backup(shared: &Shared, to: &Path) -> Result<u64, Error> {
    if to.exists() {
        return Err(taken(to));
    }
    let disk = shared.disk.as_ref();
    let partial = beside(to, "partial");
    disk.remove_folder(&partial).map_err(failed(&partial))?;
    let copied = copy_all(shared, &partial).and_then(|copied| {
        settle_in(disk, &partial, to)?;
        Ok(copied)
    });
    if copied.is_err() {
        // Half a copy is no copy, nor is one that a power cut might take back; what is left of it is removed by the next one.
        let rest = if partial.exists() { &partial } else { to };
        let _ = disk.remove_folder(rest);
    }
    copied
}

fn copy_all(shared: &Shared, to: &Path) -> Result<u64, Error> {
    let (from, disk) = (&shared.options.path, shared.disk.as_ref());
    make_folders(disk, to)?;
    // From here on no segment is taken out of use.
    let _standing = shared
        .sweeping
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut bytes = copy_file(disk, &from.join(FORMAT), &to.join(FORMAT), None)?;
    // Before the journal's end is taken: an index may be behind the journal, never ahead of it.
    let index = to.join(INDEX);
    shared.read(|connection| {
        connection
            .execute("VACUUM INTO ?1", [index.to_string_lossy()])
            .map(|_| ())
    })?;
    bytes += sync_file(disk, &index)?;
    let end = shared.state().end;
    for (generation, length) in shared.segments.live() {
        if generation > end.generation {
            continue;
        }
        let name = format!("journal/{generation:016x}.segment");
        // Behind the end a group may be half written; what is missing of the length reads as zeros.
        let limit = (generation == end.generation).then_some((end.offset, length));
        bytes += copy_file(disk, &from.join(&name), &to.join(&name), limit)?;
    }
    Ok(bytes)
}

/// Puts the copy at `from` in place as the spool `to`. One that is there is refused, or moved aside as `to.replaced-N`; returns
/// where to. What is put in place is marked as a copy, whatever it was taken from.
pub fn restore(from: &Path, to: &Path, replace: bool) -> Result<Option<PathBuf>, Error> {
    restore_on(&System, from, to, replace)
}

/// Puts it in place on another disk.
pub fn restore_on(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    replace: bool,
) -> Result<Option<PathBuf>, Error> {
    for needed in [FORMAT, "journal"] {
        if !from.join(needed).exists() {
            return Err(failed(&from.join(needed))(io::Error::new(
                io::ErrorKind::NotFound,
                "missing: this is no complete copy of a spool",
            )));
        }
    }
    if to.join(FORMAT).exists() && !replace {
        return Err(taken(to));
    }
    super::offline::refuse_in_use(to)?;
    let partial = beside(to, "restoring");
    disk.remove_folder(&partial).map_err(failed(&partial))?;
    make_folders(disk, &partial)?;
    let journal = from.join("journal");
    let mut names = vec![PathBuf::from(FORMAT)];
    names.extend(from.join(INDEX).exists().then(|| INDEX.into()));
    for path in disk.list(&journal).map_err(failed(&journal))? {
        if path.extension().is_some_and(|name| name == "segment") {
            names.extend(path.file_name().map(|name| Path::new("journal").join(name)));
        }
    }
    for name in names {
        copy_file(disk, &from.join(&name), &partial.join(&name), None)?;
    }
    let aside = match to.exists() {
        true => Some(move_aside(disk, to)?),
        false => None,
    };
    settle_in(disk, &partial, to)?;
    Ok(aside)
}

fn move_aside(disk: &dyn Disk, path: &Path) -> Result<PathBuf, Error> {
    let aside = (1..)
        .map(|number| beside(path, &format!("replaced-{number}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| beside(path, "replaced"));
    disk.rename(path, &aside).map_err(failed(path))?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

/// Makes the folders of a copy, and marks it.
fn make_folders(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    for folder in ["journal", "corrupt"].map(|name| path.join(name)) {
        disk.make_folder(&folder).map_err(failed(&folder))?;
    }
    copy::mark(disk, path)
}

/// Makes the names in a finished folder durable, gives it its own, and makes that durable.
fn settle_in(disk: &dyn Disk, partial: &Path, to: &Path) -> Result<(), Error> {
    let sync = |path: &Path| disk.sync_folder(path).map_err(failed(path));
    sync(&partial.join("journal"))?;
    sync(partial)?;
    disk.rename(partial, to).map_err(failed(to))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// Copies a file, or its first bytes and a hole up to its length; durable but for its name.
fn copy_file(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    limit: Option<(u64, u64)>,
) -> Result<u64, Error> {
    let source = disk.open_to_read(from).map_err(failed(from))?;
    let length = source.length().map_err(failed(from))?;
    let target = disk.open(to).map_err(failed(to))?;
    let (bytes, length) = match limit {
        Some((bytes, length)) => (bytes, length),
        None => (length, length),
    };
    copy_bytes(source.as_ref(), target.as_ref(), bytes, (from, to))?;
    let sized = target.set_length(length).and_then(|()| target.sync());
    sized.map_err(failed(to))?;
    Ok(bytes)
}

fn copy_bytes(
    source: &dyn File,
    target: &dyn File,
    bytes: u64,
    (from, to): (&Path, &Path),
) -> Result<(), Error> {
    let mut at = 0;
    while at < bytes {
        let want = CHUNK.min(bytes - at) as usize;
        let chunk = disk::read_at(source, at, want).map_err(failed(from))?;
        if chunk.len() < want {
            let what = format!("ends after {} bytes of {bytes}", at + chunk.len() as u64);
            return Err(failed(from)(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                what,
            )));
        }
        // Pages of zeros stay holes: a segment is mostly that until it is full.
        if chunk.iter().any(|byte| *byte != 0) {
            disk::write_all_at(target, &chunk, at).map_err(failed(to))?;
        }
        at += want as u64;
    }
    Ok(())
}

fn sync_file(disk: &dyn Disk, path: &Path) -> Result<u64, Error> {
    let file = disk.open(path).map_err(failed(path))?;
    file.sync()
        .and_then(|()| file.length())
        .map_err(failed(path))
}
