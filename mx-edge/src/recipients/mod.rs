//! Who is known here: answered from memory, out of one or several sources. A source that fails or half-answers leaves what it
//! said before in force; only a loaded source can make anybody unknown (design, invariant 10).

pub mod catalog;
pub mod directory;
pub mod guard;
pub mod poll;
pub mod pull;
pub mod sibling;
pub mod source;
pub mod stored;
pub mod summary;
pub mod text;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use mail::recipient::{self, ListAddress, Request};
use mail::verdict::Keys;
use mail::{Address, Domain, Timestamp};

use catalog::Catalog;
use source::Source;

/// Local parts that exist in every domain (RFC 5321 4.5.1, RFC 2142).
const ROLES: [&str; 3] = ["postmaster", "abuse", "security"];

/// What is known of a forward-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A recipient of ours.
    Ordinary,
    /// postmaster, abuse or security of a domain of ours, or of this host.
    Role,
    /// In a domain of ours, and nobody there.
    Unknown,
    /// Not in a domain of ours.
    NotOurs,
    /// Nobody can tell: a source that might know has never been loaded, or is stale.
    NotLoaded,
}

/// All sources together.
pub struct Recipients {
    hostname: Domain,
    domains: RwLock<Arc<HashSet<Domain>>>,
    sources: Vec<Arc<Source>>,
    cookies: Option<Keys>,
}

impl Recipients {
    /// `hostname` is this host, whose postmaster exists too; `domains` are ours whatever the sources say.
    pub fn new(hostname: Domain, domains: HashSet<Domain>, sources: Vec<Arc<Source>>) -> Self {
        Self {
            hostname,
            domains: RwLock::new(Arc::new(domains)),
            sources,
            cookies: None,
        }
    }

    /// Knows confirmations only when they were made with one of these keys.
    #[must_use]
    pub fn with_cookies(mut self, cookies: Option<Keys>) -> Self {
        self.cookies = cookies;
        self
    }

    /// Replaces the configured domains.
    pub fn set_domains(&self, domains: HashSet<Domain>) {
        *self.domains.write().expect("no holder panics") = Arc::new(domains);
    }

    /// The sources.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Whether every source has been loaded; otherwise which one has not, and why.
    pub fn loaded(&self) -> Result<(), String> {
        for source in &self.sources {
            if source.current().is_none() {
                let trouble = source.trouble().unwrap_or_else(|| "not asked yet".into());
                return Err(format!("{} was never loaded: {trouble}", source.name()));
            }
        }
        Ok(())
    }

    /// Looks a forward-path up. `local` is the address the client connected to, for `postmaster@[192.0.2.1]`.
    pub fn lookup(&self, address: &Address, local: IpAddr) -> Known {
        let configured = self.configured_domains();
        let catalogs: Vec<Option<Arc<Catalog>>> =
            self.sources.iter().map(|source| source.current()).collect();
        let loaded = || catalogs.iter().flatten();
        let domain = address.domain();
        let ours = configured.contains(domain)
            || loaded().any(|catalog| catalog.domains().contains(domain));
        if is_role(address) && (ours || self.is_this_host(domain, local)) {
            return Known::Role;
        }
        if loaded()
            .any(|catalog| catalog.knows_if(address, &|list, means| self.genuine(list, means)))
        {
            return Known::Ordinary;
        }
        let sure = catalogs.iter().all(Option::is_some)
            && !self.sources.iter().any(|source| source.is_stale());
        match (ours, sure) {
            (_, false) => Known::NotLoaded,
            (true, true) => Known::Unknown,
            (false, true) => Known::NotOurs,
        }
    }

    /// A confirmation with a cookie that no key of ours made was made up: nobody here has that address. One that is too old is told so
    /// by the list.
    fn genuine(&self, list: &Address, means: &ListAddress) -> bool {
        let (request, confirmation) = match means {
            ListAddress::ConfirmSubscribe(confirmation) => (Request::Subscribe, confirmation),
            ListAddress::ConfirmUnsubscribe(confirmation) => (Request::Unsubscribe, confirmation),
            _ => return true,
        };
        let now = Timestamp::now().seconds();
        self.cookies
            .as_ref()
            .is_none_or(|keys| recipient::verify(list, request, confirmation, now, u64::MAX, keys))
    }

    /// The forward-path under which a role of this host travels inside, where only the mail domains are known:
    /// `postmaster@mx1.example` and `postmaster@[192.0.2.1]` belong to the first domain that is ours.
    pub fn inner(&self, address: &Address) -> Address {
        let domain = address.domain();
        let own = !domain.is_literal() && *domain != self.hostname;
        if own || self.configured_domains().contains(domain) {
            return address.clone();
        }
        let Some(home) = self.home() else {
            return address.clone();
        };
        Address::new(address.local(), home).unwrap_or_else(|_| address.clone())
    }

    /// The first of our domains, in alphabetical order: the same one on every edge.
    fn home(&self) -> Option<Domain> {
        let configured = self.configured_domains().iter().min().cloned();
        configured.or_else(|| {
            self.sources
                .iter()
                .filter_map(|source| source.current())
                .filter_map(|catalog| catalog.domains().first().cloned())
                .min()
        })
    }

    fn configured_domains(&self) -> Arc<HashSet<Domain>> {
        self.domains.read().expect("no holder panics").clone()
    }

    fn is_this_host(&self, domain: &Domain, local: IpAddr) -> bool {
        *domain == self.hostname || Domain::parse(&literal(local)).is_ok_and(|own| own == *domain)
    }
}

/// An address as a literal of RFC 5321 4.1.3.
pub fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

fn is_role(address: &Address) -> bool {
    ROLES
        .iter()
        .any(|role| role.eq_ignore_ascii_case(address.local()))
}

#[cfg(test)]
mod tests {
    use super::guard::Guard;
    use super::*;

    fn domains(names: &[&str]) -> HashSet<Domain> {
        names
            .iter()
            .map(|name| Domain::parse(name).unwrap())
            .collect()
    }

    fn source(name: &str, entries: Option<&str>) -> Arc<Source> {
        let source = Arc::new(Source::new(name, Guard::default(), None));
        if let Some(entries) = entries {
            source.offer(text::file(entries).unwrap(), None, false);
        }
        source
    }

    fn recipients(configured: &[&str], sources: Vec<Arc<Source>>) -> Recipients {
        Recipients::new(
            Domain::parse("mx1.example").unwrap(),
            domains(configured),
            sources,
        )
    }

    fn check(recipients: &Recipients, address: &str, expected: Known) {
        let parsed = Address::parse(address).unwrap();
        assert_eq!(
            recipients.lookup(&parsed, "192.0.2.1".parse().unwrap()),
            expected,
            "{address}"
        );
    }

    #[test]
    fn a_loaded_source_decides() {
        let all = recipients(
            &["static.example"],
            vec![source("file a", Some("joe@a.example\n@open.example\n"))],
        );
        check(&all, "joe@a.example", Known::Ordinary);
        check(&all, "JOE@A.Example", Known::Ordinary);
        check(&all, "jim@a.example", Known::Unknown);
        check(&all, "anybody@open.example", Known::Ordinary);
        check(&all, "joe@elsewhere.example", Known::NotOurs);
        check(&all, "jim@static.example", Known::Unknown);
        check(&all, "Postmaster@a.example", Known::Role);
        check(&all, "abuse@static.example", Known::Role);
        check(&all, "security@open.example", Known::Role);
        check(&all, "postmaster@elsewhere.example", Known::NotOurs);
        check(&all, "postmaster@mx1.example", Known::Role);
        check(&all, "postmaster@[192.0.2.1]", Known::Role);
        check(&all, "postmaster@[192.0.2.2]", Known::NotOurs);
        check(&all, "joe@[192.0.2.1]", Known::NotOurs);
    }

    #[test]
    fn nobody_is_unknown_while_a_source_is_missing() {
        let all = recipients(
            &["static.example"],
            vec![
                source("file a", Some("joe@a.example\n")),
                source("directory", None),
            ],
        );
        check(&all, "joe@a.example", Known::Ordinary);
        check(&all, "jim@a.example", Known::NotLoaded);
        check(&all, "joe@elsewhere.example", Known::NotLoaded);
        check(&all, "abuse@static.example", Known::Role);
        check(&all, "abuse@elsewhere.example", Known::NotLoaded);
        assert!(all.loaded().unwrap_err().contains("directory"));
    }

    #[test]
    fn a_confirmation_is_known_by_its_cookie() {
        let keys = |secret: u8| Keys::new(&[vec![secret; 32]]).unwrap();
        let list = Address::parse("dev@lists.example").unwrap();
        let member = Address::parse("joe@home.example").unwrap();
        let directory = Arc::new(Source::new("directory", Guard::default(), None));
        let mut catalog = Catalog::default();
        catalog.add_list(&list);
        directory.offer(catalog, None, false);
        let now = Timestamp::now().seconds();
        let made = |request, time, key| {
            let local = recipient::confirmation(&list, request, &member, time, &keys(key));
            format!("{local}@lists.example")
        };
        let all = recipients(&[], vec![directory]).with_cookies(Some(keys(1)));
        check(&all, "dev@lists.example", Known::Ordinary);
        check(&all, "dev-subscribe@lists.example", Known::Ordinary);
        check(&all, &made(Request::Subscribe, now, 1), Known::Ordinary);
        check(&all, &made(Request::Unsubscribe, 1_000, 1), Known::Ordinary);
        check(&all, &made(Request::Subscribe, now, 2), Known::Unknown);
        let of_another = made(Request::Subscribe, now, 1).replace("joe=", "jim=");
        check(&all, &of_another, Known::Unknown);
        let swapped = made(Request::Subscribe, now, 1).replace("-sc.", "-uc.");
        check(&all, &swapped, Known::Unknown);
        let none = all.with_cookies(None);
        check(&none, &made(Request::Subscribe, now, 2), Known::Ordinary);
    }

    #[test]
    fn several_sources_add_up() {
        let all = recipients(
            &[],
            vec![
                source("file a", Some("joe@a.example\n")),
                source("file b", Some("jim@a.example\njim@b.example\n")),
            ],
        );
        check(&all, "joe@a.example", Known::Ordinary);
        check(&all, "jim@a.example", Known::Ordinary);
        check(&all, "jim@b.example", Known::Ordinary);
        check(&all, "joe@b.example", Known::Unknown);
        assert_eq!(all.loaded(), Ok(()));
    }

    #[test]
    fn the_host_s_own_roles_travel_under_a_domain_of_ours() {
        let all = recipients(&[], vec![source("file a", Some("joe@a.example\n"))]);
        for (address, expected) in [
            ("postmaster@mx1.example", "postmaster@a.example"),
            ("Abuse@[192.0.2.1]", "Abuse@a.example"),
            ("postmaster@a.example", "postmaster@a.example"),
            ("joe@a.example", "joe@a.example"),
        ] {
            let inner = all.inner(&Address::parse(address).unwrap());
            assert_eq!(inner.to_string(), expected);
        }
    }
}
