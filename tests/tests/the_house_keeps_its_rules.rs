//! What a machine can check of the house's rules: which crate may use which, one TLS provider, one resolver, files that one
//! person can hold in the head and that say what they are for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file is split by noun before it gets longer.
const LINES_MAX: usize = 500;

/// Who may use whom (ARCHITECTURE.md). Programs never use each other.
const MAY_USE: &[(&str, &[&str])] = &[
    ("crates/mail", &[]),
    ("crates/service", &[]),
    ("crates/smtp", &["mail"]),
    ("crates/spool", &["mail"]),
    ("crates/delivery", &["mail", "smtp", "spool", "service"]),
    ("mx-edge", &["mail", "smtp", "spool", "delivery", "service"]),
    (
        "listserv",
        &["mail", "smtp", "spool", "delivery", "service"],
    ),
    ("scanner", &["mail", "smtp", "service"]),
    ("balancer", &["service"]),
    ("benches", &["mail", "smtp", "service"]),
    ("deploy/local", &[]),
    ("tests", &["local"]),
];

const HOUSE: &[&str] = &[
    "mail", "smtp", "spool", "delivery", "service", "mx-edge", "listserv", "scanner", "balancer",
    "mailload", "local",
];

#[test]
fn dependencies_point_one_way() {
    for (folder, allowed) in MAY_USE {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let shipped = manifest
            .split("[dev-dependencies]")
            .next()
            .unwrap_or_default();
        for line in shipped.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if HOUSE.contains(&name) && !line.starts_with("name") {
                assert!(allowed.contains(&name), "{folder} uses {name}");
            }
        }
    }
}

#[test]
fn one_provider_and_one_of_each() {
    let lock = read(&root().join("Cargo.lock"));
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lock.lines() {
        if let Some(name) = line.strip_prefix("name = \"") {
            *versions.entry(name.trim_end_matches('"')).or_default() += 1;
        }
    }
    for one in [
        "ring",
        "rustls",
        "tokio-rustls",
        "hickory-resolver",
        "hickory-proto",
        "mail-parser",
        "tokio",
        "rusqlite",
    ] {
        assert_eq!(
            versions.get(one).copied().unwrap_or(0),
            1,
            "versions of {one}"
        );
    }
    for none in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(!versions.contains_key(none), "{none} came in");
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for path in sources(&root()) {
        let text = read(&path);
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!(
                "{}: {lines} lines, more than {LINES_MAX}",
                path.display()
            ));
        }
        if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
            wrong.push(format!(
                "{}: does not begin with what it is for",
                path.display()
            ));
        }
        if text.contains("todo!(") {
            wrong.push(format!("{}: is not finished", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All Rust files of the workspace.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("a folder of the workspace")
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !["target", "run", "fuzz"].contains(&&*name) {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && name != "the_house_keeps_its_rules.rs" {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}
