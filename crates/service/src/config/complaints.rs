//! What a configuration complains of, gathered, and the complaints that more than one program can have.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tls::Files;
use crate::trouble::Complaint;

/// No count in a file may be larger: what is meant to bound must be able to.
const COUNT_MAX: usize = 1_000_000;
/// Nothing that comes again may come sooner.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Complaints, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// Complains of `key` unless this holds.
    pub fn unless(&mut self, holds: bool, key: &str, what: String, why: &str, remedy: &str) {
        if !holds {
            self.0.push(Complaint {
                key: key.into(),
                what,
                why: why.into(),
                remedy: remedy.into(),
            });
        }
    }

    /// Complains of `text` when it could not be read as what it should be.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        text: &str,
        read: Result<T, impl Display>,
        why: &str,
        remedy: &str,
    ) {
        if let Err(error) = read {
            self.unless(false, key, format!("{text:?}: {error}"), why, remedy);
        }
    }

    /// Limits: at least one, and few enough to be one.
    pub fn counts<const N: usize>(&mut self, keys: [(&str, usize); N]) {
        for (key, value) in keys {
            self.unless(
                (1..=COUNT_MAX).contains(&value),
                key,
                value.to_string(),
                "nothing would ever pass, or nothing be bounded",
                "give 1 to 1000000",
            );
        }
    }

    /// Intervals and waits: long enough not to spin.
    pub fn pauses<const N: usize>(&mut self, keys: [(&str, Duration); N]) {
        for (key, value) in keys {
            self.unless(
                value >= PAUSE_MIN,
                key,
                format!("{value:?}"),
                "it would spin",
                "give at least 50ms",
            );
        }
    }

    /// Spans of time in which something must be done.
    pub fn spans<const N: usize>(&mut self, keys: [(&str, Duration); N]) {
        for (key, value) in keys {
            self.unless(
                !value.is_zero(),
                key,
                "0".into(),
                "it would be over at once",
                "give more",
            );
        }
    }

    /// A path must be absolute.
    pub fn absolute(&mut self, key: &str, path: &Path) {
        self.unless(
            path.is_absolute(),
            key,
            format!("relative path {path:?}"),
            "a daemon's working directory is not fixed",
            "give an absolute path",
        );
    }

    /// Without certificates an inner hop must not leave this host (design, invariant 14).
    pub fn guarded(&mut self, inside: Option<&Files>, key: &str, address: SocketAddr) {
        self.unless(
            inside.is_some() || address.ip().is_loopback(),
            key,
            format!("{address} without [inside]"),
            "the inside trusts nobody by address, only by certificate",
            "give [inside] certificate, key and authority (the command `ca node` makes them), or a loopback address",
        );
    }

    /// `[inside]`: certificates of the site's own CA that can be used.
    pub fn inside(&mut self, files: Option<&Files>) {
        self.extend(
            files
                .map(|files| files.check("inside", true))
                .unwrap_or_default(),
        );
    }

    /// Files with secrets.
    pub fn secrets<'p>(&mut self, key: &str, paths: impl IntoIterator<Item = &'p PathBuf>) {
        for path in paths {
            if path.is_relative() {
                self.absolute(key, path);
            } else if let Err(what) = super::secret(path) {
                self.unless(
                    false,
                    key,
                    what,
                    "what it signs could be neither signed nor verified",
                    "make the site's secrets with the command `ca init`, and give every host that needs it a copy",
                );
            }
        }
    }

    /// The name of a node, by which commands, metrics and logs call it.
    pub fn node_name(&mut self, key: &str, name: &str) {
        self.unless(
            is_node_name(name),
            key,
            format!("{name:?}"),
            "commands, metrics and logs call the node so",
            "give 1 to 64 letters, digits, dots, hyphens or underscores",
        );
    }

    /// Adds others.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Complaint>) {
        self.0.extend(others);
    }
}

impl From<Complaints> for Vec<Complaint> {
    fn from(complaints: Complaints) -> Self {
        complaints.0
    }
}

/// Whether a node can have this name: it goes into URLs, metrics and logs as it is.
pub fn is_node_name(name: &str) -> bool {
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was complained of, and of what.
    fn keys(complain: impl FnOnce(&mut Complaints)) -> Vec<String> {
        let mut complaints = Complaints::default();
        complain(&mut complaints);
        let found: Vec<Complaint> = complaints.into();
        found.into_iter().map(|complaint| complaint.key).collect()
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let counts = [("a", 0), ("b", 1), ("c", COUNT_MAX), ("d", COUNT_MAX + 1)];
        assert_eq!(keys(|c| c.counts(counts)), ["a", "d"]);
        let ms = Duration::from_millis;
        let pauses = [("a", ms(0)), ("b", ms(49)), ("c", ms(50))];
        assert_eq!(keys(|c| c.pauses(pauses)), ["a", "b"]);
        let spans = [("a", ms(0)), ("b", ms(1))];
        assert_eq!(keys(|c| c.spans(spans)), ["a"]);
        assert_eq!(
            keys(|c| c.parsed("n", "x", "x".parse::<u8>(), "", "")),
            ["n"]
        );
        assert!(keys(|c| c.parsed("n", "1", "1".parse::<u8>(), "", "")).is_empty());
        let secrets = [PathBuf::from("s"), PathBuf::from("/nonexistent/s")];
        assert_eq!(keys(|c| c.secrets("s", &secrets)), ["s", "s"]);
        assert_eq!(keys(|c| c.absolute("p", Path::new("spool"))), ["p"]);
        assert!(keys(|c| c.absolute("p", Path::new("/spool"))).is_empty());
        let outside = SocketAddr::from(([192, 0, 2, 1], 1));
        let loopback = SocketAddr::from(([127, 0, 0, 2], 1));
        assert_eq!(keys(|c| c.guarded(None, "l", outside)), ["l"]);
        assert!(keys(|c| c.guarded(None, "l", loopback)).is_empty());
    }

    #[test]
    fn node_names() {
        for (name, good) in [
            ("scan-1.dc_2", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
            ("é", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(is_node_name(name), good, "{name:?}");
        }
    }
}
