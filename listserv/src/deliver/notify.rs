//! Reports to senders (RFC 3464), and the rule of who gets one: nobody who did not prove that the mail was his (design, invariant 6).

use std::sync::Arc;

use bytes::Bytes;
use mail::dsn::{Action, Report, Status};
use mail::{Address, Domain, MailParameters, MessageId, Recipient, Reply, ReversePath, Timestamp};
use spool::{Batch, Class, Destination, Head, NewBatch, NewMessage, Path, Spool};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::directory::{Directory, Error as DirectoryError};
use crate::facts::{Facts, SpfWord, Template};
use crate::metrics::{Metrics, count};

/// What the rule says of one message's reverse-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A report may go.
    Send,
    /// A report may go while the day's allowance of that address lasts.
    Limited,
    /// No report.
    Suppress(Why),
}

/// Why a report is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The reverse-path is null.
    NullSender,
    /// The sender asked for none (NOTIFY=NEVER).
    NotAsked,
    /// SPF says that the sender is somebody else.
    SpfFail,
    /// Nothing says that the sender is who he says.
    Unverified,
    /// No policy is published, and the message is not clean.
    NotClean,
    /// The day's allowance is used up.
    RateLimited,
}

impl Why {
    /// The word in logs, metrics and the list of suppressed reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NullSender => "null-sender",
            Self::NotAsked => "not-asked",
            Self::SpfFail => "spf-fail",
            Self::Unverified => "unverified",
            Self::NotClean => "not-clean",
            Self::RateLimited => "rate-limited",
        }
    }
}

/// The rule. `ours`: the reverse-path is an address of our own directory.
pub fn decide(reverse_path: &ReversePath, ours: bool, facts: &Facts) -> Decision {
    if *reverse_path == ReversePath::Null {
        return Decision::Suppress(Why::NullSender);
    }
    match facts.spf {
        SpfWord::Pass => Decision::Send,
        _ if facts.own || facts.exempt => Decision::Send,
        SpfWord::Fail => Decision::Suppress(Why::SpfFail),
        _ if ours => Decision::Send,
        // Neutral is treated exactly as none (RFC 7208 8.2).
        SpfWord::None | SpfWord::Neutral if facts.clean() => Decision::Limited,
        SpfWord::None | SpfWord::Neutral => Decision::Suppress(Why::NotClean),
        SpfWord::SoftFail | SpfWord::TempError | SpfWord::PermError => {
            Decision::Suppress(Why::Unverified)
        }
    }
}

/// Somebody who got no mail.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Who.
    pub recipient: Recipient,
    /// The reply that decided.
    pub reply: Reply,
    /// Who gave it.
    pub remote: Option<Box<str>>,
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
        }],
    }
}

/// Accepts reports into the spool.
#[derive(Clone)]
pub struct Notifier {
    /// Where reports are accepted.
    pub spool: Arc<dyn Spool>,
    /// Allowances, and the list of what was not sent.
    pub directory: Directory,
    /// `[dsn]`.
    pub config: watch::Receiver<Config>,
    /// Who reports.
    pub hostname: Domain,
    /// Counters.
    pub metrics: Metrics,
}

impl Notifier {
    /// Reports failures of one attempt to the sender if the rule allows it, once however often it is called for that attempt.
    pub async fn report(
        &self,
        head: &Head,
        batch: &Batch,
        failures: &[Failure],
    ) -> Result<(), spool::Error> {
        let asked: Vec<&Failure> = failures
            .iter()
            .filter(|failure| {
                let notify = failure.recipient.parameters.notify;
                notify.is_none_or(|notify| notify.failure)
            })
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        let facts = Facts::read(&head.facts);
        let ours = head.reverse_path.address().is_some_and(|address| {
            self.directory
                .names()
                .is_some_and(|names| names.resolve(address).is_some())
        });
        let decision = match decide(&head.reverse_path, ours, &facts) {
            Decision::Suppress(why) => Err(why),
            _ if asked.is_empty() => Err(Why::NotAsked),
            Decision::Send => Ok(()),
            Decision::Limited => self.allowed(&head.reverse_path).await,
        };
        match (decision, head.reverse_path.address()) {
            (Ok(()), Some(to)) => self.send(head, batch, &asked, to).await,
            (Ok(()), None) => Ok(()), // the rule suppresses it
            (Err(why), _) => {
                self.suppress(head, failures, why).await;
                Ok(())
            }
        }
    }

    async fn allowed(&self, reverse_path: &ReversePath) -> Result<(), Why> {
        let key = reverse_path.address().map(Address::key).unwrap_or_default();
        let per_day = self.config.borrow().dsn.per_day;
        let allowed = self
            .directory
            .write(move |store| store.allow("dsn", &key, per_day))
            .await;
        match allowed {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Why::RateLimited), // a count that cannot be kept is no allowance
        }
    }

    async fn send(
        &self,
        head: &Head,
        batch: &Batch,
        failures: &[&Failure],
        to: &Address,
    ) -> Result<(), spool::Error> {
        // A message that cannot be read any more is still reported, without its header.
        let message = self.spool.body(head.id).await.unwrap_or_default();
        let ident = format!("dsn.{:032x}.{}", batch.id.0, batch.attempts);
        let statuses: Vec<Status<'_>> = failures
            .iter()
            .map(|failure| Status {
                recipient: &failure.recipient,
                reply: &failure.reply,
                remote: failure.remote.as_deref(),
            })
            .collect();
        let report = Report {
            action: Action::Failed,
            reporting_host: &self.hostname,
            to,
            parameters: &head.parameters,
            arrival: head.arrival,
            retry_until: None,
            statuses: &statuses,
            message: &message,
            now: Timestamp::now(),
            unique: &ident,
        };
        let dsn = accept_own(
            &*self.spool,
            &self.directory,
            &self.metrics,
            to,
            report.write(),
            &ident,
        )
        .await?;
        count(&self.metrics.dsn, "sent");
        info!(event = "dsn", message = %head.id, %dsn, to = %to, outcome = "sent");
        Ok(())
    }

    async fn suppress(&self, head: &Head, failures: &[Failure], why: Why) {
        count(&self.metrics.dsn, why.as_str());
        let recipients: Vec<String> = failures
            .iter()
            .map(|failure| failure.recipient.address.to_string())
            .collect();
        let recipients = recipients.join(",");
        info!(event = "dsn", message = %head.id, to = %head.reverse_path, outcome = "suppressed",
            reason = why.as_str(), recipients = %recipients);
        let (message, reverse_path) = (head.id.to_string(), head.reverse_path.to_string());
        let noted: Result<(), DirectoryError> = self
            .directory
            .write(move |store| {
                store.note_suppressed(&message, &reverse_path, why.as_str(), &recipients)
            })
            .await;
        if let Err(error) = noted {
            warn!(event = "dsn", message = %head.id, outcome = "unlisted", reason = %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_bounced_to_who_did_not_prove_himself() {
        use Decision::*;
        let joe = "joe@one.example";
        let table = [
            (
                "",
                false,
                SpfWord::Pass,
                Some("clean"),
                Suppress(Why::NullSender),
            ),
            (joe, false, SpfWord::Pass, Some("clean"), Send),
            (joe, false, SpfWord::Pass, Some("spam"), Send),
            (
                joe,
                false,
                SpfWord::Fail,
                Some("clean"),
                Suppress(Why::SpfFail),
            ),
            (
                joe,
                true,
                SpfWord::Fail,
                Some("clean"),
                Suppress(Why::SpfFail),
            ),
            (joe, true, SpfWord::None, None, Send),
            (joe, false, SpfWord::None, Some("clean"), Limited),
            (joe, false, SpfWord::Neutral, Some("clean"), Limited),
            (
                joe,
                false,
                SpfWord::None,
                Some("spammy"),
                Suppress(Why::NotClean),
            ),
            (joe, false, SpfWord::None, None, Suppress(Why::NotClean)),
            (
                joe,
                false,
                SpfWord::SoftFail,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
            (
                joe,
                false,
                SpfWord::TempError,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
            (
                joe,
                false,
                SpfWord::PermError,
                Some("clean"),
                Suppress(Why::Unverified),
            ),
        ];
        for (reverse_path, ours, spf, class, expected) in table {
            let facts = Facts {
                spf,
                class: class.map(str::to_owned),
                ..Facts::default()
            };
            let got = decide(&ReversePath::parse(reverse_path).unwrap(), ours, &facts);
            assert_eq!(got, expected, "{reverse_path} {ours} {spf:?} {class:?}");
        }
        let exempt = Facts {
            exempt: true,
            ..Facts::default()
        };
        let from = ReversePath::parse(joe).unwrap();
        assert_eq!(decide(&from, false, &exempt), Send);
    }
}
