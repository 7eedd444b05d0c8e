//! Every name of the directory in memory: what RCPT is answered from, and what edges are told.

use std::collections::{BTreeSet, HashMap};

use mail::recipient::{self, ListAddress};
use mail::{Address, Domain};

/// Local parts that exist in every domain (RFC 5321 4.5.1, RFC 2142).
const ROLES: [&str; 3] = ["postmaster", "abuse", "security"];

/// Whether an address is postmaster@, abuse@ or security@ of some domain.
pub fn is_role(address: &Address) -> bool {
    ROLES
        .iter()
        .any(|role| address.local().eq_ignore_ascii_case(role))
}

/// What an address means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A list, or something below it.
    List {
        /// The list as it was spelled when it was made.
        list: Address,
        /// What of it.
        what: ListAddress,
    },
    /// An alias, as it was spelled when it was made.
    Alias(Address),
    /// postmaster@, abuse@ or security@.
    Role,
}

/// One state of the names; its version changes with its content.
#[derive(Debug)]
pub struct Names {
    version: String,
    lists: HashMap<String, Address>,
    aliases: HashMap<String, Address>,
    domains: BTreeSet<String>,
}

impl Names {
    /// Puts a state together.
    pub fn new(lists: Vec<Address>, aliases: Vec<Address>) -> Self {
        let domains = lists
            .iter()
            .chain(&aliases)
            .map(|address| address.domain().to_string())
            .collect();
        let keyed = |addresses: Vec<Address>| -> HashMap<String, Address> {
            addresses
                .into_iter()
                .map(|address| (address.key(), address))
                .collect()
        };
        let mut names = Self {
            version: String::new(),
            lists: keyed(lists),
            aliases: keyed(aliases),
            domains,
        };
        names.version = names.fingerprint();
        names
    }

    fn fingerprint(&self) -> String {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for (kind, keys) in [("list ", self.lists()), ("alias ", self.addresses())] {
            for key in keys {
                context.update(kind.as_bytes());
                context.update(key.as_bytes());
                context.update(b"\n");
            }
        }
        hex(&context.finish().as_ref()[..16])
    }

    /// Names this state; equal when the content is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether there is not one name: a directory that nobody has filled, or not the right one.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.aliases.is_empty()
    }

    /// The domains that hold a list or an alias, sorted.
    pub fn domains(&self) -> Vec<String> {
        self.domains.iter().cloned().collect()
    }

    /// The keys of all lists, in no order.
    pub fn list_keys(&self) -> impl Iterator<Item = &str> {
        self.lists.keys().map(String::as_str)
    }

    /// The keys of all aliases, in no order.
    pub fn alias_keys(&self) -> impl Iterator<Item = &str> {
        self.aliases.keys().map(String::as_str)
    }

    /// The keys of all lists, sorted.
    pub fn lists(&self) -> Vec<String> {
        sorted(&self.lists)
    }

    /// The keys of all aliases, sorted.
    pub fn addresses(&self) -> Vec<String> {
        sorted(&self.aliases)
    }

    /// Whether a domain is ours.
    pub fn holds(&self, domain: &Domain) -> bool {
        self.domains.contains(domain.as_str())
    }

    /// What an address means. An alias and a list of exactly this name come before a shorter list's extension, and the
    /// longest list that fits wins: `dev-help@` may be a list of its own.
    pub fn resolve(&self, address: &Address) -> Option<Target> {
        let key = address.key();
        if let Some(alias) = self.aliases.get(&key) {
            return Some(Target::Alias(alias.clone()));
        }
        if let Some(list) = self.lists.get(&key) {
            return Some(Target::List {
                list: list.clone(),
                what: ListAddress::Post,
            });
        }
        if is_role(address) && self.holds(address.domain()) {
            return Some(Target::Role);
        }
        let local = address.local();
        local
            .char_indices()
            .rev()
            .filter(|(_, letter)| *letter == '-')
            .find_map(|(at, _)| {
                let prefix = &local[..at];
                let key = format!("{}@{}", prefix.to_lowercase(), address.domain());
                let list = self.lists.get(&key)?;
                let what = recipient::parse(list.local(), local)?;
                Some(Target::List {
                    list: list.clone(),
                    what,
                })
            })
    }
}

fn sorted(names: &HashMap<String, Address>) -> Vec<String> {
    let mut keys: Vec<String> = names.keys().cloned().collect();
    keys.sort_unstable();
    keys
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn names(lists: &[&str], aliases: &[&str]) -> Names {
        Names::new(
            lists.iter().map(|text| address(text)).collect(),
            aliases.iter().map(|text| address(text)).collect(),
        )
    }

    #[test]
    fn resolves() {
        let names = names(
            &["Dev@lists.example", "dev-admin@lists.example"],
            &["joe@lists.example"],
        );
        let list = |name: &str, what| {
            Some(Target::List {
                list: address(name),
                what,
            })
        };
        let table = [
            (
                "dev@lists.example",
                list("Dev@lists.example", ListAddress::Post),
            ),
            (
                "DEV@LISTS.example",
                list("Dev@lists.example", ListAddress::Post),
            ),
            ("dev@other.example", None),
            (
                "dev-help@lists.example",
                list("Dev@lists.example", ListAddress::Help),
            ),
            (
                "dev-admin@lists.example",
                list("dev-admin@lists.example", ListAddress::Post),
            ),
            (
                "dev-admin-owner@lists.example",
                list("dev-admin@lists.example", ListAddress::Owner),
            ),
            (
                "dev-subscribe-a-b=one.example@lists.example",
                list(
                    "Dev@lists.example",
                    ListAddress::Subscribe(Some(address("a-b@one.example"))),
                ),
            ),
            (
                "dev-return-3-a-b=one.example@lists.example",
                list(
                    "Dev@lists.example",
                    ListAddress::Return {
                        number: 3,
                        member: Some(address("a-b@one.example")),
                    },
                ),
            ),
            ("dev-nonsense@lists.example", None),
            (
                "Joe@lists.example",
                Some(Target::Alias(address("joe@lists.example"))),
            ),
            ("Postmaster@lists.example", Some(Target::Role)),
            ("postmaster@other.example", None),
            ("nobody@lists.example", None),
        ];
        for (text, target) in table {
            assert_eq!(names.resolve(&address(text)), target, "{text}");
        }
    }

    #[test]
    fn the_version_follows_the_content() {
        let one = names(&["a@l.example", "b@l.example"], &[]);
        let same = names(&["b@l.example", "A@l.example"], &[]);
        let alias = names(&["a@l.example"], &["b@l.example"]);
        assert_eq!(one.version(), same.version());
        assert_ne!(one.version(), alias.version());
    }
}
