//! `[delivery]`: mail out. What it must hold beyond its form is checked here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use delivery::breaker::Limits;
use delivery::engine::PROBE_INTERVAL_MAX;
use delivery::expiry::Expiry;
use delivery::retry::Keys;
use delivery::rules::{Rules, Table};
use delivery::tls::{Level, Levels};
use mail::Domain;
use serde::{Deserialize, Serialize};
use service::config::{Complaints, bytes, duration};

use super::Egress;

/// What becomes of mail that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// It leaves.
    #[default]
    Smtp,
    /// It is kept: nothing leaves and nothing expires, whatever a command says.
    Sink,
}

/// `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Whether anything leaves at all.
    pub deliver: Deliver,
    /// Start with delivery paused; `listserv queue resume` lets it go.
    pub paused: bool,
    /// The route of all domains that are not pinned; none means their mail exchangers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_route: Option<String>,
    /// Resolvers; none means those of the system.
    pub dns: Vec<SocketAddr>,
    /// The port of mail exchangers.
    pub port: u16,
    /// Names and addresses by which mail exchangers lead back to this site, beside `hostname`, the names and addresses of the egresses,
    /// and the addresses where it listens.
    pub own_exchangers: Vec<String>,
    /// The egress of what has no other; none: the system's choice of address, under `hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// The egress of confirmations, answers, moderation and reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_urgent: Option<String>,
    /// The egress of all else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_ordinary: Option<String>,
    /// How the way to mail exchangers is protected.
    pub tls: Level,
    /// Who may sign the certificates of hosts that must be verified.
    pub tls_authorities_file: PathBuf,
    /// Attempts under way at once.
    pub attempts_max: usize,
    /// Bodies in memory for them.
    #[serde(with = "bytes")]
    pub bodies_bytes_max: u64,
    /// What a task may wait for a processor before fewer attempts on backlog and retries are under way; zero: however long.
    #[serde(with = "duration")]
    pub turn_target: Duration,
    /// Connections to one site at once.
    pub site_connections_max: usize,
    /// Between two probes of a site that is not there.
    #[serde(with = "duration")]
    pub probe_interval: Duration,
    /// Wait after the first deferral.
    #[serde(with = "duration")]
    pub retry_first: Duration,
    /// Each wait in percent of the one before.
    pub retry_factor_percent: u32,
    /// Longest wait.
    #[serde(with = "duration")]
    pub retry_longest: Duration,
    /// Off each wait by chance, at most.
    pub retry_jitter_percent: u32,
    /// The waits one by one, in place of first, factor and longest.
    #[serde(with = "duration::list")]
    pub retry_delays: Vec<Duration>,
    /// Given up after.
    #[serde(with = "duration")]
    pub give_up: Duration,
    /// The same for mail from the null reverse-path.
    #[serde(with = "duration")]
    pub give_up_null_sender: Duration,
    /// Own rules for providers' replies, and what sites allow, before those that come with the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_rules_file: Option<PathBuf>,
    /// Domains that go to a route: `"one.example" = "sink"`.
    pub pinned: BTreeMap<String, String>,
    /// Domains whose mail is protected otherwise: `"one.example" = "verify"`.
    pub tls_domains: BTreeMap<String, Level>,
    /// Mail exchangers to which the mail of all other domains is protected otherwise; `".example"` means all below it.
    pub tls_exchangers: BTreeMap<String, Level>,
    /// The egress of a list's posts, by the list's address.
    pub egress_lists: BTreeMap<String, String>,
    /// Routes by name.
    pub routes: BTreeMap<String, Route>,
    /// Egresses by name.
    pub egresses: BTreeMap<String, Egress>,
}

/// `[delivery.routes.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `host:port` each, tried in order.
    pub hosts: Vec<String>,
    /// How the way there is protected.
    #[serde(default = "never")]
    pub tls: Level,
    /// The egress by which mail leaves for it; none: no particular one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Transactions over one connection.
    #[serde(default = "route_transactions_max")]
    pub transactions_max: usize,
    /// Connections at once.
    #[serde(default = "route_connections_max")]
    pub connections_max: usize,
}

/// Most routes lead to loopback.
fn never() -> Level {
    Level::Never
}

fn route_transactions_max() -> usize {
    100
}

fn route_connections_max() -> usize {
    10
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            deliver: Deliver::Smtp,
            paused: false,
            default_route: None,
            dns: Vec::new(),
            port: 25,
            own_exchangers: Vec::new(),
            egress: None,
            egress_urgent: None,
            egress_ordinary: None,
            tls: Level::Opportunistic,
            tls_authorities_file: "/etc/ssl/certs/ca-certificates.crt".into(),
            attempts_max: 500,
            bodies_bytes_max: delivery::engine::BODIES_BYTES_MAX,
            turn_target: delivery::engine::TURN_TARGET,
            site_connections_max: 20,
            probe_interval: Limits::default().probe_interval,
            retry_first: Duration::from_secs(300),
            retry_factor_percent: 200,
            retry_longest: Duration::from_secs(4000),
            retry_jitter_percent: 25,
            retry_delays: Vec::new(),
            give_up: Duration::from_secs(5 * 86_400),
            give_up_null_sender: Duration::from_secs(2 * 86_400),
            provider_rules_file: None,
            pinned: BTreeMap::new(),
            tls_domains: BTreeMap::new(),
            tls_exchangers: BTreeMap::new(),
            egress_lists: BTreeMap::new(),
            routes: BTreeMap::new(),
            egresses: BTreeMap::new(),
        }
    }
}

impl Delivery {
    /// The rules in force.
    pub fn rules(&self) -> Result<Rules, String> {
        let own = match &self.provider_rules_file {
            None => Table::default(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|text| Table::parse(&text))
                .map_err(|why| format!("{}: {why}", path.display()))?,
        };
        Rules::with(own)
    }

    /// How domains' mail is protected.
    pub fn levels(&self) -> Result<Levels, String> {
        let domain = |(domain, level): (&String, &Level)| {
            let domain = Domain::parse(domain).map_err(|error| format!("{domain:?}: {error}"))?;
            Ok((domain, *level))
        };
        let routes = self.routes.values().map(|route| &route.tls);
        let hosts = self.tls_exchangers.values();
        let domains = self.tls_domains.values();
        let mut all = domains.chain(hosts).chain([&self.tls]).chain(routes);
        let verifying = match all.any(|level| *level == Level::Verify) {
            true => Some(service::tls::verifying_client(&self.tls_authorities_file)?),
            false => None,
        };
        Ok(Levels {
            default: self.tls,
            domains: self
                .tls_domains
                .iter()
                .map(domain)
                .collect::<Result<_, String>>()?,
            exchangers: (self.tls_exchangers.iter())
                .map(|(host, level)| (host.to_lowercase().into(), *level))
                .collect(),
            verifying,
        })
    }

    /// The `retry_*` keys.
    pub fn retry(&self) -> Keys<'_> {
        Keys {
            first: self.retry_first,
            factor_percent: self.retry_factor_percent,
            longest: self.retry_longest,
            jitter_percent: self.retry_jitter_percent,
            delays: &self.retry_delays,
        }
    }

    /// When mail is given up.
    pub fn expiry(&self) -> Expiry {
        Expiry {
            mail: Some(self.give_up),
            null_sender: Some(self.give_up_null_sender),
        }
    }

    /// Adds what is wrong.
    pub(super) fn check(&self, complaints: &mut Complaints) {
        self.check_bounds(complaints);
        self.check_routes(complaints);
        self.check_egresses(complaints);
        self.check_tls(complaints);
        complaints.extend(self.retry().check("delivery"));
        let rules = self.rules();
        complaints.unless(
            rules.is_ok(),
            "delivery.provider_rules_file",
            rules.err().unwrap_or_default(),
            "replies of providers would be misunderstood",
            "mend it as deploy/etc/providers.toml shows",
        );
    }

    fn check_bounds(&self, complaints: &mut Complaints) {
        complaints.counts([
            ("delivery.attempts_max", self.attempts_max),
            ("delivery.site_connections_max", self.site_connections_max),
        ]);
        complaints.unless(
            self.bodies_bytes_max > 0,
            "delivery.bodies_bytes_max",
            "0".into(),
            "no body could be read",
            "give some room, as in \"256MiB\"",
        );
        complaints.spans([
            ("delivery.probe_interval", self.probe_interval),
            ("delivery.give_up", self.give_up),
            ("delivery.give_up_null_sender", self.give_up_null_sender),
        ]);
        complaints.unless(
            self.probe_interval <= PROBE_INTERVAL_MAX,
            "delivery.probe_interval",
            format!("{:?} is too long", self.probe_interval),
            "mail of a site that is back would wait for no reason",
            &format!("at most {PROBE_INTERVAL_MAX:?}"),
        );
    }

    fn check_tls(&self, complaints: &mut Complaints) {
        let levels = self.levels();
        complaints.unless(
            levels.is_ok(),
            "delivery.tls_domains",
            levels.err().unwrap_or_default(),
            "mail would leave less protected than it should",
            "give domain names, and in tls_authorities_file the authorities in PEM",
        );
        for host in self.tls_exchangers.keys() {
            complaints.parsed(
                "delivery.tls_exchangers",
                host,
                Domain::parse(host.strip_prefix('.').unwrap_or(host)),
                "it would match no mail exchanger",
                "give host names, or with a dot before it the domain that they are below",
            );
        }
        let names = self.own_exchangers.iter();
        for name in names.filter(|name| name.parse::<IpAddr>().is_err()) {
            complaints.parsed(
                "delivery.own_exchangers",
                name,
                Domain::parse(name),
                "it would match no mail exchanger",
                "give host names and addresses",
            );
        }
    }

    fn check_routes(&self, complaints: &mut Complaints) {
        let default = self.default_route.iter();
        let pinned = self.pinned.values();
        let named = default
            .map(|name| ("delivery.default_route", name))
            .chain(pinned.map(|name| ("delivery.pinned", name)));
        for (key, name) in named {
            complaints.unless(
                self.routes.contains_key(name),
                key,
                format!("no route {name:?}"),
                "mail would have nowhere to go",
                &format!("add [delivery.routes.{name}]"),
            );
        }
        for domain in self.pinned.keys() {
            complaints.parsed(
                "delivery.pinned",
                domain,
                Domain::parse(domain),
                "it would match no recipient",
                "give a domain name",
            );
        }
        for (name, route) in &self.routes {
            complaints.unless(
                !route.hosts.is_empty() && route.transactions_max > 0 && route.connections_max > 0,
                &format!("delivery.routes.{name}.hosts"),
                "a route without hosts, transactions or connections".into(),
                "mail could not leave by it",
                "give hosts = [\"host:port\"] and bounds of at least 1",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use service::program::Configuration;

    use super::super::Config;
    use super::*;

    #[test]
    fn the_sample_of_provider_rules_can_be_used_as_it_stands() {
        let sample = include_str!("../../../deploy/etc/providers.toml");
        let lines = sample.lines().map(|line| {
            let word = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            word.unwrap_or(line)
        });
        let table = Table::parse(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!((table.rule.len(), table.site.len()), (2, 1));
    }

    #[test]
    fn complains() {
        let table = [
            ("attempts_max = 0", "attempts_max"),
            ("bodies_bytes_max = 0", "bodies_bytes_max"),
            ("probe_interval = \"0s\"", "probe_interval"),
            ("probe_interval = \"61s\"", "probe_interval"),
            ("give_up = \"0s\"", "give_up"),
            ("give_up_null_sender = \"0s\"", "give_up_null_sender"),
            ("retry_first = \"2h\"", "retry_first"),
            ("retry_delays = [\"5m\", \"0s\"]", "retry_delays"),
            ("default_route = \"x\"", "default_route"),
            ("[delivery.pinned]\n\"one.example\" = \"x\"", "pinned"),
            (
                "provider_rules_file = \"/nonexistent/providers.toml\"",
                "provider_rules_file",
            ),
            ("[delivery.routes.x]\nhosts = []", "routes.x.hosts"),
            ("own_exchangers = [\"a b\"]", "own_exchangers"),
            (
                "[delivery.tls_exchangers]\n\"*.b\" = \"encrypt\"",
                "tls_exchangers",
            ),
            (
                "[delivery.tls_domains]\n\"a b\" = \"encrypt\"",
                "tls_domains",
            ),
            (
                "tls_authorities_file = \"/nonexistent/ca.pem\"\n[delivery.tls_domains]\n\"one.example\" = \"verify\"",
                "tls_domains",
            ),
        ];
        for (text, key) in table {
            let config: Config = toml::from_str(&format!("[delivery]\n{text}")).unwrap();
            let keys: Vec<String> = config.check().into_iter().map(|c| c.key).collect();
            assert_eq!(keys, [format!("delivery.{key}")], "{text}");
        }
    }
}
