//! What serde cannot know of a configuration: ranges, files that must be readable, hops that must not leave this host in plain.

use std::time::Duration;

use mail::Domain;
use service::control;
use service::log::LogSettings;
use service::program::{Complaint, Configuration};

use super::Config;

/// No count in the file may be larger: what is meant to bound must be able to.
const COUNT_MAX: usize = 1_000_000;

impl Configuration for Config {
    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut complain = |key: &str, what: String, why: &str, remedy: &str| {
            complaints.push(Complaint {
                key: key.into(),
                what,
                why: why.into(),
                remedy: remedy.into(),
            });
        };
        self.check_limits(&mut complain);
        self.check_times(&mut complain);
        self.check_policy(&mut complain);
        self.check_names(&mut complain);
        self.check_inside(&mut complain);
        let key_files = &self.token.key_files;
        complaints.extend(service::config::check_secrets("token.key_files", key_files));
        let inside = self
            .inside
            .iter()
            .flat_map(|files| files.check("inside", true));
        complaints.extend(inside);
        complaints
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
    fn check_limits(&self, complain: &mut impl FnMut(&str, String, &str, &str)) {
        for (key, value) in [
            ("receive.sessions_max", self.receive.sessions_max),
            ("receive.recipients_max", self.receive.recipients_max),
            ("spamd.scans_max", self.spamd.scans_max),
            ("clamd.scans_max", self.clamd.scans_max),
        ] {
            if !(1..=COUNT_MAX).contains(&value) {
                let why = "nothing would ever pass, or nothing be bounded";
                complain(key, value.to_string(), why, "give 1 to 1000000");
            }
        }
        if self.spamd.bytes_max < 4096 {
            let what = format!("{} bytes", self.spamd.bytes_max);
            complain(
                "spamd.bytes_max",
                what,
                "SpamAssassin would see little but headers",
                "give at least 4KiB",
            );
        }
        if self.receive.memory_bytes_max < self.receive.message_bytes_max {
            let what = format!("{} bytes", self.receive.memory_bytes_max);
            complain(
                "receive.memory_bytes_max",
                what,
                "the largest message would never fit",
                "give at least receive.message_bytes_max",
            );
        }
    }

    /// Deadlines nest, and nothing spins.
    fn check_times(&self, complain: &mut impl FnMut(&str, String, &str, &str)) {
        if self.scan.deadline >= self.receive.budget {
            let what = format!("{:?}", self.scan.deadline);
            complain(
                "scan.deadline",
                what,
                "it must end within receive.budget",
                "give less than receive.budget",
            );
        }
        for (key, value) in [
            ("scan.canary_interval", self.scan.canary_interval),
            ("scan.canary_retry", self.scan.canary_retry),
            ("relay.retry", self.relay.retry),
            ("announce.retry", self.announce.retry),
        ] {
            if value < Duration::from_millis(50) {
                complain(
                    key,
                    format!("{value:?}"),
                    "it would spin",
                    "give at least 50ms",
                );
            }
        }
    }

    /// Levels.
    fn check_policy(&self, complain: &mut impl FnMut(&str, String, &str, &str)) {
        let levels = [self.levels.tag, self.levels.kill];
        if !levels.iter().all(|level| level.is_finite()) || self.levels.tag > self.levels.kill {
            let what = format!("tag {} and kill {}", self.levels.tag, self.levels.kill);
            complain(
                "levels.kill",
                what,
                "mail is marked before it is refused",
                "give kill at least tag",
            );
        }
    }

    /// What others call us, and whom we call.
    fn check_names(&self, complain: &mut impl FnMut(&str, String, &str, &str)) {
        if Domain::parse(&self.hostname).is_err() {
            let what = format!("{:?} is no domain name", self.hostname);
            complain(
                "hostname",
                what,
                "it stands in greetings",
                "give a name such as scan-1.example.org",
            );
        }
        if self.relay.hosts.is_empty() {
            complain(
                "relay.hosts",
                "no list host".into(),
                "a scanner owns no mail",
                "give at least one IP:PORT",
            );
        }
        let name = &self.announce.name;
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_legal) {
            let what = format!("{:?}", self.announce.name);
            complain(
                "announce.name",
                what,
                "balancers and logs call the node so",
                "give 1 to 64 letters, digits, dots, hyphens or underscores",
            );
        }
    }

    /// Without certificates every hop must stay on this host (design, invariant 14).
    fn check_inside(&self, complain: &mut impl FnMut(&str, String, &str, &str)) {
        if self.inside.is_some() {
            return;
        }
        let listen = std::iter::once(("receive.listen", &self.receive.listen));
        let hosts = self.relay.hosts.iter().map(|host| ("relay.hosts", host));
        let balancers = &self.announce.balancers;
        let balancers = balancers.iter().map(|host| ("announce.balancers", host));
        for (key, address) in listen.chain(hosts).chain(balancers) {
            if !address.ip().is_loopback() {
                complain(
                    key,
                    format!("{address} without TLS"),
                    "the inside trusts nobody by address",
                    "give [inside] certificate, key and authority, or a loopback address",
                );
            }
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
    fn the_defaults_are_sound() {
        assert!(keys(|_| {}).is_empty());
    }

    #[test]
    fn complaints_name_their_key() {
        assert_eq!(keys(|c| c.hostname = "no name".into()), ["hostname"]);
        assert_eq!(keys(|c| c.spamd.scans_max = 0), ["spamd.scans_max"]);
        assert_eq!(
            keys(|c| c.scan.deadline = Duration::from_secs(25)),
            ["scan.deadline"]
        );
        assert_eq!(keys(|c| c.levels.kill = 1.0), ["levels.kill"]);
        assert_eq!(keys(|c| c.levels.kill = f64::NAN), ["levels.kill"]);
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
