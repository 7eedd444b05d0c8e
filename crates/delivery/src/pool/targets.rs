//! The addresses that a new connection may go to, in the order in which they are tried, and what is remembered of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use mail::Reply;
use smtp::client::{Cause, Phase, Trouble};
use tokio::time::Instant;

use super::Hosts;
use crate::egress::Egress;
use crate::retry::random;
use crate::site::{Exchangers, Site};

/// Addresses tried for one connection at most [Postfix's smtp_mx_address_limit].
pub(super) const ADDRESSES_MAX: usize = 5;
/// Addresses of one host among them while there are other hosts: one with many must not hide the next.
const HOST_ADDRESSES_MAX: usize = 3;
/// An address that did not answer is tried last for so long.
const AVOID: Duration = Duration::from_secs(60);
/// Addresses remembered as not answering, at most.
const AVOIDED_MAX: usize = 256;

/// One address of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Box<str>,
    pub(super) address: SocketAddr,
}

impl Target {
    /// `mx.example.org[192.0.2.1]`.
    pub(super) fn remote(&self) -> Box<str> {
        format!("{}[{}]", self.host, self.address.ip()).into()
    }
}

/// What is remembered of addresses.
#[derive(Default)]
pub(super) struct Memory {
    avoided: HashMap<SocketAddr, Instant>,
    last_good: Option<SocketAddr>,
}

impl Memory {
    /// It did not answer.
    pub(super) fn avoid(&mut self, address: SocketAddr) {
        if self.avoided.len() < AVOIDED_MAX {
            self.avoided.insert(address, Instant::now() + AVOID);
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self, address: SocketAddr) {
        self.avoided.remove(&address);
        self.last_good = Some(address);
    }

    /// In the order in which they are tried: a route's last good address first; those that did not answer lately last; otherwise as
    /// they came.
    pub(super) fn order(&mut self, hosts: &Hosts, targets: &mut [Target]) {
        let now = Instant::now();
        self.avoided.retain(|_, until| *until > now);
        let last_good = match hosts {
            Hosts::Route(_) => self.last_good,
            // Mail exchangers have an order that is not ours to change (RFC 5321 5.1).
            Hosts::Site(..) => None,
        };
        targets.sort_by_key(|target| {
            (
                self.avoided.contains_key(&target.address),
                Some(target.address) != last_good,
            )
        });
    }
}

/// The addresses of these hosts that the egress reaches, best first.
pub(super) async fn find(hosts: &Hosts, egress: &Egress) -> Result<Vec<Target>, Trouble> {
    let targets = match hosts {
        Hosts::Route(hosts) => resolve(hosts).await?,
        Hosts::Site(exchangers, site) => look_up(exchangers, site).await?,
    };
    let (reached, others): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|target| egress.reaches(target.address.ip()));
    match (reached.is_empty(), others.first()) {
        (true, Some(other)) => Err(refused(Reply::new(
            451,
            (4, 4, 1),
            format!(
                "{} cannot be reached: the egress has no address of its family",
                other.remote()
            ),
        ))),
        _ => Ok(reached),
    }
}

/// At most so many that one connection tries: of each host some, IPv6 and IPv4 by turns, hosts as they come.
pub(super) fn choose(targets: Vec<Target>) -> Vec<Target> {
    let mut hosts: Vec<Vec<Target>> = Vec::new();
    for target in targets {
        match hosts.last_mut() {
            Some(host) if host[0].host == target.host => host.push(target),
            _ => hosts.push(vec![target]),
        }
    }
    let each_max = match hosts.len() {
        1 => ADDRESSES_MAX,
        _ => HOST_ADDRESSES_MAX,
    };
    let chosen = hosts
        .into_iter()
        .flat_map(|host| by_turns(host).into_iter().take(each_max));
    chosen.take(ADDRESSES_MAX).collect()
}

/// Both families by turns, beginning with that of the first (RFC 8305 4): a family that does not work costs one address, not all of
/// them.
fn by_turns(targets: Vec<Target>) -> Vec<Target> {
    let is_six = targets[0].address.is_ipv6();
    let (one, other): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|target| target.address.is_ipv6() == is_six);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::with_capacity(one.len() + other.len());
    loop {
        let (next, next_other) = (one.next(), other.next());
        if next.is_none() && next_other.is_none() {
            return all;
        }
        all.extend(next.into_iter().chain(next_other));
    }
}

async fn resolve(hosts: &[String]) -> Result<Vec<Target>, Trouble> {
    let mut targets = Vec::new();
    let mut unresolved = None;
    for host in hosts {
        let name = host
            .rsplit_once(':')
            .map_or(host.as_str(), |(name, _)| name);
        match tokio::net::lookup_host(host).await {
            Ok(addresses) => targets.extend(addresses.map(|address| Target {
                host: name.into(),
                address,
            })),
            Err(error) => unresolved = Some(error),
        }
    }
    match unresolved {
        Some(error) if targets.is_empty() => Err(Trouble {
            phase: Phase::Connect,
            cause: Cause::Io(error),
        }),
        _ => Ok(targets),
    }
}

/// The addresses of the exchangers, best first. Only when each of them is known to be nowhere it is a permanent refusal.
async fn look_up(exchangers: &Exchangers, site: &Site) -> Result<Vec<Target>, Trouble> {
    let mut targets: Vec<Target> = Vec::new();
    let mut refusal: Option<Reply> = None;
    for host in site.shuffled() {
        let several = targets
            .first()
            .is_some_and(|first| targets.iter().any(|t| t.host != first.host));
        if several && targets.len() >= ADDRESSES_MAX {
            break;
        }
        match exchangers.addresses(host).await {
            Ok(addresses) => {
                targets.extend(shuffled(addresses).into_iter().map(|address| Target {
                    host: host.into(),
                    address,
                }))
            }
            Err(reply) => {
                let unsure = refusal.as_ref().is_some_and(|r| r.code < 500);
                if !unsure {
                    refusal = Some(reply);
                }
            }
        }
    }
    match refusal {
        Some(reply) if targets.is_empty() => Err(refused(reply)),
        _ => Ok(targets),
    }
}

/// Answers are kept, and their order with them: drawn anew, each address of a host gets its share. IPv6 first.
fn shuffled(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut drawn: Vec<(bool, u64, SocketAddr)> = addresses
        .into_iter()
        .map(|address| (address.is_ipv4(), (random() * 1e15) as u64, address))
        .collect();
    drawn.sort_unstable();
    drawn.into_iter().map(|(_, _, address)| address).collect()
}

fn refused(reply: Reply) -> Trouble {
    Trouble {
        phase: Phase::Connect,
        cause: Cause::Refused(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: &[(&str, &str)], expected: &[&str]) {
        let target = |(host, ip): &(&str, &str)| Target {
            host: (*host).into(),
            address: SocketAddr::new(ip.parse().unwrap(), 25),
        };
        let chosen = choose(targets.iter().map(target).collect());
        let chosen: Vec<String> = chosen.iter().map(|t| t.address.ip().to_string()).collect();
        assert_eq!(chosen, expected, "{targets:?}");
    }

    #[test]
    fn families_take_turns_and_no_host_hides_the_next() {
        check(&[], &[]);
        check(
            &[("a", "192.0.2.1"), ("a", "192.0.2.2"), ("a", "2001:db8::1")],
            &["192.0.2.1", "2001:db8::1", "192.0.2.2"],
        );
        let sixes = [
            ("a", "2001:db8::1"),
            ("a", "2001:db8::2"),
            ("a", "2001:db8::3"),
            ("a", "2001:db8::4"),
            ("a", "2001:db8::5"),
            ("a", "2001:db8::6"),
        ];
        let mut alone = sixes.to_vec();
        alone.push(("a", "192.0.2.1"));
        let five = [
            "2001:db8::1",
            "192.0.2.1",
            "2001:db8::2",
            "2001:db8::3",
            "2001:db8::4",
        ];
        check(&alone, &five);
        let mut two = sixes.to_vec();
        two.extend([
            ("b", "192.0.2.9"),
            ("b", "2001:db8:b::9"),
            ("b", "192.0.2.8"),
        ]);
        let both = [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "192.0.2.9",
            "2001:db8:b::9",
        ];
        check(&two, &both);
        // The order of the hosts stays, also where one comes twice.
        check(
            &[("a", "192.0.2.1"), ("b", "192.0.2.2"), ("a", "192.0.2.3")],
            &["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        );
    }
}
