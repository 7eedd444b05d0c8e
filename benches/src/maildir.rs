//! One Maildir a recipient: written in `tmp`, renamed into `new`, so that a reader never sees half a message.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Maildirs below one folder.
#[derive(Debug)]
pub struct Maildirs {
    root: PathBuf,
    counter: AtomicU64,
}

impl Maildirs {
    /// Below `root`, made when missing.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self {
            root: root.to_owned(),
            counter: AtomicU64::new(0),
        })
    }

    /// Delivers a message behind a Return-Path and a Delivered-To field of its own (RFC 5321 4.4). Not synced: a sink is no custody.
    pub fn deliver(&self, reverse_path: &str, recipient: &str, message: &[u8]) -> io::Result<()> {
        let maildir = self.root.join(folder(recipient));
        for name in ["tmp", "new", "cur"] {
            fs::create_dir_all(maildir.join(name))?;
        }
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{seconds}.M{number}P{}.sink", std::process::id());
        let temporary = maildir.join("tmp").join(&name);
        let mut file = fs::File::create(&temporary)?;
        file.write_all(
            format!("Return-Path: <{reverse_path}>\r\nDelivered-To: {recipient}\r\n").as_bytes(),
        )?;
        file.write_all(message)?;
        fs::rename(temporary, maildir.join("new").join(name))
    }
}

/// A recipient's folder: its address in lower case, nothing in it that means something to a file system.
fn folder(recipient: &str) -> String {
    let safe = |c: char| {
        if c.is_alphanumeric() || "@.-_+=".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = recipient
        .to_lowercase()
        .chars()
        .map(safe)
        .take(200)
        .collect();
    name.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_behind_its_envelope() {
        let root = tempfile::tempdir().unwrap();
        let maildirs = Maildirs::new(root.path()).unwrap();
        maildirs
            .deliver("a@b", "C/../d@e", b"Subject: x\r\n\r\ny\r\n")
            .unwrap();
        let new = root.path().join("c_.._d@e/new");
        let files: Vec<_> = fs::read_dir(new)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1);
        let text = fs::read_to_string(&files[0]).unwrap();
        assert_eq!(
            text,
            "Return-Path: <a@b>\r\nDelivered-To: C/../d@e\r\nSubject: x\r\n\r\ny\r\n"
        );
    }
}
