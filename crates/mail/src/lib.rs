//! What mail is made of, as pure values: addresses, envelopes, replies, verdicts, traces, identifiers.
//!
//! Nothing here opens a file, a socket or a database. Every parser of foreign bytes is total: it returns an error that
//! says what is wrong, it never panics, and its work is bounded by the length of its input.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod authres;
pub mod directory;
pub mod dsn;
pub mod envelope;
pub mod header;
pub mod id;
#[cfg(test)]
mod mutation;
pub mod recipient;
pub mod reply;
pub mod structure;
pub mod timestamp;
pub mod trace;
pub mod verdict;

pub use address::{Address, Domain, ReversePath};
pub use envelope::{Body, Envelope, MailParameters, RcptParameters, Recipient};
pub use id::{Ident, MessageId};
pub use reply::{EnhancedStatus, Reply, Severity};
pub use timestamp::Timestamp;
