//! How a server behaves: limits, deadlines, what it offers. Read by sessions and by the driver, owned by the program.

use std::sync::Arc;
use std::time::Duration;

use mail::Domain;
use tokio::sync::Semaphore;
use tokio_rustls::rustls::ServerConfig;

use crate::Protocol;
use crate::data::BareNewline;

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
    pub tls: Option<Arc<ServerConfig>>,
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
