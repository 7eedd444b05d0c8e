//! What an operator does with mail that the inside refused after it was spooled, or that a rule holds: release it inwards, or drop it. And what the
//! queue's commands ask of an edge. Works through the spool's own interface.

use std::sync::Arc;

use delivery::queue::{Names, Refusal};
use mail::{Recipient, Timestamp};
use spool::{
    Action, Batch, Class, Destination, Destinations, Ends, Head, Lease, NewBatch, Outcome,
    Predicate, Selected, Settlement, Spool, Wanted,
};
use tracing::info;

use crate::ended::{Ended, Kind, Line};
use crate::facts::MessageFacts;
use crate::forward::held;
use crate::receive::Edge;

/// Batches that are claimed at once.
const CLAIM_MAX: usize = 256;
/// Batches that are looked at and not meant, at most: they are kept until the end, so that they are not looked at again.
const OTHERS_MAX: usize = 20_000;

/// What operators ask of an edge about its spool.
pub struct Refused {
    /// Its list of ended mail and its metrics.
    pub edge: Arc<Edge>,
    /// Its spool.
    pub spool: Arc<dyn Spool>,
}

#[async_trait::async_trait]
impl Names for Refused {
    fn ident(&self, head: &Head) -> Option<String> {
        let facts = MessageFacts::from_bytes(&head.facts).ok()?;
        Some(facts.ident.to_string())
    }

    /// An edge knows recipients, not lists: the first one's address.
    fn list(&self, _: &Head, batch: &Batch) -> Option<String> {
        let first = batch.recipients.first()?;
        Some(first.address.to_string())
    }

    fn rule(&self, head: &Head) -> Option<String> {
        let facts = MessageFacts::from_bytes(&head.facts).ok()?;
        facts.held_by.map(Into::into)
    }

    fn by_domain(&self) -> bool {
        false
    }

    fn refused(&self) -> Option<Destination> {
        Some(held())
    }

    fn dropping(&self, head: &Head, recipients: &[Recipient]) {
        list(
            &self.edge.ended,
            head,
            recipients,
            Kind::Dropped,
            Timestamp::now(),
        );
    }

    async fn settle_refused(
        &self,
        predicate: &Predicate,
        action: Action,
    ) -> Result<Selected, Refusal> {
        let kind = match action {
            Action::Release => Kind::Released,
            _ => Kind::Dropped,
        };
        Ok(settle(&self.edge, &*self.spool, kind, predicate).await?)
    }
}

/// Ends what is meant of the refused batches as `kind` says.
pub async fn settle(
    edge: &Edge,
    spool: &dyn Spool,
    kind: Kind,
    predicate: &Predicate,
) -> Result<Selected, spool::Error> {
    let wanted = Wanted {
        destinations: Destinations::Only(vec![held()]),
        lanes: [CLAIM_MAX; 4],
    };
    let mut selected = Selected::default();
    let mut others = Vec::new();
    let mut failed = Ok(());
    while others.len() < OTHERS_MAX {
        let leases = match spool.claim("operator", &wanted).await {
            Ok(leases) if leases.is_empty() => break,
            Ok(leases) => leases,
            Err(error) => {
                failed = Err(error);
                break;
            }
        };
        let now = Timestamp::now();
        let mut settlements = Vec::new();
        let mut meant = Vec::new();
        for lease in leases {
            let split = Split::of(&lease.batch, predicate);
            if predicate.meant(&lease.head, &lease.batch, now) == 0 {
                others.push(given_back(&lease));
                continue;
            }
            selected.batches += 1;
            selected.recipients += split.meant.len() as u64;
            settlements.push(settlement(&lease, kind, &split, now));
            meant.push((lease, split));
        }
        spool.settle(settlements).await?;
        for (lease, split) in &meant {
            list(&edge.ended, &lease.head, &split.meant, kind, now);
        }
    }
    if !others.is_empty() {
        spool.settle(others).await?;
    }
    failed.map(|()| selected)
}

/// A batch's recipients.
struct Split {
    meant: Vec<Recipient>,
    others: Vec<Recipient>,
}

impl Split {
    fn of(batch: &Batch, predicate: &Predicate) -> Self {
        let is_meant = |to: &Recipient| {
            let pattern = predicate.recipient.as_ref();
            pattern.is_none_or(|pattern| pattern.matches(&to.address))
        };
        let (meant, others) = batch.recipients.iter().cloned().partition(is_meant);
        Self { meant, others }
    }
}

fn given_back(lease: &Lease) -> Settlement {
    deferred(lease, lease.batch.recipients.clone(), Ends::default())
}

fn deferred(lease: &Lease, recipients: Vec<Recipient>, ends: Ends) -> Settlement {
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome: Outcome::Deferred {
            until: lease.batch.due,
            reply: lease.batch.reply.clone(),
            note: lease.batch.note.clone(),
            recipients,
            attempted: false,
        },
        ends,
    }
}

fn settlement(lease: &Lease, kind: Kind, split: &Split, now: Timestamp) -> Settlement {
    if kind == Kind::Dropped {
        let ends = Ends {
            dropped: split.meant.len() as u64,
            ..Ends::default()
        };
        if !split.others.is_empty() {
            return deferred(lease, split.others.clone(), ends);
        }
        return Settlement {
            batch: lease.batch.id,
            token: lease.token,
            outcome: Outcome::Finished,
            ends,
        };
    }
    let batch = |destination: Destination, recipients: &[Recipient]| NewBatch {
        destination,
        class: Class::Ordinary,
        due: now,
        recipients: recipients.to_vec(),
        template: lease.batch.template.clone(),
    };
    let mut batches = vec![batch(Destination::Inside, &split.meant)];
    if !split.others.is_empty() {
        batches.push(batch(held(), &split.others));
    }
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome: Outcome::Replaced(batches),
        ends: Ends::default(),
    }
}

fn list(ended: &Ended, head: &Head, recipients: &[Recipient], kind: Kind, now: Timestamp) {
    let facts = MessageFacts::from_bytes(&head.facts).ok();
    let (ident, session) = facts
        .as_ref()
        .map_or(("", ""), |facts| (facts.ident.as_str(), &facts.session));
    let from = head.reverse_path.to_string();
    let to = |recipient: &Recipient| recipient.address.to_string();
    let recipients: Vec<String> = recipients.iter().map(to).collect();
    let lines: Vec<Line<'_>> = recipients
        .iter()
        .map(|to| Line {
            kind,
            ident,
            session,
            from: &from,
            to,
            reply: "",
        })
        .collect();
    for line in &lines {
        info!(event = "held_settled", ident, to = line.to, outcome = ?kind);
    }
    ended.add(now, &lines);
}
