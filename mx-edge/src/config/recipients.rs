//! `[recipients]` and `[directory]`: where it is known from who may be written to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};

/// `[recipients]`: sources beside the directory, and the guard in front of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecipientSources {
    /// Domains that are ours whatever the sources say.
    pub domains: Vec<String>,
    /// Plain lists.
    pub files: Vec<PathBuf>,
    /// Source texts of Postfix tables.
    pub postfix_maps: Vec<PathBuf>,
    /// Postfix's recipient_delimiter, for `postfix_maps`.
    pub recipient_delimiter: String,
    /// How often files are looked at.
    #[serde(with = "duration")]
    pub reload_interval: Duration,
    /// The shrink guard's share.
    pub shrink_percent_max: u64,
    /// The shrink guard's floor.
    pub shrink_entries_floor: usize,
    /// listserv's keys of confirmations.
    pub cookie_key_files: Vec<PathBuf>,
}

/// `[directory]`: the directory that listserv publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Directory {
    /// List hosts; empty: no directory.
    pub servers: Vec<SocketAddr>,
    /// How long a poll is held open.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// Longest pause after failures.
    #[serde(with = "duration")]
    pub pause_max: Duration,
    /// Largest directory.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// From when on what no list host has confirmed is stale; 0: never.
    #[serde(with = "duration")]
    pub stale_after: Duration,
    /// Keys that the directory is signed with, the second one for rotation.
    pub key_files: Vec<PathBuf>,
}
