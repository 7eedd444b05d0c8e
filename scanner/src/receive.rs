//! LMTP in: who may talk to us, and handing each whole message to `transaction`.

use std::sync::Arc;

use bytes::Bytes;
use mail::verdict::Keys;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use service::tls::{self, Identity, Role};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts};
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::transaction::{self, Rooms};

/// Who may hand us mail over mutual TLS. A balancer does not: it splices, the TLS is the edge's.
const PEERS: [Role; 1] = [Role::MxEdge];

/// What all sessions share.
pub struct Reception {
    /// The rooms behind.
    pub rooms: Rooms,
    /// The configuration in force.
    pub config: watch::Receiver<Config>,
    /// Secrets of verdict tokens, changed on reload.
    pub keys: watch::Receiver<Keys>,
    /// Our certificate; without it only loopback talks to us.
    pub identity: Option<Identity>,
    /// Memory for all messages in flight, in KiB permits.
    pub memory_kib: Arc<Semaphore>,
}

impl Reception {
    /// How the server behaves under the configuration in force.
    pub fn settings(&self) -> Settings {
        let config = self.config.borrow().clone();
        let hostname = Domain::parse(&config.hostname);
        Settings {
            protocol: Protocol::Lmtp,
            hostname: hostname.expect("checked when the configuration was read"),
            message_bytes_max: config.receive.message_bytes_max,
            recipients_max: config.receive.recipients_max,
            errors_max: 20,
            bare_newline: BareNewline::Normalize,
            tls: self.identity.as_ref().map(Identity::server),
            tls_required: self.identity.is_some(),
            xforward: true,
            keywords_off: Vec::new(),
            timeouts: Timeouts {
                command: std::time::Duration::from_secs(300),
                data_block: std::time::Duration::from_secs(180),
                handshake: std::time::Duration::from_secs(30),
                session: std::time::Duration::from_secs(3600),
            },
            guard: smtp::server::Guard::default(),
            memory_kib: self.memory_kib.clone(),
        }
    }
}

/// One session.
pub struct Session(pub Arc<Reception>);

impl Session {
    /// Whether the peer is one of ours: by certificate, or without certificates by being on this host.
    fn trusted(&self, facts: &Facts) -> Result<(), Reply> {
        if self.0.identity.is_none() {
            return match facts.client.ip().is_loopback() {
                true => Ok(()),
                false => Err(Reply::new(554, (5, 7, 1), "not from this host")),
            };
        }
        let certificates = facts.tls.as_ref().map(|tls| &tls.peer_certificates);
        let names = certificates
            .and_then(|chain| chain.first())
            .map(|leaf| tls::names(leaf))
            .unwrap_or_default();
        match PEERS
            .iter()
            .any(|role| names.iter().any(|name| name == role.name()))
        {
            true => Ok(()),
            false => Err(Reply::new(
                554,
                (5, 7, 1),
                "your certificate does not name the role mx-edge",
            )),
        }
    }
}

#[async_trait::async_trait]
impl Handler for Session {
    async fn mail(
        &mut self,
        facts: &Facts,
        _reverse_path: &ReversePath,
        _parameters: &MailParameters,
        _size: Option<u64>,
    ) -> Result<(), Reply> {
        self.trusted(facts)
    }

    async fn rcpt(
        &mut self,
        _facts: &Facts,
        _envelope: &Envelope,
        _recipient: &Recipient,
    ) -> Result<(), Reply> {
        Ok(())
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply> {
        let reception = &self.0;
        let config = reception.config.borrow().clone();
        let keys = reception.keys.borrow().clone();
        let rooms = &reception.rooms;
        transaction::answer(rooms, &config, &keys, facts, envelope, &message, presence).await
    }
}
