//! `[next_hop]`, `[through]` and `[forward]`: the way inside, while the client waits and from the spool.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};

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
    /// Bodies in memory for them.
    #[serde(with = "bytes")]
    pub bodies_bytes_max: u64,
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
