//! `[tls]`: the certificates that clients see.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use service::tls::Files;

/// `[tls]`: files in PEM. No CA, since strangers are not asked for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Further ones, for clients that ask for their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<MoreCertificates>,
}

/// `[[tls.more]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreCertificates {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl PublicCertificate {
    /// As the service crate reads them, the one for everybody first.
    pub fn files(&self) -> Vec<Files> {
        let first = (&self.certificate, &self.key);
        let more = self.more.iter().map(|more| (&more.certificate, &more.key));
        let all = std::iter::once(first).chain(more);
        all.map(|(certificate, key)| Files {
            certificate: certificate.clone(),
            key: key.clone(),
            authority: None,
        })
        .collect()
    }
}
