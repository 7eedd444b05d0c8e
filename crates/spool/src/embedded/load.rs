//! Reading back: heads and batches for leases, bodies. What does not match its checksum is read once more at its present
//! place (it may have been carried forward meanwhile), then set aside. What the disk refuses may come yet: it is asked for again
//! until its patience is over (`unreadable.rs` for batches).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mail::MessageId;
use rustix::io::Errno;

use super::codec::Malformed;
use super::content::{self, Stored};
use super::disk;
use super::entry::{Entry, MessagePlace};
use super::lookup;
use super::shared::Shared;
use crate::{Batch, Error, Head};

/// How often a place is looked up anew; it changes only when a segment is carried forward.
const ATTEMPTS_MAX: usize = 3;

/// Where a message stands now.
pub fn place(shared: &Shared, message: MessageId) -> Result<Option<MessagePlace>, Error> {
    // Memory first: what leaves it is in the index already.
    if let Some(place) = shared.state().place(message) {
        return Ok(Some(place));
    }
    shared.read(|index| lookup::message(index, message))
}

/// The head of a message.
pub fn head(shared: &Shared, place: &MessagePlace) -> Result<Head, Error> {
    let bytes = shared
        .segments
        .read(place.head)
        .map_err(|error| shared.journal_error(error))?;
    content::decode_head(&bytes).map_err(|error| malformed(shared, place.head.generation, error))
}

/// The content of a batch.
pub fn batch(shared: &Shared, entry: &Entry) -> Result<Batch, Error> {
    stored(shared, entry).map(|stored| stored.batch)
}

/// The content of a batch, with its orders.
pub fn stored(shared: &Shared, entry: &Entry) -> Result<Stored, Error> {
    let bytes = shared
        .segments
        .read(entry.span)
        .map_err(|error| shared.journal_error(error))?;
    content::decode_batch(&bytes).map_err(|error| malformed(shared, entry.span.generation, error))
}

fn malformed(shared: &Shared, generation: u64, error: Malformed) -> Error {
    let kind = match error {
        Malformed::Bad { .. } => io::ErrorKind::InvalidData,
        // It is whole, and another program reads it.
        Malformed::Version { .. } => io::ErrorKind::Unsupported,
    };
    Error::Io {
        path: shared
            .segments
            .folder()
            .join(format!("{generation:016x}.segment")),
        source: Arc::new(io::Error::new(kind, error)),
    }
}

/// What keeps something from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What stands there is not what was written.
    Damaged,
    /// The disk does not give it: now, or ever.
    Refused,
    /// All alike: the index, or a spool that closes.
    Other,
}

/// Sorts what went wrong with reading something.
pub fn trouble(shared: &Shared, error: &Error) -> Trouble {
    match error {
        Error::Io { path, .. } if *path == shared.index_path => Trouble::Other,
        Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => Trouble::Damaged,
        Error::Io { .. } => Trouble::Refused,
        Error::Unknown(_) => Trouble::Damaged,
        _ => Trouble::Other,
    }
}

/// Whether the disk refuses for a reason of its own; all others (too many open files, no memory, a later version) pass, or are for
/// somebody else to mend, and nothing is given up for them.
pub fn is_of_disk(error: &io::Error) -> bool {
    let codes = [
        Errno::IO,
        Errno::BADMSG,
        Errno::UCLEAN,
        Errno::NODATA,
        Errno::REMOTEIO,
    ];
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::NotFound
        || codes.iter().any(|one| code == Some(one.raw_os_error()))
}

/// The body of a message.
pub fn body(shared: &Shared, message: MessageId) -> Result<Bytes, Error> {
    let mut last: Option<(MessagePlace, Vec<u8>)> = None;
    for _ in 0..ATTEMPTS_MAX {
        let Some(place) = place(shared, message)? else {
            return Err(Error::Unknown(message));
        };
        if let Some((tried, bytes)) = last.take_if(|(tried, _)| *tried == place) {
            // Nobody moved it: it is what it is.
            return Err(set_aside(shared, &tried, &bytes));
        }
        match shared.segments.read_at(
            place.generation(),
            place.body_offset,
            place.body_length as usize,
        ) {
            Ok(bytes)
                if bytes.len() as u64 == place.body_length
                    && crc32c::crc32c(&bytes) == place.checksum =>
            {
                shared.unreadable.body_done(message);
                return Ok(bytes.into());
            }
            Ok(bytes) => last = Some((place, bytes)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(event = "body_unreadable", message = %message, %error);
                let patience = shared.options.read_patience;
                if !is_of_disk(&error) || !shared.unreadable.body_refused(message, patience) {
                    return Err(shared.journal_error(error));
                }
                // For this message the same as reading something else.
                last = Some((
                    place,
                    around(
                        shared,
                        place.generation(),
                        place.body_offset,
                        place.body_length,
                    ),
                ));
            }
            Err(_) => {}
        }
    }
    Err(Error::Unknown(message))
}

/// What the disk gives of a stretch; zeros in place of the rest.
pub fn around(shared: &Shared, generation: u64, offset: u64, length: u64) -> Vec<u8> {
    match shared.segments.file(generation) {
        Ok(file) => disk::read_around(file.as_ref(), offset, length as usize, |_, _| {}),
        Err(_) => Vec::new(),
    }
}

/// Keeps what there is of a corrupt body, with its envelope, for whoever has to sort it out. Every batch of the message asks for it: it
/// is saved, counted and told once. What could not be saved is not set aside: its batch is tried again, and holds what there is.
fn set_aside(shared: &Shared, place: &MessagePlace, bytes: &[u8]) -> Error {
    let path = shared.corrupt.join(format!("{}.eml", place.id));
    if shared.set_aside().contains(&place.id) {
        return Error::Corrupt(place.id, path);
    }
    let saved = disk::write_file(shared.disk.as_ref(), &path, bytes).and_then(|()| {
        let envelope = shared.corrupt.join(format!("{}.envelope", place.id));
        disk::write_file(
            shared.disk.as_ref(),
            &envelope,
            (describe(shared, place).join("\n") + "\n").as_bytes(),
        )
    });
    if let Err(error) = saved {
        tracing::error!(event = "body_corrupt", message = %place.id, saved = false, %error);
        return Error::Io {
            path,
            source: Arc::new(error),
        };
    }
    shared.unreadable.body_done(place.id);
    if shared.set_aside().insert(place.id) {
        tracing::error!(
            event = "body_corrupt",
            message = %place.id,
            generation = place.generation(),
            offset = place.body_offset,
            set_aside = %path.display(),
            saved = true
        );
    }
    Error::Corrupt(place.id, path)
}

/// What the head of a message says, in words.
pub fn describe_head(shared: &Shared, place: &MessagePlace) -> Vec<String> {
    match head(shared, place) {
        Ok(head) => vec![
            format!("arrival {}", head.arrival.0),
            format!("reverse-path <{}>", head.reverse_path),
            format!("facts {}", String::from_utf8_lossy(&head.facts)),
        ],
        Err(error) => vec![format!("head unreadable: {error}")],
    }
}

/// What a batch is for, in words.
pub fn describe_batch(shared: &Shared, entry: &Entry) -> Vec<String> {
    match batch(shared, entry) {
        Ok(batch) => {
            let to = batch.destination;
            let recipients = batch.recipients.iter();
            recipients
                .map(|one| format!("forward-path <{}> to {to:?}", one.address))
                .collect()
        }
        Err(error) => vec![format!("batch {:032x} unreadable: {error}", entry.id.0)],
    }
}

/// The envelope in words.
fn describe(shared: &Shared, place: &MessagePlace) -> Vec<String> {
    let mut lines = vec![format!("message {}", place.id)];
    lines.extend(describe_head(shared, place));
    let indexed = shared
        .read(|index| lookup::batches_of(index, place.id))
        .unwrap_or_default();
    let state = shared.state();
    let mut entries = state.unindexed_of(place.id);
    entries.extend(
        indexed
            .into_iter()
            .filter(|entry| !state.is_unindexed(entry.id)),
    );
    drop(state);
    for entry in entries {
        lines.extend(describe_batch(shared, &entry));
    }
    lines
}

/// Head and content of a lease, from memory or from the journal.
pub fn lease(shared: &Shared, entry: &Entry) -> Result<(Arc<Head>, Arc<Batch>), Error> {
    let (known_batch, known_head) = {
        let state = shared.state();
        let batch = state
            .leases
            .of(entry.id)
            .and_then(|leased| leased.batch.clone());
        (batch, state.leases.message(entry.message).0)
    };
    let batch = match known_batch {
        Some(batch) => batch,
        None => Arc::new(read_batch(shared, entry)?),
    };
    let head = match known_head {
        Some(head) => head,
        None => {
            let (place, head) = read_head(shared, entry.message)?;
            shared.state().keep(entry.message, place, Some(&head));
            head
        }
    };
    if let Some(leased) = shared.state().leases.of_mut(entry.id) {
        leased.batch.get_or_insert_with(|| batch.clone());
    }
    Ok((head, batch))
}

fn read_batch(shared: &Shared, entry: &Entry) -> Result<Batch, Error> {
    let first = right_batch(shared, entry);
    if first.is_ok() {
        return first;
    }
    // Carried forward since it was borrowed?
    let moved = shared
        .state()
        .leases
        .of(entry.id)
        .map(|leased| leased.entry.clone())
        .filter(|moved| moved.span != entry.span);
    match moved {
        Some(moved) => right_batch(shared, &moved),
        None => first,
    }
}

/// What stands at its place, when it is the batch.
pub fn right_batch(shared: &Shared, entry: &Entry) -> Result<Batch, Error> {
    let found = batch(shared, entry)?;
    match found.id == entry.id {
        true => Ok(found),
        false => Err(another(shared, entry.span.generation)),
    }
}

fn another(shared: &Shared, generation: u64) -> Error {
    let error = Malformed::Bad {
        what: "id: something else stands there",
        at: 0,
    };
    malformed(shared, generation, error)
}

/// The head of a message and where it stands.
pub fn read_head(shared: &Shared, message: MessageId) -> Result<(MessagePlace, Arc<Head>), Error> {
    let mut last = Err(Error::Unknown(message));
    for _ in 0..ATTEMPTS_MAX {
        let Some(place) = place(shared, message)? else {
            return Err(Error::Unknown(message));
        };
        last = head(shared, &place).map(|head| (place, Arc::new(head)));
        match &last {
            Ok((_, head)) if head.id == message => return last,
            Ok((place, _)) => last = Err(another(shared, place.generation())),
            Err(_) => {}
        }
    }
    last
}

/// Where corrupt bodies and journal stretches are set aside.
pub fn corrupt_folder(path: &std::path::Path) -> PathBuf {
    path.join("corrupt")
}
