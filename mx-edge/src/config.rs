//! The configuration of mx-edge, its defaults and what must hold between its keys. `deploy/etc/mx-edge.toml` explains each key.

mod check;
mod defaults;
mod door;
mod policy;
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

pub use door::{Access, Rates, Stress};

use crate::dnsbl::Codes;
use crate::network::Network;

pub use policy::{About, DomainList, Greylist, HeaderRule, Policy, Report, Shadow};

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
}

/// What is done with a bare CR or LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// Each becomes CRLF.
    Normalize,
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
    /// Octets a second of a message, on average.
    pub data_bytes_per_second_min: u64,
    /// Memory of the whole process; 0: three quarters of what it may have.
    #[serde(with = "bytes")]
    pub memory_bytes_max: u64,
    /// Received fields of one message.
    pub hops_max: usize,
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

/// `[next_hop]`: where mail goes inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NextHop {
    /// Tried in order.
    pub hosts: Vec<String>,
    /// LMTP or SMTP.
    pub protocol: Protocol,
    /// Put the trace field on.
    pub trace: bool,
    /// For TCP connect.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// For each reply before the message.
    #[serde(with = "duration")]
    pub reply_timeout: Duration,
}

/// The next hop's dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 2033.
    Lmtp,
    /// RFC 5321.
    Smtp,
}

/// `[through]`: passing inside while the client waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Through {
    /// From the end of the message to the next hop's reply.
    #[serde(with = "duration")]
    pub budget: Duration,
    /// Messages at once.
    pub messages_max: usize,
    /// Their bytes.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// Failures in a row after which only probes try.
    pub failures_max: u32,
    /// Between two probes.
    #[serde(with = "duration")]
    pub probe_interval: Duration,
}

/// `[forward]`: passing spooled mail on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// Connections at once.
    pub connections_max: usize,
    /// Attempts at once.
    pub attempts_max: usize,
    /// For the reply to a message.
    #[serde(with = "duration")]
    pub reply_timeout: Duration,
    /// Between two probes of an inside that does not answer.
    #[serde(with = "duration")]
    pub probe_interval: Duration,
    /// After the first deferral.
    #[serde(with = "duration")]
    pub retry_first: Duration,
    /// Each wait in percent of the one before.
    pub retry_factor_percent: u32,
    /// Longest wait between attempts.
    #[serde(with = "duration")]
    pub retry_longest: Duration,
    /// Off each wait by chance, at most.
    pub retry_jitter_percent: u32,
    /// The waits one by one, in place of first, factor and longest.
    #[serde(with = "duration::list")]
    pub retry_delays: Vec<Duration>,
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
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Resolvers; empty: /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// For one query.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

/// `[screen]`: before the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Screen {
    /// What is done with a client that speaks before it is greeted.
    pub action: Action,
    /// How long a client that is not known waits.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// The same while most sessions are in use.
    #[serde(with = "duration")]
    pub wait_stressed: Duration,
    /// How long who passed need not wait again.
    #[serde(with = "duration")]
    pub valid: Duration,
    /// So many are remembered.
    pub passes_max: usize,
    /// Who need not wait, beside `mail.own_networks`.
    pub skip_networks: Vec<Network>,
}

/// `[dnsbl]`: lists of clients in the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dnsbl {
    /// What is done with a client that is listed.
    pub action: Action,
    /// Listed from this score on.
    pub threshold: i32,
    /// Vouched for from this score down; 0: nobody is.
    pub allow_threshold: i32,
    /// For all lists together.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// An answer is kept at least so long.
    #[serde(with = "duration")]
    pub ttl_min: Duration,
    /// And at most so long.
    #[serde(with = "duration")]
    pub ttl_max: Duration,
    /// So many answers are kept.
    pub answers_max: u64,
    /// Between two self-tests of a list.
    #[serde(with = "duration")]
    pub self_test_interval: Duration,
    /// Clients that are not asked about, beside `mail.own_networks`.
    pub skip_networks: Vec<Network>,
    /// The lists.
    pub lists: Vec<DnsList>,
}

/// `[[dnsbl.lists]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsList {
    /// Its zone; with a customer's key in it, if it has one.
    pub zone: String,
    /// Its name in replies, logs and metrics; the zone when not given.
    #[serde(default)]
    pub name: String,
    /// Which answers count.
    #[serde(default)]
    pub codes: Codes,
    /// What one adds; negative for a list of good clients.
    #[serde(default = "one")]
    pub weight: i32,
    /// Whether it has the entries that RFC 5782 5 asks for.
    #[serde(default = "yes")]
    pub self_test: bool,
}

impl DnsList {
    /// The name that strangers may see.
    pub fn shown(&self) -> &str {
        match self.name.as_str() {
            "" => &self.zone,
            name => name,
        }
    }
}

fn one() -> i32 {
    1
}

fn yes() -> bool {
    true
}

/// Whether a rule is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It refuses.
    Enforce,
    /// It is logged and counted, and refuses nobody.
    Warn,
    /// It is not looked at.
    Off,
}

/// `[tls]`: files in PEM. No CA, since strangers are not asked for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Further ones, for clients that ask for their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<MoreCertificates>,
}

/// `[[tls.more]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreCertificates {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl PublicCertificate {
    /// As the service crate reads them, the one for everybody first.
    pub fn files(&self) -> Vec<Files> {
        let first = (&self.certificate, &self.key);
        let more = self.more.iter().map(|more| (&more.certificate, &more.key));
        let all = std::iter::once(first).chain(more);
        all.map(|(certificate, key)| Files {
            certificate: certificate.clone(),
            key: key.clone(),
            authority: None,
        })
        .collect()
    }
}

/// `[spf]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spf {
    /// Whether it is checked at all.
    pub enabled: bool,
    /// For a whole check.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// Clients that are not checked, beside `mail.own_networks`.
    pub skip_networks: Vec<Network>,
    /// Whether Authentication-Results is put on.
    pub results_header: bool,
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
