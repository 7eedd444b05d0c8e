//! One version of one source, in memory: exact addresses, lists with their extension grammar, whole domains. Pure; what a
//! new version would take away is computed here, who may apply it is decided in `source`.

use std::collections::HashSet;

use mail::directory::{Content, Seal};
use mail::recipient::ListAddress;
use mail::{Address, Domain};

/// Everybody that one source knows. A copy shares what it does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The source's own name for this version; changes with the content.
    pub version: Box<str>,
    /// Domains that are ours, exact addresses, and lists, each of which means all that `mail::recipient::parse` understands.
    pub content: Content,
    /// Domains in which every address exists.
    pub open: HashSet<Domain>,
    /// The character behind which a local part's extension starts, as `+` in `joe+news@`.
    pub delimiter: Option<char>,
    /// The list host's word for it, when it is the directory.
    pub seal: Option<Seal>,
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
    /// A version of the directory.
    pub fn of_directory(seal: Seal, content: Content) -> Self {
        Self {
            version: seal.version.to_string().into(),
            content,
            seal: Some(seal),
            ..Self::default()
        }
    }

    /// Adds an address, and its domain as ours.
    pub fn add_address(&mut self, address: &Address) {
        self.content.domains.insert(address.domain().clone());
        self.content.addresses.insert(&address.key());
    }

    /// Adds a list, and its domain as ours.
    pub fn add_list(&mut self, address: &Address) {
        self.content.domains.insert(address.domain().clone());
        self.content.lists.insert(&address.key());
    }

    /// Adds a domain in which everybody exists.
    pub fn add_open(&mut self, domain: Domain) {
        self.content.domains.insert(domain.clone());
        self.open.insert(domain);
    }

    /// Domains that are ours.
    pub fn domains(&self) -> &std::collections::BTreeSet<Domain> {
        &self.content.domains
    }

    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.content.entries() + self.open.len()
    }

    /// Whether the address is one of ours.
    pub fn knows(&self, address: &Address) -> bool {
        self.knows_if(address, &|_, _| true)
    }

    /// Likewise; what a list's grammar reads in an address counts only if it is `genuine`. The work is bounded by the length of the
    /// local part.
    pub fn knows_if(&self, address: &Address, genuine: Genuine<'_>) -> bool {
        let key = address.key();
        if self.content.addresses.contains(&key) || self.open.contains(address.domain()) {
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
        base.is_some_and(|base| self.content.addresses.contains(&base.key()))
    }

    /// The list itself, or anything that its grammar knows below it. A list's own name may hold hyphens, so that every
    /// prefix that ends before one is tried.
    fn knows_list(&self, key: &str, address: &Address, genuine: Genuine<'_>) -> bool {
        if self.content.lists.is_empty() {
            return false;
        }
        let at = key.len() - address.domain().as_str().len() - 1;
        let (local, domain) = key.split_at(at);
        let hyphens = local.match_indices('-').map(|(position, _)| position);
        hyphens.chain([local.len()]).any(|end| {
            let list = &local[..end];
            let name = format!("{list}{domain}");
            if !self.content.lists.contains(&name) {
                return false;
            }
            let means = mail::recipient::parse(list, address.local());
            let own = Address::new(list, address.domain().clone());
            matches!((means, own), (Some(means), Ok(own)) if genuine(&own, &means))
        })
    }

    /// What `newer` would take away.
    pub fn loss(&self, newer: &Self) -> Loss {
        let (ours, theirs) = (&self.content, &newer.content);
        Loss {
            entries: ours.addresses.without(&theirs.addresses).count()
                + ours.lists.without(&theirs.lists).count()
                + self.open.difference(&newer.open).count(),
            of: self.entries(),
            domains: ours.domains.difference(&theirs.domains).cloned().collect(),
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
