//! Sites: the mail exchangers of a domain (RFC 5321 5.1, RFC 7505), and the gate of each set of them.

use std::net::SocketAddr;

use mail::{Domain, Reply};

/// The exchangers of one domain, best first, equal preferences shuffled. Domains with the same set are one site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Host names, lower case, sorted by preference, then name: the site's identity.
    pub hosts: Vec<Box<str>>,
}

/// Finds mail exchangers by DNS, with a cache.
pub struct Exchangers {
    _private: (),
}

impl Exchangers {
    /// Asks these resolvers (none: /etc/resolv.conf); exchangers are reached at `port` [25].
    pub fn new(resolvers: &[SocketAddr], port: u16) -> Result<Self, String> {
        todo!("{resolvers:?} {port}")
    }

    /// The domain's site. NXDOMAIN and null MX are permanent (5.1.2, 5.1.10), anything unsure is transient (4.4.3).
    pub async fn site(&self, domain: &Domain) -> Result<Site, Reply> {
        todo!("{domain}")
    }

    /// The addresses of a site's host.
    pub async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, Reply> {
        todo!("{host}")
    }
}
