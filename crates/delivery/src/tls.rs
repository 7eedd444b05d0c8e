//! How much a domain's mail must be protected on its way: whether STARTTLS is used, needed, and whom it must prove to reach.

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
    /// How certificates are verified; none: [`Level::Verify`] sends nothing.
    pub verifying: Option<Arc<ClientConfig>>,
}

impl Levels {
    /// The level of a domain's mail.
    pub(crate) fn of(&self, domain: Option<&Domain>) -> Level {
        let named = domain.and_then(|domain| self.domains.get(domain));
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
