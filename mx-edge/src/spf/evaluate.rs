//! `check_host()` of RFC 7208 (section 4): one client against the policies that its sender's domain leads to. Owns the limits on what
//! a stranger's policy can make us ask.

use std::net::IpAddr;
use std::pin::Pin;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail::trace::Spf;

use super::macros::{MacroString, Values, labels};
use super::record::{self, Hosts, Mechanism, Network, Record};

/// Terms of all policies of a check that ask the DNS (4.6.4).
const LOOKUPS_MAX: usize = 10;
/// Of them those that may find nothing.
const VOIDS_MAX: usize = 2;
/// Mail hosts of one term, and names of a client, whose addresses are asked for.
const HOSTS_MAX: usize = 10;
/// TXT records of one name that are looked at.
const RECORDS_MAX: usize = 100;

/// One check.
pub struct Evaluation<'a> {
    resolver: &'a TokioResolver,
    client: IpAddr,
    helo: &'a str,
    sender: String,
    lookups: usize,
    voids: usize,
    /// The client's confirmed names, once they have been asked for.
    names: Option<Vec<String>>,
}

/// It ended here: temperror or permerror.
struct Stop(Spf);

const PERMANENT: Stop = Stop(Spf::PermError);
const TEMPORARY: Stop = Stop(Spf::TempError);

type Checked<'a> = Pin<Box<dyn Future<Output = Result<Spf, Stop>> + Send + 'a>>;

/// The result for a client that says `helo`, and sends for `sender`; of HELO when that is none (2.3, 2.4).
pub async fn check(
    resolver: &TokioResolver,
    client: IpAddr,
    helo: &str,
    sender: Option<&str>,
) -> Spf {
    let sender = match sender {
        Some(sender) => sender.to_owned(),
        None => format!("postmaster@{helo}"),
    };
    let (_, domain) = sender.rsplit_once('@').unwrap_or_default();
    // 4.3: a domain that the DNS cannot have, and one that is no domain but an address or a bare word.
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_owned();
    let usable = domain.len() <= 253 && domain.contains('.') && !domain.starts_with('[');
    if !usable || labels(&domain).is_none() {
        return Spf::None;
    }
    let mut evaluation = Evaluation {
        resolver,
        client: client.to_canonical(),
        helo,
        sender,
        lookups: 0,
        voids: 0,
        names: None,
    };
    evaluation
        .check_host(domain)
        .await
        .unwrap_or_else(|Stop(result)| result)
}

impl Evaluation<'_> {
    /// None, and whatever a policy can say.
    fn check_host(&mut self, mut domain: String) -> Checked<'_> {
        Box::pin(async move {
            let Some(mut record) = self.policy(&domain).await? else {
                return Ok(Spf::None);
            };
            loop {
                for directive in &record.directives {
                    if self.matches(&directive.mechanism, &domain).await? {
                        return Ok(directive.qualifier);
                    }
                }
                let Some(redirect) = &record.redirect else {
                    return Ok(Spf::Neutral);
                };
                self.count_lookup()?;
                domain = self.target(Some(redirect), &domain).await;
                // 6.1: to nowhere is a fault.
                record = self.policy(&domain).await?.ok_or(PERMANENT)?;
            }
        })
    }

    /// The domain's policy, if it has one (4.4, 4.5).
    async fn policy(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let Some(name) = name(domain) else {
            return Ok(None);
        };
        let records = self.records(name, RecordType::TXT).await?;
        let texts = records
            .iter()
            .take(RECORDS_MAX)
            .filter_map(|record| match record {
                RData::TXT(text) => Some(text.txt_data.concat()),
                _ => None,
            });
        let mut policies = texts.filter(|text| record::is_policy(text));
        match (policies.next(), policies.next()) {
            (None, _) => Ok(None),
            (Some(policy), None) => Record::read(&policy).map(Some).map_err(|_| PERMANENT),
            (Some(_), Some(_)) => Err(PERMANENT),
        }
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(network.holds(self.client)),
            Mechanism::Include(of) => self.include(of, domain).await,
            Mechanism::A(hosts) => self.a(hosts, domain).await,
            Mechanism::Mx(hosts) => self.mx(hosts, domain).await,
            Mechanism::Ptr(of) => self.ptr(of.as_ref(), domain).await,
            Mechanism::Exists(of) => self.exists(of, domain).await,
        }
    }

    async fn include(&mut self, of: &MacroString, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let domain = self.target(Some(of), domain).await;
        match self.check_host(domain).await? {
            Spf::Pass => Ok(true),
            // 5.2: one without a policy cannot be meant.
            Spf::None => Err(PERMANENT),
            _ => Ok(false),
        }
    }

    async fn a(&mut self, hosts: &Hosts, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let target = self.target(hosts.domain.as_ref(), domain).await;
        let Some(name) = name(&target) else {
            return Ok(false);
        };
        let addresses = self.addresses(name).await?;
        self.count_void(addresses.is_empty())?;
        Ok(self.is_near(&addresses, hosts.bits))
    }

    async fn mx(&mut self, hosts: &Hosts, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let target = self.target(hosts.domain.as_ref(), domain).await;
        let Some(name) = name(&target) else {
            return Ok(false);
        };
        let records = self.records(name, RecordType::MX).await?;
        self.count_void(records.is_empty())?;
        let exchangers = records.into_iter().filter_map(|record| match record {
            RData::MX(exchanger) if !exchanger.exchange.is_root() => Some(exchanger.exchange),
            _ => None,
        });
        for (place, exchanger) in exchangers.enumerate() {
            if place == HOSTS_MAX {
                return Err(PERMANENT);
            }
            let addresses = self.addresses(exchanger).await?;
            if self.is_near(&addresses, hosts.bits) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ptr(&mut self, of: Option<&MacroString>, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let target = self.target(of, domain).await;
        let names = self.names().await;
        Ok(names.iter().any(|name| is_within(name, &target)))
    }

    async fn exists(&mut self, of: &MacroString, domain: &str) -> Result<bool, Stop> {
        self.count_lookup()?;
        let Some(name) = name(&self.target(Some(of), domain).await) else {
            return Ok(false);
        };
        // 5.7: of IPv4, whatever the client's is.
        let found = self.records(name, RecordType::A).await?;
        self.count_void(found.is_empty())?;
        Ok(!found.is_empty())
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.lookups += 1;
        match self.lookups {
            ..=LOOKUPS_MAX => Ok(()),
            _ => Err(PERMANENT),
        }
    }

    fn count_void(&mut self, void: bool) -> Result<(), Stop> {
        self.voids += usize::from(void);
        match self.voids {
            ..=VOIDS_MAX => Ok(()),
            _ => Err(PERMANENT),
        }
    }

    /// The name that a term is about.
    async fn target(&mut self, of: Option<&MacroString>, domain: &str) -> String {
        let Some(of) = of else {
            return domain.to_owned();
        };
        let name = match of.asks_name() {
            false => String::new(),
            true => self.best_name(domain).await,
        };
        of.expand(Values {
            sender: &self.sender,
            helo: self.helo,
            client: self.client,
            domain,
            name: &name,
        })
    }

    /// 7.3: the domain itself, else one within it, else any.
    async fn best_name(&mut self, domain: &str) -> String {
        let names = self.names().await;
        let own = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let within = || names.iter().find(|name| is_within(name, domain));
        let best = own.or_else(within).or(names.first());
        best.map_or("unknown", String::as_str).to_owned()
    }

    /// The client's confirmed names (5.5); no answer is none.
    async fn names(&mut self) -> &[String] {
        if self.names.is_none() {
            let found = self.confirmed_names().await;
            self.names = Some(found);
        }
        self.names.as_deref().unwrap_or_default()
    }

    async fn confirmed_names(&self) -> Vec<String> {
        let pointers = self.records(Name::from(self.client), RecordType::PTR).await;
        let names = pointers.unwrap_or_default().into_iter();
        let names = names.filter_map(|record| match record {
            RData::PTR(name) => Some(name.0),
            _ => None,
        });
        let mut confirmed = Vec::new();
        for name in names.take(HOSTS_MAX) {
            let text = name.to_ascii().trim_end_matches('.').to_owned();
            let addresses = self.addresses(name).await.unwrap_or_default();
            if addresses.contains(&self.client) {
                confirmed.push(text);
            }
        }
        confirmed
    }

    /// Of the client's kind.
    async fn addresses(&self, name: Name) -> Result<Vec<IpAddr>, Stop> {
        let kind = match self.client {
            IpAddr::V4(_) => RecordType::A,
            IpAddr::V6(_) => RecordType::AAAA,
        };
        let records = self.records(name, kind).await?.into_iter();
        let addresses = records.filter_map(|record| match record {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        Ok(addresses.collect())
    }

    fn is_near(&self, addresses: &[IpAddr], (v4, v6): (u8, u8)) -> bool {
        let near = |address: &IpAddr| {
            let bits = if address.is_ipv4() { v4 } else { v6 };
            let address = *address;
            Network { address, bits }.holds(self.client)
        };
        addresses.iter().any(near)
    }

    /// Those of this type; empty when there are none, temperror when nobody answered (2.6.6).
    async fn records(&self, name: Name, kind: RecordType) -> Result<Vec<RData>, Stop> {
        match self.resolver.lookup(name, kind).await {
            Ok(answer) => {
                let records = answer.answers().iter();
                let of_kind = records.filter(|record| record.record_type() == kind);
                Ok(of_kind.map(|record| record.data.clone()).collect())
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
            Err(_) => Err(TEMPORARY),
        }
    }
}

/// As the DNS has it, with its root dot; none when it cannot have it.
fn name(text: &str) -> Option<Name> {
    let labels = labels(text)?.into_iter().map(str::as_bytes);
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The domain, or a name below it.
fn is_within(name: &str, domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let Some(at) = name.len().checked_sub(domain.len()) else {
        return false;
    };
    let (below, end) = match name.is_char_boundary(at) {
        true => name.split_at(at),
        false => return false,
    };
    end.eq_ignore_ascii_case(domain) && (below.is_empty() || below.ends_with('.'))
}
