//! `[recipients]` and `[directory]`: where it is known from who may be written to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{Complaints, bytes, duration};
use service::signing::Verifier;
use service::tls::Files;

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
    /// Public keys of those that the directory is signed with, the second one for rotation.
    pub public_key_files: Vec<PathBuf>,
    /// Where other edges may fetch our copy; none: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Edges whose copy we fetch while we have none and no list host answers.
    pub siblings: Vec<SocketAddr>,
}

impl Directory {
    /// What must hold between the keys; `inside`: the certificate for the inside.
    pub(super) fn check(&self, inside: Option<&Files>, complaints: &mut Complaints) {
        for (key, addresses) in [
            ("directory.servers", &self.servers[..]),
            ("directory.siblings", &self.siblings),
            ("directory.listen", self.listen.as_slice()),
        ] {
            for address in addresses {
                complaints.guarded(inside, key, *address);
            }
        }
        complaints.unless(
            self.siblings.is_empty() || !self.public_key_files.is_empty(),
            "directory.siblings",
            "siblings without directory.public_key_files".into(),
            "a sibling is not believed, its copy counts by the list host's signature",
            "copy directory.pub from where `ca init` made it, and name it in directory.public_key_files",
        );
        complaints.unless(
            self.listen.is_none() && self.siblings.is_empty() || !self.servers.is_empty(),
            "directory.servers",
            "siblings without list hosts".into(),
            "there is no directory to give or to take",
            "name the list hosts",
        );
        let keys = Verifier::read(&self.public_key_files);
        complaints.unless(
            keys.is_ok(),
            "directory.public_key_files",
            keys.err().unwrap_or_default(),
            "no directory could be checked by it",
            "copy directory.pub from where `ca init` made it, or see what `listserv ca public FILE` prints",
        );
    }
}
