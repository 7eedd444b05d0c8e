//! What an operator does with held mail: release it inwards again, or drop it. Works through the spool's own interface.

use mail::{Recipient, Timestamp};
use spool::{Class, Destination, Destinations, Ends, Lease, NewBatch, Outcome, Settlement, Wanted};
use tracing::info;

use crate::ended::{Ended, Kind, Line};
use crate::facts::MessageFacts;
use crate::forward::held;
use crate::routes::Controls;

/// Batches that are claimed at once.
const CLAIM_MAX: usize = 256;

/// Ends all held batches as `kind` says; returns how many recipients that were.
pub async fn settle(controls: &Controls, kind: Kind) -> Result<usize, spool::Error> {
    let Controls { edge, spool, .. } = controls;
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
        let mut settled = 0;
        for lease in &leases {
            settled += lease.batch.recipients.len();
            list(&edge.ended, lease, kind, now);
        }
        if kind == Kind::Dropped {
            let done = &edge.metrics.done;
            done.with_label_values(&["ended"]).inc_by(settled as u64);
        }
        count += settled;
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
        ends: Ends::default(),
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
