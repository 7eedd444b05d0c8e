//! The durable queue: messages, what is to be done with each (batches), and who is doing it (leases).
//!
//! [`Spool`] is the whole interface, the same for every engine. What `accept` and `settle` have returned is on stable storage.
//! The spool knows nothing of SMTP, lists or sites; it owns message files, and no other crate writes any.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod clock;
pub mod embedded;
mod error;
mod lane;
mod lease;
pub mod memory;
mod message;
mod tally;

pub use batch::{Batch, BatchId, Class, Destination, NewBatch};
pub use clock::Clock;
pub use error::{Error, Guarantees};
pub use lane::Lane;
pub use lease::{Destinations, Lease, Outcome, Seen, Settlement, Wanted};
pub use message::{Accepted, Head, NewMessage, Path};
pub use tally::Tally;

use bytes::Bytes;
use mail::MessageId;

/// The durable queue.
#[async_trait::async_trait]
pub trait Spool: Send + Sync + 'static {
    /// Stores a message and its batches, all or nothing, durably. With an ident, forward-paths accepted before under the same
    /// ident (also those still in flight) are left out of the batches and told as [`Path::Again`]; one that is repeated within
    /// the message stays repeated. Group commit: call it from as many tasks as there are messages.
    async fn accept(&self, message: NewMessage, ident: Option<&str>) -> Result<Accepted, Error>;

    /// Borrows batches that are due: by lane; first attempts of ordinary mail (live, backlog) by arrival, oldest first, all
    /// others by due time. Returns at once, with nothing when nothing is due. `host` names who claims. A poisoned spool gives
    /// none; a full one does, since working it off is what makes room.
    async fn claim(&self, host: &str, wanted: &Wanted) -> Result<Vec<Lease>, Error>;

    /// Resolves when a claim may find more than it could when this last resolved for the same `seen`: something was accepted,
    /// became due, or was settled. May resolve early; never misses, however many tasks claim, as long as each has a
    /// [`Seen`] of its own and claims after every time it resolves. Dropping it changes nothing.
    async fn ready(&self, seen: &mut Seen);

    /// Ends leases, all in one commit, durably. Settlements with a stale token are skipped; returns how many took effect.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error>;

    /// The message's bytes, checked against their checksum.
    async fn body(&self, message: MessageId) -> Result<Bytes, Error>;

    /// What waits, by destination and class; costs the same however much waits.
    async fn tally(&self) -> Result<Vec<Tally>, Error>;

    /// Why nothing is accepted any more, or soon will not be; cheap, for readiness. Only a poisoned spool refuses claims too.
    fn unhealthy(&self) -> Option<String>;

    /// What this engine promises.
    fn guarantees(&self) -> Guarantees;

    /// Writes and syncs what is pending and stops. Later calls get [`Error::Closed`].
    async fn close(&self);
}
