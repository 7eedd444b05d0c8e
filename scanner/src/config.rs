//! The scanner's configuration: `/etc/mailflow/scanner.toml`. Every key with its reason stands in `deploy/etc/scanner.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::control;
use service::log::LogSettings;
use service::tls::Files;

use mail::Address;

use crate::authenticate;
use crate::decide::meets_no_kill_level;
use crate::endpoint::Endpoint;
use crate::policy::{Actions, DomainSettings, LevelSettings, Policy};
use crate::structure::banned::Banned;
use crate::structure::budget::Limits;

mod check;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name in greetings and header fields.
    pub hostname: String,
    /// `[receive]`.
    pub receive: Receive,
    /// `[spamd]`.
    pub spamd: Spamd,
    /// `[clamd]`.
    pub clamd: Clamd,
    /// `[scan]`.
    pub scan: Scan,
    /// `[levels]`.
    pub levels: LevelSettings,
    /// `[classes]`.
    pub classes: Actions,
    /// `[domains."NAME"]`, by domain of recipients.
    pub domains: BTreeMap<Box<str>, DomainSettings>,
    /// `[banned]`.
    pub banned: Banned,
    /// `[archives]`.
    pub archives: Limits,
    /// `[authenticate]`.
    pub authenticate: authenticate::Settings,
    /// `[token]`.
    pub token: Token,
    /// `[relay]`.
    pub relay: Relay,
    /// `[announce]`.
    pub announce: Announce,
    /// `[inside]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Files>,
    /// `[control]`.
    pub control: control::Settings,
    /// `[log]`.
    pub log: LogSettings,
}

/// LMTP in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Receive {
    /// Where edges and balancers connect to.
    pub listen: SocketAddr,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Largest message.
    #[serde(with = "service::config::bytes")]
    pub message_bytes_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// Memory for all messages in flight.
    #[serde(with = "service::config::bytes")]
    pub memory_bytes_max: u64,
    /// From MAIL's end of data to our reply; less than the edge's patience.
    #[serde(with = "service::config::duration")]
    pub budget: Duration,
    /// How long sessions may take to end after the listener has closed.
    #[serde(with = "service::config::duration")]
    pub drain: Duration,
    /// What a refused sender is shown to read on; empty for none.
    pub contact: String,
}

/// SpamAssassin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spamd {
    /// Where each of them listens.
    pub addresses: Vec<Endpoint>,
    /// Scans at once, each; spooled mail takes at most half.
    pub scans_max: usize,
    /// Bytes it is shown at most.
    #[serde(with = "service::config::bytes")]
    pub bytes_max: u64,
    /// Whose preferences and Bayes data it uses; empty: its own.
    pub user: String,
    /// Whether mail travels to it compressed.
    pub compress: bool,
}

/// ClamAV.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clamd {
    /// Where each of them listens.
    pub addresses: Vec<Endpoint>,
    /// Scans at once, each; spooled mail takes at most half.
    pub scans_max: usize,
    /// With older signatures it is not asked; zero: however old.
    #[serde(with = "service::config::duration")]
    pub signatures_age_max: Duration,
}

/// Scanning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scan {
    /// For both daemons together, waiting for a slot included.
    #[serde(with = "service::config::duration")]
    pub deadline: Duration,
    /// For one daemon, while another could still be asked.
    #[serde(with = "service::config::duration")]
    pub attempt: Duration,
    /// Messages that wait for a slot, of each kind of daemon.
    pub waiting_max: usize,
    /// Between two canaries.
    #[serde(with = "service::config::duration")]
    pub canary_interval: Duration,
    /// Between two canaries while the last one failed.
    #[serde(with = "service::config::duration")]
    pub canary_retry: Duration,
    /// For one canary message.
    #[serde(with = "service::config::duration")]
    pub canary_deadline: Duration,
    /// Version of SpamAssassin's rules, as the site counts them.
    pub rules_version: String,
}

/// Verdict tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// Secrets; the first signs, all verify.
    pub key_files: Vec<PathBuf>,
    /// Older tokens are not believed.
    #[serde(with = "service::config::duration")]
    pub age_max: Duration,
}

/// LMTP out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// List hosts, in the order in which they are tried.
    pub hosts: Vec<SocketAddr>,
    /// For one message's relaying, within `receive.budget`.
    #[serde(with = "service::config::duration")]
    pub budget: Duration,
    /// For one TCP connect.
    #[serde(with = "service::config::duration")]
    pub connect: Duration,
    /// Between two probes while no list host can be reached, and how long one that failed is tried last.
    #[serde(with = "service::config::duration")]
    pub retry: Duration,
}

/// Registration with balancers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Announce {
    /// This node's name in the pool.
    pub name: String,
    /// Where the balancers reach it; its own listening address when empty.
    pub address: Option<SocketAddr>,
    /// The balancers' registration addresses.
    pub balancers: Vec<SocketAddr>,
    /// Until a balancer has told its lease, and after a failure.
    #[serde(with = "service::config::duration")]
    pub retry: Duration,
    /// Where HAProxy's agent-check may ask.
    pub agent_listen: Option<SocketAddr>,
    /// How long mail is still taken after a drain was announced.
    #[serde(with = "service::config::duration")]
    pub drain_notice: Duration,
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: "localhost".into(),
            receive: Receive::default(),
            spamd: Spamd::default(),
            clamd: Clamd::default(),
            scan: Scan::default(),
            levels: LevelSettings::default(),
            classes: Actions::default(),
            domains: BTreeMap::new(),
            banned: Banned::default(),
            archives: Limits::default(),
            authenticate: authenticate::Settings::default(),
            token: Token::default(),
            relay: Relay::default(),
            announce: Announce::default(),
            inside: None,
            control: control::Settings {
                socket: "/run/mailflow/scanner.sock".into(),
                listen: (LOOPBACK, 9126).into(),
            },
            log: LogSettings::default(),
        }
    }
}

impl Default for Receive {
    fn default() -> Self {
        Self {
            listen: (LOOPBACK, 10025).into(),
            sessions_max: 200,
            message_bytes_max: 50 << 20,
            recipients_max: 1000,
            memory_bytes_max: 512 << 20,
            budget: Duration::from_secs(25),
            drain: Duration::from_secs(30),
            contact: String::new(),
        }
    }
}

impl Default for Spamd {
    fn default() -> Self {
        Self {
            addresses: vec![Endpoint::Tcp((LOOPBACK, 783).into())],
            scans_max: 4,
            bytes_max: 256 << 10,
            user: String::new(),
            compress: false,
        }
    }
}

impl Default for Clamd {
    fn default() -> Self {
        Self {
            addresses: vec![Endpoint::Unix("/run/clamav/clamd.ctl".into())],
            scans_max: 10,
            signatures_age_max: Duration::ZERO,
        }
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(18),
            attempt: Duration::from_secs(10),
            waiting_max: 64,
            canary_interval: Duration::from_secs(60),
            canary_retry: Duration::from_secs(2),
            canary_deadline: Duration::from_secs(5),
            rules_version: "1".into(),
        }
    }
}

impl Default for Token {
    fn default() -> Self {
        Self {
            key_files: Vec::new(),
            age_max: Duration::from_secs(86_400),
        }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            hosts: vec![(LOOPBACK, 10027).into()],
            budget: Duration::from_secs(15),
            connect: Duration::from_secs(3),
            retry: Duration::from_secs(2),
        }
    }
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            name: "scan-1".into(),
            address: None,
            balancers: Vec::new(),
            retry: Duration::from_secs(2),
            agent_listen: None,
            drain_notice: Duration::from_secs(4),
        }
    }
}

impl Config {
    /// The name under which results of authentication are told.
    pub fn authserv_id(&self) -> &str {
        match self.authenticate.authserv_id.as_str() {
            "" => &self.hostname,
            id => id,
        }
    }

    /// What holds for a recipient: the site's policy, changed by its domain's.
    pub fn policy(&self, recipient: &Address) -> Policy<'_> {
        let no_kill_level = meets_no_kill_level(recipient.local());
        let own = self.domains.get(recipient.domain().as_str());
        let (levels, actions) = match own {
            Some(own) => (
                own.levels(&self.levels).levels(),
                own.actions(&self.classes),
            ),
            None => (self.levels.levels(), self.classes),
        };
        Policy {
            levels,
            actions,
            no_kill_level,
            banned: own
                .and_then(|own| own.lists.as_ref())
                .unwrap_or(&self.banned),
        }
    }
}
