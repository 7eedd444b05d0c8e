//! The delivery engine's owner: renders copies, counts bounces of members, reports failures of other mail.

use std::sync::Arc;

use bytes::Bytes;
use delivery::{Attempted, Copy, Result as Attempt};
use mail::{Address, Envelope, Reply};
use spool::{Batch, Head, Lease};
use tracing::{info, warn};

use super::Leaving;
use super::notify::{Failure, Notifier};
use super::render;
use crate::facts::{Facts, Template};
use crate::metrics::count;

/// Renders and concludes.
pub struct Deliverer {
    /// Reports failures; its directory counts bounces.
    pub notifier: Notifier,
    /// Chooses egresses.
    pub leaving: Leaving,
}

impl Deliverer {
    /// Logs and counts one recipient's result.
    fn log(&self, lease: &Lease, facts: &Facts, attempted: &Attempted) {
        let (event, reply) = match &attempted.result {
            Attempt::Delivered(reply) => ("delivered", reply),
            Attempt::Deferred(reply) => ("deferred", reply),
            Attempt::Failed(reply) => ("failed", reply),
            Attempt::Expired(reply) => ("expired", reply),
        };
        count(&self.notifier.metrics.delivered, event);
        info!(event, message = %lease.head.id, ident = facts.ident.as_deref().unwrap_or(""),
            to = %attempted.recipient.address, remote = attempted.remote.as_deref().unwrap_or(""), reply = %reply);
    }

    /// Counts posts that the members' hosts refused for good. A count that is lost is better than mail delivered twice.
    async fn bounced(&self, list: Address, number: u64, failures: Vec<Failure>) {
        let metrics = self.notifier.metrics.clone();
        let counted = self
            .notifier
            .directory
            .write(move |store| {
                for failure in &failures {
                    let reason = failure.reply.to_string();
                    let member = &failure.recipient.address;
                    if store.count_bounce(&list, member, number, &reason)? {
                        count(&metrics.bounces, "counted");
                    }
                }
                Ok(())
            })
            .await;
        if let Err(error) = counted {
            warn!(event = "bounce", outcome = "uncounted", reason = %error);
        }
    }
}

/// What a batch whose template cannot be read fails with: an operator must look.
fn unreadable() -> Reply {
    Reply::new(554, (5, 3, 0), "the template of this batch cannot be read")
}

/// The copies in which a batch leaves a host of this name.
pub fn copies(
    hostname: &str,
    head: &Head,
    batch: &Batch,
    body: &Bytes,
) -> Result<Vec<Copy>, Reply> {
    let all = |parts: Vec<Bytes>| Copy {
        envelope: Envelope {
            reverse_path: head.reverse_path.clone(),
            parameters: head.parameters.clone(),
            recipients: batch.recipients.clone(),
        },
        indices: (0..batch.recipients.len()).collect(),
        parts,
        xforward: None,
    };
    let received = || render::received(head, &Facts::read(&head.facts), hostname);
    match Template::read(&batch.template).ok_or_else(unreadable)? {
        Template::Post { list, number } => {
            let list = Address::parse(&list).map_err(|_| unreadable())?;
            let parts = render::post_parts(&list, &received(), body);
            let copy = |(index, recipient): (usize, &mail::Recipient)| Copy {
                envelope: render::post_envelope(head, &list, number, &recipient.address),
                indices: vec![index],
                parts: parts.clone(),
                xforward: None,
            };
            Ok(batch.recipients.iter().enumerate().map(copy).collect())
        }
        Template::Forward { by } => {
            let by = Address::parse(&by).map_err(|_| unreadable())?;
            Ok(vec![all(render::forward_parts(&by, &received(), body))])
        }
        Template::Own => Ok(vec![all(vec![body.clone()])]),
    }
}

#[async_trait::async_trait]
impl delivery::Owner for Deliverer {
    fn render(&self, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
        copies(self.notifier.hostname.as_str(), head, batch, body)
    }

    fn egress(&self, _: &Head, batch: &Batch) -> Option<Arc<str>> {
        self.leaving.of(batch)
    }

    async fn conclude(
        &self,
        lease: &Lease,
        attempted: &[Attempted],
    ) -> Result<Bytes, spool::Error> {
        let facts = Facts::read(&lease.head.facts);
        let (mut failures, mut blamed) = (Vec::new(), Vec::new());
        for one in attempted {
            self.log(lease, &facts, one);
            if let Attempt::Failed(reply) | Attempt::Expired(reply) = &one.result {
                failures.push(Failure {
                    recipient: one.recipient.clone(),
                    reply: reply.clone(),
                    remote: one.remote.clone(),
                });
                if !one.policy {
                    blamed.extend(failures.last().cloned());
                }
            }
        }
        match Template::read(&lease.batch.template) {
            _ if failures.is_empty() => {}
            Some(Template::Post { list, number }) => {
                // What a provider holds against this host or the message is no member's bounce.
                if let Ok(list) = Address::parse(&list)
                    && !blamed.is_empty()
                {
                    self.bounced(list, number, blamed).await;
                }
            }
            _ => {
                self.notifier
                    .report(&lease.head, &lease.batch, &failures)
                    .await?;
            }
        }
        Ok(Bytes::new())
    }
}
