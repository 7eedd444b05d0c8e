//! A message as the spool takes, keeps and describes it. Never its recipients: those stand in batches.

use bytes::Bytes;
use mail::{MailParameters, MessageId, ReversePath, Timestamp};

use crate::NewBatch;

/// The envelope and the facts of a stored message: everything but its body and its recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its name here.
    pub id: MessageId,
    /// When the edge had the whole message. Its lane counts from here.
    pub arrival: Timestamp,
    /// When this spool accepted it, set by the engine in `accept`. The time after which mail is given up counts from here.
    pub accepted: Timestamp,
    /// MAIL FROM as it arrived.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// What the owner wants to remember of it, in the owner's own form (JSON, say), at most 64 KiB.
    pub facts: Bytes,
    /// Length of the body, bytes.
    pub body_bytes: u64,
}

/// A message to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// When the edge had it.
    pub arrival: Timestamp,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// The owner's facts.
    pub facts: Bytes,
    /// Header and body, CRLF lines; the concatenation of the parts.
    pub body: Vec<Bytes>,
    /// What is to be done with it. The order of the recipients in all batches is the order of [`Accepted::paths`].
    pub batches: Vec<NewBatch>,
}

/// Whether a forward-path of an ident was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Accepted now.
    New,
    /// Accepted with the same ident before: nothing was done, the sender is told 250 again.
    Again,
}

/// What became of an accepted message.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its name; where every path is [`Path::Again`] nothing was stored under it.
    pub id: MessageId,
    /// One a recipient, in the order of the batches.
    pub paths: Vec<Path>,
}
