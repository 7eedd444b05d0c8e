//! LMTP in: who may talk to us, and handing each whole message to `transaction`.

use std::sync::Arc;

use bytes::Bytes;
use mail::verdict::Keys;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use service::tls::{Identity, Role, has_role};
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
            timeouts: Timeouts::default(),
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
        let (is_one, why) = match &self.0.identity {
            None => (facts.client.ip().is_loopback(), "not from this host"),
            Some(_) => (
                (facts.tls.as_ref()).is_some_and(|tls| has_role(&tls.peer_certificates, &PEERS)),
                "your certificate does not name the role mx-edge",
            ),
        };
        match is_one {
            true => Ok(()),
            false => Err(Reply::new(554, (5, 7, 1), why)),
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
