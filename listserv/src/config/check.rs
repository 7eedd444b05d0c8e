//! What a configuration must hold beyond its form: names, bounds, and routes that exist.

use mail::{Address, Domain};
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
    fn check(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        self.check_names(&mut complaints);
        self.check_listeners(&mut complaints);
        self.check_bounds(&mut complaints);
        self.delivery.check(&mut complaints);
        self.check_files(&mut complaints);
        complaints
    }

    fn control(&self) -> &service::control::Settings {
        &self.control
    }

    fn log(&self) -> &service::log::LogSettings {
        &self.log
    }
}

impl Config {
    fn check_names(&self, complaints: &mut Vec<Complaint>) {
        let mut say = |key: &str, what: String, why: &str, remedy: &str| {
            complaints.push(Complaint {
                key: key.into(),
                what,
                why: why.into(),
                remedy: remedy.into(),
            });
        };
        if !self.state.is_absolute() {
            say(
                "state",
                format!("relative path {:?}", self.state),
                "a daemon's working directory is not fixed",
                "give an absolute path",
            );
        }
        if let Err(error) = self.hostname() {
            say(
                "hostname",
                format!("{:?}: {error}", self.hostname),
                "it stands in greetings and message ids",
                "give this host's name",
            );
        }
        for text in &self.postmaster {
            if let Err(error) = Address::parse(text) {
                say(
                    "postmaster",
                    format!("{text:?}: {error}"),
                    "mail to postmaster@ goes there",
                    "give an address",
                );
            }
        }
        for text in &self.domains {
            if let Err(error) = Domain::parse(text) {
                say(
                    "domains",
                    format!("{text:?}: {error}"),
                    "edges accept mail for it",
                    "give a domain name",
                );
            }
        }
    }

    fn check_listeners(&self, complaints: &mut Vec<Complaint>) {
        let mut say = |key: &str, what: String, why: &str, remedy: &str| {
            complaints.push(Complaint {
                key: key.into(),
                what,
                why: why.into(),
                remedy: remedy.into(),
            });
        };
        for (key, listen) in [
            ("lmtp.listen", self.lmtp.listen),
            ("publish.listen", self.publish.listen),
        ] {
            if self.inside.is_none() && !listen.ip().is_loopback() {
                say(
                    key,
                    format!("{listen} without [inside]"),
                    "other hosts are trusted by certificate alone",
                    "give [inside] certificate, key and authority, or a loopback address",
                );
            }
        }
    }

    fn check_bounds(&self, complaints: &mut Vec<Complaint>) {
        let bounds = [
            ("lmtp.sessions_max", self.lmtp.sessions_max),
            ("lmtp.recipients_max", self.lmtp.recipients_max),
            ("lists.expansions_max", self.lists.expansions_max),
            ("lists.hops_max", self.lists.hops_max),
            (
                "spool.waiting_max",
                self.spool.waiting_max.as_millis() as usize,
            ),
        ];
        for (key, _) in bounds.iter().filter(|(_, value)| *value == 0) {
            complaints.push(Complaint {
                key: (*key).into(),
                what: "0".into(),
                why: "nothing would ever be done".into(),
                remedy: "give at least 1".into(),
            });
        }
        if self.lmtp.memory_bytes_max < self.lmtp.message_bytes_max {
            complaints.push(Complaint {
                key: "lmtp.memory_bytes_max".into(),
                what: "smaller than lmtp.message_bytes_max".into(),
                why: "the largest message could never be received".into(),
                remedy: "make it a multiple of lmtp.message_bytes_max".into(),
            });
        }
    }

    fn check_files(&self, complaints: &mut Vec<Complaint>) {
        let directory: Vec<_> = self.directory_key_file.iter().cloned().collect();
        for (key, files) in [
            ("verdict_key_files", &self.verdict_key_files),
            ("cookie_key_files", &self.cookie_key_files),
            ("directory_key_file", &directory),
        ] {
            complaints.extend(service::config::check_secrets(key, files));
        }
        let inside = self
            .inside
            .iter()
            .flat_map(|files| files.check("inside", true));
        complaints.extend(inside);
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
                "directory_key_file = \"/nonexistent/key\"",
                "directory_key_file",
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
