//! Mutual TLS between the house's own hosts: certificates of the site's CA that name a node and its role, reloaded on SIGHUP.
//! Always with ring and TLS 1.2 or later; the process-wide provider is neither read nor set.

mod identity;
mod sni;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

pub use identity::Identity;
pub use sni::{covers, public_servers};

use crate::config::Complaints;
use crate::program::Complaint;

/// `[inside]` / `[tls]`: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The site's CA; needed for mutual TLS, absent on a public MX certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
}

impl Files {
    /// What a configuration complains of, where these are `[section]`: paths that are relative, files that cannot be read or do
    /// not fit each other, and, for mutual TLS, a CA that is not named. The same would keep the program from starting.
    pub fn check(&self, section: &str, mutual: bool) -> Vec<Complaint> {
        let complaint = |key: &str, what: String, why: &str, remedy: &str| Complaint {
            key: format!("{section}.{key}"),
            what,
            why: why.into(),
            remedy: remedy.into(),
        };
        let authority = self.authority.as_ref();
        if mutual && authority.is_none() {
            return vec![complaint(
                "authority",
                "missing".into(),
                "without the site's CA nobody inside can be recognised",
                "give the path of ca.pem",
            )];
        }
        let named = [("certificate", &self.certificate), ("key", &self.key)];
        let named = named
            .into_iter()
            .chain(authority.map(|path| ("authority", path)));
        let mut relative = Complaints::default();
        for (key, path) in named {
            relative.absolute(&format!("{section}.{key}"), path);
        }
        let relative: Vec<Complaint> = relative.into();
        if !relative.is_empty() {
            return relative;
        }
        let loaded = match mutual {
            true => Identity::load(self),
            false => Identity::load_public(self),
        };
        let wrong = loaded.err().map(|what| {
            let why = "no connection could be encrypted with it";
            let remedy = match mutual {
                true => "make it with the command `ca node`, readable by this user",
                false => "name a certificate and its key in PEM, readable by this user",
            };
            complaint("certificate", what, why, remedy)
        });
        wrong.into_iter().collect()
    }
}

/// What a node's certificate says it is: a DNS name of its subject alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `mx-edge`.
    MxEdge,
    /// `balancer`.
    Balancer,
    /// `scanner`.
    Scanner,
    /// `listserv`.
    Listserv,
    /// `operator`: a person or a monitoring host.
    Operator,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Role; 5] = [
        Role::MxEdge,
        Role::Balancer,
        Role::Scanner,
        Role::Listserv,
        Role::Operator,
    ];

    /// The DNS name.
    pub fn name(self) -> &'static str {
        match self {
            Role::MxEdge => "mx-edge",
            Role::Balancer => "balancer",
            Role::Scanner => "scanner",
            Role::Listserv => "listserv",
            Role::Operator => "operator",
        }
    }

    /// As the name a client asks for.
    pub fn server_name(self) -> ServerName<'static> {
        ServerName::try_from(self.name()).expect("every role's name is a DNS name")
    }
}

/// For a public server: the certificate alone, no client certificates asked for. It stays as it was read; a server that
/// reloads keeps an [`Identity::load_public`].
pub fn public_server(files: &Files) -> Result<Arc<rustls::ServerConfig>, String> {
    Ok(Identity::load_public(files)?.server())
}

/// For opportunistic TLS to strangers: encrypts, believes any certificate (RFC 7435).
pub fn opportunistic_client() -> Arc<rustls::ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(verify::AnyServer(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

/// For strangers whose certificate must be theirs: it leads to one of these authorities (PEM, as distributions keep them) and names
/// the host that is asked for.
pub fn verifying_client(authorities: &Path) -> Result<Arc<rustls::ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    // A bundle may hold some that cannot be used, of old forms; it must hold one that can.
    let (used, unused) = roots.add_parsable_certificates(identity::certificates(authorities)?);
    if used == 0 {
        return Err(in_file(
            authorities,
            format!("none of its {unused} certificates can be used"),
        ));
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The DNS names in a leaf certificate (DER), in lower case; none when it cannot be read.
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(alternatives)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let names = alternatives.value.general_names.iter();
    names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Whether a verified peer chain (DER, leaf first) names one of the roles. It looks at names alone: the chain must
/// have been verified by the handshake of an [`Identity`].
pub fn has_role(certificates: &[Vec<u8>], roles: &[Role]) -> bool {
    let leaf = certificates.first();
    leaf.is_some_and(|leaf| {
        let names = names(leaf);
        roles
            .iter()
            .any(|role| names.iter().any(|name| name == role.name()))
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For errors: which file, and what is wrong with it.
fn in_file(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests;
