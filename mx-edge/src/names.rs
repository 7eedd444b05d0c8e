//! What the DNS says of hosts and domains: a client's confirmed name, whether a host exists, whether a domain takes mail. Answers
//! facts; what follows from them is the policy's. No answer is an answer of its own and never counts against anybody.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail::Domain;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::Subject;
use crate::dns::{self, Bounds};

/// Names of one client that are looked at; a network's owner can publish thousands.
const NAMES_MAX: usize = 5;
/// Hosts of one domain that are looked up.
const HOSTS_MAX: usize = 20;
/// Zones that are looked at on the way up to the one that a domain is in.
const ZONES_MAX: usize = 10;
/// Records of one answer that are looked at.
const RECORDS_MAX: usize = 100;
/// Answers are kept within these bounds: a sender that has just repaired its DNS should not wait long.
const TTL_MIN: Duration = Duration::from_secs(5);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// Answers kept at once; some 200 bytes each.
const ANSWERS_MAX: u64 = 100_000;

/// The name of a client's address (RFC 8601 3: iprev).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientName {
    /// It has none.
    Missing,
    /// It has this one, which does not have the address.
    Unconfirmed(Box<str>),
    /// It has this one, and that has the address.
    Confirmed(Box<str>),
}

/// Whether a domain takes mail (RFC 5321 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MailDomain {
    /// It has MX records, or an address.
    Receives,
    /// It says that it takes none (RFC 7505).
    NullMx,
    /// It does not exist, or has neither.
    Missing,
}

/// Asks.
pub struct Names {
    resolver: TokioResolver,
}

impl Names {
    /// Asks these servers, each query at most `timeout`; none: those of /etc/resolv.conf.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let bounds = Bounds {
            timeout,
            ttl_min: TTL_MIN,
            ttl_max: TTL_MAX,
            answers_max: ANSWERS_MAX,
        };
        let resolver = dns::resolver(servers, bounds)?;
        Ok(Self { resolver })
    }

    /// The client's name; none when the DNS did not answer.
    pub async fn client(&self, client: IpAddr) -> Option<ClientName> {
        let client = client.to_canonical();
        let pointers = self.records(Name::from(client), RecordType::PTR).await?;
        let names = pointers.iter().filter_map(|record| match record {
            RData::PTR(name) => Some(name.0.clone()),
            _ => None,
        });
        let (mut first, mut silent) = (None, false);
        for name in names.take(NAMES_MAX) {
            let text: Box<str> = text(&name).into();
            match self.has_address(name, client).await {
                Some(true) => return Some(ClientName::Confirmed(text)),
                Some(false) => {}
                None => silent = true,
            }
            first.get_or_insert(text);
        }
        match first {
            None => Some(ClientName::Missing),
            // It may be the one that would have confirmed it.
            Some(_) if silent => None,
            Some(name) => Some(ClientName::Unconfirmed(name)),
        }
    }

    async fn has_address(&self, name: Name, client: IpAddr) -> Option<bool> {
        let kind = match client {
            IpAddr::V4(_) => RecordType::A,
            IpAddr::V6(_) => RecordType::AAAA,
        };
        let records = self.records(name, kind).await?;
        Some(records.iter().any(|record| match record {
            RData::A(address) => IpAddr::V4(address.0) == client,
            RData::AAAA(address) => IpAddr::V6(address.0) == client,
            _ => false,
        }))
    }

    /// Whether a host has an address or takes mail; none when the DNS did not answer.
    pub async fn exists(&self, host: &str) -> Option<bool> {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::MX] {
            if !self.records(absolute(host)?, kind).await?.is_empty() {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether a domain takes mail; none when the DNS did not answer.
    pub async fn receives(&self, domain: &str) -> Option<MailDomain> {
        let name = absolute(domain)?;
        let exchangers = self.records(name.clone(), RecordType::MX).await?;
        let mut exchangers = exchangers.iter().filter_map(|record| match record {
            RData::MX(exchanger) => Some(exchanger.exchange.is_root()),
            _ => None,
        });
        match (exchangers.next(), exchangers.next()) {
            (Some(true), None) => return Some(MailDomain::NullMx),
            (Some(_), _) => return Some(MailDomain::Receives),
            (None, _) => {}
        }
        for kind in [RecordType::A, RecordType::AAAA] {
            if !self.records(name.clone(), kind).await?.is_empty() {
                return Some(MailDomain::Receives);
            }
        }
        Some(MailDomain::Missing)
    }

    /// The addresses of a domain's hosts, of the kind that a table is about: as many as come within `patience`. None when nobody answered.
    pub async fn hosts(
        self: &Arc<Self>,
        domain: &Domain,
        subject: Subject,
        patience: Duration,
    ) -> Option<Vec<IpAddr>> {
        let deadline = Instant::now() + patience;
        let hosts = timeout_at(deadline, self.hosts_of(domain, subject));
        let hosts = hosts.await.ok().flatten()?;
        let mut asked = JoinSet::new();
        for host in hosts.into_iter().take(HOSTS_MAX) {
            for kind in [RecordType::A, RecordType::AAAA] {
                let (this, host) = (Arc::clone(self), host.clone());
                asked.spawn(async move { this.records(host, kind).await });
            }
        }
        let (mut addresses, mut answered) = (Vec::new(), asked.is_empty());
        // Whoever has one host that does not answer is not spared for it.
        while let Ok(Some(found)) = timeout_at(deadline, asked.join_next()).await {
            let Ok(Some(records)) = found else { continue };
            answered = true;
            addresses.extend(records.iter().filter_map(|record| match record {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            }));
        }
        addresses.sort();
        addresses.dedup();
        answered.then_some(addresses)
    }

    /// The domain itself, its mail exchangers (itself without any: RFC 5321 5.1), or the name servers of the zone that it is in.
    async fn hosts_of(&self, domain: &Domain, subject: Subject) -> Option<Vec<Name>> {
        let name = absolute(domain.as_str())?;
        match subject {
            Subject::HeloMx | Subject::SenderMx => {
                let records = self.records(name.clone(), RecordType::MX).await?;
                let hosts: Vec<Name> = (records.into_iter())
                    .filter_map(|record| match record {
                        RData::MX(exchanger) => Some(exchanger.exchange),
                        _ => None,
                    })
                    .collect();
                Some(if hosts.is_empty() { vec![name] } else { hosts })
            }
            Subject::HeloNs | Subject::SenderNs => {
                let mut zone = name;
                for _ in 0..ZONES_MAX {
                    let records = self.records(zone.clone(), RecordType::NS).await?;
                    let servers = records.into_iter().filter_map(|record| match record {
                        RData::NS(server) => Some(server.0),
                        _ => None,
                    });
                    let servers: Vec<Name> = servers.collect();
                    // The servers of a top-level domain tell nothing of who is below.
                    if !servers.is_empty() || zone.num_labels() <= 2 {
                        return Some(servers);
                    }
                    zone = zone.base_name();
                }
                Some(Vec::new())
            }
            _ => Some(vec![name]),
        }
    }

    /// Those of this type, CNAMEs followed; empty when the name does not exist or has none, none when nobody answered.
    async fn records(&self, name: Name, kind: RecordType) -> Option<Vec<RData>> {
        match self.resolver.lookup(name, kind).await {
            Ok(answer) => {
                let records = answer.answers().iter().take(RECORDS_MAX);
                let of_kind = records.filter(|record| record.record_type() == kind);
                Some(of_kind.map(|record| record.data.clone()).collect())
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Some(Vec::new()),
            Err(_) => None,
        }
    }
}

/// With its root dot, so that no search list completes it. A name that the DNS cannot have has no answer.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Lower case, without the root dot. A name out of the DNS is a stranger's text.
fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.trim_end_matches('.').chars().map(plain).collect()
}
