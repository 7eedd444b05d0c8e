//! Takes what a sibling hands over: checks that it is one, and makes each message durable under the name of its hand-over.

use std::sync::Arc;

use bytes::Bytes;
use mail::trace::Trace;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use serde_json::json;
use service::tls::{Identity, Role, has_role};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Guard, Handler, Presence, Settings, Timeouts};
use spool::{Class, NewBatch, NewMessage, Path, Spool};
use tokio::sync::Semaphore;
use tracing::{error, info};

use super::{Label, open};
use crate::config::SPOOL_MESSAGE_BYTES_MAX;
use crate::facts::MessageFacts;
use crate::receive::Edge;

/// Our two fields in front of what a sibling keeps.
const FIELDS_BYTES_MAX: u64 = 64 * 1024;
/// Siblings' connections at once.
pub const SESSIONS_MAX: usize = 64;
/// Messages in memory at once, so many times the largest.
const MEMORY_MESSAGES: u64 = 4;

/// What all sessions with siblings share.
pub struct Taker {
    /// Whose figures it counts in.
    pub edge: Arc<Edge>,
    /// Where it is kept.
    pub spool: Arc<dyn Spool>,
    /// This node's certificate; without it only this host may hand over.
    pub identity: Option<Identity>,
}

impl Taker {
    /// How the server behaves.
    pub fn settings(&self, hostname: Domain) -> Settings {
        let message_bytes_max = SPOOL_MESSAGE_BYTES_MAX + FIELDS_BYTES_MAX;
        let kib = (MEMORY_MESSAGES * message_bytes_max).div_ceil(1024);
        let kib = usize::try_from(kib).unwrap_or(Semaphore::MAX_PERMITS);
        Settings {
            protocol: Protocol::Lmtp,
            hostname,
            message_bytes_max,
            recipients_max: 1000,
            errors_max: 100,
            bare_newline: BareNewline::Normalize,
            tls: self.identity.as_ref().map(Identity::server),
            tls_required: self.identity.is_some(),
            xforward: true,
            keywords_off: Vec::new(),
            timeouts: Timeouts::default(),
            guard: Guard::default(),
            memory_kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Whether it is an edge of this site, and this one takes mail at all: two that are drained would hand it to and fro.
    fn admits(&self, facts: &Facts) -> Result<(), Reply> {
        let is_sibling = match (&self.identity, &facts.tls) {
            (None, _) => facts.client.ip().is_loopback(),
            (Some(_), Some(tls)) => has_role(&tls.peer_certificates, &[Role::MxEdge]),
            (Some(_), None) => false,
        };
        if !is_sibling {
            let text = "mail is handed over by edges of this site alone: their certificate names the role mx-edge";
            return Err(Reply::new(554, (5, 7, 1), text));
        }
        if self.edge.is_draining() {
            let text = "this edge is being drained itself, hand over to another one";
            return Err(Reply::new(451, (4, 3, 2), text));
        }
        match self.spool.refuses() {
            Some(error) => Err(Reply::new(452, (4, 3, 1), error.to_string())),
            None => Ok(()),
        }
    }

    /// One reply a recipient.
    async fn accept(&self, facts: &Facts, envelope: &Envelope, message: &Bytes) -> Vec<Reply> {
        let count = envelope.recipients.len();
        let (label, trace, body) = match open(message) {
            Ok(opened) => opened,
            Err(why) => return vec![Reply::new(554, (5, 6, 0), why); count],
        };
        let kept = self.message(facts, envelope, &label, &trace, body);
        let key = format!("handover.{}", label.key);
        match self.spool.accept(kept, Some(&key)).await {
            Ok(accepted) => {
                let new = accepted.paths.iter().filter(|path| **path == Path::New);
                let new = new.count();
                let taken = &self.edge.metrics.taken;
                taken.with_label_values(&["handed_over"]).inc_by(new as u64);
                let to = envelope.recipients.iter();
                let to: Vec<String> = to.map(|to| to.address.to_string()).collect();
                self.edge.trail.add(json!({
                    "event": "taken_over",
                    "ident": trace.ident.as_str(),
                    "session": label.session,
                    "client": trace.client,
                    "from": envelope.reverse_path.to_string(),
                    "to": to,
                    "remote": facts.client.ip(),
                }));
                info!(
                    event = "handed_over",
                    direction = "in",
                    ident = %trace.ident,
                    session = label.session,
                    sibling = %facts.client.ip(),
                    recipients = new,
                    repeated = count - new
                );
                vec![Reply::new(250, (2, 0, 0), format!("kept as {}", trace.ident)); count]
            }
            Err(error) => {
                error!(event = "not_spooled", ident = %trace.ident, %error);
                vec![Reply::new(451, (4, 3, 0), error.to_string()); count]
            }
        }
    }

    fn message(
        &self,
        facts: &Facts,
        envelope: &Envelope,
        label: &Label,
        trace: &Trace,
        body: Bytes,
    ) -> NewMessage {
        let told = &facts.xforward;
        let of_message = MessageFacts {
            ident: trace.ident.clone(),
            session: label.session.as_str().into(),
            client: (trace.client, told.port.unwrap_or(0)).into(),
            helo: trace.helo.clone(),
            extended: told.proto.as_deref() != Some("SMTP"),
            spf: trace.spf,
            exempt: trace.exempt,
            held_by: label.rule.as_deref().map(Into::into),
        };
        let token = trace.verdict.as_deref().unwrap_or_default();
        NewMessage {
            arrival: trace.arrival,
            reverse_path: envelope.reverse_path.clone(),
            parameters: envelope.parameters.clone(),
            facts: of_message.to_bytes(),
            body: vec![body],
            batches: vec![NewBatch {
                destination: label.place.destination(),
                class: Class::Ordinary,
                due: mail::Timestamp::now(),
                recipients: envelope.recipients.clone(),
                template: Bytes::copy_from_slice(token.as_bytes()),
                replies: Default::default(),
            }],
        }
    }
}

/// A session with a sibling.
pub struct Session(pub Arc<Taker>);

#[async_trait::async_trait]
impl Handler for Session {
    async fn mail(
        &mut self,
        facts: &Facts,
        _reverse_path: &ReversePath,
        _parameters: &MailParameters,
        _size: Option<u64>,
    ) -> Result<(), Reply> {
        self.0.admits(facts)
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
        _presence: &Presence,
    ) -> Vec<Reply> {
        self.0.accept(facts, envelope, &message).await
    }
}
