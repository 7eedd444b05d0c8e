//! A small file system of its own for one program's state. Where this process may not mount one, a test fails and says
//! what to allow (`local::missing`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use local::missing::Missing;

/// A mounted tmpfs; unmounted when dropped. Make it before the harness, so that it is dropped behind it.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// With so many bytes and inodes.
    pub fn mount(test: &str, bytes: u64, inodes: u64) -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("mailflow-disk-")
            .tempdir()
            .expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes},nr_inodes={inodes},mode=755"))
            .arg("tmpfs")
            .arg(folder.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self { folder }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        Missing::Mount.end(test, &why);
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes so many bytes away, in place of what it took before.
    pub fn take_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut file = File::create(self.path().join("ballast"))?;
        io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
    }

    /// Takes so many inodes away, in place of those it took before.
    pub fn take_inodes(&self, count: u64) -> io::Result<()> {
        let folder: PathBuf = self.path().join("many");
        let _ = fs::remove_dir_all(&folder);
        if count > 0 {
            fs::create_dir(&folder)?;
        }
        for number in 1..count {
            File::create(folder.join(number.to_string()))?;
        }
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still hold files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}
