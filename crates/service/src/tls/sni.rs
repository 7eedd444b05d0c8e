//! A public server with several certificates: each client gets the one that has the name it asks for (RFC 6066 3), and the first one when
//! none has it, since most mail hosts ask for nothing or for the MX name and verify neither.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Identity, provider};

/// See the module; each identity is reloaded by itself, and the first one is for everybody else. Panics without any.
pub fn public_servers(identities: Vec<Identity>) -> Arc<ServerConfig> {
    assert!(!identities.is_empty(), "a server has a certificate");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(identities)));
    Arc::new(config)
}

#[derive(Debug)]
struct ByName(Vec<Identity>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let named = asked.and_then(|name| {
            let serving = self.0.iter();
            serving
                .filter_map(|identity| identity.serves(&name, hello.signature_schemes()))
                .next()
        });
        named.or_else(|| self.0.first().map(Identity::certified))
    }
}

/// Whether a certificate's name is the one asked for; a `*` stands for one whole label (RFC 6125 6.4.3).
pub fn covers(own: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.');
    match own.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => own == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        for (own, name, expected) in [
            ("mx1.example", "mx1.example", true),
            ("mx1.example", "mx1.example.", true),
            ("mx1.example", "mx2.example", false),
            ("*.mx.example", "a.mx.example", true),
            ("*.mx.example", "b.a.mx.example", false),
            ("*.mx.example", "mx.example", false),
        ] {
            assert_eq!(covers(own, name), expected, "{own} for {name}");
        }
    }
}
