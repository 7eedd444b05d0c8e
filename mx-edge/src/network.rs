//! Networks in CIDR notation, as configuration writes them. Pure; IPv4-mapped IPv6 addresses count as IPv4.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether the address lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl Network {
    /// The network of the first `prefix` bits; none longer than this one's own.
    pub fn widened(self, prefix: u8) -> Self {
        let prefix = prefix.min(self.prefix);
        let address = match self.address {
            IpAddr::V4(address) => {
                let shift = 32 - u32::from(prefix);
                let bits = address.to_bits().checked_shr(shift).unwrap_or(0);
                IpAddr::V4(bits.checked_shl(shift).unwrap_or(0).into())
            }
            IpAddr::V6(address) => {
                let shift = 128 - u32::from(prefix);
                let bits = address.to_bits().checked_shr(shift).unwrap_or(0);
                IpAddr::V6(bits.checked_shl(shift).unwrap_or(0).into())
            }
        };
        Self { address, prefix }
    }

    /// Whether an address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        let ((v6, own, _), (other_v6, others, _)) = (self.bits(), other.bits());
        let both = own.min(others);
        v6 == other_v6 && self.widened(both) == other.widened(both)
    }

    /// Whether it is IPv6, how many bits count, and these bits; for tables.
    pub fn bits(self) -> (bool, u8, u128) {
        let same = self.widened(self.prefix);
        match same.address {
            IpAddr::V4(address) => (false, self.prefix, address.to_bits().into()),
            IpAddr::V6(address) => (true, self.prefix, address.to_bits()),
        }
    }
}

/// The network of one address.
impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

/// Whether one of them contains the address.
pub fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The places of networks in a list. To look an address up costs one probe for each prefix length that occurs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index(HashMap<(bool, u8), HashMap<u128, Vec<u32>>>);

impl Index {
    /// The network stands at this place; places only grow.
    pub fn push(&mut self, network: Network, place: u32) {
        let (v6, prefix, bits) = network.bits();
        let of_length = self.0.entry((v6, prefix)).or_default();
        of_length.entry(bits).or_default().push(place);
    }

    /// The first place that has the address and counts.
    pub fn first(&self, address: IpAddr, counts: impl Fn(u32) -> bool) -> Option<u32> {
        let address = Network::from(address);
        let (v6, _, _) = address.bits();
        let lengths = self.0.iter().filter(|((other, _), _)| *other == v6);
        let found = lengths.filter_map(|((_, prefix), networks)| {
            let (_, _, bits) = address.widened(*prefix).bits();
            let places = networks.get(&bits)?.iter().copied();
            places.into_iter().find(|place| counts(*place))
        });
        found.min()
    }
}

/// By what a client is counted: an IPv4 address, or the /64 of an IPv6 one, since a host there has a whole one to choose from.
pub fn client_key(address: IpAddr) -> IpAddr {
    Network::from(address).widened(64).address
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            format!("{text:?} is neither an address nor a network like 192.0.2.0/24")
        })?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= most)
                .ok_or_else(|| format!("the prefix of {text:?} is not a number up to {most}"))?,
        };
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.4", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "::1", true),
            ("::1", "::1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                expected,
                "{address} in {network}"
            );
        }
    }

    #[test]
    fn networks_overlap_when_one_has_the_other() {
        for (one, other, expected) in [
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.9/24", "192.0.2.7/25", true),
            ("192.0.2.0/25", "192.0.2.128/25", false),
            ("0.0.0.0/0", "192.0.2.7", true),
            ("::/0", "192.0.2.7", false),
            ("2001:db8::/32", "2001:db8:1::/48", true),
        ] {
            let (one, other): (Network, Network) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(
                (one.overlaps(other), other.overlaps(one)),
                (expected, expected)
            );
        }
    }

    #[test]
    fn widening_clears_what_does_not_count() {
        for (network, prefix, expected) in [
            ("192.0.2.129/32", 24, "192.0.2.0/24"),
            ("192.0.2.129/25", 32, "192.0.2.128/25"),
            ("192.0.2.129", 0, "0.0.0.0/0"),
            ("2001:db8:1:2:3::9", 64, "2001:db8:1:2::/64"),
            ("2001:db8::9", 0, "::/0"),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(String::from(network.widened(prefix)), expected);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "lists.example",
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/",
            "1.2.3/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_64() {
        let a = client_key("2001:db8:1:2:aaaa::1".parse().unwrap());
        let b = client_key("2001:db8:1:2:bbbb::2".parse().unwrap());
        assert_eq!(a, b);
        assert_ne!(a, client_key("2001:db8:1:3::1".parse().unwrap()));
    }
}
