//! The delivery engine's owner: renders copies, counts bounces of members, reports failures of other mail.

use std::sync::Arc;

use bytes::Bytes;
use delivery::queue::Names as _;
use delivery::{Attempted, Copy, Owner, Result as Attempt};
use mail::dsn::Action;
use mail::{Address, Envelope, Reply, Timestamp};
use spool::{Batch, Head, Lease};
use tracing::warn;

use super::Leaving;
use super::names::Names;
use super::note::Note;
use super::notify::{Evidence, Notifier};
use super::render;
use crate::directory::Error as DirectoryError;
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
    /// Counts one recipient's result.
    fn count(&self, attempted: &Attempted) {
        let result = match &attempted.result {
            Attempt::Delivered(_) => "delivered",
            Attempt::Deferred(_) => "deferred",
            Attempt::Failed(_) => "failed",
            Attempt::Expired(_) => "expired",
        };
        count(&self.notifier.metrics.delivered, result);
    }

    /// Counts posts that the members' hosts refused for good. A count that is lost is better than mail delivered twice.
    async fn bounced(&self, list: Address, number: u64, failures: Vec<Evidence>) {
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
impl Owner for Deliverer {
    fn render(&self, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
        copies(self.notifier.hostname.as_str(), head, batch, body)
    }

    fn egress(&self, _: &Head, batch: &Batch) -> Option<Arc<str>> {
        self.leaving.of(batch)
    }

    fn is_overdue(&self, head: &Head, batch: &Batch, now: Timestamp) -> bool {
        matches!(
            Template::read(&batch.template),
            Some(Template::Forward { .. })
        ) && self.notifier.is_delay_told(head, &batch.recipients, now)
            && !Note::read(&batch.note).told
    }

    fn ident(&self, head: &Head) -> Option<String> {
        Names.ident(head)
    }

    fn list(&self, head: &Head, batch: &Batch) -> Option<String> {
        Names.list(head, batch)
    }

    async fn conclude(
        &self,
        lease: &Lease,
        attempted: &[Attempted],
    ) -> Result<Bytes, spool::Error> {
        let mut sorted = Sorted::default();
        for one in attempted {
            self.count(one);
            sorted.add(one);
        }
        match Template::read(&lease.batch.template) {
            Some(Template::Post { list, number }) => {
                // What a provider holds against this host or the message is no member's bounce.
                if let Ok(list) = Address::parse(&list)
                    && !sorted.blamed.is_empty()
                {
                    self.bounced(list, number, std::mem::take(&mut sorted.blamed))
                        .await;
                }
                Ok(sorted.note(lease, false))
            }
            _ => {
                let told = self.report(lease, &sorted).await;
                let told = told.map_err(|error| spool::Error::Io {
                    path: "directory.sqlite".into(),
                    source: Arc::new(std::io::Error::other(error.to_string())),
                })?;
                Ok(sorted.note(lease, told))
            }
        }
    }
}

impl Deliverer {
    /// Tells the sender; returns whether he now knows of a delay.
    async fn report(&self, lease: &Lease, sorted: &Sorted) -> Result<bool, DirectoryError> {
        let (head, batch) = (&lease.head, &lease.batch);
        let notifier = &self.notifier;
        notifier
            .report(Action::Failed, head, &sorted.failed)
            .await?;
        notifier
            .report(Action::Relayed, head, &sorted.relayed)
            .await?;
        let overdue = !sorted.deferred.is_empty() && self.is_overdue(head, batch, Timestamp::now());
        if overdue {
            notifier
                .report(Action::Delayed, head, &sorted.deferred)
                .await?;
        }
        Ok(overdue)
    }
}

/// An attempt's recipients by what came of them.
#[derive(Default)]
struct Sorted {
    failed: Vec<Evidence>,
    /// Those of the failed who are to blame for it.
    blamed: Vec<Evidence>,
    deferred: Vec<Evidence>,
    /// Taken by a host that sends no reports.
    relayed: Vec<Evidence>,
}

impl Sorted {
    fn add(&mut self, one: &Attempted) {
        let evidence = |reply: &Reply| Evidence {
            recipient: one.recipient.clone(),
            reply: reply.clone(),
            remote: one.remote.clone(),
            phase: one.phase.map(delivery::attempt::name),
            at: Timestamp::now(),
        };
        let asked = one.recipient.parameters.notify;
        match &one.result {
            Attempt::Failed(reply) | Attempt::Expired(reply) => {
                self.failed.push(evidence(reply));
                if !one.policy {
                    self.blamed.push(evidence(reply));
                }
            }
            Attempt::Deferred(reply) => self.deferred.push(evidence(reply)),
            Attempt::Delivered(reply) if !one.dsn && asked.is_some_and(|n| n.success) => {
                self.relayed.push(evidence(reply));
            }
            Attempt::Delivered(_) => {}
        }
    }

    /// What is kept with those who are left.
    fn note(&self, lease: &Lease, told: bool) -> Bytes {
        let mut note = Note::read(&lease.batch.note);
        let Some(last) = self.deferred.last() else {
            return lease.batch.note.clone();
        };
        note.said(last.remote.as_deref(), last.phase);
        note.told |= told;
        note.to_bytes()
    }
}
