//! Reports to senders (RFC 3464, RFC 3461): who asked for one, who may have one, and that each message's are gathered for a while.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::dsn::Action;
use mail::envelope::Notify;
use mail::{Address, Domain, MailParameters, MessageId, Recipient, Reply, ReversePath, Timestamp};
use spool::{Class, Destination, Head, NewBatch, NewMessage, Path, Spool};
use tokio::sync::watch;
use tracing::{info, warn};

use super::report;
use super::rule::{Decision, Why, decide};
use crate::config::Config;
use crate::directory::{Directory, Error as DirectoryError};
use crate::facts::{Facts, Template};
use crate::metrics::{Metrics, count};

/// What was heard of one recipient.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Who.
    pub recipient: Recipient,
    /// The reply that decided.
    pub reply: Reply,
    /// Who gave it; none: this host.
    pub remote: Option<Box<str>>,
    /// Where in the dialogue.
    pub phase: Option<&'static str>,
    /// When.
    pub at: Timestamp,
}

impl Evidence {
    /// Of what this host says itself, now.
    pub fn ours(recipient: Recipient, reply: Reply) -> Self {
        Self {
            recipient,
            reply,
            remote: None,
            phase: None,
            at: Timestamp::now(),
        }
    }
}

/// Where our own mail to an address goes: an address of ours is expanded here.
fn destination(directory: &Directory, address: &Address) -> Destination {
    let ours = directory
        .names()
        .is_some_and(|names| names.resolve(address).is_some());
    if ours {
        Destination::Expand
    } else {
        Destination::Domain(address.domain().clone())
    }
}

/// Accepts a message of our own under its ident, which makes it one however often this is repeated.
pub async fn accept_own(
    spool: &dyn Spool,
    directory: &Directory,
    metrics: &Metrics,
    to: &Address,
    text: Vec<u8>,
    ident: &str,
) -> Result<MessageId, spool::Error> {
    let new = own_message(directory, to, text);
    let here = new
        .batches
        .iter()
        .any(|batch| batch.destination == Destination::Expand);
    let accepted = spool.accept(new, Some(ident)).await?;
    if here && accepted.paths == [Path::New] {
        count(&metrics.accepted, "own");
    }
    Ok(accepted.id)
}

/// A message of our own, to one address, from the null reverse-path.
fn own_message(directory: &Directory, to: &Address, text: Vec<u8>) -> NewMessage {
    let ascii = text.is_ascii();
    let now = Timestamp::now();
    NewMessage {
        arrival: now,
        reverse_path: ReversePath::Null,
        parameters: MailParameters {
            body: if ascii {
                mail::Body::SevenBit
            } else {
                mail::Body::EightBitMime
            },
            smtputf8: to.needs_smtputf8(),
            ..MailParameters::default()
        },
        facts: Facts::own().to_bytes(),
        body: vec![Bytes::from(text)],
        batches: vec![NewBatch {
            destination: destination(directory, to),
            class: Class::Urgent,
            due: now,
            recipients: vec![Recipient::from(to.clone())],
            template: Template::Own.to_bytes(),
            replies: Default::default(),
        }],
    }
}

/// Gathers reports, and sends them ([`Self::run`]).
#[derive(Clone)]
pub struct Notifier {
    /// Where reports are accepted.
    pub spool: Arc<dyn Spool>,
    /// Where they are gathered; allowances, and the list of what was not sent.
    pub directory: Directory,
    /// `[dsn]`.
    pub config: watch::Receiver<Config>,
    /// Who reports.
    pub hostname: Domain,
    /// Counters.
    pub metrics: Metrics,
    /// Told when a report was begun.
    pub begun: Arc<tokio::sync::Notify>,
}

impl Notifier {
    /// Gathers what is to be told of a message to its sender, if he asked for it and the rule allows it. What this has returned `Ok`
    /// for is durable; said again it is the same.
    pub async fn report(
        &self,
        action: Action,
        head: &Head,
        told: &[Evidence],
    ) -> Result<(), DirectoryError> {
        let asked: Vec<&Evidence> = told
            .iter()
            .filter(|one| asks(action, one.recipient.parameters.notify))
            .collect();
        // That mail arrived is told to those alone who asked for it; that it did not is also noted where nobody may be told.
        if told.is_empty() || (asked.is_empty() && action != Action::Failed) {
            return Ok(());
        }
        let (decision, to) = match head.reverse_path.address() {
            Some(to) => (self.decide(head), to),
            None => return self.suppress(action, head, told, Why::NullSender).await,
        };
        let allowance = match decision {
            Decision::Suppress(why) => return self.suppress(action, head, told, why).await,
            _ if asked.is_empty() => {
                return self.suppress(action, head, told, Why::NotAsked).await;
            }
            Decision::Send => None,
            Decision::Limited => Some((to.key(), self.config.borrow().dsn.per_day)),
        };
        match self.gather(action, head, &asked, to, allowance).await? {
            true => Ok(()),
            false => self.suppress(action, head, told, Why::RateLimited).await,
        }
    }

    /// Whether the sender of a message that still waits may hear of it now: the setting, the rule, and that somebody wants it.
    pub fn is_delay_told(&self, head: &Head, recipients: &[Recipient], now: Timestamp) -> bool {
        let after = self.config.borrow().dsn.delay_after;
        !after.is_zero()
            && now.since(head.accepted) >= after
            && recipients
                .iter()
                .any(|recipient| asks(Action::Delayed, recipient.parameters.notify))
            && !matches!(self.decide(head), Decision::Suppress(_))
    }

    fn decide(&self, head: &Head) -> Decision {
        let ours = head.reverse_path.address().is_some_and(|address| {
            self.directory
                .names()
                .is_some_and(|names| names.resolve(address).is_some())
        });
        decide(&head.reverse_path, ours, &Facts::read(&head.facts))
    }

    async fn gather(
        &self,
        action: Action,
        head: &Head,
        told: &[&Evidence],
        to: &Address,
        allowance: Option<(String, u32)>,
    ) -> Result<bool, DirectoryError> {
        // A message that cannot be read any more is still reported, without its header.
        let message = self.spool.body(head.id).await.unwrap_or_default();
        let (merge, give_up) = {
            let config = self.config.borrow();
            (config.dsn.merge, config.delivery.give_up)
        };
        let until = (action == Action::Delayed).then(|| head.accepted.after(give_up));
        let gathered = report::gathered(action, head, to, until, &message, told);
        let due = Timestamp::now().after(merge);
        let gathering = self.directory.write(move |store| {
            let allowance = allowance.as_ref().map(|(key, per_day)| (&**key, *per_day));
            store.gather_report(&gathered, due, allowance)
        });
        let allowed = gathering.await?;
        self.begun.notify_one();
        Ok(allowed)
    }

    async fn suppress(
        &self,
        action: Action,
        head: &Head,
        told: &[Evidence],
        why: Why,
    ) -> Result<(), DirectoryError> {
        count(&self.metrics.dsn, why.as_str());
        let recipients: Vec<String> = told
            .iter()
            .map(|one| one.recipient.address.to_string())
            .collect();
        let recipients = recipients.join(",");
        info!(event = "dsn", message = %head.id, to = %head.reverse_path, outcome = "suppressed", action = action.as_str(),
            reason = why.as_str(), recipients = %recipients);
        let (message, reverse_path) = (head.id.to_string(), head.reverse_path.to_string());
        let noted = self
            .directory
            .write(move |store| {
                let what = (action.as_str(), why.as_str());
                store.note_suppressed(&message, &reverse_path, what, &recipients)
            })
            .await;
        if let Err(error) = noted {
            warn!(event = "dsn", message = %head.id, outcome = "unlisted", reason = %error);
        }
        Ok(())
    }
}

/// Whether a recipient's NOTIFY asks for that report; without one, what went wrong is reported (RFC 3461 4.1).
fn asks(action: Action, notify: Option<Notify>) -> bool {
    match action {
        Action::Failed => notify.is_none_or(|notify| notify.failure),
        Action::Delayed => notify.is_none_or(|notify| notify.delay),
        Action::Relayed | Action::Delivered | Action::Expanded => {
            notify.is_some_and(|notify| notify.success)
        }
    }
}

/// How long after something that could not be done the reports are tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
