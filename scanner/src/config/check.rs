//! What serde cannot know of a configuration: ranges, files that must be readable, hops that must not leave this host in plain.

use mail::Domain;
use mail::verdict::Action;
use service::config::{Changes, Complaints};
use service::control;
use service::log::LogSettings;
use service::program::{Complaint, Configuration};

use super::Config;
use crate::endpoint::Endpoint;
use crate::policy::{Actions, LevelSettings};
use crate::structure::banned::Banned;
use crate::structure::kind::Kind;

impl Configuration for Config {
    const CHANGES: Changes = Changes {
        at_reload: &[
            "hostname",
            "receive.message_bytes_max",
            "receive.recipients_max",
            "receive.budget",
            "receive.contact",
            "spamd.bytes_max",
            "spamd.user",
            "spamd.compress",
            "clamd.signatures_age_max",
            "scan.deadline",
            "scan.attempt",
            "scan.canary_interval",
            "scan.canary_retry",
            "scan.canary_deadline",
            "scan.rules_version",
            "levels",
            "classes",
            "domains",
            "banned",
            "authenticate.deadline",
            "authenticate.authserv_id",
            "authenticate.trusted_sealers",
            "authenticate.points",
            "archives.levels_max",
            "archives.files_max",
            "archives.expanded_bytes_min",
            "archives.expanded_bytes_max",
            "archives.expansion_max",
            "archives.held_bytes_max",
            "archives.time_max",
            "token",
            "relay",
        ],
        at_start: &[
            "receive.listen",
            "receive.sessions_max",
            "receive.memory_bytes_max",
            "receive.drain",
            "spamd.addresses",
            "spamd.scans_max",
            "clamd.addresses",
            "clamd.scans_max",
            "scan.waiting_max",
            "archives.messages_max",
            "authenticate.enabled",
            "authenticate.servers",
            "authenticate.timeout",
            "announce",
            "inside",
        ],
    };

    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Complaints::default();
        self.check_limits(&mut complaints);
        self.check_times(&mut complaints);
        self.check_policy(&mut complaints);
        self.check_names(&mut complaints);
        self.check_evidence(&mut complaints);
        self.check_inside(&mut complaints);
        complaints.secrets("token.key_files", &self.token.key_files);
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
    /// Counts and sizes.
    fn check_limits(&self, complaints: &mut Complaints) {
        complaints.counts([
            ("receive.sessions_max", self.receive.sessions_max),
            ("receive.recipients_max", self.receive.recipients_max),
            ("spamd.scans_max", self.spamd.scans_max),
            ("clamd.scans_max", self.clamd.scans_max),
            ("scan.waiting_max", self.scan.waiting_max),
            ("archives.messages_max", self.archives.messages_max),
        ]);
        for (key, addresses) in [
            ("spamd.addresses", &self.spamd.addresses),
            ("clamd.addresses", &self.clamd.addresses),
        ] {
            check_addresses(complaints, key, addresses);
        }
        complaints.unless(
            self.spamd.user.bytes().all(|byte| byte.is_ascii_graphic()),
            "spamd.user",
            format!("{:?} is no user's name", self.spamd.user),
            "it stands in a header line of the request",
            "give a name without blanks, or none",
        );
        complaints.unless(
            self.spamd.bytes_max >= 4096,
            "spamd.bytes_max",
            format!("{} bytes", self.spamd.bytes_max),
            "SpamAssassin would see little but headers",
            "give at least 4KiB",
        );
        complaints.unless(
            self.receive.memory_bytes_max >= self.receive.message_bytes_max,
            "receive.memory_bytes_max",
            format!("{} bytes", self.receive.memory_bytes_max),
            "the largest message would never fit",
            "give at least receive.message_bytes_max",
        );
    }

    /// Deadlines nest, and nothing spins.
    fn check_times(&self, complaints: &mut Complaints) {
        complaints.unless(
            self.scan.deadline < self.receive.budget,
            "scan.deadline",
            format!("{:?}", self.scan.deadline),
            "it must end within receive.budget",
            "give less than receive.budget",
        );
        complaints.unless(
            self.archives.time_max < self.receive.budget / 2,
            "archives.time_max",
            format!("{:?}", self.archives.time_max),
            "no time would be left to ask the daemons",
            "give less than half of receive.budget",
        );
        complaints.pauses([
            ("scan.attempt", self.scan.attempt),
            ("scan.canary_interval", self.scan.canary_interval),
            ("scan.canary_retry", self.scan.canary_retry),
            ("relay.retry", self.relay.retry),
            ("announce.retry", self.announce.retry),
        ]);
    }

    /// Levels and classes, the site's and each domain's.
    fn check_policy(&self, complaints: &mut Complaints) {
        check_levels(complaints, "levels.kill", &self.levels);
        check_malware(complaints, "classes.malware", &self.classes);
        check_kinds(complaints, "banned.kinds", &self.banned);
        for (name, own) in &self.domains {
            let key = format!("domains.{name:?}");
            complaints.unless(
                Domain::parse(name).is_ok_and(|domain| domain.as_str() == &**name),
                &key,
                "no domain name in lower case".into(),
                "no recipient would ever be of it",
                "write it as it stands in addresses, such as lists.example",
            );
            check_levels(complaints, &key, &own.levels(&self.levels));
            check_malware(complaints, &key, &own.actions(&self.classes));
            if let Some(lists) = &own.lists {
                check_kinds(complaints, &format!("{key}.lists.kinds"), lists);
            }
        }
    }

    /// Evidence: times within the scan's, and points that are numbers.
    fn check_evidence(&self, complaints: &mut Complaints) {
        let settings = &self.authenticate;
        complaints.unless(
            !settings.enabled || settings.deadline < self.scan.deadline,
            "authenticate.deadline",
            format!("{:?}", settings.deadline),
            "no time would be left to ask spamd, which is shown the results",
            "give less than scan.deadline",
        );
        complaints.pauses([("authenticate.timeout", settings.timeout)]);
        complaints.unless(
            settings
                .points
                .all()
                .iter()
                .all(|points| points.is_finite()),
            "authenticate.points",
            "not all are numbers".into(),
            "they are added to a score",
            "give plain numbers such as 1.5",
        );
        let id = self.authserv_id();
        complaints.unless(
            Domain::parse(id).is_ok(),
            "authenticate.authserv_id",
            format!("{id:?} is no domain name"),
            "it stands in Authentication-Results",
            "give a name such as scan.example.org, or none",
        );
    }

    /// What others call us, and whom we call.
    fn check_names(&self, complaints: &mut Complaints) {
        complaints.unless(
            Domain::parse(&self.hostname).is_ok(),
            "hostname",
            format!("{:?} is no domain name", self.hostname),
            "it stands in greetings",
            "give a name such as scan-1.example.org",
        );
        complaints.unless(
            !self.relay.hosts.is_empty(),
            "relay.hosts",
            "no list host".into(),
            "a scanner owns no mail",
            "give at least one IP:PORT",
        );
        complaints.node_name("announce.name", &self.announce.name);
    }

    /// Inner hops are guarded, with certificates that can be used.
    fn check_inside(&self, complaints: &mut Complaints) {
        let inside = self.inside.as_ref();
        complaints.guarded(inside, "receive.listen", self.receive.listen);
        for host in &self.relay.hosts {
            complaints.guarded(inside, "relay.hosts", *host);
        }
        for balancer in &self.announce.balancers {
            complaints.guarded(inside, "announce.balancers", *balancer);
        }
        complaints.inside(inside);
    }
}

/// At least one, and none twice: it would get twice the scans.
fn check_addresses(complaints: &mut Complaints, key: &str, addresses: &[Endpoint]) {
    complaints.unless(
        !addresses.is_empty(),
        key,
        "no address".into(),
        "no mail could be scanned",
        "give at least one IP:PORT or path of a Unix socket",
    );
    for (index, address) in addresses.iter().enumerate() {
        complaints.unless(
            !addresses[..index].contains(address),
            key,
            format!("{address} stands there twice"),
            "it would be given twice the scans that it can do",
            "give each daemon once",
        );
    }
}

fn check_levels(complaints: &mut Complaints, key: &str, levels: &LevelSettings) {
    complaints.unless(
        levels.is_rising(),
        key,
        format!(
            "tag {}, tag2 {} and kill {}",
            levels.tag, levels.tag2, levels.kill
        ),
        "mail is told about before it is marked, and marked before it is spam",
        "give kill at least tag2, and tag2 at least tag",
    );
}

fn check_malware(complaints: &mut Complaints, key: &str, actions: &Actions) {
    complaints.unless(
        actions.malware.0 >= Action::Defer,
        key,
        format!("malware = {}", actions.malware.0.as_str()),
        "known malware would be passed on",
        "give refuse, quarantine or defer",
    );
}

fn check_kinds(complaints: &mut Complaints, key: &str, lists: &Banned) {
    let known = Kind::ALL.map(Kind::as_str);
    for kind in lists.kinds.iter().filter(|kind| !known.contains(&&***kind)) {
        complaints.unless(
            false,
            key,
            format!("{kind:?} is no kind that is known"),
            "it would ban nothing",
            &format!("give some of {}", known.join(", ")),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{DomainSettings, Word};

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
    fn the_defaults_are_sound() {
        assert!(keys(|_| {}).is_empty());
    }

    #[test]
    fn complaints_name_their_key() {
        assert_eq!(
            keys(|c| c.hostname = "no name".into()),
            ["hostname", "authenticate.authserv_id"]
        );
        assert_eq!(keys(|c| c.spamd.scans_max = 0), ["spamd.scans_max"]);
        assert_eq!(
            keys(|c| c.authenticate.deadline = Duration::from_secs(18)),
            ["authenticate.deadline"]
        );
        assert_eq!(
            keys(|c| c.authenticate.points.dmarc_pass = f64::NAN),
            ["authenticate.points"]
        );
        assert_eq!(
            keys(|c| c.authenticate.authserv_id = "no name".into()),
            ["authenticate.authserv_id"]
        );
        assert_eq!(
            keys(|c| c.scan.deadline = Duration::from_secs(25)),
            ["scan.deadline"]
        );
        assert_eq!(keys(|c| c.scan.attempt = Duration::ZERO), ["scan.attempt"]);
        assert_eq!(keys(|c| c.spamd.user = "a b".into()), ["spamd.user"]);
        assert_eq!(keys(|c| c.clamd.addresses.clear()), ["clamd.addresses"]);
        let twice = |c: &mut Config| c.spamd.addresses.extend(c.spamd.addresses.clone());
        assert_eq!(keys(twice), ["spamd.addresses"]);
        assert_eq!(keys(|c| c.levels.kill = 1.0), ["levels.kill"]);
        assert_eq!(keys(|c| c.levels.kill = f64::NAN), ["levels.kill"]);
        assert_eq!(
            keys(|c| c.classes.malware = Word(Action::Tag)),
            ["classes.malware"]
        );
        let mild = || DomainSettings {
            kill: Some(1.0),
            ..DomainSettings::default()
        };
        assert_eq!(
            keys(|c| c.domains.extend([("a.example".into(), mild())])),
            ["domains.\"a.example\""]
        );
        let plain = DomainSettings::default;
        assert_eq!(
            keys(|c| c.domains.extend([("A.example".into(), plain())])),
            ["domains.\"A.example\""]
        );
        assert_eq!(
            keys(|c| c.banned.kinds.push("word".into())),
            ["banned.kinds"]
        );
        assert_eq!(keys(|c| c.relay.hosts.clear()), ["relay.hosts"]);
        assert_eq!(
            keys(|c| c.announce.name = "scan 1".into()),
            ["announce.name"]
        );
        assert_eq!(
            keys(|c| c.receive.sessions_max = usize::MAX),
            ["receive.sessions_max"]
        );
        assert_eq!(keys(|c| c.relay.retry = Duration::ZERO), ["relay.retry"]);
        let outside = "192.0.2.1:10025".parse().unwrap();
        assert_eq!(keys(|c| c.receive.listen = outside), ["receive.listen"]);
        assert_eq!(keys(|c| c.relay.hosts.push(outside)), ["relay.hosts"]);
        assert_eq!(
            keys(|c| c.announce.balancers.push(outside)),
            ["announce.balancers"]
        );
        assert_eq!(
            keys(|c| c.token.key_files.push("/nonexistent".into())),
            ["token.key_files"]
        );
        let files = service::tls::Files {
            certificate: "scan.pem".into(),
            key: "/nonexistent/scan.key".into(),
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
            "../../../deploy/etc/scanner.toml"
        ));
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}
