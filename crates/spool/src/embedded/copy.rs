//! The mark of a copy: a file in the spool's folder, put there with the copy and taken away when an operator adopts it. It forbids
//! nothing itself; whoever delivers asks for it. What was delivered since a copy was made would be delivered from it again.

use std::io;
use std::path::Path;

use mail::Timestamp;

use super::disk::{self, Disk};
use super::recover::failed;
use super::shared::Shared;
use crate::Error;

/// The file; that it is there is the mark, what it says is for people.
const MARK: &str = "copy";

/// Marks a copy that is being made in `folder`, durably.
pub fn mark(disk: &dyn Disk, folder: &Path) -> Result<(), Error> {
    let path = folder.join(MARK);
    let said = format!(
        "a copy made {}; nothing that waits in it leaves before `spool adopt`\n",
        Timestamp::now().rfc3339()
    );
    disk::write_file(disk, &path, said.as_bytes()).map_err(failed(&path))
}

/// Whether the spool in `folder` is a copy. A mark that cannot be looked for is an error: without it mail would leave twice.
pub fn is_marked(disk: &dyn Disk, folder: &Path) -> Result<bool, Error> {
    let path = folder.join(MARK);
    match disk.read(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(&path)(error)),
    }
}

/// Takes the mark away, durably; false when there was none. After an error it is still a copy until a restart shows what the disk has.
pub fn adopt(shared: &Shared) -> Result<bool, Error> {
    if !*shared.copy.borrow() {
        return Ok(false);
    }
    let folder = &shared.options.path;
    let path = folder.join(MARK);
    match shared.disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => shared.disk.sync_folder(folder),
    }
    .map_err(failed(&path))?;
    tracing::warn!(event = "spool_adopted", folder = %folder.display());
    // Two who ask at once: only one has adopted it.
    Ok(shared.copy.send_if_modified(std::mem::take))
}
