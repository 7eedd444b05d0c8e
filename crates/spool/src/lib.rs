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
mod ledger;
pub mod memory;
mod message;
mod replies;
mod select;
mod selection;
mod tally;
mod vitals;

pub use batch::{Batch, BatchId, Class, Destination, NewBatch};
pub use clock::Clock;
pub use error::{Error, Guarantees};
pub use lane::Lane;
pub use lease::{Destinations, Lease, Outcome, Seen, Settlement, Wanted};
pub use ledger::{Ends, Ledger};
pub use message::{Accepted, Head, NewMessage, Path};
pub use replies::Replies;
pub use select::{Action, After, Condition, Found, HoldId, Matcher, Pattern, Predicate, Selected};
pub use tally::{Aged, Tally};
pub use vitals::Vitals;

use bytes::Bytes;
use mail::MessageId;
use tokio::sync::watch;

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

    /// The message's bytes, checked against their checksum: [`Error::Corrupt`] when they do not match, each time they are asked for, and
    /// what there is of them was set aside. All else goes on; its batches are settled by whoever has them.
    async fn body(&self, message: MessageId) -> Result<Bytes, Error>;

    /// What waits, by destination and class; costs the same however much waits.
    async fn tally(&self) -> Result<Vec<Tally>, Error>;

    /// What waits, by age and by what tells its lane; costs what the grains of time cost from which something waits, however much that
    /// is.
    async fn ages(&self) -> Result<Vec<Aged>, Error>;

    /// A count by destination and whether it is held costs the same however much waits; any other looks at each batch on the shortest
    /// way to what may be meant.
    ///
    /// Does something to all that is meant, durably and in steps, while the spool works on: a crash leaves some of it done, and
    /// doing it again does the rest. Recipients of a batch that are not meant go on in a batch of their own. What is being
    /// attempted is left to its attempt; what that leaves is treated like the others.
    async fn select(&self, predicate: &Predicate, action: Action) -> Result<Selected, Error>;

    /// At most `limit` of what is meant, by id, behind `after`.
    async fn find(
        &self,
        predicate: &Predicate,
        after: After,
        limit: usize,
    ) -> Result<Vec<Found>, Error>;

    /// How every recipient ended, or that it waits; costs the same however much waits.
    async fn ledger(&self) -> Result<Ledger, Error>;

    /// Makes a consistent copy of it, as of some moment during the call, in the folder `to`, which must not be there; mail goes on.
    /// Returns the bytes copied.
    async fn backup(&self, to: &std::path::Path) -> Result<u64, Error>;

    /// True while it is a copy that no operator has adopted: whoever delivers leaves alone what waits, since what was delivered after
    /// the copy was made would be delivered again. Mail is accepted all the same.
    fn copy(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    /// From now on it is a copy no longer, durably; false when it was none.
    async fn adopt(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// How it is.
    fn vitals(&self) -> Vitals;

    /// What [`Self::accept`] would answer now instead of accepting, as far as that is known without asking the disk: a refusal
    /// before the message is sent is cheaper than one after it.
    fn refuses(&self) -> Option<Error> {
        None
    }

    /// Why nothing is accepted any more, or not all, or soon will not be; cheap, for readiness. Only a poisoned spool refuses
    /// claims too.
    fn unhealthy(&self) -> Option<String>;

    /// What this engine promises.
    fn guarantees(&self) -> Guarantees;

    /// Writes and syncs what is pending and stops. Later calls get [`Error::Closed`].
    async fn close(&self);
}
