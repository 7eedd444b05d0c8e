//! Egresses: from which addresses of this host, and under which name, mail leaves. A name in the engine's settings; the owner names
//! one for each batch.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;

use smtp::client::Options;

/// Egresses by name.
pub type Egresses = BTreeMap<Arc<str>, Egress>;

/// Where mail leaves from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The address from which IPv4 hosts are reached.
    pub source_v4: Option<Ipv4Addr>,
    /// The address from which IPv6 hosts are reached.
    pub source_v6: Option<Ipv6Addr>,
    /// What it calls itself in EHLO; none: the name of [`Options`].
    pub helo: Option<Box<str>>,
}

impl Egress {
    /// Whether it may go to that address: an egress that names a source of one family only does not leave by the other one, from an
    /// address that nobody vouches for (SPF, PTR, reputation).
    pub(crate) fn reaches(&self, to: IpAddr) -> bool {
        match to {
            IpAddr::V4(_) => self.source_v4.is_some() || self.source_v6.is_none(),
            IpAddr::V6(_) => self.source_v6.is_some() || self.source_v4.is_none(),
        }
    }

    /// The address from which it goes there; none: the system's choice.
    pub(crate) fn source(&self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => self.source_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.source_v6.map(IpAddr::V6),
        }
    }

    /// These options under its name.
    pub(crate) fn options(&self, options: &Options) -> Options {
        Options {
            helo: self.helo.as_ref().unwrap_or(&options.helo).clone(),
            ..options.clone()
        }
    }

    /// Its addresses that this host does not have now, and what the system says of each.
    pub fn missing(&self) -> Vec<(IpAddr, std::io::Error)> {
        let four = self.source_v4.map(IpAddr::V4);
        let six = self.source_v6.map(IpAddr::V6);
        let sources = [four, six].into_iter().flatten();
        // A bind asks the system what a connection will ask it; nothing is sent.
        let tried = sources.map(|source| (source, UdpSocket::bind((source, 0))));
        tried
            .filter_map(|(source, bound)| bound.err().map(|error| (source, error)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(four: Option<&str>, six: Option<&str>) -> Egress {
        Egress {
            source_v4: four.map(|text| text.parse().unwrap()),
            source_v6: six.map(|text| text.parse().unwrap()),
            helo: None,
        }
    }

    #[test]
    fn it_leaves_by_the_families_it_has() {
        let (four, six) = ("192.0.2.1", "2001:db8::1");
        let to = |text: &str| text.parse::<IpAddr>().unwrap();
        let table = [
            (None, None, Some(None), Some(None)),
            (Some(four), None, Some(Some(to(four))), None),
            (None, Some(six), None, Some(Some(to(six)))),
            (
                Some(four),
                Some(six),
                Some(Some(to(four))),
                Some(Some(to(six))),
            ),
        ];
        for (source_v4, source_v6, by_four, by_six) in table {
            let egress = egress(source_v4, source_v6);
            for (host, expected) in [("198.51.100.7", by_four), ("2001:db8:7::7", by_six)] {
                let found = egress.reaches(to(host)).then(|| egress.source(to(host)));
                assert_eq!(found, expected, "{egress:?} to {host}");
            }
        }
    }

    #[test]
    fn addresses_that_are_not_here_are_named() {
        assert!(egress(Some("127.0.0.1"), None).missing().is_empty());
        // RFC 5737: nobody's.
        let missing = egress(Some("192.0.2.1"), None).missing();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].0, IpAddr::from([192, 0, 2, 1]));
    }
}
