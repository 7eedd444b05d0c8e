//! The client: one connection, any number of transactions, a reply for each recipient.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Envelope, Reply};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Protocol;
use crate::xforward::Xforward;

/// How to connect.
#[derive(Clone)]
pub struct Options {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// What we call ourselves in EHLO or LHLO.
    pub helo: Box<str>,
    /// Whether STARTTLS is used.
    pub tls: TlsPolicy,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// Use BDAT where the server offers CHUNKING.
    pub chunking: bool,
}

/// Whether STARTTLS is used.
#[derive(Clone)]
pub enum TlsPolicy {
    /// Never: loopback, or a route configured so.
    Never,
    /// When offered, whatever the certificate; in the clear when the handshake fails is the caller's retry (RFC 7435).
    Opportunistic(Arc<ClientConfig>, ServerName<'static>),
    /// Always, verified as the configuration says; otherwise no mail.
    Required(Arc<ClientConfig>, ServerName<'static>),
}

/// Deadlines by phase; the defaults are RFC 5321 4.5.3.2's.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// TCP connect [30 s, Postfix].
    pub connect: Duration,
    /// 220 [300 s].
    pub greeting: Duration,
    /// EHLO, STARTTLS and the handshake [300 s].
    pub helo: Duration,
    /// MAIL [300 s].
    pub mail: Duration,
    /// RCPT [300 s].
    pub rcpt: Duration,
    /// 354 after DATA [120 s].
    pub data_start: Duration,
    /// Each block of the message [180 s].
    pub data_block: Duration,
    /// The reply to the final dot [600 s].
    pub data_end: Duration,
    /// RSET, NOOP and QUIT [5 s].
    pub rest: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            connect: s(30),
            greeting: s(300),
            helo: s(300),
            mail: s(300),
            rcpt: s(300),
            data_start: s(120),
            data_block: s(180),
            data_end: s(600),
            rest: s(5),
        }
    }
}

/// Where in the dialogue a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// TCP.
    Connect,
    /// 220.
    Greeting,
    /// EHLO, LHLO, STARTTLS.
    Helo,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or BDAT, until the message is sent.
    Data,
    /// The message is sent, its reply has not come: it may have been accepted.
    End,
    /// RSET, NOOP, QUIT.
    Rest,
}

/// Why a connection is of no more use. The envelope's fate: nothing of it was accepted, unless `phase` is [`Phase::End`].
#[derive(Debug, thiserror::Error)]
#[error("{phase:?}: {cause}")]
pub struct Trouble {
    /// Where it happened.
    pub phase: Phase,
    /// What happened.
    pub cause: Cause,
}

/// What happened to a connection.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The network.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A deadline of [`Timeouts`].
    #[error("no answer in time")]
    TimedOut,
    /// The peer closed the connection.
    #[error("connection closed")]
    Closed,
    /// The peer refuses to talk: greeting, EHLO or a 421.
    #[error("{0}")]
    Refused(Reply),
    /// STARTTLS is required and not offered, or refused.
    #[error("STARTTLS is not offered")]
    NoTls,
    /// Not SMTP.
    #[error("not an SMTP reply: {0}")]
    Protocol(String),
}

/// A connection that is ready for a transaction.
pub struct Client {
    _private: (),
}

impl Client {
    /// Connects, reads the greeting, says EHLO or LHLO, starts TLS as the policy wants and says EHLO again.
    pub async fn connect(address: SocketAddr, options: &Options) -> Result<Self, Trouble> {
        let _ = (address, options);
        todo!()
    }

    /// Whether the server's last EHLO reply offered a keyword.
    pub fn offers(&self, keyword: &str) -> bool {
        todo!("{keyword}")
    }

    /// Hands on what is known of the original client; does nothing where the server does not offer XFORWARD.
    pub async fn xforward(&mut self, attributes: &Xforward) -> Result<(), Trouble> {
        let _ = attributes;
        todo!()
    }

    /// One transaction. The message is the concatenation of `parts`, CRLF lines, dots not stuffed. Returns a reply for each
    /// recipient in order: the refusal of MAIL, of its RCPT, of DATA, or the reply to the message (its own in LMTP).
    /// The connection can be used again after `Ok`.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        parts: &[Bytes],
    ) -> Result<Vec<Reply>, Trouble> {
        let _ = (envelope, parts);
        todo!()
    }

    /// QUIT, and waits for its reply no longer than `timeouts.rest`.
    pub async fn quit(self) {
        todo!()
    }
}
