//! Reading back: heads and batches for leases, bodies. What does not match its checksum is read once more at its present
//! place (it may have been carried forward meanwhile), then set aside.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mail::MessageId;

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
    Error::Io {
        path: shared
            .segments
            .folder()
            .join(format!("{generation:016x}.segment")),
        source: Arc::new(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// Whether an error says that what stands in the journal is damaged or gone, and not that the disk could not be asked.
pub fn is_damage(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::NotFound
        ),
        _ => true,
    }
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
                return Ok(bytes.into());
            }
            Ok(bytes) => last = Some((place, bytes)),
            // The disk cannot read it (EIO): for this message the same as reading something else.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(event = "body_unreadable", message = %message, %error);
                last = Some((place, Vec::new()));
            }
            Err(_) => {}
        }
    }
    Err(Error::Unknown(message))
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
            describe(shared, place).as_bytes(),
        )
    });
    if let Err(error) = saved {
        tracing::error!(event = "body_corrupt", message = %place.id, saved = false, %error);
        return Error::Io {
            path,
            source: Arc::new(error),
        };
    }
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

/// The envelope in words.
fn describe(shared: &Shared, place: &MessagePlace) -> String {
    let mut lines = vec![format!("message {}", place.id)];
    match head(shared, place) {
        Ok(head) => {
            lines.push(format!("arrival {}", head.arrival.0));
            lines.push(format!("reverse-path <{}>", head.reverse_path));
            lines.push(format!("facts {}", String::from_utf8_lossy(&head.facts)));
        }
        Err(error) => lines.push(format!("head unreadable: {error}")),
    }
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
        match batch(shared, &entry) {
            Ok(batch) => lines.extend(batch.recipients.iter().map(|recipient| {
                format!(
                    "forward-path <{}> to {:?}",
                    recipient.address, batch.destination
                )
            })),
            Err(error) => lines.push(format!("batch {:032x} unreadable: {error}", entry.id.0)),
        }
    }
    lines.push(String::new());
    lines.join("\n")
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
    let first = batch(shared, entry);
    if first.as_ref().is_ok_and(|batch| batch.id == entry.id) {
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
        Some(moved) => batch(shared, &moved),
        None => first,
    }
}

/// The head of a message and where it stands.
pub fn read_head(shared: &Shared, message: MessageId) -> Result<(MessagePlace, Arc<Head>), Error> {
    let mut last = Err(Error::Unknown(message));
    for _ in 0..ATTEMPTS_MAX {
        let Some(place) = place(shared, message)? else {
            return Err(Error::Unknown(message));
        };
        last = head(shared, &place).map(|head| (place, Arc::new(head)));
        if last.as_ref().is_ok_and(|(_, head)| head.id == message) {
            break;
        }
    }
    last
}

/// Where corrupt bodies and journal stretches are set aside.
pub fn corrupt_folder(path: &std::path::Path) -> PathBuf {
    path.join("corrupt")
}
