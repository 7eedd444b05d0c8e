//! `[screen]`, `[dnsbl]`, `[dns]` and `[spf]`: what is learned of a client before and beside the dialogue.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::duration;

use super::Measure;
use crate::dnsbl::Codes;
use crate::network::Network;

/// `[screen]`: before the greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Screen {
    /// What is done with a client that speaks before it is greeted.
    pub action: Measure,
    /// How long a client that is not known waits.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// The same while most sessions are in use.
    #[serde(with = "duration")]
    pub wait_stressed: Duration,
    /// How long who passed need not wait again.
    #[serde(with = "duration")]
    pub valid: Duration,
    /// How long who behaved through a whole session is spared under stress.
    #[serde(with = "duration")]
    pub valid_session: Duration,
    /// Of `limits.sessions_max` so many wait at once.
    pub sessions_percent_max: u8,
    /// This host's addresses that are backup MX alone.
    pub backup_addresses: Vec<IpAddr>,
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
    pub action: Measure,
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
    /// What its answers mean.
    #[serde(default)]
    pub texts: Vec<CodeText>,
}

/// What an answer of a list means, for whoever is refused for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeText {
    /// Which answers.
    pub codes: Codes,
    /// In words.
    pub text: String,
}

impl CodeText {
    /// A list's name with what its answer means, if that is said.
    pub fn told(texts: &[Self], name: &str, answer: Ipv4Addr) -> String {
        let text = texts.iter().find(|text| text.codes.count(answer));
        match text {
            Some(text) => format!("{name} ({})", text.text),
            None => name.to_owned(),
        }
    }
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

pub(super) fn yes() -> bool {
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
