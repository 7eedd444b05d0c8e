//! The balancer's configuration: `/etc/mailflow/balancer.toml`. Every key with its reason stands in `deploy/etc/balancer.toml`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{Changes, Complaints};
use service::control;
use service::log::LogSettings;
use service::program::{Complaint, Configuration};
use service::tls::Files;

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where edges connect to.
    pub listen: SocketAddr,
    /// Connections at once.
    pub sessions_max: usize,
    /// How long connections may take to end after the listener has closed.
    #[serde(with = "service::config::duration")]
    pub drain: Duration,
    /// `[registration]`.
    pub registration: Registration,
    /// `[pick]`.
    pub pick: Pick,
    /// `[probe]`.
    pub probe: Probe,
    /// `[splice]`.
    pub splice: Splice,
    /// `[[nodes]]`.
    pub nodes: Vec<StaticNode>,
    /// `[inside]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<Files>,
    /// `[control]`.
    pub control: control::Settings,
    /// `[log]`.
    pub log: LogSettings,
    /// Where operators' words are kept.
    pub state: PathBuf,
}

/// How scanners join.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// Where they register.
    pub listen: SocketAddr,
    /// How long a registration holds.
    #[serde(with = "service::config::duration")]
    pub lease: Duration,
    /// Nodes at most.
    pub nodes_max: usize,
}

/// Finding a node for a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pick {
    /// Connections a node gets from us at most.
    pub connections_max: usize,
    /// How long a connection waits for a node.
    #[serde(with = "service::config::duration")]
    pub wait: Duration,
    /// Nodes tried for one connection.
    pub attempts_max: usize,
    /// For one TCP connect.
    #[serde(with = "service::config::duration")]
    pub connect: Duration,
    /// From there to the whole greeting.
    #[serde(with = "service::config::duration")]
    pub greeting: Duration,
    /// Connections for each slot that a node has told.
    pub connections_per_slot: usize,
    /// How long a node's share grows after it has come (back).
    #[serde(with = "service::config::duration")]
    pub slow_start: Duration,
}

/// Probing static nodes, and those that were set aside.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Between two probes of a static node.
    #[serde(with = "service::config::duration")]
    pub interval: Duration,
    /// Good probes in a row that bring a node back.
    pub rise: u32,
    /// Failed probes in a row that take a static node out.
    pub fall: u32,
    /// First pause after a node was set aside; doubles with each failure.
    #[serde(with = "service::config::duration")]
    pub backoff_min: Duration,
    /// Longest pause.
    #[serde(with = "service::config::duration")]
    pub backoff_max: Duration,
}

/// Connections that stand.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Splice {
    /// How long both directions may be silent.
    #[serde(with = "service::config::duration")]
    pub idle: Duration,
    /// How long a connection may last.
    #[serde(with = "service::config::duration")]
    pub total: Duration,
    /// From so many bytes in one direction on the kernel moves them.
    #[serde(with = "service::config::bytes")]
    pub kernel_from: u64,
}

/// A node that does not register: amavisd, or a scanner of another site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNode {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many messages it scans at once; 0: nobody knows.
    #[serde(default)]
    pub slots: u32,
    /// Whether it is told who the client is, by version 2 of the PROXY protocol.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Where its agent answers, as HAProxy's agent-check asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<SocketAddr>,
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (LOOPBACK, 10024).into(),
            sessions_max: 4000,
            drain: Duration::from_secs(60),
            registration: Registration::default(),
            pick: Pick::default(),
            probe: Probe::default(),
            splice: Splice::default(),
            nodes: Vec::new(),
            inside: None,
            control: control::Settings {
                socket: "/run/mailflow/balancer.sock".into(),
                listen: (LOOPBACK, 9124).into(),
            },
            log: LogSettings::default(),
            state: "/var/lib/mailflow/balancer".into(),
        }
    }
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            listen: (LOOPBACK, 10023).into(),
            lease: Duration::from_secs(6),
            nodes_max: 256,
        }
    }
}

impl Default for Pick {
    fn default() -> Self {
        Self {
            connections_max: 100,
            wait: Duration::from_secs(2),
            attempts_max: 3,
            connect: Duration::from_secs(1),
            greeting: Duration::from_secs(1),
            connections_per_slot: 4,
            slow_start: Duration::from_secs(3),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
        }
    }
}

impl Default for Splice {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            total: Duration::from_secs(3600),
            kernel_from: 64 << 10,
        }
    }
}

impl Configuration for Config {
    const CHANGES: Changes = Changes {
        at_reload: &[
            "registration.lease",
            "registration.nodes_max",
            "pick",
            "probe",
            "splice",
            "nodes",
        ],
        at_start: &[
            "listen",
            "sessions_max",
            "drain",
            "registration.listen",
            "inside",
            "state",
        ],
    };

    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Complaints::default();
        complaints.counts([
            ("sessions_max", self.sessions_max),
            ("registration.nodes_max", self.registration.nodes_max),
            ("pick.connections_max", self.pick.connections_max),
            ("pick.attempts_max", self.pick.attempts_max),
            ("pick.connections_per_slot", self.pick.connections_per_slot),
            ("probe.rise", self.probe.rise as usize),
            ("probe.fall", self.probe.fall as usize),
        ]);
        complaints.pauses([
            ("registration.lease", self.registration.lease),
            ("probe.interval", self.probe.interval),
            ("probe.backoff_min", self.probe.backoff_min),
            ("pick.connect", self.pick.connect),
            ("pick.greeting", self.pick.greeting),
            ("splice.idle", self.splice.idle),
            ("splice.total", self.splice.total),
        ]);
        complaints.unless(
            self.probe.backoff_max >= self.probe.backoff_min,
            "probe.backoff_max",
            format!("{:?}", self.probe.backoff_max),
            "pauses grow",
            "give at least probe.backoff_min",
        );
        let inside = self.inside.as_ref();
        // Anybody could join the pool and be given mail.
        complaints.guarded(inside, "registration.listen", self.registration.listen);
        self.check_names(&mut complaints);
        complaints.inside(inside);
        complaints.into()
    }

    fn control(&self) -> &control::Settings {
        &self.control
    }

    fn log(&self) -> &LogSettings {
        &self.log
    }
}

impl Config {
    /// Every static node has a name of its own.
    fn check_names(&self, complaints: &mut Complaints) {
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            complaints.node_name("nodes", &node.name);
            complaints.unless(
                names.insert(&node.name),
                "nodes",
                format!("{:?}", node.name),
                "two nodes have this name",
                "rename one",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl Fn(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config
            .check()
            .into_iter()
            .map(|complaint| complaint.key)
            .collect()
    }

    #[test]
    fn complaints_name_their_key() {
        assert!(keys(|_| {}).is_empty());
        assert_eq!(keys(|c| c.pick.attempts_max = 0), ["pick.attempts_max"]);
        assert_eq!(
            keys(|c| c.probe.interval = Duration::ZERO),
            ["probe.interval"]
        );
        assert_eq!(
            keys(|c| c.probe.backoff_max = Duration::ZERO),
            ["probe.backoff_max"]
        );
        let outside = "192.0.2.1:10023".parse().unwrap();
        assert_eq!(
            keys(|c| c.registration.listen = outside),
            ["registration.listen"]
        );
        let node = |name: &str| StaticNode {
            name: name.into(),
            address: "127.0.0.1:10024".parse().unwrap(),
            slots: 0,
            proxy_protocol: false,
            agent: None,
        };
        assert!(keys(|c| c.nodes = vec![node("a"), node("b")]).is_empty());
        assert_eq!(keys(|c| c.nodes = vec![node("a"), node("a")]), ["nodes"]);
        assert_eq!(keys(|c| c.nodes = vec![node("a/b")]), ["nodes"]);
        let files = Files {
            certificate: "/nonexistent/b.pem".into(),
            key: "/nonexistent/b.key".into(),
            authority: Some("/nonexistent/ca.pem".into()),
        };
        assert_eq!(
            keys(|c| c.inside = Some(files.clone())),
            ["inside.certificate"]
        );
    }

    #[test]
    fn the_sample_is_the_default() {
        let complaints = service::config::compare_sample::<Config>(include_str!(
            "../../deploy/etc/balancer.toml"
        ));
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}
