//! Treating batches that nobody has: they are borrowed for a moment as by a claim, and settled in one commit.

use std::sync::Arc;

use mail::Timestamp;
use tokio::sync::oneshot;

use super::candidates::{self, PAGE};
use super::entry::{Entry, Hold, Row};
use super::job::{Account, Answer, Job, SettleItem, SettleJob};
use super::leases::Leased;
use super::load::{self, Trouble};
use super::looking::{self, AGAIN_AFTER, Now};
use super::lookup;
use super::prepare::{packed, split_id};
use super::shared::Shared;
use super::unreadable;
use crate::selection::{Order, treat};
use crate::{Batch, BatchId, Ends, Error};

/// Has the writer do something, and waits for it.
pub fn submit<T>(shared: &Shared, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    shared.jobs.push(job(answer)).map_err(|_| Error::Closed)?;
    answered.blocking_recv().map_err(|_| Error::Closed)?
}

/// Batches borrowed for a moment; those not settled go back.
struct Reserved<'a> {
    shared: &'a Shared,
    leased: Vec<(Leased, Arc<Batch>)>,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        for (leased, _) in self.leased.drain(..) {
            let ours = state.leases.of(leased.entry.id);
            if ours.is_some_and(|one| one.token == leased.token) {
                state.unlease(leased.entry.id);
            }
        }
    }
}

/// Treats batches by orders, in one commit; returns those that changed meanwhile.
pub fn settle(
    shared: &Shared,
    orders: &[Order],
    waiting: &[(Entry, Arc<Batch>)],
    now: Timestamp,
) -> Result<Vec<BatchId>, Error> {
    let (reserved, again) = reserve(shared, waiting)?;
    let mut items = Vec::with_capacity(reserved.leased.len());
    for (leased, batch) in &reserved.leased {
        let mut count = 0;
        let (message, parent) = (leased.entry.message, batch.id);
        let treated = treat(orders, Batch::clone(batch), now, &mut || {
            count += 1;
            split_id(message, parent, leased.token, count)
        });
        let finished = treated.batches.iter().all(|one| one.id != parent);
        if finished && let Some(place) = load::place(shared, message)? {
            // Its record says in which segment the message stands.
            shared.state().keep(message, place, None);
        }
        let dropped = treated.dropped;
        items.push(SettleItem {
            batch: parent,
            token: leased.token,
            message,
            arrival: Timestamp(leased.entry.arrival),
            presents: treated.batches.into_iter().map(packed).collect(),
            finished,
            account: Account::Ended(Ends {
                dropped,
                ..Ends::default()
            }),
        });
    }
    if !items.is_empty() {
        submit(shared, |answer| Job::Settle(SettleJob { items, answer }))?;
    }
    Ok(again)
}

/// Borrows batches that are still as they were looked at; returns the others' ids.
fn reserve<'a>(
    shared: &'a Shared,
    waiting: &[(Entry, Arc<Batch>)],
) -> Result<(Reserved<'a>, Vec<BatchId>), Error> {
    let ids: Vec<BatchId> = waiting.iter().map(|(entry, _)| entry.id).collect();
    loop {
        let before = shared.state().commits;
        let rows = candidates::entries(shared, &ids)?;
        let mut state = shared.state();
        if state.commits != before {
            // What the index took over in between may be missing in both.
            continue;
        }
        let mut rows = rows.into_iter().peekable();
        let mut leased = Vec::new();
        let mut again = Vec::new();
        for (entry, batch) in waiting {
            let row = rows.next_if(|row| row.id == entry.id);
            let present = match state.unindexed_state(entry.id) {
                Some((present, _)) => present.cloned(),
                None => row,
            };
            let same = present.filter(|present| present.span == entry.span);
            match same.filter(|_| state.leases.of(entry.id).is_none()) {
                Some(present) => leased.push((state.reserve(present), batch.clone())),
                None => again.push(entry.id),
            }
        }
        return Ok((Reserved { shared, leased }, again));
    }
}

// === After a crash ===

/// Follows the orders of attempts that a crash ended. Before anything is claimed.
pub fn resume(shared: &Shared, rows: &[(u32, Row)]) -> Result<(), Error> {
    let mut followed = 0;
    for (destination, row) in rows {
        let mut after = (0, BatchId(0));
        loop {
            let page = shared.read(|index| {
                lookup::following(index, *destination, *row, after, u64::MAX, PAGE)
            })?;
            let Some(last) = page.last() else { break };
            after = last.key();
            for entry in page {
                follow(shared, entry)?;
                followed += 1;
            }
        }
    }
    if followed > 0 {
        tracing::info!(event = "orders_followed", batches = followed);
    }
    Ok(())
}

/// Follows the orders of a batch, also when it is carried forward meanwhile. One that cannot be read rests.
pub fn follow(shared: &Shared, mut entry: Entry) -> Result<(), Error> {
    while entry.hold == Hold::Ordered {
        let (id, span) = (entry.id, entry.span);
        let failed = match load::stored(shared, &entry) {
            Ok(stored) => {
                let one = [(entry, Arc::new(stored.batch))];
                if settle(shared, &stored.orders, &one, shared.now())?.is_empty() {
                    return Ok(());
                }
                None
            }
            Err(error) => Some(error),
        };
        std::thread::sleep(AGAIN_AFTER);
        let rows = candidates::entries(shared, &[id])?;
        let Some(Now::Waits(moved, _)) = looking::now(shared, rows).pop() else {
            return Ok(());
        };
        if let Some(error) = failed.filter(|_| moved.span == span) {
            if load::trouble(shared, &error) == Trouble::Other {
                return Err(error);
            }
            shared.state().reserve(moved.clone());
            if !unreadable::rest(shared, &moved, &error) {
                shared.state().unlease(moved.id);
                unreadable::tell(
                    &moved,
                    &error,
                    "its orders are not followed before the next start",
                );
            }
            return Ok(());
        }
        entry = moved;
    }
    Ok(())
}
