//! `[policy]`, `[greylist]`, `[shadow]` and `[report]`: who is refused for what, and the account of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};

use super::defaults::unlistable;
use super::{Action, BodyRule, CodeText, HeaderRule, TableFile, seconds};
use crate::dnsbl::Codes;
use crate::network::Network;

/// `[policy]`: an action a rule. Every one is of the reason of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Every 5xx becomes a 4xx.
    pub soft_bounce: bool,
    /// For each question put to the DNS.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// A message has `limits.hops_max` Received fields.
    pub hops: Action,
    /// A notification has more than `limits.null_sender_recipients_max` recipients.
    pub null_sender_recipients: Action,
    /// Who meets none of the rules, beside `mail.own_networks`.
    pub skip_networks: Vec<Network>,
    /// HELO names no host.
    pub helo_syntax: Action,
    /// HELO names another address than the client's.
    pub helo_literal: Action,
    /// HELO names this host.
    pub helo_ours: Action,
    /// HELO names no full host name.
    pub helo_name: Action,
    /// HELO names a host that does not exist.
    pub helo_unknown: Action,
    /// The client's address has no name.
    pub client_name: Action,
    /// The client's name does not have its address.
    pub client_unconfirmed: Action,
    /// The sender's domain is no full name.
    pub sender_name: Action,
    /// The sender's domain does not exist.
    pub sender_unknown: Action,
    /// The sender's domain takes no mail.
    pub sender_null_mx: Action,
    /// A domain is on one of `domain_lists`.
    pub domain_listed: Action,
    /// The sender's domain forbids it to this client.
    pub spf_fail: Action,
    /// Tables of the site's own.
    pub tables: Vec<TableFile>,
    /// Lists of domains.
    pub domain_lists: Vec<DomainList>,
    /// The message is built as no honest one is.
    pub structure: Action,
    /// Rules on header fields.
    pub headers: Vec<HeaderRule>,
    /// Rules on the beginning of bodies.
    pub body: Vec<BodyRule>,
    /// So much of a body is looked at.
    #[serde(with = "bytes")]
    pub body_bytes_max: u64,
    /// Where redirected mail goes.
    pub redirect_to: String,
}

/// `[[policy.domain_lists]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainList {
    /// Its zone; with a customer's key in it, if it has one.
    pub zone: String,
    /// Its name in replies, logs and metrics; the zone when not given.
    #[serde(default)]
    pub name: String,
    /// Which answers count.
    #[serde(default)]
    pub codes: Codes,
    /// Which domains it is asked about.
    #[serde(default = "about_sender")]
    pub about: Vec<About>,
    /// Whether it has the entries that RFC 5782 5 asks for.
    #[serde(default = "super::evidence::yes")]
    pub self_test: bool,
    /// What its answers mean.
    #[serde(default)]
    pub texts: Vec<CodeText>,
}

/// Whose domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// The reverse-path's.
    Sender,
    /// HELO's.
    Helo,
    /// The client's own name, where it is confirmed.
    Client,
    /// The forward-path's.
    Recipient,
}

fn about_sender() -> Vec<About> {
    vec![About::Sender]
}

impl DomainList {
    /// The name that strangers may see.
    pub fn shown(&self) -> &str {
        match self.name.as_str() {
            "" => &self.zone,
            name => name,
        }
    }
}

/// Of rules that stand in lists.
pub(super) fn enforce() -> Action {
    Action::Enforce
}

/// `[greylist]`: clients that are not known come again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Greylist {
    /// What is done with a first attempt.
    pub action: Action,
    /// How soon the second one is too soon.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// How late it is too late.
    #[serde(with = "duration")]
    pub window: Duration,
    /// How long who came again need not do so any more.
    #[serde(with = "duration")]
    pub valid: Duration,
    /// So many who came again let all others of the same sender pass.
    pub known_after: u32,
    /// Whether who passes SPF is made to wait as well.
    pub spf_pass: bool,
    /// So much is remembered.
    pub entries_max: usize,
}

impl Default for Greylist {
    fn default() -> Self {
        Self {
            action: Action::Off,
            delay: seconds(300),
            window: seconds(2 * 24 * 3600),
            valid: seconds(35 * 24 * 3600),
            known_after: 5,
            spf_pass: false,
            entries_max: 1_000_000,
        }
    }
}

/// `[shadow]`: a second policy, run beside the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shadow {
    /// A configuration of mx-edge; empty: none.
    pub file: PathBuf,
}

/// `[report]`: counts by day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Report {
    /// Between two writes.
    #[serde(with = "duration")]
    pub write_interval: Duration,
    /// How long days are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            write_interval: seconds(10),
            retention: seconds(400 * 24 * 3600),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            soft_bounce: false,
            timeout: seconds(5),
            hops: Action::Enforce,
            null_sender_recipients: Action::Enforce,
            skip_networks: unlistable(),
            helo_syntax: Action::Enforce,
            helo_literal: Action::Enforce,
            helo_ours: Action::Enforce,
            helo_name: Action::Warn,
            helo_unknown: Action::Off,
            client_name: Action::Warn,
            client_unconfirmed: Action::Off,
            sender_name: Action::Enforce,
            sender_unknown: Action::Enforce,
            sender_null_mx: Action::Enforce,
            domain_listed: Action::Enforce,
            spf_fail: Action::Off,
            tables: Vec::new(),
            domain_lists: Vec::new(),
            structure: Action::Enforce,
            headers: Vec::new(),
            body: Vec::new(),
            body_bytes_max: 50 * 1024,
            redirect_to: String::new(),
        }
    }
}
