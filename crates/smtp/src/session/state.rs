//! The states of a session, each with exactly the data that is valid in it.

use bytes::Bytes;
use mail::{Envelope, Recipient, Reply};

use crate::command::Mail;
use crate::data::{ChunkReader, Content, DotReader};
use crate::facts::Ending;

/// Where a session is, with exactly the data that is valid there.
#[derive(Debug)]
pub enum State {
    /// The handler is being asked.
    Asked(Asked),
    /// Greeted; HELO has not been said, or was forgotten by STARTTLS.
    Fresh,
    /// HELO has been said; no transaction.
    Ready,
    /// MAIL was accepted.
    Transaction(Envelope),
    /// Between two chunks of BDAT.
    Chunks(Box<Chunked>),
    /// After 354.
    Data {
        incoming: Box<Incoming>,
        reader: DotReader,
    },
    /// Within a chunk.
    Chunk {
        incoming: Box<Incoming>,
        reader: ChunkReader,
        left: u64,
        last: bool,
    },
    /// Within a chunk that was refused; `after` is where the reply leads.
    Discard {
        left: u64,
        reply: Reply,
        after: Box<State>,
    },
    /// STARTTLS was agreed to.
    Securing,
    /// Over.
    Closed(Ending),
}

/// A question on its way, with what its answer will need.
#[derive(Debug)]
pub enum Asked {
    Connect,
    Helo {
        extended: bool,
    },
    Mail(Mail),
    Rcpt {
        envelope: Envelope,
        recipient: Recipient,
    },
    StartTls {
        greeted: bool,
    },
    Message {
        envelope: Envelope,
        message: Bytes,
    },
}

/// A transaction whose message is being received.
#[derive(Debug)]
pub struct Incoming {
    pub envelope: Envelope,
    pub content: Content,
    /// The handler has been told that it is refused.
    pub told: bool,
}

/// A message of which some chunks have come.
#[derive(Debug)]
pub struct Chunked {
    pub incoming: Incoming,
    pub reader: ChunkReader,
}

impl State {
    /// Takes the state out for a transition, which must put one back.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Closed(Ending::Lost))
    }

    /// The transaction, where there is one.
    pub fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Transaction(envelope)
            | Self::Asked(Asked::Rcpt { envelope, .. } | Asked::Message { envelope, .. }) => {
                Some(envelope)
            }
            Self::Chunks(chunked) => Some(&chunked.incoming.envelope),
            Self::Data { incoming, .. } | Self::Chunk { incoming, .. } => Some(&incoming.envelope),
            Self::Discard { after, .. } => after.envelope(),
            _ => None,
        }
    }

    /// The message that is being received.
    pub fn content(&mut self) -> Option<&mut Content> {
        match self {
            Self::Data { incoming, .. } | Self::Chunk { incoming, .. } => {
                Some(&mut incoming.content)
            }
            _ => None,
        }
    }
}
