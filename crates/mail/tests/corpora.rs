//! The structural pre-scan over real messages: those that come with mail-parser, and CPython's where that is installed.
//!
//! Honest mail passes; whatever passes, the full parser reads without finding more than was counted.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mail::structure::{self, Limits, Objection};
use mail_parser::{Message, MessageParser, PartType};

#[path = "../src/mutation.rs"]
mod mutation;

/// Where cargo unpacked a package of the lock file.
fn package_folder(name: &str) -> PathBuf {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages
        .iter()
        .find(|package| package["name"] == name)
        .unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}

/// The files below a folder that have one of these endings, in order.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if ending.is_some_and(|ending| endings.contains(&ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lines end in CRLF, as at the door.
fn canonical(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for b in bytes.iter().filter(|b| **b != b'\r') {
        if *b == b'\n' {
            out.push(b'\r');
        }
        out.push(*b);
    }
    out
}

/// Parts and depth as the full parser sees them.
fn parsed(message: &Message<'_>) -> (usize, usize) {
    let (mut parts, mut depth) = (message.parts.len(), 0);
    for part in &message.parts {
        if let PartType::Message(nested) = &part.body {
            let (more, deeper) = parsed(nested);
            parts += more;
            depth = depth.max(deeper + 1);
        }
    }
    (parts, depth)
}

/// Scans a message; when it passes, the full parser must agree that it is harmless.
fn scan(message: &[u8], what: &str) -> Result<(), Objection> {
    let structure = structure::scan(message, &Limits::default())?;
    if let Some(message) = MessageParser::default().parse(message) {
        let (parts, depth) = parsed(&message);
        assert!(
            parts <= structure.parts && depth <= structure.depth,
            "{what}: {structure:?}, but {parts} parts and {depth} deep to the full parser"
        );
    }
    Ok(())
}

/// Which messages of a corpus are objected to, by file name.
fn objected(files: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let folder = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_string_lossy();
        for message in [canonical(&bytes), bytes] {
            if let Err(objection) = scan(&message, &name) {
                println!("{folder}/{name}: {objection}");
                names.push(format!("{folder}/{name}"));
                break;
            }
        }
    }
    names
}

#[test]
fn messages_of_mail_parser() {
    let files = files(
        &package_folder("mail-parser").join("resources/eml"),
        &["eml"],
    );
    assert!(files.len() >= 90, "only {} messages found", files.len());
    // All but the last were made to confuse parsers, and that one has its last delimiter in the middle of a line.
    let expected = [
        "malformed/001.eml",
        "malformed/003.eml",
        "malformed/004.eml",
        "malformed/005.eml",
        "malformed/007.eml",
        "malformed/008.eml",
        "malformed/013.eml",
        "malformed/016.eml",
        "malformed/017.eml",
        "malformed/019.eml",
        "malformed/020.eml",
        "malformed/021.eml",
        "thirdparty/005.eml",
    ];
    assert_eq!(objected(&files), expected);
}

#[test]
fn messages_of_cpython() {
    let folder = Path::new("/usr/lib/python3.11/test/test_email/data");
    if !folder.exists() {
        println!("{} is not installed here", folder.display());
        return;
    }
    let files = files(folder, &["txt", "eml"]);
    assert!(files.len() >= 40, "only {} messages found", files.len());
    // A boundary used inside itself, one in the form of RFC 2231, and a text with the delimiters of what is around it.
    let expected = [
        "data/msg_15.txt",
        "data/msg_33.txt",
        "data/msg_38.txt",
        "data/msg_39.txt",
    ];
    assert_eq!(objected(&files), expected);
}

/// Whatever is done to a message: either it is objected to, or the full parser finds no more than was counted.
#[test]
fn mutations_hide_nothing() {
    let files = files(
        &package_folder("mail-parser").join("resources/eml"),
        &["eml"],
    );
    let seeds: Vec<Vec<u8>> = (files.iter())
        .map(|path| canonical(&std::fs::read(path).unwrap()))
        .filter(|message| message.len() < 3000)
        .chain([SEED.as_bytes().to_vec()])
        .collect();
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    assert!(seeds.len() >= 40, "only {} seeds", seeds.len());
    let spices: [&[u8]; 18] = [
        b"--",
        b"\r\n--B\r\n",
        b"\r\n--B--\r\n",
        b"\r\n--B2\r\n",
        b"\r\n\r\n",
        b"\r\n ",
        b"\r\n \r\n",
        b"\r\nContent-Type: message/rfc822\r\n",
        b"\r\nContent-Type: multipart/mixed; boundary=B2\r\n",
        b"\r\nContent-Type: multipart/digest; boundary=B\r\n",
        b"\r\nContent-Transfer-Encoding: base64\r\n",
        b"\r\nContent-Transfer-Encoding: quoted-printable\r\n",
        b"boundary=",
        b"; boundary=\"B2\"",
        b"boundary*0=B; boundary*1=2;",
        b"(",
        b"\"",
        b"\\",
    ];
    let (mut passed, mut all) = (0, 0);
    mutation::each(&seeds, &spices, 200, |message| {
        all += 1;
        passed += usize::from(
            scan(
                message,
                &message.escape_ascii().to_string().replace("\\n", "\n"),
            )
            .is_ok(),
        );
    });
    println!("{passed} of {all} passed");
    assert!(
        passed * 4 > all,
        "the scan passes next to nothing: {passed} of {all}"
    );
}

const SEED: &str = "Subject: x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\npreamble\r\n--B\r\n\r\ntext\r\n--B\r\n\
    Content-Type: multipart/alternative; boundary=\"B2\"\r\n\r\n--B2\r\nContent-Type: text/html\r\n\r\n<p>\r\n--B2--\r\n--B\r\n\
    Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nnested\r\n--B\r\nContent-Type: message/rfc822\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nQ29udGVudC1UeXBlOiBtZXNzYWdlL3JmYzgyMg0KDQpTdWJqZWN0OiB6DQoNCg==\r\n\
    --B--\r\nepilogue\r\n";
