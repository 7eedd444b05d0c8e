//! A node's own certificate and the CA it trusts, as one value that a reload replaces whole.
//! The rustls configurations stay; they ask for the value in force at each handshake.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::verify::{Clients, Servers};
use super::{Files, in_file, provider};
use crate::trouble::StartError;

/// A node's own certificate and the CA it trusts. `reload` reads the files anew and keeps the old ones when the new are bad.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What the configurations ask at each handshake.
pub(super) struct Shared {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Current>>,
}

/// One reading of the files.
pub(super) struct Current {
    key: Arc<CertifiedKey>,
    /// `None` for a public server.
    pub(super) trust: Option<Trust>,
    /// The DNS names of the leaf, in lower case.
    names: Vec<String>,
    /// When the first certificate of the chain expires, in Unix seconds.
    expires: i64,
}

/// The site's CA, both ways.
pub(super) struct Trust {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
}

impl Identity {
    /// Reads and checks the files: the key fits, the chain leads to the CA, nothing has expired.
    pub fn load(files: &Files) -> Result<Self, String> {
        if files.authority.is_none() {
            return Err(in_file(
                &files.certificate,
                "mutual TLS needs the site's CA; set `authority` beside `certificate`",
            ));
        }
        Self::read(files)
    }

    /// The certificate of `[inside]`, where a configuration has one.
    pub fn inside(files: Option<&Files>) -> Result<Option<Self>, StartError> {
        let error = |why| StartError {
            what: "load the certificate of [inside]".into(),
            why,
            remedy: "make it with the command `ca node`".into(),
        };
        files.map(Self::load).transpose().map_err(error)
    }

    /// [`Identity::load`] for a public server: `authority` may be absent, then clients are not asked for certificates, and
    /// [`Identity::client`] believes nobody.
    pub fn load_public(files: &Files) -> Result<Self, String> {
        Self::read(&Files {
            authority: None,
            ..files.clone()
        })
    }

    fn read(files: &Files) -> Result<Self, String> {
        let provider = provider();
        let current = Current::read(files, &provider)?;
        let shared = Arc::new(Shared {
            files: files.clone(),
            provider,
            current: RwLock::new(Arc::new(current)),
        });
        Ok(Self {
            server: server_config(&shared),
            client: client_config(&shared),
            shared,
        })
    }

    /// Reads the files anew; on an error the old ones stay in force. New connections use them at once.
    pub fn reload(&self) -> Result<(), String> {
        let current = Current::read(&self.shared.files, &self.shared.provider)?;
        let mut place = self
            .shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(current);
        Ok(())
    }

    /// For servers: clients must show a certificate of the site's CA.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For clients: the server must show one with the role asked for as server name.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }

    /// Seconds until the first certificate of the chain expires; negative when it has.
    pub fn seconds_left(&self) -> i64 {
        self.shared.current().expires - OffsetDateTime::now_utc().unix_timestamp()
    }

    /// The public key of the leaf (DER, SubjectPublicKeyInfo): what a TLSA record is made of (RFC 6698 2.1.2).
    pub fn public_key(&self) -> Result<Vec<u8>, String> {
        let current = self.shared.current();
        let (_, parsed) = x509_parser::parse_x509_certificate(&current.key.cert[0])
            .map_err(|error| in_file(&self.shared.files.certificate, error))?;
        Ok(parsed.public_key().raw.to_vec())
    }

    /// The DNS names of the leaf, in lower case.
    pub fn names(&self) -> Vec<String> {
        self.shared.current().names.clone()
    }

    /// The key to show to a client, if it names `name` and the client understands it.
    pub(super) fn serves(
        &self,
        name: &str,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let current = self.shared.current();
        let covered = current.names.iter().any(|own| super::covers(own, name));
        let understood = current.key.key.choose_scheme(schemes).is_some();
        (covered && understood).then(|| current.key.clone())
    }

    /// The key to show to a client that asks for nothing we have.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.shared.current().key.clone()
    }

    /// The files it was read from.
    pub fn files(&self) -> &Files {
        &self.shared.files
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.shared.files).finish()
    }
}

impl Shared {
    pub(super) fn current(&self) -> Arc<Current> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    pub(super) fn provider(&self) -> &CryptoProvider {
        &self.provider
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.files).finish()
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

impl ResolvesClientCert for Shared {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn server_config(shared: &Arc<Shared>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(shared.provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3");
    if shared.current().trust.is_none() {
        return Arc::new(
            builder
                .with_no_client_auth()
                .with_cert_resolver(shared.clone()),
        );
    }
    let mut config = builder
        .with_client_cert_verifier(Arc::new(Clients(shared.clone())))
        .with_cert_resolver(shared.clone());
    // A resumed session would skip the verification that a reload may have changed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn client_config(shared: &Arc<Shared>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(shared.provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers(shared.clone())))
        .with_client_cert_resolver(shared.clone());
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

impl Current {
    fn read(files: &Files, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let chain = certificates(&files.certificate)?;
        let pem = crate::config::secret(&files.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| in_file(&files.key, format!("no private key in PEM: {error}")))?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let certificate = files.certificate.display();
            in_file(&files.key, format!("does not fit {certificate}: {error}"))
        })?;
        let expires = expiry(&files.certificate, &key.cert)?;
        let trust = match &files.authority {
            Some(path) => Some(Trust::read(path, provider)?),
            None => None,
        };
        if let (Some(path), Some((_, roots))) = (&files.authority, &trust) {
            leads_to(&key.cert, roots, provider).map_err(|error| {
                let authority = path.display();
                in_file(
                    &files.certificate,
                    format!("does not lead to {authority}: {error}"),
                )
            })?;
        }
        Ok(Self {
            names: super::names(&key.cert[0]),
            key: Arc::new(key),
            trust: trust.map(|(trust, _)| trust),
            expires,
        })
    }
}

impl Trust {
    fn read(
        path: &Path,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Self, Arc<RootCertStore>), String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| in_file(path, error))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
        let trust = Self {
            clients: clients.build().map_err(|error| in_file(path, error))?,
            servers: servers.build().map_err(|error| in_file(path, error))?,
        };
        Ok((trust, roots))
    }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| in_file(path, error))?;
    let read: Result<Vec<_>, _> = read.collect();
    let read = read.map_err(|error| in_file(path, error))?;
    if read.is_empty() {
        return Err(in_file(path, "no certificate in PEM"));
    }
    Ok(read)
}

/// When the first of the chain expires; an error when one has, or is not valid yet.
fn expiry(path: &Path, chain: &[CertificateDer<'_>]) -> Result<i64, String> {
    let now = OffsetDateTime::now_utc();
    let mut first = i64::MAX;
    for certificate in chain {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| in_file(path, error))?;
        let validity = parsed.validity();
        let (from, until) = (
            validity.not_before.to_datetime(),
            validity.not_after.to_datetime(),
        );
        let when = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        if until < now {
            let error = format!("expired at {}; make or fetch a new one", when(until));
            return Err(in_file(path, error));
        }
        if from > now {
            let error = format!("valid only from {}; is the clock right?", when(from));
            return Err(in_file(path, error));
        }
        first = first.min(until.unix_timestamp());
    }
    Ok(first)
}

/// As our peers will check it, but for the name.
fn leads_to(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    provider: &CryptoProvider,
) -> Result<(), rustls::Error> {
    let (leaf, intermediates) = chain
        .split_first()
        .expect("certificates() gives at least one");
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        intermediates,
        UnixTime::now(),
        provider.signature_verification_algorithms.all,
    )
}
