//! A consistent copy of a running spool, and putting one in place. The copy is the journal up to one moment, and the index as it
//! was a little before; while it is made no segment is taken out of use, and mail goes on. It is marked as a copy (`copy.rs`), however
//! it is put in place.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::copy;
use super::recover::failed;
use super::shared::Shared;
use crate::Error;

/// Files that make a spool, beside its segments.
const FORMAT: &str = "format";
const INDEX: &str = "index.sqlite";
/// Copied at once, bytes.
const CHUNK: usize = 1024 * 1024;

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
    let partial = beside(to, "partial");
    let _ = fs::remove_dir_all(&partial);
    let copied = copy_all(shared, &partial).and_then(|copied| {
        settle_in(&partial, to)?;
        Ok(copied)
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    copied
}

fn copy_all(shared: &Shared, to: &Path) -> Result<u64, Error> {
    let from = &shared.options.path;
    make_folder(&to.join("journal"))?;
    make_folder(&to.join("corrupt"))?;
    copy::mark(to)?;
    // From here on no segment is taken out of use.
    let _standing = shared
        .sweeping
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut bytes = copy_file(&from.join(FORMAT), &to.join(FORMAT), None)?;
    // Before the journal's end is taken: an index may be behind the journal, never ahead of it.
    let index = to.join(INDEX);
    shared.read(|connection| {
        connection
            .execute("VACUUM INTO ?1", [index.to_string_lossy()])
            .map(|_| ())
    })?;
    bytes += sync_file(&index)?;
    let end = shared.state().end;
    for (generation, length) in shared.segments.live() {
        if generation > end.generation {
            continue;
        }
        let name = format!("journal/{generation:016x}.segment");
        // Behind the end a group may be half written; what is missing of the length reads as zeros.
        let limit = (generation == end.generation).then_some((end.offset, length));
        bytes += copy_file(&from.join(&name), &to.join(&name), limit)?;
    }
    Ok(bytes)
}

/// Puts the copy at `from` in place as the spool `to`. One that is there is refused, or moved aside as `to.replaced-N`; returns
/// where to. What is put in place is marked as a copy, whatever it was taken from.
pub fn restore(from: &Path, to: &Path, replace: bool) -> Result<Option<PathBuf>, Error> {
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
    let _ = fs::remove_dir_all(&partial);
    make_folder(&partial.join("journal"))?;
    make_folder(&partial.join("corrupt"))?;
    copy::mark(&partial)?;
    let journal = from.join("journal");
    let mut names = vec![PathBuf::from(FORMAT)];
    names.extend(from.join(INDEX).exists().then(|| INDEX.into()));
    for entry in fs::read_dir(&journal).map_err(failed(&journal))? {
        let path = entry.map_err(failed(&journal))?.path();
        if path.extension().is_some_and(|name| name == "segment") {
            names.extend(path.file_name().map(|name| Path::new("journal").join(name)));
        }
    }
    for name in names {
        copy_file(&from.join(&name), &partial.join(&name), None)?;
    }
    let aside = match to.exists() {
        true => Some(move_aside(to)?),
        false => None,
    };
    settle_in(&partial, to)?;
    Ok(aside)
}

fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let aside = (1..)
        .map(|number| beside(path, &format!("replaced-{number}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| beside(path, "replaced"));
    fs::rename(path, &aside).map_err(failed(path))?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

fn make_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

/// Makes the names in a finished folder durable, gives it its own, and makes that durable.
fn settle_in(partial: &Path, to: &Path) -> Result<(), Error> {
    let sync = |path: &Path| {
        fs::File::open(path)
            .and_then(|folder| folder.sync_all())
            .map_err(failed(path))
    };
    sync(&partial.join("journal"))?;
    sync(partial)?;
    fs::rename(partial, to).map_err(failed(to))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => sync(Path::new(".")),
    }
}

/// Copies a file, or its first bytes and a hole up to its length; durable but for its name.
fn copy_file(from: &Path, to: &Path, limit: Option<(u64, u64)>) -> Result<u64, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut source = fs::File::open(from).map_err(failed(from))?;
    let mut options = fs::OpenOptions::new();
    let mut target = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(failed(to))?;
    let mut left = limit.map_or(u64::MAX, |(bytes, _)| bytes);
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        let read = source.read(chunk).map_err(failed(from))?;
        if read == 0 {
            break;
        }
        let chunk = chunk.get(..read).unwrap_or_default();
        // Pages of zeros stay holes: a segment is mostly that until it is full.
        match chunk.iter().all(|byte| *byte == 0) {
            true => target.seek(SeekFrom::Current(read as i64)).map(|_| ()),
            false => target.write_all(chunk),
        }
        .map_err(failed(to))?;
        copied += read as u64;
        left -= read as u64;
    }
    let length = limit.map_or(copied, |(_, length)| length);
    target.set_len(length).map_err(failed(to))?;
    target.sync_all().map_err(failed(to))?;
    Ok(copied)
}

fn sync_file(path: &Path) -> Result<u64, Error> {
    let file = fs::File::open(path).map_err(failed(path))?;
    file.sync_all().map_err(failed(path))?;
    Ok(file.metadata().map_err(failed(path))?.len())
}
