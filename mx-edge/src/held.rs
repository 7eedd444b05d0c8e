//! What an operator does with mail that the inside refused after it was spooled, or that a rule holds: release it inwards, or drop it. And what the
//! queue's commands ask of an edge. Works through the spool's own interface.

use std::sync::Arc;

use delivery::queue::{Names, Refusal};
use mail::{Recipient, Timestamp};
use spool::{
    Action, Batch, Destination, Destinations, Ends, Head, Lease, NewBatch, Outcome, Predicate,
    Replies, Selected, Settlement, Spool, Wanted,
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

    fn rule(&self, head: &Head, batch: &Batch) -> Option<String> {
        let facts = MessageFacts::from_bytes(&head.facts).ok()?;
        rule(&facts, batch).map(Into::into)
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

/// The rule that holds a batch. Whoever was told something was let in by an operator since, and refused: he waits for another reason.
pub fn rule<'a>(facts: &'a MessageFacts, batch: &Batch) -> Option<&'a str> {
    let refused = batch.replies.texts().next().is_some();
    facts.held_by.as_deref().filter(|_| !refused)
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
            if predicate.meant(&lease.head, &lease.batch, now) == 0 {
                let split = Split::none(&lease.batch);
                others.push(settlement(&lease, kind, &split, now));
                continue;
            }
            let split = Split::of(&lease.batch, predicate);
            selected.batches += 1;
            selected.recipients += split.meant.0.len() as u64;
            settlements.push(settlement(&lease, kind, &split, now));
            meant.push((lease, split));
        }
        spool.settle(settlements).await?;
        for (lease, split) in &meant {
            list(&edge.ended, &lease.head, &split.meant.0, kind, now);
        }
    }
    if !others.is_empty() {
        spool.settle(others).await?;
    }
    failed.map(|()| selected)
}

/// A batch's recipients.
struct Split {
    meant: Part,
    others: Part,
}

/// Some of them, and what each was told.
type Part = (Vec<Recipient>, Replies);

impl Split {
    fn of(batch: &Batch, predicate: &Predicate) -> Self {
        let meant: Vec<usize> = predicate.places(batch).collect();
        let all = 0..batch.recipients.len();
        let others: Vec<usize> = all.filter(|at| !meant.contains(at)).collect();
        let part = |places: Vec<usize>| {
            let those = places.iter().map(|at| batch.recipients[*at].clone());
            (those.collect(), batch.replies.at(places))
        };
        Self {
            meant: part(meant),
            others: part(others),
        }
    }

    /// Nobody is meant.
    fn none(batch: &Batch) -> Self {
        Self {
            meant: Part::default(),
            others: (batch.recipients.clone(), batch.replies.clone()),
        }
    }
}

/// Who is meant is released or dropped, the others wait on.
fn settlement(lease: &Lease, kind: Kind, split: &Split, now: Timestamp) -> Settlement {
    let batch = &lease.batch;
    let (meant, told) = &split.meant;
    let released = kind == Kind::Released && !meant.is_empty();
    let inside = released.then(|| NewBatch {
        destination: Destination::Inside,
        class: batch.class,
        due: now,
        recipients: meant.clone(),
        template: batch.template.clone(),
        replies: told.clone(),
    });
    let dropped = match kind {
        Kind::Dropped => meant.len() as u64,
        _ => 0,
    };
    Settlement {
        batch: batch.id,
        token: lease.token,
        outcome: Outcome::Deferred {
            until: batch.due,
            replies: split.others.1.clone(),
            note: batch.note.clone(),
            recipients: split.others.0.clone(),
            attempted: false,
            moved: inside.into_iter().collect(),
        },
        ends: Ends {
            dropped,
            ..Ends::default()
        },
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
