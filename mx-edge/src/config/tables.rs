//! `[[policy.tables]]`: tables of the site's own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use service::config::Complaints;

use super::{Action, Config};
use crate::policy::tables::Tables;

/// `[[policy.tables]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    /// Its name in replies, logs and metrics.
    pub name: String,
    /// What its keys are.
    pub about: Subject,
    /// Its lines.
    pub file: PathBuf,
    /// Whether it is applied.
    #[serde(default = "super::policy::enforce")]
    pub action: Action,
}

/// What a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The name in HELO.
    Helo,
    /// The reverse-path.
    Sender,
    /// The forward-path.
    Recipient,
    /// The client's name.
    ClientName,
    /// The addresses of the host that HELO names.
    HeloA,
    /// Those of its mail exchangers.
    HeloMx,
    /// Those of its name servers.
    HeloNs,
    /// The addresses of the sender's domain.
    SenderA,
    /// Those of its mail exchangers.
    SenderMx,
    /// Those of its name servers.
    SenderNs,
}

impl Subject {
    /// As configuration and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "helo",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::ClientName => "client_name",
            Self::HeloA => "helo_a",
            Self::HeloMx => "helo_mx",
            Self::HeloNs => "helo_ns",
            Self::SenderA => "sender_a",
            Self::SenderMx => "sender_mx",
            Self::SenderNs => "sender_ns",
        }
    }

    /// Whether its keys are networks, and hosts are looked up for it.
    pub fn is_of_hosts(self) -> bool {
        !matches!(
            self,
            Self::Helo | Self::Sender | Self::Recipient | Self::ClientName
        )
    }

    /// Whether its keys are addresses of mailboxes.
    pub fn is_of_addresses(self) -> bool {
        matches!(self, Self::Sender | Self::Recipient)
    }

    /// Whether it changes with the sender.
    pub fn is_of_sender(self) -> bool {
        matches!(
            self,
            Self::Sender | Self::SenderA | Self::SenderMx | Self::SenderNs
        )
    }
}

/// A name for a rule: a metric's label, and in replies to strangers.
pub(super) fn is_rule_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=40).contains(&name.len()) && name.chars().all(plain)
}

impl Config {
    pub(super) fn check_tables(&self, complaints: &mut Complaints) {
        let tables = &self.policy.tables;
        for table in tables {
            complaints.absolute("policy.tables.file", &table.file);
            complaints.unless(
                is_rule_name(&table.name),
                "policy.tables.name",
                format!("{:?}", table.name),
                "it stands in replies, metrics and `queue release --rule`",
                "give 1 to 40 letters, digits, -, _ and dots",
            );
        }
        if tables.iter().all(|table| table.file.is_absolute()) {
            let read = Tables::load(tables);
            complaints.unless(
                read.is_ok(),
                "policy.tables.file",
                read.err().unwrap_or_default(),
                "half a table would refuse whom the other half lets in",
                "mend the line: KEY permit|reject|hold|dunno [until=TIME] [note]",
            );
        }
    }
}
