//! `[authenticate]`: resolver, times, whom we trust, and how many points evidence is worth.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[authenticate]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether it is done at all.
    pub enabled: bool,
    /// Resolvers with a cache; none: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// For one query.
    #[serde(with = "service::config::duration")]
    pub timeout: Duration,
    /// For a whole message.
    #[serde(with = "service::config::duration")]
    pub deadline: Duration,
    /// The name under which results are told; empty: hostname. Unlike every edge's.
    pub authserv_id: String,
    /// Domains whose ARC seal makes good a DMARC that fails.
    pub trusted_sealers: Vec<Box<str>>,
    /// `[authenticate.points]`.
    pub points: Points,
}

/// Points that evidence adds to spamd's score.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Points {
    /// DMARC fails and its domain wants such mail rejected.
    pub dmarc_reject: f64,
    /// DMARC fails and its domain wants such mail quarantined.
    pub dmarc_quarantine: f64,
    /// Several authors' domains, or several From fields.
    pub several_from: f64,
    /// DMARC passes.
    pub dmarc_pass: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(5),
            authserv_id: String::new(),
            trusted_sealers: Vec::new(),
            points: Points::default(),
        }
    }
}

impl Default for Points {
    fn default() -> Self {
        Self {
            dmarc_reject: 2.0,
            dmarc_quarantine: 1.0,
            several_from: 1.0,
            dmarc_pass: -0.2,
        }
    }
}

impl Points {
    /// All of them.
    pub fn all(&self) -> [f64; 4] {
        [
            self.dmarc_reject,
            self.dmarc_quarantine,
            self.several_from,
            self.dmarc_pass,
        ]
    }
}
