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

/// What a session refused on its own account, before anybody was asked: for figures of what clients do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objection {
    /// A command that is none, or whose arguments cannot be read.
    Syntax,
    /// A command where it may not come, or that is not offered.
    Sequence,
    /// MAIL that cannot be read: what it gives is no address, or a parameter is not known.
    Sender,
    /// MAIL that announces more than is taken (RFC 1870 6.1).
    Announced,
    /// RCPT that cannot be read, within a transaction.
    Recipient,
    /// RCPT beyond what one transaction may have (RFC 5321 4.5.3.1.10).
    Recipients,
    /// A message that came and is larger than is taken.
    TooLarge,
    /// A message with a bare CR or LF, where these are refused.
    BareNewline,
    /// A message for which there was no memory.
    NoMemory,
    /// One of too many commands that bring no message on; it was followed all the same.
    Junk,
}

impl Objection {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Syntax,
        Self::Sequence,
        Self::Sender,
        Self::Announced,
        Self::Recipient,
        Self::Recipients,
        Self::TooLarge,
        Self::BareNewline,
        Self::NoMemory,
        Self::Junk,
    ];

    /// The word in logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Sequence => "sequence",
            Self::Sender => "sender_syntax",
            Self::Announced => "announced_too_large",
            Self::Recipient => "recipient_syntax",
            Self::Recipients => "too_many_recipients",
            Self::TooLarge => "too_large",
            Self::BareNewline => "bare_newline",
            Self::NoMemory => "no_memory",
            Self::Junk => "junk_commands",
        }
    }
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
