//! One version of one source, in memory: exact addresses, lists with their extension grammar, whole domains. Pure; what a
//! new version would take away is computed here, who may apply it is decided in `source`.

use std::collections::HashSet;

use mail::recipient::ListAddress;
use mail::{Address, Domain};

/// Everybody that one source knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The source's own name for this version; changes with the content.
    pub version: Box<str>,
    /// Domains that are ours.
    pub domains: HashSet<Domain>,
    /// Domains in which every address exists.
    pub open: HashSet<Domain>,
    /// Exact addresses, by [`Address::key`].
    pub addresses: HashSet<Box<str>>,
    /// Lists, by [`Address::key`]; each means all that `mail::recipient::parse` understands.
    pub lists: HashSet<Box<str>>,
    /// The character behind which a local part's extension starts, as `+` in `joe+news@`.
    pub delimiter: Option<char>,
}

/// Whether an address below a list is one that the list made.
pub type Genuine<'a> = &'a dyn Fn(&Address, &ListAddress) -> bool;

/// What a new version lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Entries of the old version that are gone.
    pub entries: usize,
    /// Entries that the old version had.
    pub of: usize,
    /// Domains that are gone.
    pub domains: Vec<Domain>,
}

impl Catalog {
    /// Adds an address, and its domain as ours.
    pub fn add_address(&mut self, address: &Address) {
        self.domains.insert(address.domain().clone());
        self.addresses.insert(address.key().into());
    }

    /// Adds a list, and its domain as ours.
    pub fn add_list(&mut self, address: &Address) {
        self.domains.insert(address.domain().clone());
        self.lists.insert(address.key().into());
    }

    /// Adds a domain in which everybody exists.
    pub fn add_open(&mut self, domain: Domain) {
        self.domains.insert(domain.clone());
        self.open.insert(domain);
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.addresses.len() + self.lists.len() + self.open.len()
    }

    /// Whether the address is one of ours.
    pub fn knows(&self, address: &Address) -> bool {
        self.knows_if(address, &|_, _| true)
    }

    /// Likewise; what a list's grammar reads in an address counts only if it is `genuine`. The work is bounded by the length of the
    /// local part.
    pub fn knows_if(&self, address: &Address, genuine: Genuine<'_>) -> bool {
        let key = address.key();
        if self.addresses.contains(key.as_str()) || self.open.contains(address.domain()) {
            return true;
        }
        self.knows_extended(address) || self.knows_list(&key, address, genuine)
    }

    /// `joe+news@` where `joe@` is known.
    fn knows_extended(&self, address: &Address) -> bool {
        let Some(delimiter) = self.delimiter else {
            return false;
        };
        // The first character is never a delimiter: `+@` has no base.
        let local = address.local();
        let base = local
            .char_indices()
            .skip(1)
            .find(|(_, character)| *character == delimiter)
            .map(|(at, _)| &local[..at]);
        let base = base.and_then(|base| Address::new(base, address.domain().clone()).ok());
        base.is_some_and(|base| self.addresses.contains(base.key().as_str()))
    }

    /// The list itself, or anything that its grammar knows below it. A list's own name may hold hyphens, so that every
    /// prefix that ends before one is tried.
    fn knows_list(&self, key: &str, address: &Address, genuine: Genuine<'_>) -> bool {
        if self.lists.is_empty() {
            return false;
        }
        let at = key.len() - address.domain().as_str().len() - 1;
        let (local, domain) = key.split_at(at);
        let hyphens = local.match_indices('-').map(|(position, _)| position);
        hyphens.chain([local.len()]).any(|end| {
            let list = &local[..end];
            let name = format!("{list}{domain}");
            if !self.lists.contains(name.as_str()) {
                return false;
            }
            let means = mail::recipient::parse(list, address.local());
            let own = Address::new(list, address.domain().clone());
            matches!((means, own), (Some(means), Ok(own)) if genuine(&own, &means))
        })
    }

    /// What `newer` would take away.
    pub fn loss(&self, newer: &Self) -> Loss {
        let gone = |old: &HashSet<Box<str>>, new: &HashSet<Box<str>>| old.difference(new).count();
        let mut domains: Vec<Domain> = self.domains.difference(&newer.domains).cloned().collect();
        domains.sort();
        Loss {
            entries: gone(&self.addresses, &newer.addresses)
                + gone(&self.lists, &newer.lists)
                + self.open.difference(&newer.open).count(),
            of: self.entries(),
            domains,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(addresses: &[&str], lists: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        for address in addresses {
            catalog.add_address(&Address::parse(address).unwrap());
        }
        for list in lists {
            catalog.add_list(&Address::parse(list).unwrap());
        }
        catalog
    }

    fn check(catalog: &Catalog, address: &str, expected: bool) {
        assert_eq!(
            catalog.knows(&Address::parse(address).unwrap()),
            expected,
            "{address}"
        );
    }

    #[test]
    fn lists_are_known_with_their_extensions() {
        let catalog = catalog(
            &["joe@lists.example"],
            &["dev@lists.example", "httpd-dev@lists.example"],
        );
        for (address, expected) in [
            ("joe@lists.example", true),
            ("dev@lists.example", true),
            ("DEV@lists.example", true),
            ("dev-subscribe@lists.example", true),
            ("Dev-Subscribe-user=host.example@lists.example", true),
            ("dev-return-7-user=host.example@lists.example", true),
            ("dev-owner@lists.example", true),
            ("httpd-dev@lists.example", true),
            ("httpd-dev-unsubscribe@lists.example", true),
            ("httpd@lists.example", false),
            ("dev-nonsense@lists.example", false),
            ("developers@lists.example", false),
            ("joe-subscribe@lists.example", false),
            ("dev@other.example", false),
            ("dev-subscribe@other.example", false),
        ] {
            check(&catalog, address, expected);
        }
    }

    #[test]
    fn extensions_need_a_delimiter() {
        let mut catalog = catalog(&["joe@a.example"], &[]);
        check(&catalog, "joe+news@a.example", false);
        catalog.delimiter = Some('+');
        check(&catalog, "joe+news@a.example", true);
        check(&catalog, "Joe+news+more@a.example", true);
        check(&catalog, "jim+news@a.example", false);
        check(&catalog, "joe-news@a.example", false);
        check(&catalog, "+joe@a.example", false);
    }

    #[test]
    fn a_loss_counts_what_is_gone_and_not_what_came() {
        let old = catalog(&["a@one.example", "b@one.example"], &["dev@two.example"]);
        let new = catalog(&["a@one.example", "x@one.example", "y@one.example"], &[]);
        let loss = old.loss(&new);
        assert_eq!((loss.entries, loss.of), (2, 3));
        assert_eq!(loss.domains, [Domain::parse("two.example").unwrap()]);
        assert_eq!(old.loss(&old).entries, 0);
    }
}
