//! The configuration of listserv: `listserv.toml`, held to `deploy/etc/listserv.toml` by a test. Reads no file itself.

mod check;
mod delivery;
mod egress;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};

pub use self::delivery::{Deliver, Delivery, Route};
pub use self::egress::Egress;

/// Everything that can be said in `listserv.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where directory, spool and quarantine are kept.
    pub state: PathBuf,
    /// Our name in greetings, Received and Message-ID.
    pub hostname: String,
    /// Who reads mail to postmaster@, abuse@ and security@, and to the owners of lists that name none.
    pub postmaster: Vec<String>,
    /// Domains that are ours though they hold no list and no alias yet.
    pub domains: Vec<String>,
    /// The secrets by which scanners sign verdicts; all of them verify.
    pub verdict_key_files: Vec<PathBuf>,
    /// The secrets of confirmations: the first makes them, all verify. None: one that is made in `state`.
    pub cookie_key_files: Vec<PathBuf>,
    /// The secrets by which the directory is signed for edges; all of them sign.
    pub directory_key_files: Vec<PathBuf>,
    /// Mail in.
    pub lmtp: Lmtp,
    /// The directory for edges.
    pub publish: Publish,
    /// Posts and commands.
    pub lists: Lists,
    /// Reports to senders.
    pub dsn: Dsn,
    /// What is not let through.
    pub quarantine: Quarantine,
    /// The durable queue.
    pub spool: Spool,
    /// Mail out.
    pub delivery: Delivery,
    /// Commands and metrics.
    pub control: service::control::Settings,
    /// Mutual TLS with edges and scanners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<service::tls::Files>,
    /// Logs.
    pub log: service::log::LogSettings,
}

/// `[lmtp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lmtp {
    /// Where scanners connect.
    pub listen: SocketAddr,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Largest message.
    #[serde(with = "bytes")]
    pub message_bytes_max: u64,
    /// Memory of all messages that are being received.
    #[serde(with = "bytes")]
    pub memory_bytes_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// What is done with mail that has no valid verdict and is not exempt.
    pub unscanned: Unscanned,
}

/// What is done with mail that no scanner vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unscanned {
    /// 451 4.7.0, once `verdict_key_files` are set.
    Defer,
    /// It is taken, as for a scanner that is not ours.
    Accept,
}

/// `[publish]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// Where edges fetch the directory.
    pub listen: SocketAddr,
}

/// `[lists]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// Received fields from which a message counts as looping.
    pub hops_max: usize,
    /// How long a confirmation can be answered.
    #[serde(with = "duration")]
    pub confirm_valid: Duration,
    /// Answers to one address in a day.
    pub answers_per_day: u32,
    /// Expansions at once.
    pub expansions_max: usize,
    /// How long a member's bounces are remembered.
    #[serde(with = "duration")]
    pub bounces_keep: Duration,
}

/// `[dsn]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dsn {
    /// Reports in a day to one reverse-path that publishes no policy.
    pub per_day: u32,
    /// What happens to a message's recipients within this time is told in one report.
    #[serde(with = "duration")]
    pub merge: Duration,
    /// When the sender of mail that is passed on is told that it still waits; 0s: never.
    #[serde(with = "duration")]
    pub delay_after: Duration,
}

/// `[quarantine]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quarantine {
    /// How long a message is kept.
    #[serde(with = "duration")]
    pub keep: Duration,
    /// How much is kept at most; beyond it quarantine answers 452.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
}

/// `[spool]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Free bytes below which mail is answered 452.
    #[serde(with = "bytes")]
    pub free_bytes_min: u64,
    /// Free inodes below which mail is answered 452.
    pub free_inodes_min: u64,
    /// Bytes of messages that may wait for the disk.
    #[serde(with = "bytes")]
    pub waiting_bytes_max: u64,
    /// How long one may.
    #[serde(with = "duration")]
    pub waiting_max: Duration,
    /// One segment of the journal.
    #[serde(with = "bytes")]
    pub segment_bytes: u64,
    /// How long an ident is remembered.
    #[serde(with = "duration")]
    pub ident_memory: Duration,
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

impl Config {
    /// Where the spool is.
    pub fn spool_folder(&self) -> PathBuf {
        self.state.join("spool")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/mailflow/listserv".into(),
            hostname: "localhost".into(),
            postmaster: Vec::new(),
            domains: Vec::new(),
            verdict_key_files: Vec::new(),
            cookie_key_files: Vec::new(),
            directory_key_files: Vec::new(),
            lmtp: Lmtp::default(),
            publish: Publish::default(),
            lists: Lists::default(),
            dsn: Dsn::default(),
            quarantine: Quarantine::default(),
            spool: Spool::default(),
            delivery: Delivery::default(),
            control: service::control::Settings {
                socket: "/run/mailflow/listserv.sock".into(),
                listen: SocketAddr::from(([127, 0, 0, 1], 9127)),
            },
            inside: None,
            log: service::log::LogSettings::default(),
        }
    }
}

impl Default for Lmtp {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 10027)),
            sessions_max: 200,
            message_bytes_max: 64 << 20,
            memory_bytes_max: 512 << 20,
            recipients_max: 1000,
            unscanned: Unscanned::Defer,
        }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 10028)),
        }
    }
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            hops_max: 50,
            confirm_valid: Duration::from_secs(1_000_000),
            answers_per_day: 10,
            expansions_max: 8,
            bounces_keep: Duration::from_secs(60 * 86_400),
        }
    }
}

impl Default for Dsn {
    fn default() -> Self {
        Self {
            per_day: 10,
            merge: Duration::from_secs(60),
            delay_after: Duration::ZERO,
        }
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30 * 86_400),
            bytes_max: 4 << 30,
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            free_bytes_min: 1 << 30,
            free_inodes_min: 1000,
            waiting_bytes_max: 256 << 20,
            waiting_max: Duration::from_secs(3),
            segment_bytes: 64 << 20,
            ident_memory: Duration::from_secs(60 * 86_400),
            window_max: 4096,
            heads_max: 200_000,
            unindexed_max: 200_000,
            content_bytes_max: 32 << 20,
        }
    }
}
