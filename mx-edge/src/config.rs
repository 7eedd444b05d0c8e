//! The configuration of mx-edge, its defaults and what must hold between its keys. `deploy/etc/mx-edge.toml` explains each key.

mod certificate;
mod changes;
mod check;
mod content;
mod defaults;
mod door;
mod evidence;
mod inside;
mod measure;
mod policy;
mod recipients;
mod records;
mod siblings;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mail::Domain;
use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};
use service::log::LogSettings;
use service::tls::Files;

use crate::network::Network;

pub use certificate::{MoreCertificates, PublicCertificate};
pub use content::{ANY_FIELD, BodyRule, HeaderRule, Of, Then};
pub use door::{Access, Rates, Stress};
pub use evidence::{Action, CodeText, Dns, DnsList, Dnsbl, Screen, Spf};
pub use inside::{Forward, NextHop, Protocol, Through};
pub use measure::Measure;
pub use policy::{About, DomainList, Greylist, Policy, Report, Shadow};
pub use recipients::{Directory, RecipientSources};
pub use records::Records;
pub use siblings::Handover;
pub use tables::{Subject, TableFile};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This edge's short name, part of every ident.
    pub name: String,
    /// The name in the greeting and in Received fields.
    pub hostname: String,
    /// Where spool, directory and boot counter are kept.
    pub state: PathBuf,
    /// `[mail]`.
    pub mail: Mail,
    /// `[limits]`.
    pub limits: Limits,
    /// `[access]`.
    pub access: Access,
    /// `[rates]`.
    pub rates: Rates,
    /// `[stress]`.
    pub stress: Stress,
    /// `[recipients]`.
    pub recipients: RecipientSources,
    /// `[directory]`.
    pub directory: Directory,
    /// `[next_hop]`.
    pub next_hop: NextHop,
    /// `[through]`.
    pub through: Through,
    /// `[forward]`.
    pub forward: Forward,
    /// `[spool]`.
    pub spool: Spool,
    /// `[records]`.
    pub records: Records,
    /// `[handover]`.
    pub handover: Handover,
    /// `[dns]`.
    pub dns: Dns,
    /// `[spf]`.
    pub spf: Spf,
    /// `[screen]`.
    pub screen: Screen,
    /// `[dnsbl]`.
    pub dnsbl: Dnsbl,
    /// `[policy]`.
    pub policy: Policy,
    /// `[greylist]`.
    pub greylist: Greylist,
    /// `[shadow]`.
    pub shadow: Shadow,
    /// `[report]`.
    pub report: Report,
    /// `[tls]`: the public certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PublicCertificate>,
    /// `[inside]`: this node's certificate of the site's CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Files>,
    /// `[control]`.
    pub control: service::control::Settings,
    /// `[log]`.
    pub log: LogSettings,
}

/// `[mail]`: where and how mail is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mail {
    /// Where sessions are taken.
    pub listen: Vec<SocketAddr>,
    /// A bare CR or LF in a message.
    pub bare_newline: BareNewline,
    /// EHLO keywords that are not offered.
    pub keywords_off: Vec<String>,
    /// Networks of our own.
    pub own_networks: Vec<Network>,
    /// Proxies, which speak PROXY.
    pub proxies: Vec<Network>,
    /// Who may say XCLIENT.
    pub xclient_networks: Vec<Network>,
    /// Where a refused sender can ask.
    pub contact: String,
    /// What is otherwise for some clients.
    pub clients: Vec<Clients>,
}

/// `[[mail.clients]]`: what is otherwise for some of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Whom it is for.
    pub networks: Vec<Network>,
    /// In place of `mail.bare_newline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare_newline: Option<BareNewline>,
    /// In place of `mail.keywords_off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keywords_off: Option<Vec<String>>,
}

/// What is done with a bare CR or LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// Each becomes CRLF.
    Normalize,
    /// Likewise, logged and counted.
    Note,
    /// 550 5.5.2.
    Refuse,
}

/// `[limits]`: on clients, sessions and messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions at once of one IPv4 address or IPv6 /64.
    pub sessions_per_client_max: usize,
    /// Largest message.
    #[serde(with = "bytes")]
    pub message_bytes_max: u64,
    /// Memory for all messages in flight.
    #[serde(with = "bytes")]
    pub message_memory_bytes_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// Recipients of one notification.
    pub null_sender_recipients_max: usize,
    /// Errors of one session.
    pub errors_max: usize,
    /// Errors from which on replies wait.
    pub errors_soft: usize,
    /// How long, for each.
    #[serde(with = "duration")]
    pub error_delay: Duration,
    /// Commands that bring no message on, before each is an error.
    pub junk_commands_max: usize,
    /// Octets a second of a message, on average.
    pub data_bytes_per_second_min: u64,
    /// Memory of the whole process; 0: three quarters of what it may have.
    #[serde(with = "bytes")]
    pub memory_bytes_max: u64,
    /// Received fields of one message.
    pub hops_max: usize,
    /// Multiparts and messages inside each other.
    pub mime_depth_max: usize,
    /// Parts of one message.
    pub mime_parts_max: usize,
    /// Octets of the header of a message or a part.
    #[serde(with = "bytes")]
    pub header_bytes_max: u64,
    /// Fields of one.
    pub header_fields_max: usize,
    /// For the next command.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// For the next block of a message.
    #[serde(with = "duration")]
    pub data_block_timeout: Duration,
    /// For a TLS handshake.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// For a whole session.
    #[serde(with = "duration")]
    pub session_timeout: Duration,
}

/// `[spool]`: the durable queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Segment size.
    #[serde(with = "bytes")]
    pub segment_bytes: u64,
    /// Free bytes below which nothing is spooled.
    #[serde(with = "bytes")]
    pub free_bytes_min: u64,
    /// Free inodes below which nothing is spooled.
    pub free_inodes_min: u64,
    /// Bytes of messages that may wait for the disk.
    #[serde(with = "bytes")]
    pub waiting_bytes_max: u64,
    /// How long one may.
    #[serde(with = "duration")]
    pub waiting_max: Duration,
    /// For making one message durable.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// Batches of a destination and lane that are held in memory.
    pub window_max: usize,
    /// Batches of all destinations together likewise.
    pub heads_max: usize,
    /// Changes that the index may lag behind.
    pub unindexed_max: usize,
    /// Content of new batches kept in memory until it is indexed.
    #[serde(with = "bytes")]
    pub content_bytes_max: u64,
}

const MIB: u64 = 1024 * 1024;

/// Largest message that the spool is opened for.
pub const SPOOL_MESSAGE_BYTES_MAX: u64 = 128 * MIB;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Config {
    /// Where the spool is.
    pub fn spool_folder(&self) -> PathBuf {
        self.state.join("spool")
    }

    /// The host name; `check` has seen it.
    pub fn host(&self) -> Domain {
        Domain::parse(&self.hostname).expect("check refuses other configurations")
    }

    /// The configured domains; `check` has seen them.
    pub fn domains(&self) -> HashSet<Domain> {
        let domains = self.recipients.domains.iter();
        domains
            .filter_map(|name| Domain::parse(name).ok())
            .collect()
    }
}
