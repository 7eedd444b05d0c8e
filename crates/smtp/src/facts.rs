//! What is known of a session: who the client is, how it is encrypted, how it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::xforward::Xforward;

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
    /// The message had a bare CR or LF, where that is told.
    pub bare_newline: bool,
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

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client closed or reset the connection outside QUIT.
    Lost,
    /// The client was too slow.
    TimedOut,
    /// A refusal at connect, before the greeting or after it spoke too early.
    Refused,
    /// Too many errors: 421 4.7.0.
    Errors,
    /// Sent ahead what must not be sent ahead: 554 5.5.0 (RFC 2920 3.1).
    Pipelined,
    /// Spoke another protocol, or what follows can be told neither from a chunk nor from commands.
    Foreign,
    /// We are shutting down: 421 4.3.2 between two transactions.
    Shutdown,
    /// The TLS handshake failed.
    Tls,
}
