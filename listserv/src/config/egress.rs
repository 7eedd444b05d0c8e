//! Where mail leaves from: `[delivery.egresses.NAME]`, and which of them is chosen by class and by list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use delivery::egress::Egresses;
use mail::{Address, Domain};
use serde::{Deserialize, Serialize};
use service::config::Complaints;

use super::Delivery;

/// `[delivery.egresses.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// The address from which IPv4 hosts are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_v4: Option<Ipv4Addr>,
    /// The address from which IPv6 hosts are reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_v6: Option<Ipv6Addr>,
    /// The name in EHLO; none: `hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
}

impl Egress {
    /// As the engine takes it.
    pub fn as_engine(&self) -> delivery::egress::Egress {
        delivery::egress::Egress {
            source_v4: self.source_v4,
            source_v6: self.source_v6,
            helo: self.helo.as_deref().map(Into::into),
        }
    }
}

impl Delivery {
    /// All egresses, as the engine takes them.
    pub fn egresses(&self) -> Egresses {
        let all = self.egresses.iter();
        all.map(|(name, egress)| (Arc::from(name.as_str()), egress.as_engine()))
            .collect()
    }

    /// The names under which mail exchangers mean this host.
    pub fn own_exchangers(&self, hostname: &str) -> Vec<Domain> {
        let helos = self.egresses.values().filter_map(|e| e.helo.as_deref());
        let named = self.own_exchangers.iter().map(String::as_str);
        let named = named.filter(|name| name.parse::<IpAddr>().is_err());
        let all = helos.chain(named).chain([hostname]);
        all.filter_map(|name| Domain::parse(name).ok()).collect()
    }

    /// The addresses under which a mail exchanger is this host, or leads back to it: those named, those by which mail leaves, and those
    /// where it listens. Loopback is every host's own, and none that a connection from elsewhere could come by.
    pub fn own_addresses(&self, listening: &[SocketAddr]) -> Vec<IpAddr> {
        let named = self.own_exchangers.iter();
        let named = named.filter_map(|name| name.parse::<IpAddr>().ok());
        let leaving = self.egresses.values().flat_map(|egress| {
            let (four, six) = (egress.source_v4, egress.source_v6);
            [four.map(IpAddr::V4), six.map(IpAddr::V6)]
        });
        let listening = listening.iter().map(SocketAddr::ip);
        let told = leaving.flatten().chain(listening);
        let told = told.filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        named.chain(told).map(|ip| ip.to_canonical()).collect()
    }

    /// Each key that names an egress, and the name.
    fn chosen(&self) -> Vec<(String, &String)> {
        let classes = [
            ("egress", &self.egress),
            ("egress_urgent", &self.egress_urgent),
            ("egress_ordinary", &self.egress_ordinary),
        ];
        let classes = classes
            .into_iter()
            .filter_map(|(key, name)| Some((format!("delivery.{key}"), name.as_ref()?)));
        let lists = self.egress_lists.values();
        let lists = lists.map(|name| ("delivery.egress_lists".to_owned(), name));
        let routes = self.routes.iter().filter_map(|(route, settings)| {
            let key = format!("delivery.routes.{route}.egress");
            Some((key, settings.egress.as_ref()?))
        });
        classes.chain(lists).chain(routes).collect()
    }

    /// Adds what is wrong with them.
    pub(super) fn check_egresses(&self, complaints: &mut Complaints) {
        for (key, name) in self.chosen() {
            complaints.unless(
                self.egresses.contains_key(name),
                &key,
                format!("no egress {name:?}"),
                "its mail would wait",
                &format!("add [delivery.egresses.{name}]"),
            );
        }
        for list in self.egress_lists.keys() {
            complaints.parsed(
                "delivery.egress_lists",
                list,
                Address::parse(list),
                "it would match no list",
                "give a list's address",
            );
        }
        for (name, egress) in &self.egresses {
            if let Some(text) = &egress.helo {
                complaints.parsed(
                    &format!("delivery.egresses.{name}.helo"),
                    text,
                    Domain::parse(text),
                    "hosts would refuse the greeting",
                    "give the name to which the source addresses resolve",
                );
            }
            for (source, error) in egress.as_engine().missing() {
                let family = if source.is_ipv4() { "v4" } else { "v6" };
                complaints.unless(
                    false,
                    &format!("delivery.egresses.{name}.source_{family}"),
                    format!("this host has no address {source}: {error}"),
                    "no mail could leave from it",
                    "add the address to an interface, or name one that `ip address` shows",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::program::Configuration;

    use super::super::Config;

    #[test]
    fn complains() {
        let named = "[delivery.egresses.bulk]\nsource_v4 = \"127.0.0.1\"\nhelo = \"bulk.example\"";
        let table = [
            ("[delivery]\negress = \"x\"", "egress"),
            ("[delivery]\negress_urgent = \"x\"", "egress_urgent"),
            ("[delivery]\negress_ordinary = \"x\"", "egress_ordinary"),
            (
                "[delivery.egress_lists]\n\"dev@lists.example\" = \"x\"",
                "egress_lists",
            ),
            (
                "[delivery.egress_lists]\n\"dev\" = \"bulk\"",
                "egress_lists",
            ),
            (
                "[delivery.routes.r]\nhosts = [\"127.0.0.1:25\"]\negress = \"x\"",
                "routes.r.egress",
            ),
            ("[delivery.egresses.e]\nhelo = \"a b\"", "egresses.e.helo"),
            // RFC 5737 and RFC 3849: nobody's.
            (
                "[delivery.egresses.e]\nsource_v4 = \"192.0.2.1\"",
                "egresses.e.source_v4",
            ),
            (
                "[delivery.egresses.e]\nsource_v6 = \"2001:db8::1\"",
                "egresses.e.source_v6",
            ),
        ];
        for (text, key) in table {
            let config: Config = toml::from_str(&format!("{text}\n{named}")).unwrap();
            let keys: Vec<String> = config.check().into_iter().map(|c| c.key).collect();
            assert_eq!(keys, [format!("delivery.{key}")], "{text}");
        }
        let right = "[delivery]\negress = \"bulk\"\n[delivery.egress_lists]\n\"dev@lists.example\" = \"bulk\"\n";
        let config: Config = toml::from_str(&format!("{right}{named}")).unwrap();
        assert!(config.check().is_empty(), "{:?}", config.check());
        let own = config.delivery.own_exchangers("list-1.example");
        let own: Vec<&str> = own.iter().map(mail::Domain::as_str).collect();
        assert_eq!(own, ["bulk.example", "list-1.example"]);

        let named = "[delivery]\nown_exchangers = [\"mx.example\", \"192.0.2.7\", \"127.0.9.9\"]\n\
            [delivery.egresses.e]\nsource_v4 = \"192.0.2.1\"\nsource_v6 = \"2001:db8::1\"\n\
            [delivery.egresses.here]\nsource_v4 = \"127.0.0.1\"\n";
        let config: Config = toml::from_str(named).unwrap();
        let listening = ["127.0.0.1:10027", "[::ffff:192.0.2.2]:24", "0.0.0.0:25"];
        let listening = listening.map(|address| address.parse().unwrap());
        let own = config.delivery.own_addresses(&listening);
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        assert_eq!(
            own,
            [
                "192.0.2.7",
                "127.0.9.9",
                "192.0.2.1",
                "2001:db8::1",
                "192.0.2.2"
            ]
        );
        let names = config.delivery.own_exchangers("list-1.example");
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
