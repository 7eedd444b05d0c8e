//! Complaints with their lines, what is shown, and who may read a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;
use crate::log::LogSettings;
use crate::trouble::Complaint;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Example {
    pub(super) control: crate::control::Settings,
    pub(super) log: LogSettings,
    pub(super) limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inside: Option<crate::tls::Files>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(with = "crate::config::duration")]
    wait: Duration,
    #[serde(with = "crate::config::bytes")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<String>,
    names: Vec<String>,
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    name: String,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            control: crate::control::Settings {
                socket: "/run/mailflow/example/control.sock".into(),
                listen: "127.0.0.1:9999".parse().unwrap(),
            },
            log: LogSettings::default(),
            limits: Limits::default(),
            inside: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            size: 64 << 20,
            contact: None,
            names: Vec::new(),
            nodes: Vec::new(),
        }
    }
}

impl Configuration for Example {
    const CHANGES: Changes = Changes {
        at_reload: &["limits"],
        at_start: &["inside"],
    };

    fn check(&self) -> Vec<Complaint> {
        let complain = |key: &str| Complaint {
            key: key.into(),
            what: "zero".into(),
            why: "nothing would pass".into(),
            remedy: "give more".into(),
        };
        let mut complaints = Vec::new();
        if self.limits.wait.is_zero() {
            complaints.push(complain("limits.wait"));
        }
        if self.limits.size == 0 {
            complaints.push(complain("limits.size"));
        }
        for (at, node) in self.limits.nodes.iter().enumerate() {
            if node.name.is_empty() {
                complaints.push(complain(&format!("limits.nodes.{at}.name")));
            }
        }
        complaints
    }

    fn control(&self) -> &crate::control::Settings {
        &self.control
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}

/// As a file `e.toml` would be loaded.
fn load_text(text: &str) -> Result<Example, String> {
    let (config, complaints) = parse(text, Path::new("e.toml"))?;
    match complaints.is_empty() {
        true => Ok(config),
        false => Err(complaints.join("\n")),
    }
}

#[test]
fn complaints_name_their_lines() {
    for (text, wanted) in [
        (
            "[limits]\nwiat = \"1s\"\n",
            &["e.toml:2: limits.wiat: unknown field `wiat`"][..],
        ),
        (
            "[limits]\nwait = 1\n",
            &["e.toml:2: limits.wait: invalid type: integer `1`"],
        ),
        (
            "\n[limits]\n\nwait = \"1\"\n",
            &["e.toml:4: limits.wait: invalid duration \"1\""],
        ),
        (
            "[limits]\nsize = \"1Mib\"\n",
            &["e.toml:2: limits.size: invalid size \"1Mib\""],
        ),
        ("[limits\n", &["e.toml:1: "]),
        (
            "[control]\nlisten = \"x\"\n",
            &["e.toml:2: control.listen: "],
        ),
        (
            "[inside]\nkey = \"/k\"\n",
            &["e.toml:1: inside: missing field `certificate`"],
        ),
        ("x = 1\n", &["e.toml:1: x: unknown field `x`"]),
        (
            "[limits]\nsize = 0\n\nwait = \"0s\"\n",
            &[
                "e.toml:4: limits.wait: zero, nothing",
                "e.toml:2: limits.size: zero",
            ],
        ),
        ("limits.wait = \"0s\"\n", &["e.toml:1: limits.wait: zero"]),
        (
            "[[limits.nodes]]\nname = \"a\"\n[[limits.nodes]]\n\nname = \"\"\n",
            &["e.toml:5: limits.nodes.1.name: zero"],
        ),
    ] {
        let error = load_text(text).unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), wanted.len(), "{text}: {error}");
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "{text}: {line}");
            assert!(line.matches(", ").count() >= 2, "{line}");
        }
    }
}

#[test]
fn what_is_left_out_is_the_default() {
    for text in ["", "[limits]\n", "[control]\nlisten = \"127.0.0.1:9999\"\n"] {
        let config = load_text(text).unwrap();
        assert_eq!(config, Example::default(), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    for (path, wanted) in [
        (dir.path().join("absent"), "absent:0: cannot be read"),
        (dir.path().to_owned(), ":0: cannot be read"),
        (
            at("latin1", b"a = 1\nb = \"\xe9\"\n"),
            "latin1:2: not UTF-8",
        ),
    ] {
        let error = load::<Example>(&path).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn shown_is_read_again_and_non_default_shows_only_that() {
    let text = "[inside]\ncertificate = \"/c\"\nkey = \"/k\"\n\n[limits]\nwait = \"5m\"\n";
    let config = load_text(text).unwrap();
    assert_eq!(show(&config, true), text);
    let again = load_text(&show(&config, false)).unwrap();
    assert_eq!(again, config);
    assert_eq!(show(&Example::default(), true), "");
}

#[test]
fn secrets_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, text, wanted) in [
        (0o600, "secret\n", Ok("secret")),
        (0o640, "secret", Ok("secret")),
        (0o400, "two\nlines\r\n", Ok("two\nlines")),
        (0o644, "secret", Err("chmod 0600")),
        (0o660, "secret", Err("chmod 0600")),
        (0o604, "secret", Err("chmod 0600")),
        (0o600, "\n", Err("empty")),
    ] {
        let path = dir.path().join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match (secret(&path), wanted) {
            (Ok(read), Ok(wanted)) => assert_eq!(read, wanted.as_bytes()),
            (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{error}"),
            (read, wanted) => panic!("{mode:o}: {read:?} for {wanted:?}"),
        }
    }
    assert!(secret(&dir.path().join("absent")).is_err());
}
