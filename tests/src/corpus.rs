//! Mail from the real world: CPython's test messages and mail-parser's corpus, found where their packages put them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A message of a corpus, with CRLF lines as any client sends them.
pub struct Sample {
    /// Its file.
    pub path: PathBuf,
    /// Its bytes.
    pub message: Vec<u8>,
}

/// All of both corpora; panics when one is missing, so that nothing is skipped silently.
pub fn real_world() -> Vec<Sample> {
    let python = Path::new("/usr/lib/python3.11/test/test_email/data");
    let mut paths = files(python, "txt");
    assert!(
        paths.len() > 40,
        "{}: CPython's messages are missing; make test installs them",
        python.display()
    );
    let parser = mail_parser();
    let emls = files(&parser, "eml");
    assert!(
        emls.len() > 90,
        "{}: mail-parser's corpus is missing",
        parser.display()
    );
    paths.extend(emls);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Sample {
                path,
                message: crlf(&bytes),
            }
        })
        .collect()
}

/// Every line ending as CRLF, and one at the end.
pub fn crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 20);
    let mut bytes = bytes.iter().peekable();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\r' | b'\n' => out.extend(b"\r\n"),
            other => out.push(other),
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found
}

/// mail-parser's `resources/eml`, where cargo unpacked the crate that this workspace locks.
fn mail_parser() -> PathBuf {
    // Only what this platform needs is there for sure: a build unpacks no other's crates.
    let version = Command::new(env!("CARGO")).arg("-vV").output();
    let version = String::from_utf8(version.expect("cargo -vV").stdout).expect("text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .args(["--filter-platform", host.expect("cargo names its host")])
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "mail-parser")
        .expect("mail-parser is locked");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    manifest.with_file_name("resources").join("eml")
}
