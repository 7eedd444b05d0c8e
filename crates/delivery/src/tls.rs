//! How much mail must be protected on its way, by its domain and by the host that takes it: whether STARTTLS is used, needed, and whom it must prove to reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use mail::Domain;
use serde::{Deserialize, Serialize};
use smtp::client::TlsPolicy;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In the clear: for hosts whose TLS is broken in a way that no fallback meets.
    Never,
    /// Encrypted where it is offered and works, whatever the certificate; else in the clear (RFC 7435).
    #[default]
    Opportunistic,
    /// Encrypted, whatever the certificate; else the mail waits.
    Encrypt,
    /// Encrypted to a host whose certificate an authority signed for its name; else the mail waits. The name is that of the mail
    /// exchanger, so it is worth as much as the DNS that named it.
    Verify,
}

/// The levels in force. The default: whatever is offered.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// For all domains that are not named.
    pub default: Level,
    /// For these domains; a subdomain is another domain.
    pub domains: BTreeMap<Domain, Level>,
    /// For these mail exchangers, in lower case, where the domain is not named; `.example.org` means all below it.
    pub exchangers: BTreeMap<Box<str>, Level>,
    /// How certificates are verified; none: [`Level::Verify`] sends nothing.
    pub verifying: Option<Arc<ClientConfig>>,
}

impl Levels {
    /// The level of a domain's mail, if it is named: then it is the same at every exchanger.
    pub(crate) fn of(&self, domain: Option<&Domain>) -> Option<Level> {
        domain.and_then(|domain| self.domains.get(domain)).copied()
    }

    /// The level of other mail at an exchanger: its own name comes first, then the nearest above it.
    pub(crate) fn at(&self, host: &str) -> Level {
        let above = host.match_indices('.').map(|(dot, _)| &host[dot..]);
        let mut names = std::iter::once(host).chain(above);
        let named = names.find_map(|name| self.exchangers.get(name));
        named.copied().unwrap_or(self.default)
    }

    /// What a connection is told. The server name is replaced by each host's own. None: it cannot be kept.
    pub fn policy(&self, level: Level) -> Option<TlsPolicy> {
        let name = || ServerName::try_from("localhost").expect("a constant name");
        Some(match level {
            Level::Never => TlsPolicy::Never,
            Level::Opportunistic => {
                TlsPolicy::Opportunistic(service::tls::opportunistic_client(), name())
            }
            Level::Encrypt => TlsPolicy::Required(service::tls::opportunistic_client(), name()),
            Level::Verify => TlsPolicy::Required(self.verifying.clone()?, name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_comes_before_the_rest_and_what_cannot_be_kept_is_no_policy() {
        let domain = |name: &str| Domain::parse(name).unwrap();
        let levels = Levels {
            default: Level::Opportunistic,
            domains: BTreeMap::from([(domain("one.example"), Level::Verify)]),
            exchangers: BTreeMap::from([
                (".mx.example".into(), Level::Encrypt),
                ("old.mx.example".into(), Level::Never),
                ("mx.one.example".into(), Level::Encrypt),
            ]),
            verifying: None,
        };
        assert_eq!(levels.of(Some(&domain("one.example"))), Some(Level::Verify));
        let others = [Some(domain("sub.one.example")), None];
        for other in others {
            assert_eq!(levels.of(other.as_ref()), None, "{other:?}");
        }
        for (host, level) in [
            ("a.b.mx.example", Level::Encrypt),
            ("old.mx.example", Level::Never),
            ("mx.example", Level::Opportunistic),
            ("xmx.example", Level::Opportunistic),
            ("mx.one.example", Level::Encrypt),
            ("[192.0.2.1]", Level::Opportunistic),
        ] {
            assert_eq!(levels.at(host), level, "{host}");
        }
        let policy = |level| levels.policy(level);
        assert!(matches!(policy(Level::Never), Some(TlsPolicy::Never)));
        assert!(matches!(
            policy(Level::Opportunistic),
            Some(TlsPolicy::Opportunistic(..))
        ));
        assert!(matches!(
            policy(Level::Encrypt),
            Some(TlsPolicy::Required(..))
        ));
        assert!(policy(Level::Verify).is_none(), "nothing verifies");
    }
}
