//! The client: one connection, any number of transactions, a reply for each recipient.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Envelope, Reply};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::Protocol;
use crate::xforward::Xforward;

mod channel;
mod connection;
mod flight;
pub mod reply;
#[cfg(test)]
mod tests;
mod transaction;

use connection::Connection;

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

/// What was said of one recipient, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it answers; [`Phase::Helo`] for what was not sent because of what the server does not offer.
    pub phase: Phase,
    /// The reply.
    pub reply: Reply,
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
    /// This host cannot connect from the address it was told to.
    #[error("this host has no address {0} to connect from: {1}")]
    NoSource(IpAddr, std::io::Error),
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
    /// The TLS handshake failed; with an opportunistic policy the caller may try again in the clear.
    #[error("TLS handshake: {0}")]
    Tls(std::io::Error),
    /// Not SMTP.
    #[error("not an SMTP reply: {0}")]
    Protocol(String),
}

impl Cause {
    fn at(self, phase: Phase) -> Trouble {
        Trouble { phase, cause: self }
    }
}

/// A connection that is ready for a transaction.
pub struct Client {
    connection: Connection<TcpStream>,
}

impl Client {
    /// Connects, reads the greeting, says EHLO or LHLO, starts TLS as the policy wants and says EHLO again.
    pub async fn connect(address: SocketAddr, options: &Options) -> Result<Self, Trouble> {
        Self::over(dial(address, options).await?, options).await
    }

    /// [`Self::connect`] without its first step, over what [`dial`] has connected.
    pub async fn over(stream: TcpStream, options: &Options) -> Result<Self, Trouble> {
        let connection = Connection::open(stream, options).await?;
        Ok(Self { connection })
    }

    /// Whether the server's last EHLO reply offered a keyword.
    pub fn offers(&self, keyword: &str) -> bool {
        self.connection.offered(keyword).is_some()
    }

    /// Hands on what is known of the original client; does nothing where the server does not offer XFORWARD.
    /// Goes out in one flight with the next [`Client::send`], and is about that message alone.
    pub async fn xforward(&mut self, attributes: &Xforward) -> Result<(), Trouble> {
        self.connection.xforward(attributes);
        Ok(())
    }

    /// One transaction. The message is the concatenation of `parts`, CRLF lines, dots not stuffed. Returns a reply for each
    /// recipient in order: the refusal of MAIL, of its RCPT, of DATA, or the reply to the message (its own in LMTP).
    /// The connection can be used again after `Ok`; when the server has closed it meanwhile, the next use says so and
    /// nothing of that transaction was accepted. The future may be dropped; after that the connection is of no more use.
    ///
    /// A recipient that needs SMTPUTF8 where it is not offered is answered 553 5.6.7 here, without asking the server, and so is a
    /// message that is larger than the server says it takes, 552 5.3.4. 8-bit text goes out as it is where 8BITMIME is not offered,
    /// which RFC 6152 3 does not want: converted, no signature of the author's would hold, and nothing in use cuts the bit off.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        parts: &[Bytes],
    ) -> Result<Vec<Reply>, Trouble> {
        let answers = self.answers(envelope, parts).await?;
        Ok(answers.into_iter().map(|answer| answer.reply).collect())
    }

    /// [`Self::send`], with where in the dialogue each reply was given.
    pub async fn answers(
        &mut self,
        envelope: &Envelope,
        parts: &[Bytes],
    ) -> Result<Vec<Answer>, Trouble> {
        self.connection.send(envelope, parts).await
    }

    /// QUIT, and waits for its reply no longer than `timeouts.rest`.
    pub async fn quit(self) {
        self.connection.quit().await;
    }
}

/// A TCP connection, from `options.source` and within `options.timeouts.connect`.
pub async fn dial(address: SocketAddr, options: &Options) -> Result<TcpStream, Trouble> {
    let connecting = timeout(options.timeouts.connect, connect(address, options.source));
    match connecting.await {
        Ok(connected) => connected.map_err(|cause| cause.at(Phase::Connect)),
        Err(_) => Err(Cause::TimedOut.at(Phase::Connect)),
    }
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, Cause> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| Cause::NoSource(source, error))?;
    }
    // Every write is a whole flight: waiting for more would only meet the peer's delayed acknowledgement.
    socket.set_nodelay(true)?;
    Ok(socket.connect(address).await?)
}
