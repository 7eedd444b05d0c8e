//! Orders for batches that are being attempted: written with the batch, so that a crash does not forget them, and followed by the
//! settlement of the attempt (`settling.rs`) or at the next start (`selecting.rs`).

use std::sync::Arc;

use super::change::{self, Change};
use super::content;
use super::group::Draft;
use super::job::{Answer, Attempted};
use super::leases::Stage;
use super::record::Stretch;
use super::staged::Written;
use super::state::State;
use crate::Batch;
use crate::selection::Order;

/// Orders that stand in the group.
#[derive(Debug)]
pub struct Ordering {
    items: Vec<Item>,
    answer: Answer<()>,
}

#[derive(Debug)]
struct Item {
    of: Attempted,
    batch: Arc<Batch>,
    orders: Vec<Order>,
    at: Stretch,
}

impl Ordering {
    /// Adds those that are still being attempted. All others were settled meanwhile, by what was ordered for them.
    pub fn stage(
        attempted: Vec<Attempted>,
        answer: Answer<()>,
        state: &State,
        draft: &mut Draft,
    ) -> Self {
        let mut items = Vec::with_capacity(attempted.len());
        for of in attempted {
            let Some(leased) = state.leases.of(of.batch) else {
                continue;
            };
            let Some(batch) = leased.batch.clone() else {
                continue;
            };
            if leased.token != of.token || leased.stage != Stage::HandedOn {
                continue;
            }
            let orders = leased.orders();
            let bytes = content::encode_batch(&batch, &orders);
            let (message, arrival) = (leased.entry.message, leased.entry.arrival);
            let at = draft
                .records
                .state(None, message, mail::Timestamp(arrival), &bytes);
            items.push(Item {
                of,
                batch,
                orders,
                at,
            });
        }
        Self { items, answer }
    }

    /// They are durable. Returns where the answer goes.
    pub fn finish(
        self,
        written: Written,
        state: &mut State,
        changes: &mut Vec<Change>,
    ) -> Answer<()> {
        for item in self.items {
            let Some(leased) = state.leases.of(item.of.batch) else {
                continue;
            };
            let old = &leased.entry;
            let new = change::entry(
                &item.batch,
                &item.orders,
                old.message,
                mail::Timestamp(old.arrival),
                old.destination,
                written.span(item.at),
                written.now,
            );
            state.ordered(written.start.sequence, new.clone());
            changes.push(Change::State(new));
        }
        self.answer
    }

    /// Where the answer goes when they were not written.
    pub fn into_answer(self) -> Answer<()> {
        self.answer
    }
}
