//! Sites: the mail exchangers of a domain (RFC 5321 5.1, RFC 7505) and their addresses, from the DNS, cached.
//!
//! It asks and classifies: sure that there is nothing = 5xx, anything unsure = 4xx. It never connects to anybody.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail::{Domain, Reply};

use crate::retry::random;

/// Answers kept at most; the resolver beside us keeps more.
const CACHE_ANSWERS_MAX: u64 = 16_384;
/// An answer is not asked for more often than this, whatever its TTL says.
const TTL_MIN: Duration = Duration::from_secs(30);
/// An answer is asked for again after this, whatever its TTL says.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// That something does not exist is believed no longer than this: people create domains and then write mail.
const TTL_NEGATIVE_MAX: Duration = Duration::from_secs(300);
/// For one answer of one server [resolv.conf's 5 s]; it is asked twice more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// For one answer altogether; the retries to one or two servers end before.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Exchangers of a domain that are looked at; more is abuse or an error.
const EXCHANGERS_MAX: usize = 100;

/// The exchangers of one domain, best first. Domains with the same set are one site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Sorted by rank, then name: the site's identity. Those of equal rank are tried in an order drawn for each connection.
    pub exchangers: Vec<Exchanger>,
}

/// One host of a site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchanger {
    /// 0 for the best preference, 1 for the next: domains at one provider agree in these, not in the numbers.
    pub rank: u16,
    /// Its name, lower case, without a trailing dot; or an address literal.
    pub host: Box<str>,
}

impl Site {
    /// A site of hosts with their preferences; the lowest number is the best.
    pub fn new(mut preferred: Vec<(u16, Box<str>)>) -> Self {
        preferred.sort();
        preferred.dedup();
        let mut exchangers: Vec<Exchanger> = Vec::with_capacity(preferred.len());
        let mut last = None;
        let mut rank = 0;
        for (preference, host) in preferred {
            if last.is_some_and(|last| last != preference) {
                rank += 1;
            }
            last = Some(preference);
            exchangers.push(Exchanger { rank, host });
        }
        Self { exchangers }
    }

    /// The hosts in the order of one connection: by rank, equals shuffled (RFC 5321 5.1).
    pub fn shuffled(&self) -> Vec<&str> {
        let mut drawn: Vec<(u16, u64, &str)> = self
            .exchangers
            .iter()
            .map(|e| (e.rank, (random() * 1e15) as u64, &*e.host))
            .collect();
        drawn.sort_unstable();
        drawn.into_iter().map(|(_, _, host)| host).collect()
    }
}

/// `mx1.example.org,mx2.example.org`: the best host and how many more, for logs.
impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.exchangers.as_slice() {
            [] => f.write_str("nowhere"),
            [only] => f.write_str(&only.host),
            [first, others @ ..] => write!(f, "{}+{}", first.host, others.len()),
        }
    }
}

/// Finds mail exchangers by DNS, with a cache.
pub struct Exchangers {
    resolver: TokioResolver,
    port: u16,
    own: Vec<Domain>,
    own_addresses: Vec<IpAddr>,
}

impl Exchangers {
    /// Asks these resolvers (none: /etc/resolv.conf); exchangers are reached at `port` [25].
    pub fn new(resolvers: &[SocketAddr], port: u16) -> Result<Self, String> {
        Self::patient(resolvers, port, ANSWER_TIMEOUT)
    }

    /// With another patience for one answer of one server.
    fn patient(resolvers: &[SocketAddr], port: u16, patience: Duration) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if resolvers.is_empty() {
            TokioResolver::builder_tokio()
                .map_err(|e| format!("/etc/resolv.conf cannot be used: {e}"))?
        } else {
            let servers = resolvers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, provider)
        };
        let options = builder.options_mut();
        configure(options);
        options.timeout = patience;
        Ok(Self {
            resolver: builder.build().map_err(|e| format!("no resolver: {e}"))?,
            port,
            own: Vec::new(),
            own_addresses: Vec::new(),
        })
    }

    /// The names under which this host is itself an exchanger: mail is not passed to them, nor to anything less preferred.
    pub fn with_own_names(mut self, own: Vec<Domain>) -> Self {
        self.own = own;
        self
    }

    /// The addresses by which an exchanger of any name is this host, or leads back to it; the same holds for it. Domains of strangers may
    /// point at us under names that we do not know.
    pub fn with_own_addresses(mut self, own: Vec<IpAddr>) -> Self {
        self.own_addresses = own;
        self
    }

    /// The domain's site. NXDOMAIN and null MX are permanent (5.1.2, 5.1.10), anything unsure is transient (4.4.3).
    pub async fn site(&self, domain: &Domain) -> Result<Site, Reply> {
        if domain.is_literal() {
            return match literal(domain.as_str()) {
                Some(ip) if self.own_addresses.contains(&ip.to_canonical()) => Err(loops(domain)),
                Some(_) => Ok(Site::new(vec![(0, domain.as_str().into())])),
                None => Err(Reply::new(
                    550,
                    (5, 1, 2),
                    format!("{domain} is no address that mail can be sent to"),
                )),
            };
        }
        match self.lookup(domain.as_str(), RecordType::MX).await? {
            Found::Records(records) => self.explicit(domain, &records).await,
            Found::Nothing { exists: false } => Err(no_domain(domain)),
            Found::Nothing { exists: true } => self.implicit(domain).await,
        }
    }

    /// The addresses of a site's host. No such host, or one without addresses, is permanent (5.4.4).
    pub async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, Reply> {
        if host.starts_with('[') {
            return literal(host)
                .map(|ip| vec![SocketAddr::new(ip, self.port)])
                .ok_or_else(|| Reply::new(550, (5, 1, 2), format!("{host} is no address")));
        }
        let (six, four) = tokio::join!(
            self.lookup(host, RecordType::AAAA),
            self.lookup(host, RecordType::A)
        );
        let mut found = Vec::new();
        let mut unsure = None;
        for answer in [six, four] {
            match answer {
                Ok(Found::Records(records)) => found.extend(records.iter().filter_map(|r| {
                    let ip: IpAddr = match r {
                        RData::A(a) => a.0.into(),
                        RData::AAAA(aaaa) => aaaa.0.into(),
                        _ => return None,
                    };
                    Some(SocketAddr::new(ip, self.port))
                })),
                Ok(Found::Nothing { .. }) => {}
                Err(reply) => unsure = Some(reply),
            }
        }
        match unsure {
            _ if !found.is_empty() => Ok(found),
            Some(reply) => Err(reply),
            None => Err(Reply::new(
                550,
                (5, 4, 4),
                format!("mail exchanger {host} has no address"),
            )),
        }
    }

    /// MX records were found.
    async fn explicit(&self, domain: &Domain, records: &[RData]) -> Result<Site, Reply> {
        let mut preferred: Vec<(u16, Box<str>)> = records
            .iter()
            .filter_map(|record| match record {
                RData::MX(mx) => Some((mx.preference, host(&mx.exchange))),
                _ => None,
            })
            .collect();
        // RFC 7505 3: a single "." says that the domain takes no mail; beside others it is an error and means nothing.
        if preferred.iter().all(|(_, host)| host.is_empty()) {
            return Err(Reply::new(
                556,
                (5, 1, 10),
                format!("{domain} does not accept mail (null MX)"),
            ));
        }
        preferred.retain(|(_, host)| !host.is_empty());
        preferred.sort();
        preferred.truncate(EXCHANGERS_MAX);
        self.without_own(domain, preferred).await
    }

    /// RFC 5321 5.1: when we are one of the exchangers, ourselves and all of equal or worse preference are left out.
    async fn without_own(
        &self,
        domain: &Domain,
        mut preferred: Vec<(u16, Box<str>)>,
    ) -> Result<Site, Reply> {
        let mut best_own = None;
        for (preference, host) in &preferred {
            if self.is_own(host).await {
                best_own = Some(*preference);
                break;
            }
        }
        if let Some(best_own) = best_own {
            preferred.retain(|&(preference, _)| preference < best_own);
            if preferred.is_empty() {
                return Err(loops(domain));
            }
        }
        Ok(Site::new(preferred))
    }

    /// Whether an exchanger is this host, by its name or by any address of it. Where the DNS does not say, it is taken for another: the
    /// attempt asks again.
    async fn is_own(&self, host: &str) -> bool {
        if self.own.iter().any(|own| own.as_str() == host) {
            return true;
        }
        if self.own_addresses.is_empty() {
            return false;
        }
        // Kept by the resolver: the connection does not ask again.
        let found = self.addresses(host).await.unwrap_or_default();
        let mut found = found.iter().map(|address| address.ip().to_canonical());
        found.any(|ip| self.own_addresses.contains(&ip))
    }

    /// RFC 5321 5.1: without MX records the domain is its own exchanger, if it has an address.
    async fn implicit(&self, domain: &Domain) -> Result<Site, Reply> {
        match self.addresses(domain.as_str()).await {
            Ok(_) => {
                let itself = vec![(0, domain.as_str().into())];
                self.without_own(domain, itself).await
            }
            Err(reply) if reply.code >= 500 => Err(Reply::new(
                550,
                (5, 4, 4),
                format!("{domain} has neither a mail exchanger nor an address"),
            )),
            Err(reply) => Err(reply),
        }
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Found, Reply> {
        // With its root dot a name is never completed by a search list.
        let Ok(fqdn) = Name::from_ascii(format!("{name}.")) else {
            return Ok(Found::Nothing { exists: false });
        };
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, self.resolver.lookup(fqdn, kind)).await;
        match answer {
            Ok(Ok(lookup)) => {
                let records: Vec<RData> = lookup
                    .answers()
                    .iter()
                    .filter(|record| record.record_type() == kind)
                    .map(|record| record.data.clone())
                    .collect();
                // An alias that leads to nothing of this kind.
                if records.is_empty() {
                    return Ok(Found::Nothing { exists: true });
                }
                Ok(Found::Records(records))
            }
            Ok(Err(error)) if error.is_nx_domain() => Ok(Found::Nothing { exists: false }),
            Ok(Err(error)) if error.is_no_records_found() => Ok(Found::Nothing { exists: true }),
            Ok(Err(error)) => Err(unsure(name, kind, &error)),
            Err(_) => Err(unsure(name, kind, &NetError::Timeout)),
        }
    }
}

/// What the DNS is sure of.
enum Found {
    Records(Vec<RData>),
    Nothing {
        /// The name is there, with records of other kinds or below it.
        exists: bool,
    },
}

fn configure(options: &mut ResolverOpts) {
    options.cache_size = CACHE_ANSWERS_MAX;
    options.positive_min_ttl = Some(TTL_MIN);
    options.positive_max_ttl = Some(TTL_MAX);
    options.negative_max_ttl = Some(TTL_NEGATIVE_MAX);
    // A mail exchanger is what the DNS says it is; a workstation's hosts file is about something else.
    options.use_hosts_file = ResolveHosts::Never;
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// An exchanger's name as we compare it; empty for the root.
fn host(name: &Name) -> Box<str> {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text.into()
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 4.1.3).
fn literal(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner[5..].parse().ok().map(IpAddr::V6),
        _ => inner.parse().ok().map(IpAddr::V4),
    }
}

fn loops(domain: &Domain) -> Reply {
    Reply::new(
        554,
        (5, 4, 6),
        format!("mail for {domain} loops back to this host, which is its best mail exchanger"),
    )
}

fn no_domain(domain: &Domain) -> Reply {
    Reply::new(550, (5, 1, 2), format!("domain {domain} does not exist"))
}

fn unsure(name: &str, kind: RecordType, error: &NetError) -> Reply {
    Reply::new(
        451,
        (4, 4, 3),
        format!("the {kind} records of {name} cannot be looked up now: {error}"),
    )
}

#[cfg(test)]
mod tests;
