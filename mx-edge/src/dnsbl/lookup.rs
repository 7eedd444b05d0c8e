//! Asking one list about one client (RFC 5782 2.1, 2.4). Answers are kept as long as the list says, within our bounds; it is asked
//! through a resolver with a cache, never itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::dns::{self, Bounds};

/// Answers of one list about one client that are looked at; more is an error.
const ANSWERS_MAX: usize = 100;

/// Asks.
pub struct Lookup {
    resolver: TokioResolver,
    bounds: Bounds,
}

/// What a list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// None when it does not list.
    pub codes: Vec<Ipv4Addr>,
    /// How long that holds: as the list says, within our bounds.
    pub valid: Duration,
}

impl Lookup {
    /// Asks these servers; none: those of /etc/resolv.conf.
    pub fn new(servers: &[SocketAddr], bounds: Bounds) -> Result<Self, String> {
        let resolver = dns::resolver(servers, bounds)?;
        Ok(Self { resolver, bounds })
    }

    /// What a zone answers about a client; empty when it is not listed.
    pub async fn ask(&self, zone: &str, client: IpAddr) -> Result<Codes, Box<str>> {
        self.codes(question(zone, client)).await
    }

    /// What a zone answers about a domain (RFC 5782 3); empty when it is not listed.
    pub async fn ask_domain(&self, zone: &str, domain: &str) -> Result<Vec<Ipv4Addr>, Box<str>> {
        let answer = self.codes(format!("{domain}.{zone}.")).await;
        answer.map(|answer| answer.codes)
    }

    async fn codes(&self, question: String) -> Result<Codes, Box<str>> {
        let name = Name::from_ascii(question).map_err(|error| error.to_string())?;
        match self.resolver.lookup(name, RecordType::A).await {
            Ok(answer) => {
                let records = answer.answers().iter().take(ANSWERS_MAX);
                let ttl = records.clone().map(|record| record.ttl).min();
                let codes = records.filter_map(|record| match &record.data {
                    RData::A(code) => Some(code.0),
                    _ => None,
                });
                Ok(self.valid(codes.collect(), ttl))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                Ok(self.valid(Vec::new(), none.negative_ttl))
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    fn valid(&self, codes: Vec<Ipv4Addr>, ttl: Option<u32>) -> Codes {
        let Bounds {
            ttl_min, ttl_max, ..
        } = self.bounds;
        let ttl = Duration::from_secs(ttl.unwrap_or(0).into());
        Codes {
            codes,
            valid: ttl.clamp(ttl_min, ttl_max),
        }
    }
}

/// The name under which a zone is asked about a client: octets or nibbles, last first.
fn question(zone: &str, client: IpAddr) -> String {
    let mut name = String::with_capacity(64 + zone.len() + 2);
    match client.to_canonical() {
        IpAddr::V4(client) => {
            for octet in client.octets().iter().rev() {
                name.push_str(&format!("{octet}."));
            }
        }
        IpAddr::V6(client) => {
            for octet in client.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", octet & 15, octet >> 4));
            }
        }
    }
    name.push_str(zone);
    // With its root dot a name is never completed by a search list.
    name.push('.');
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_about_last_octet_or_nibble_first() {
        for (client, expected) in [
            ("192.0.2.99", "99.2.0.192.bl.example."),
            ("::ffff:192.0.2.99", "99.2.0.192.bl.example."),
            // RFC 5782 2.4.
            (
                "2001:db8:1:2:3:4:567:89ab",
                "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example.",
            ),
        ] {
            assert_eq!(question("bl.example", client.parse().unwrap()), expected);
        }
    }
}
