//! What a configuration must hold beyond its form: names, bounds, and routes that exist.

use mail::{Address, Domain};
use service::config::{Changes, Complaints};
use service::program::{Complaint, Configuration};

use super::Config;

impl Config {
    /// `hostname`, which [`Configuration::check`] has looked at.
    pub fn hostname(&self) -> Result<Domain, String> {
        Domain::parse(&self.hostname).map_err(|error| error.to_string())
    }

    /// `postmaster`, those that are addresses.
    pub fn postmasters(&self) -> Vec<Address> {
        self.postmaster
            .iter()
            .filter_map(|text| Address::parse(text).ok())
            .collect()
    }
}

impl Configuration for Config {
    const CHANGES: Changes = Changes {
        at_reload: &[
            "postmaster",
            "domains",
            "verdict_key_files",
            "cookie_key_files",
            "directory_key_files",
            "lmtp.unscanned",
            "lists",
            "dsn",
            "quarantine.keep",
        ],
        at_start: &[
            "state",
            "hostname",
            "lmtp.listen",
            "lmtp.sessions_max",
            "lmtp.message_bytes_max",
            "lmtp.memory_bytes_max",
            "lmtp.recipients_max",
            "publish",
            "quarantine.bytes_max",
            "spool",
            "delivery",
            "inside",
        ],
    };

    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Complaints::default();
        self.check_names(&mut complaints);
        self.check_bounds(&mut complaints);
        self.delivery.check(&mut complaints);
        self.check_inside(&mut complaints);
        self.check_secrets(&mut complaints);
        complaints.into()
    }

    fn control(&self) -> &service::control::Settings {
        &self.control
    }

    fn log(&self) -> &service::log::LogSettings {
        &self.log
    }
}

impl Config {
    fn check_names(&self, complaints: &mut Complaints) {
        complaints.absolute("state", &self.state);
        complaints.parsed(
            "hostname",
            &self.hostname,
            self.hostname(),
            "it stands in greetings and message ids",
            "give this host's name",
        );
        for text in &self.postmaster {
            complaints.parsed(
                "postmaster",
                text,
                Address::parse(text),
                "mail to postmaster@ goes there",
                "give an address",
            );
        }
        for text in &self.domains {
            complaints.parsed(
                "domains",
                text,
                Domain::parse(text),
                "edges accept mail for it",
                "give a domain name",
            );
        }
    }

    fn check_bounds(&self, complaints: &mut Complaints) {
        complaints.counts([
            ("lmtp.sessions_max", self.lmtp.sessions_max),
            ("lmtp.recipients_max", self.lmtp.recipients_max),
            ("lists.expansions_max", self.lists.expansions_max),
            ("lists.hops_max", self.lists.hops_max),
            ("spool.window_max", self.spool.window_max),
            ("spool.heads_max", self.spool.heads_max),
            ("spool.unindexed_max", self.spool.unindexed_max),
        ]);
        complaints.spans([("spool.waiting_max", self.spool.waiting_max)]);
        complaints.unless(
            self.lmtp.memory_bytes_max >= self.lmtp.message_bytes_max,
            "lmtp.memory_bytes_max",
            "smaller than lmtp.message_bytes_max".into(),
            "the largest message could never be received",
            "make it a multiple of lmtp.message_bytes_max",
        );
    }

    /// Inner hops are guarded, with certificates that can be used.
    fn check_inside(&self, complaints: &mut Complaints) {
        let inside = self.inside.as_ref();
        complaints.guarded(inside, "lmtp.listen", self.lmtp.listen);
        complaints.guarded(inside, "publish.listen", self.publish.listen);
        complaints.inside(inside);
    }

    fn check_secrets(&self, complaints: &mut Complaints) {
        complaints.secrets("verdict_key_files", &self.verdict_key_files);
        complaints.secrets("cookie_key_files", &self.cookie_key_files);
        complaints.secrets("directory_key_files", &self.directory_key_files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_names_every_key() {
        let sample = include_str!("../../../deploy/etc/listserv.toml");
        let complaints = service::config::compare_sample::<Config>(sample);
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    #[test]
    fn the_default_is_right() {
        assert!(Config::default().check().is_empty());
    }

    #[test]
    fn complains() {
        let table = [
            ("state = \"spool\"", "state"),
            ("hostname = \"a b\"", "hostname"),
            ("postmaster = [\"nobody\"]", "postmaster"),
            ("domains = [\"-\"]", "domains"),
            ("[lmtp]\nlisten = \"0.0.0.0:10027\"", "lmtp.listen"),
            ("[publish]\nlisten = \"192.0.2.1:1\"", "publish.listen"),
            ("[lmtp]\nrecipients_max = 0", "lmtp.recipients_max"),
            (
                "[lmtp]\nmemory_bytes_max = \"1MiB\"",
                "lmtp.memory_bytes_max",
            ),
            (
                "[inside]\ncertificate = \"/c\"\nkey = \"/k\"",
                "inside.authority",
            ),
            (
                "[inside]\ncertificate = \"/nonexistent/c\"\nkey = \"/nonexistent/k\"\nauthority = \"/nonexistent/a\"",
                "inside.certificate",
            ),
            ("verdict_key_files = [\"verdict.key\"]", "verdict_key_files"),
            (
                "cookie_key_files = [\"/nonexistent/key\"]",
                "cookie_key_files",
            ),
            (
                "directory_key_files = [\"/nonexistent/key\"]",
                "directory_key_files",
            ),
        ];
        for (text, key) in table {
            let config: Config = toml::from_str(text).unwrap();
            let keys: Vec<String> = config.check().into_iter().map(|c| c.key).collect();
            assert_eq!(keys, [key], "{text}");
        }
        assert!(toml::from_str::<Config>("unheard_of = 1").is_err());
    }
}
