//! For tests: settings, a handler that decides by address, and certificates.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use mail::{Address, Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use tokio::sync::Semaphore;

use crate::Protocol;
use crate::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts};

pub fn settings(protocol: Protocol) -> Settings {
    Settings {
        protocol,
        hostname: Domain::parse("mx.example").unwrap(),
        message_bytes_max: 1 << 20,
        recipients_max: 100,
        errors_max: 20,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: false,
        keywords_off: Vec::new(),
        timeouts: Timeouts::default(),
        guard: crate::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(16 << 10)),
    }
}

pub fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse(sender).unwrap(),
        parameters: MailParameters::default(),
        recipients: recipients
            .iter()
            .map(|recipient| Address::parse(recipient).unwrap().into())
            .collect(),
    }
}

/// What a [`Decider`] was handed.
#[derive(Clone, Debug)]
pub struct Taken {
    pub facts: Facts,
    pub envelope: Envelope,
    pub message: Bytes,
}

/// Refuses local parts that begin with a code: `550-x@...` at RCPT and MAIL; `data-451-x@...` at the end of the message.
pub struct Decider {
    pub protocol: Protocol,
    pub taken: Arc<Mutex<Vec<Taken>>>,
    pub resets: usize,
}

impl Decider {
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            taken: Arc::default(),
            resets: 0,
        }
    }

    /// What an address stands for.
    pub fn decide(local: &str, prefix: &str) -> Result<(), Reply> {
        let code = local.strip_prefix(prefix).and_then(|rest| rest.get(..4));
        match code
            .and_then(|code| code.strip_suffix('-'))
            .and_then(|code| code.parse().ok())
        {
            Some(code @ 400..600) => {
                let class = u8::try_from(code / 100).unwrap();
                Err(Reply::new(code, (class, 7, 1), "decided so"))
            }
            _ => Ok(()),
        }
    }

    pub fn decide_message(&self, envelope: &Envelope) -> Vec<Reply> {
        let ok = || Reply::new(250, (2, 0, 0), "taken");
        let replies = envelope.recipients.iter().map(|recipient| {
            Self::decide(recipient.address.local(), "data-")
                .err()
                .unwrap_or_else(ok)
        });
        match self.protocol {
            Protocol::Lmtp => replies.collect(),
            Protocol::Smtp => {
                let replies: Vec<Reply> = replies.collect();
                let refusal = replies.iter().find(|reply| !reply.is_positive());
                vec![refusal.unwrap_or(&replies[0]).clone()]
            }
        }
    }
}

#[async_trait::async_trait]
impl Handler for Decider {
    async fn mail(
        &mut self,
        _: &Facts,
        reverse_path: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        Self::decide(
            reverse_path.address().map_or("", |address| address.local()),
            "",
        )
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, recipient: &Recipient) -> Result<(), Reply> {
        Self::decide(recipient.address.local(), "")
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        _: &Presence,
    ) -> Vec<Reply> {
        let (facts, envelope) = (facts.clone(), envelope.clone());
        let replies = self.decide_message(&envelope);
        self.taken.lock().unwrap().push(Taken {
            facts,
            envelope,
            message,
        });
        replies
    }

    fn reset(&mut self) {
        self.resets += 1;
    }
}

/// A server's configuration with a certificate for `mx.example`, and a client's that trusts it.
pub fn certificate() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let (ca, identity) = authority();
    let (chain, key) = identity.issue("mx.example");
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let client = ClientConfig::builder()
        .with_root_certificates(ca)
        .with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

/// A server that demands a client certificate, a client that has one, and one that has none.
pub fn mutual() -> (Arc<ServerConfig>, Arc<ClientConfig>, Arc<ClientConfig>) {
    let (ca, identity) = authority();
    let (chain, key) = identity.issue("mx.example");
    let verifier = WebPkiClientVerifier::builder(Arc::new(ca.clone()))
        .build()
        .unwrap();
    let server = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let (chain, key) = identity.issue("client.example");
    let client = ClientConfig::builder().with_root_certificates(ca.clone());
    let client = client.with_client_auth_cert(chain, key).unwrap();
    let bare = ClientConfig::builder()
        .with_root_certificates(ca)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client), Arc::new(bare))
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (vec![certificate.der().clone()], key)
    }
}

fn authority() -> (RootCertStore, Authority) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap();
    let mut store = RootCertStore::empty();
    store.add(certificate.der().clone()).unwrap();
    (
        store,
        Authority {
            issuer: Issuer::new(parameters, key),
        },
    )
}
