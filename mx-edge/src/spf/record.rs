//! A published policy as a value (RFC 7208 4.5, 4.6, 5, 6, 12): read as a whole before any of it is evaluated. Pure.

use std::net::IpAddr;

use mail::trace::Spf;

use super::macros::MacroString;

/// It breaks its grammar: the result is permerror, wherever the fault stands (4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In their order.
    pub directives: Vec<Directive>,
    /// Whose policy holds when none of them matches.
    pub redirect: Option<MacroString>,
}

/// A mechanism and what it means when it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Pass, fail, softfail or neutral.
    pub qualifier: Spf,
    /// What is looked at.
    pub mechanism: Mechanism,
}

/// Section 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Matches always.
    All,
    /// Another domain's policy passes.
    Include(MacroString),
    /// The client is among a host's addresses.
    A(Hosts),
    /// The client is among the addresses of a domain's mail hosts.
    Mx(Hosts),
    /// The client has a confirmed name within a domain.
    Ptr(Option<MacroString>),
    /// The client is in a network.
    Network(Network),
    /// A name has an address.
    Exists(MacroString),
}

/// Hosts and the networks around their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// None: the domain whose policy it is.
    pub domain: Option<MacroString>,
    /// Prefix lengths in bits, for IPv4 and IPv6.
    pub bits: (u8, u8),
}

/// An address and how many bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any of its addresses.
    pub address: IpAddr,
    /// Prefix length.
    pub bits: u8,
}

impl Network {
    /// Whether a client is in it; never one of the other kind.
    pub fn holds(self, client: IpAddr) -> bool {
        let differ = match (self.address, client) {
            (IpAddr::V4(ours), IpAddr::V4(client)) => {
                u128::from(ours.to_bits() ^ client.to_bits()) << 96
            }
            (IpAddr::V6(ours), IpAddr::V6(client)) => ours.to_bits() ^ client.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= u32::from(self.bits)
    }
}

/// Whether a TXT record is a policy of this version (4.5).
pub fn is_policy(text: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    let begins = text.get(..VERSION.len());
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(VERSION))
        && matches!(text.get(VERSION.len()), None | Some(b' '))
}

impl Record {
    /// Reads a policy.
    pub fn read(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(Malformed);
        }
        let mut record = Self {
            directives: Vec::new(),
            redirect: None,
        };
        let mut explained = false;
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            let name = name_of(term);
            let Some(value) = term[name.len()..].strip_prefix('=') else {
                record.directives.push(directive(term)?);
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "" => return Err(Malformed),
                "redirect" if record.redirect.is_none() => {
                    record.redirect = Some(MacroString::domain(value)?);
                }
                // Not asked for: a stranger's text does not go into our replies.
                "exp" if !explained => {
                    MacroString::domain(value)?;
                    explained = true;
                }
                "redirect" | "exp" => return Err(Malformed),
                _ => drop(MacroString::any(value)?),
            }
        }
        Ok(record)
    }
}

/// The name that a term begins with, "" when it begins with none.
fn name_of(term: &str) -> &str {
    if !term.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return "";
    }
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
    &term[..term.find(ends).unwrap_or(term.len())]
}

fn directive(term: &str) -> Result<Directive, Malformed> {
    let (qualifier, term) = match term.as_bytes()[0] {
        b'+' => (Spf::Pass, &term[1..]),
        b'-' => (Spf::Fail, &term[1..]),
        b'~' => (Spf::SoftFail, &term[1..]),
        b'?' => (Spf::Neutral, &term[1..]),
        _ => (Spf::Pass, term),
    };
    let name = name_of(term);
    let rest = &term[name.len()..];
    let value = || rest.strip_prefix(':').ok_or(Malformed);
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(MacroString::domain(value()?)?),
        "a" => Mechanism::A(hosts(rest)?),
        "mx" => Mechanism::Mx(hosts(rest)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(MacroString::domain(value()?)?)),
        "ip4" => Mechanism::Network(network(value()?, 32)?),
        "ip6" => Mechanism::Network(network(value()?, 128)?),
        "exists" => Mechanism::Exists(MacroString::domain(value()?)?),
        _ => return Err(Malformed),
    };
    Ok(Directive {
        qualifier,
        mechanism,
    })
}

/// `:domain/24//64`, each part optional. A domain may hold slashes, so that lengths are looked for from the end.
fn hosts(rest: &str) -> Result<Hosts, Malformed> {
    let (rest, v6) = prefix_length(rest, "//", 128)?;
    let (rest, v4) = prefix_length(rest, "/", 32)?;
    let domain = match rest {
        "" => None,
        rest => {
            let domain = rest.strip_prefix(':').ok_or(Malformed)?;
            Some(MacroString::domain(domain)?)
        }
    };
    Ok(Hosts {
        domain,
        bits: (v4, v6),
    })
}

/// Takes a prefix length off the end, where there is one.
fn prefix_length<'a>(text: &'a str, mark: &str, max: u8) -> Result<(&'a str, u8), Malformed> {
    let Some(at) = text.rfind(mark) else {
        return Ok((text, max));
    };
    let digits = &text[at + mark.len()..];
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok((&text[..at], bits(digits, max)?)),
        false => Ok((text, max)),
    }
}

fn bits(digits: &str, max: u8) -> Result<u8, Malformed> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0');
    let bits = digits.parse().ok().filter(|bits| *bits <= max);
    bits.filter(|_| plain && !padded).ok_or(Malformed)
}

/// `192.0.2.0/24`, of the kind that has so many bits.
fn network(text: &str, max: u8) -> Result<Network, Malformed> {
    let (address, bits) = match text.split_once('/') {
        Some((address, length)) => (address, bits(length, max)?),
        None => (text, max),
    };
    let address: IpAddr = match max {
        32 => IpAddr::V4(address.parse().map_err(|_| Malformed)?),
        _ => IpAddr::V6(address.parse().map_err(|_| Malformed)?),
    };
    Ok(Network { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_this_version_are_policies() {
        for (text, expected) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf10 -all", false),
            ("v=spf1\t-all", false),
            (" v=spf1 -all", false),
            ("spf2.0/pra -all", false),
            ("v=sp", false),
        ] {
            assert_eq!(is_policy(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn one_fault_anywhere_spoils_a_policy() {
        for terms in [
            "all:x",
            "ipv4:1.2.3.4",
            "ip4:1.2.3",
            "ip4:1.2.3.4/33",
            "ip4:1.2.3.4/032",
            "ip4:01.2.3.4",
            "ip4:::1",
            "ip6:::1/129",
            "ip6:1.2.3.4",
            "ip4",
            "a:",
            "a/33",
            "a//129",
            "a/",
            "a//",
            "a:b",
            "mx:1.2.3.4",
            "include",
            "include:",
            "exists",
            "exists:a.b/24",
            "ptr:",
            "ptr/24",
            "redirect=",
            "redirect=a.b redirect=a.b",
            "exp=a.b exp=a.b",
            "-exp=a.b",
            "=x",
            "0x=y",
            "x=%{",
            "-",
            "--all",
            "a\t-all",
            "all\u{e9}",
            "moo",
        ] {
            let text = format!("v=spf1 ip4:192.0.2.1 -all {terms}");
            assert_eq!(Record::read(text.as_bytes()), Err(Malformed), "{terms}");
        }
    }

    #[test]
    fn terms_are_read() {
        let text = b"v=spf1  A mx:%{d}/24//64 a:foo:bar/baz.example.com ~ptr ip6:2001:db8::/32 unknown-1.2_3=%{c} \
            ?include:a.example redirect=b.example. ";
        let record = Record::read(text).unwrap();
        let shown: Vec<_> = record.directives.iter().map(|one| one.qualifier).collect();
        let pass = Spf::Pass;
        assert_eq!(shown, [pass, pass, pass, Spf::SoftFail, pass, Spf::Neutral]);
        let Mechanism::Mx(hosts) = &record.directives[1].mechanism else {
            panic!("{record:?}");
        };
        assert_eq!(hosts.bits, (24, 64));
        assert!(record.redirect.is_some());
    }

    #[test]
    fn networks_hold_their_own_kind() {
        for (network, bits, client, expected) in [
            ("192.0.2.0", 24, "192.0.2.255", true),
            ("192.0.2.0", 25, "192.0.2.255", false),
            ("192.0.2.0", 0, "8.8.8.8", true),
            ("192.0.2.0", 32, "192.0.2.0", true),
            ("192.0.2.0", 0, "2001:db8::1", false),
            ("2001:db8::", 32, "2001:db8:1::1", true),
            ("2001:db8::", 48, "2001:db8:1::1", false),
            ("::", 0, "192.0.2.1", false),
            ("::1", 128, "::1", true),
        ] {
            let address = network.parse().unwrap();
            let held = Network { address, bits }.holds(client.parse().unwrap());
            assert_eq!(held, expected, "{network}/{bits} {client}");
        }
    }
}
