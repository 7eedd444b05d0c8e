//! The Unix socket file: made for its owner alone, a dead one replaced, a living one respected.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::UnixListener;

use crate::trouble::StartError;

/// A Unix socket's address is this long at most, in bytes (`sun_path` without its final zero).
const PATH_BYTES_MAX: usize = 107;

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    pub(super) fn bind(path: &Path) -> Result<Self, StartError> {
        check_length(path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| StartError {
                what: format!("cannot make {} for the control socket", folder.display()),
                why: error.to_string(),
                remedy: "make it for this user (systemd: RuntimeDirectory), or set control.socket"
                    .into(),
            })?;
        }
        remove_stale(path)?;
        // With the mask the file is never, not even for an instant, open to others.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        let bound = bound.and_then(|listener| Ok((listener, fs::symlink_metadata(path)?.ino())));
        let (listener, inode) = bound.map_err(|error| StartError {
            what: format!("cannot make the control socket {}", path.display()),
            why: error.to_string(),
            remedy: "set control.socket to a path this user may write".into(),
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not another program's that has taken its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn check_length(path: &Path) -> Result<(), StartError> {
    let length = path.as_os_str().len();
    if length <= PATH_BYTES_MAX {
        return Ok(());
    }
    Err(StartError {
        what: format!("cannot make the control socket {}", path.display()),
        why: format!("its path has {length} bytes, a Unix socket takes {PATH_BYTES_MAX}"),
        remedy: "set control.socket to a shorter path".into(),
    })
}

/// Takes a socket away at which nobody answers: what a kill -9 leaves.
fn remove_stale(path: &Path) -> Result<(), StartError> {
    let refused = |why: &str, remedy: &str| StartError {
        what: format!("cannot make the control socket {}", path.display()),
        why: why.into(),
        remedy: remedy.into(),
    };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(refused(
                &error.to_string(),
                "set control.socket to another path",
            ));
        }
    };
    if !found.file_type().is_socket() {
        return Err(refused(
            "a file that is no socket stands there",
            "move it away, or set control.socket to another path",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| {
                refused(
                    &format!("an old one cannot be removed: {error}"),
                    "remove it by hand",
                )
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(refused(
            "a running program answers there",
            "stop that one first, or set control.socket (and the other addresses) for a second one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn made_for_its_owner_replaced_when_dead_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Socket::bind(&path).unwrap_err();
        assert!(error.why.contains("a running program"), "{error}");
        drop(socket);
        assert!(!path.exists());

        // What a kill leaves: the file without its program.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists(), "another's file stays");
        let error = Socket::bind(&path).unwrap_err();
        assert!(error.why.contains("no socket"), "{error}");
    }

    #[tokio::test]
    async fn a_long_path_is_explained() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let error = Socket::bind(&path).unwrap_err();
        assert!(error.remedy.contains("shorter"), "{error}");
    }
}
