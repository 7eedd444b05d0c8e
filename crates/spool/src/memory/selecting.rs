//! Selections in plain memory: they look at every batch.

use std::sync::Arc;

use mail::{MessageId, Timestamp};

use super::{Held, Inner};
use crate::selection::{Order, Selection, Treated, as_left, treat};
use crate::{Action, After, Batch, BatchId, Found, Outcome, Predicate, Selected, Settlement};

impl Inner {
    pub(super) fn select(&mut self, selection: &Arc<Selection>, now: Timestamp) -> Selected {
        let mut selected = Selected::default();
        // What is split off on the way is not looked at again.
        let ids: Vec<BatchId> = self.batches.keys().copied().collect();
        for id in ids {
            let meant = self.meant(selection, id, now);
            if meant == 0 {
                continue;
            }
            selected.batches += 1;
            selected.recipients += meant;
            let Some(held) = self.batches.get_mut(&id) else {
                continue;
            };
            if held.token.is_some() {
                selected.in_flight += 1;
                if selection.action != Action::Count {
                    held.selections.push(selection.clone());
                }
            } else if selection.action != Action::Count
                && let Some(held) = self.batches.remove(&id)
            {
                let message = held.message;
                self.treat(message, held.batch, &[selection.order()], now);
                self.forget(message);
            }
        }
        selected
    }

    fn meant(&self, selection: &Selection, id: BatchId, now: Timestamp) -> u64 {
        let held = self.batches.get(&id);
        let head = held.and_then(|held| self.messages.get(&held.message));
        match (held, head) {
            (Some(held), Some((head, ..))) => {
                selection.meant_in_flight(head, &held.batch, &held.orders(), now)
            }
            _ => 0,
        }
    }

    /// Puts what is left of a batch in its place.
    fn treat(&mut self, message: MessageId, batch: Batch, orders: &[Order], now: Timestamp) {
        let last = &mut self.last;
        let treated = treat(orders, batch, now, &mut || {
            *last += 1;
            BatchId(u128::from(*last))
        });
        self.put(message, treated);
    }

    fn put(&mut self, message: MessageId, treated: Treated) {
        self.account.ends.dropped += treated.dropped;
        let batches = treated.batches.into_iter();
        for batch in batches.filter(|batch| !batch.recipients.is_empty()) {
            let held = Held {
                message,
                batch,
                token: None,
                selections: Vec::new(),
            };
            self.batches.insert(held.batch.id, held);
        }
    }

    /// Ends the lease of a batch without a settlement.
    pub(super) fn give_back(&mut self, id: BatchId, now: Timestamp) {
        if let Some(held) = self.batches.remove(&id) {
            let (message, orders) = (held.message, held.orders());
            self.treat(message, held.batch, &orders, now);
            self.forget(message);
        }
    }

    pub(super) fn settle(&mut self, settlement: Settlement, now: Timestamp) -> bool {
        let id = settlement.batch;
        if (self.batches.get(&id)).is_none_or(|held| held.token != Some(settlement.token)) {
            return false;
        }
        let Some(mut held) = self.batches.remove(&id) else {
            return false;
        };
        let message = held.message;
        let before = held.batch.recipients.len() as u64;
        match settlement.outcome {
            Outcome::Deferred {
                until,
                replies,
                note,
                recipients,
                attempted,
                moved,
            } => {
                let gone = moved.iter().map(|moved| moved.recipients.len());
                let left = recipients.len() + gone.sum::<usize>();
                self.account.settle(before, left as u64, settlement.ends);
                let orders = held.orders();
                held.batch.due = until;
                held.batch.replies = replies;
                held.batch.note = note;
                held.batch.recipients = recipients;
                held.batch.attempts += u32::from(attempted);
                for moved in moved {
                    let batch = self.batch(moved);
                    self.treat(message, batch, &orders, now);
                }
                self.treat(message, held.batch, &orders, now);
            }
            Outcome::Replaced(children) => {
                let made = children.iter().map(|child| child.recipients.len() as u64);
                self.account.replace(before, made.sum());
                for child in children {
                    self.add_child(message, child, &held.selections, now);
                }
            }
            Outcome::Finished => {
                self.account.settle(before, 0, settlement.ends);
            }
        }
        self.forget(message);
        true
    }

    fn add_child(
        &mut self,
        message: MessageId,
        child: crate::NewBatch,
        selections: &[Arc<Selection>],
        now: Timestamp,
    ) {
        let Some(head) = self.messages.get(&message).map(|(head, ..)| head.clone()) else {
            return;
        };
        let mut treated = Treated::left_alone(self.batch(child));
        let last = &mut self.last;
        for selection in selections {
            treated = treated.then(|batch| {
                selection.treat_new(&head, batch, now, &mut || {
                    *last += 1;
                    BatchId(u128::from(*last))
                })
            });
        }
        self.put(message, treated);
    }

    /// Lets go of a message of which nothing is left.
    fn forget(&mut self, message: MessageId) {
        if !self.batches.values().any(|held| held.message == message) {
            self.messages.remove(&message);
        }
    }

    pub(super) fn find(
        &self,
        predicate: &Predicate,
        after: After,
        limit: usize,
        now: Timestamp,
    ) -> Vec<Found> {
        let selection = Selection {
            predicate: predicate.clone(),
            action: Action::Count,
        };
        (self.batches.iter())
            .filter(|(id, _)| after.is_none_or(|after| **id > after))
            .filter(|(id, _)| self.meant(&selection, **id, now) > 0)
            .filter_map(|(_, held)| {
                let (head, ..) = self.messages.get(&held.message)?;
                Some(Found {
                    head: head.clone(),
                    batch: as_left(&held.batch, &held.orders(), now),
                    in_flight: held.token.is_some(),
                })
            })
            .take(limit)
            .collect()
    }
}

impl Held {
    fn orders(&self) -> Vec<Order> {
        let orders = self.selections.iter().map(|selection| selection.order());
        orders.collect()
    }
}
