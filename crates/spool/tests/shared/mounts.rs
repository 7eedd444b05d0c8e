//! Small file systems for a test: a tmpfs of some bytes and inodes, an ext4 on a loop device that can lose its power. Where
//! this process may not mount anything a test fails and says what to allow (`local::missing`).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use local::missing::Missing;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    image: Option<PathBuf>,
}

/// Runs a command; what it said when it failed.
fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{:?}: {error}", command.get_program())),
    }
}

fn skipped(test: &str, why: &str) {
    Missing::Mount.end(test, why);
}

impl Mount {
    /// A tmpfs.
    pub fn tmpfs(test: &str, at: &Path, bytes: u64, inodes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={bytes},nr_inodes={inodes},mode=700"))
            .args(["tmpfs"])
            .arg(at));
        mounted.map_err(|why| skipped(test, &why)).ok()?;
        Some(Self {
            at: at.to_owned(),
            image: None,
        })
    }

    /// An ext4 of so many bytes on a loop device.
    pub fn ext4(test: &str, at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let image = at.with_extension("image");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .unwrap();
        // mkfs and losetup are in sbin, which not everybody has in his path.
        let path = format!(
            "{}:/usr/sbin:/sbin",
            std::env::var("PATH").unwrap_or_default()
        );
        let made = run(Command::new("mkfs.ext4")
            .env("PATH", path)
            .arg("-q")
            .arg(&image));
        let mount = Self {
            at: at.to_owned(),
            image: Some(image),
        };
        let mounted = made.and_then(|()| mount.attach());
        mounted.map_err(|why| skipped(test, &why)).ok()?;
        Some(mount)
    }

    fn attach(&self) -> Result<(), String> {
        let image = self.image.as_ref().unwrap();
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&self.at))
    }

    /// The power goes: nothing more is written, also not what was written and not synced, nor the file system's own log. `goes` is
    /// called just before: a sync that ends later says nothing, since the file system may tell one that it breaks off that all is well,
    /// which no disk without power does.
    pub fn cut_power(&self, goes: impl FnOnce()) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, by a process that has started when it is told to.
        let program = "import fcntl, os, struct, sys\n\
                       folder = os.open(sys.argv[1], os.O_RDONLY)\n\
                       print(flush=True)\n\
                       sys.stdin.readline()\n\
                       fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))";
        let mut process = Command::new("python3")
            .args(["-c", program])
            .arg(&self.at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        goes();
        process.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(process.wait().unwrap().success(), "the power stays on");
    }

    /// It comes back: what is on the disk is there. Nobody may hold a file of it open.
    pub fn restore_power(&self) {
        run(Command::new("umount").arg(&self.at)).unwrap();
        self.attach().unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a test that failed may still hold files open.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}
