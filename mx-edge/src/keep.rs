//! Making a message durable in the spool, within a deadline. Knows nothing of sessions; says why it could not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::{Envelope, Recipient, Timestamp};
use spool::{Class, Destination, NewBatch, NewMessage, Spool};
use tracing::error;

use crate::forward;
use crate::metrics::Metrics;
use crate::reason::Reason;

/// Recipients of one batch.
const BATCH_RECIPIENTS_MAX: usize = 100;

/// Hands messages to the spool.
pub struct Keeper {
    spool: Arc<dyn Spool>,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

/// A message to keep: for whom, and what is known of it.
pub struct Kept {
    /// When the edge had it.
    pub arrival: Timestamp,
    /// Its addressing; the recipients are those that are kept.
    pub envelope: Envelope,
    /// [`crate::facts::MessageFacts`].
    pub facts: Bytes,
    /// Received field and message.
    pub body: Vec<Bytes>,
    /// Not passed on before.
    pub due: Timestamp,
    /// The signed verdict that came with the deferral.
    pub token: Option<String>,
    /// A rule has it wait for an operator.
    pub held: bool,
}

impl Keeper {
    /// Keeps messages in `spool`, each within `deadline`.
    pub fn new(spool: &Arc<dyn Spool>, deadline: Duration, metrics: &Arc<Metrics>) -> Self {
        Self {
            spool: Arc::clone(spool),
            deadline,
            metrics: Arc::clone(metrics),
        }
    }

    /// Why the spool would not take a message now, if it is known.
    pub fn refuses(&self) -> Option<Reason> {
        self.spool.refuses().map(|error| reason(&error))
    }

    /// Returns when the message is on stable storage. After the deadline the answer is no, although it may still be stored: then
    /// the client's next try makes it twice, which is better than a client that gives up on its own and does the same.
    pub async fn keep(&self, kept: Kept) -> Result<(), Reason> {
        let timer = self.metrics.spool_accept_seconds.start_timer();
        let spool = Arc::clone(&self.spool);
        let message = message(kept);
        // A task of its own, so that a deadline does not cut the spool off in the middle.
        let work = tokio::spawn(async move { spool.accept(message, None).await });
        let accepted = tokio::time::timeout(self.deadline, work).await;
        timer.observe_duration();
        match accepted {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(error))) => {
                error!(event = "not_spooled", %error);
                Err(reason(&error))
            }
            Ok(Err(panicked)) => {
                error!(event = "not_spooled", error = %panicked);
                Err(Reason::SpoolFailed)
            }
            Err(_) => {
                error!(
                    event = "not_spooled",
                    error = "not durable within spool.deadline"
                );
                Err(Reason::SpoolLate)
            }
        }
    }
}

fn reason(error: &spool::Error) -> Reason {
    match error {
        spool::Error::Full(_) => Reason::SpoolFull,
        spool::Error::Slow(_) => Reason::SpoolSlow,
        _ => Reason::SpoolFailed,
    }
}

/// The note that a deferral left is the batch's template, so that the first attempt out of the spool presents it.
fn message(kept: Kept) -> NewMessage {
    let destination = match kept.token {
        _ if kept.held => forward::held(),
        Some(_) => forward::scanned(),
        None => Destination::Inside,
    };
    let template: Bytes = kept.token.unwrap_or_default().into_bytes().into();
    let batch = |recipients: &[Recipient]| NewBatch {
        destination: destination.clone(),
        class: Class::Ordinary,
        due: kept.due,
        recipients: recipients.to_vec(),
        template: template.clone(),
        replies: Default::default(),
    };
    let recipients = &kept.envelope.recipients;
    NewMessage {
        arrival: kept.arrival,
        batches: recipients.chunks(BATCH_RECIPIENTS_MAX).map(batch).collect(),
        reverse_path: kept.envelope.reverse_path,
        parameters: kept.envelope.parameters,
        facts: kept.facts,
        body: kept.body,
    }
}
