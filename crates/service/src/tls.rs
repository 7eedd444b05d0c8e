//! Mutual TLS between the house's own hosts: certificates of the site's CA that name a node and its role, reloaded on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

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
    /// The DNS name.
    pub fn name(self) -> &'static str {
        todo!()
    }

    /// As the name a client asks for.
    pub fn server_name(self) -> ServerName<'static> {
        todo!()
    }
}

/// A node's own certificate and the CA it trusts. `reload` reads the files anew and keeps the old ones when the new are bad.
#[derive(Clone)]
pub struct Identity {
    _private: (),
}

impl Identity {
    /// Reads and checks the files: the key fits, the chain leads to the CA, nothing has expired.
    pub fn load(files: &Files) -> Result<Self, String> {
        todo!("{files:?}")
    }

    /// Reads the files anew.
    pub fn reload(&self) -> Result<(), String> {
        todo!()
    }

    /// For servers: clients must show a certificate of the site's CA.
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }

    /// For clients: the server must show one with the role asked for as server name.
    pub fn client(&self) -> Arc<rustls::ClientConfig> {
        todo!()
    }

    /// Seconds until the first certificate of the chain expires; negative when it has.
    pub fn seconds_left(&self) -> i64 {
        todo!()
    }
}

/// For a public server: the certificate alone, no client certificates asked for.
pub fn public_server(files: &Files) -> Result<Arc<rustls::ServerConfig>, String> {
    todo!("{files:?}")
}

/// For opportunistic TLS to strangers: encrypts, believes any certificate (RFC 7435).
pub fn opportunistic_client() -> Arc<rustls::ClientConfig> {
    todo!()
}

/// The DNS names in a leaf certificate (DER).
pub fn names(certificate: &[u8]) -> Vec<String> {
    todo!("{}", certificate.len())
}
