//! What an operator does with held mail: release it inwards again, or drop it. Works through the spool's own interface.

use std::sync::Arc;

use mail::{Recipient, Timestamp};
use spool::{
    Class, Destination, Destinations, Lease, NewBatch, Outcome, Settlement, Spool, Wanted,
};
use tracing::info;

use crate::ended::{Ended, Kind, Line};
use crate::facts::MessageFacts;
use crate::forward::held;
use crate::metrics::Metrics;

/// Batches that are claimed at once.
const CLAIM_MAX: usize = 256;

/// Recipients that became due again, or were ended.
pub async fn settle(
    spool: &Arc<dyn Spool>,
    ended: &Ended,
    metrics: &Metrics,
    kind: Kind,
) -> Result<usize, spool::Error> {
    let wanted = Wanted {
        destinations: Destinations::Only(vec![held()]),
        lanes: [CLAIM_MAX; 4],
    };
    let mut count = 0;
    loop {
        let leases = spool.claim("operator", &wanted).await?;
        if leases.is_empty() {
            return Ok(count);
        }
        let now = Timestamp::now();
        let settlements = leases.iter().map(|lease| settlement(lease, kind, now));
        spool.settle(settlements.collect()).await?;
        for lease in &leases {
            count += lease.batch.recipients.len();
            list(ended, lease, kind, now);
        }
        if kind == Kind::Dropped {
            let dropped: usize = leases
                .iter()
                .map(|lease| lease.batch.recipients.len())
                .sum();
            metrics
                .done
                .with_label_values(&["ended"])
                .inc_by(dropped as u64);
        }
    }
}

fn settlement(lease: &Lease, kind: Kind, now: Timestamp) -> Settlement {
    let outcome = match kind {
        Kind::Released => Outcome::Replaced(vec![NewBatch {
            destination: Destination::Inside,
            class: Class::Ordinary,
            due: now,
            recipients: lease.batch.recipients.clone(),
            template: lease.batch.template.clone(),
        }]),
        _ => Outcome::Finished,
    };
    Settlement {
        batch: lease.batch.id,
        token: lease.token,
        outcome,
    }
}

fn list(ended: &Ended, lease: &Lease, kind: Kind, now: Timestamp) {
    let facts = MessageFacts::from_bytes(&lease.head.facts).ok();
    let (ident, session) = facts
        .as_ref()
        .map_or(("", ""), |facts| (facts.ident.as_str(), &facts.session));
    let from = lease.head.reverse_path.to_string();
    let to = |recipient: &Recipient| recipient.address.to_string();
    let recipients: Vec<String> = lease.batch.recipients.iter().map(to).collect();
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
