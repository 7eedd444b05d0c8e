//! The server's driver: moves bytes between one socket and one session, asks a [`Handler`] what to answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use tokio::sync::{Semaphore, watch};

use crate::Protocol;
use crate::xforward::Xforward;

mod ask;
mod driver;
mod secure;
#[cfg(test)]
mod tests;

pub use crate::data::BareNewline;

/// How a server behaves; one for all its sessions, replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The name in the greeting and the EHLO reply.
    pub hostname: Domain,
    /// Largest message, bytes; announced by SIZE, held at MAIL and while the message streams in.
    pub message_bytes_max: u64,
    /// RCPT commands accepted in one transaction; more get 452 4.5.3.
    pub recipients_max: usize,
    /// Errors (unknown commands, refused recipients) after which the session ends with 421 4.7.0.
    pub errors_max: usize,
    /// A bare CR or LF in a message.
    pub bare_newline: BareNewline,
    /// The certificate; offers STARTTLS when there is one.
    pub tls: Option<Arc<rustls_config::ServerConfig>>,
    /// Refuse MAIL with 530 5.7.0 before STARTTLS. Never on a public MX (RFC 3207 4).
    pub tls_required: bool,
    /// Offer and believe XFORWARD.
    pub xforward: bool,
    /// EHLO keywords that are not offered and not understood (`CHUNKING`, `DSN`, `SMTPUTF8`, `PIPELINING` ...).
    pub keywords_off: Vec<String>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Memory that all messages in flight share, in KiB permits; without any left a message is answered 452 4.3.1.
    pub memory_kib: Arc<Semaphore>,
}

/// rustls, as tokio-rustls brings it.
pub mod rustls_config {
    pub use tokio_rustls::rustls::ServerConfig;
}

/// Deadlines of a session.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the next command [300 s, RFC 5321 4.5.3.2.7].
    pub command: Duration,
    /// For the next block of a message [180 s].
    pub data_block: Duration,
    /// For the TLS handshake [30 s].
    pub handshake: Duration,
    /// For the whole session [3600 s].
    pub session: Duration,
}

/// What is known of the client at any moment of a session.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The session's id for logs: unique in this process's life, and practically across them.
    pub session: Box<str>,
    /// The client's address and port, behind a PROXY header the one it names. IPv4-mapped IPv6 is IPv4.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// The argument of HELO, EHLO or LHLO, cleaned; empty before.
    pub helo: Box<str>,
    /// EHLO or LHLO was used.
    pub extended: bool,
    /// The TLS session, if any.
    pub tls: Option<Tls>,
    /// What a trusted proxy told about the original client.
    pub xforward: Xforward,
}

/// A session's TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `TLSv1.3`.
    pub version: Box<str>,
    /// `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
    /// The client's verified certificate chain in DER, leaf first; empty when it showed none.
    pub peer_certificates: Arc<Vec<Vec<u8>>>,
}

/// Tells whether the client still waits.
#[derive(Clone, Debug)]
pub struct Presence(pub watch::Receiver<bool>);

impl Presence {
    /// Whether the client has closed its connection.
    pub fn gone(&self) -> bool {
        !*self.0.borrow()
    }
}

/// What a program answers. Called in the order of the dialogue; a refusal leaves the transaction as it was.
#[async_trait::async_trait]
pub trait Handler: Send {
    /// The connection stands, nothing was said yet. `Err` (421, 554, 521) is said instead of the greeting and ends the session.
    async fn connect(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// HELO, EHLO or LHLO, also again after STARTTLS.
    async fn helo(&mut self, facts: &Facts) -> Result<(), Reply> {
        let _ = facts;
        Ok(())
    }

    /// MAIL. `size` is what the client announced; larger than `message_bytes_max` never comes here.
    async fn mail(
        &mut self,
        facts: &Facts,
        reverse_path: &ReversePath,
        parameters: &MailParameters,
        size: Option<u64>,
    ) -> Result<(), Reply>;

    /// RCPT; `envelope` holds the recipients accepted so far.
    async fn rcpt(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply>;

    /// The whole message, CRLF lines, dots unstuffed. SMTP: exactly one reply. LMTP: one a recipient, in order.
    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply>;

    /// RSET, or EHLO, STARTTLS, the end of a message: the transaction is over.
    fn reset(&mut self) {}
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client closed or reset the connection outside QUIT.
    Lost,
    /// The client was too slow.
    TimedOut,
    /// Too many errors, or a refusal at connect.
    Refused,
    /// We are shutting down: 421 4.3.2 between two transactions.
    Shutdown,
    /// The TLS handshake failed.
    Tls,
}

/// Serves one connection to its end. `stop` turning true ends it with 421 before the next transaction, never within one.
pub async fn serve<H: Handler>(
    stream: tokio::net::TcpStream,
    client: SocketAddr,
    settings: Arc<Settings>,
    handler: &mut H,
    stop: watch::Receiver<bool>,
) -> Ending {
    // Replies are written a group at a time; waiting for more to send would only add a round trip.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else {
        return Ending::Lost;
    };
    driver::serve_on(stream, client, local, settings, handler, stop).await
}
