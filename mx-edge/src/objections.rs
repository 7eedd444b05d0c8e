//! What sessions refuse on their own account, before any policy is asked, and how they end: in this program's words, counted.

use smtp::server::{Ending, Facts, Objection};
use tracing::info;

use crate::metrics::Metrics;
use crate::reason::Reason;

/// Counts an objection. One to a message is the end of the forward-paths that waited for it, `paths_open`.
pub fn count(metrics: &Metrics, facts: &Facts, objection: Objection, paths_open: &mut u64) {
    let label = objection.label();
    metrics.objections.with_label_values(&[label]).inc();
    match objection {
        Objection::Syntax
        | Objection::Sequence
        | Objection::Sender
        | Objection::Announced
        | Objection::Junk => {}
        Objection::Recipient | Objection::Recipients => {
            metrics.recipients.with_label_values(&[label]).inc();
        }
        Objection::TooLarge | Objection::BareNewline | Objection::NoMemory => {
            let permanent = Reason::of(objection).is_some_and(Reason::is_permanent);
            let outcome = if permanent { "refused" } else { "deferred" };
            let paths = std::mem::take(paths_open);
            metrics.messages.with_label_values(&[outcome]).inc();
            let ends = metrics.path_ends.with_label_values(&[outcome, label]);
            ends.inc_by(paths);
            info!(
                event = "message",
                session = %facts.session,
                client = %facts.client.ip(),
                recipients = paths,
                outcome,
                way = label
            );
        }
    }
}

/// How a session ended, as a label.
pub fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Quit => "quit",
        Ending::Lost => "lost",
        Ending::TimedOut => "timed_out",
        Ending::Refused => "refused",
        Ending::Errors => "errors",
        Ending::Pipelined => "pipelined",
        Ending::Foreign => "foreign",
        Ending::Shutdown => "shutdown",
        Ending::Tls => "tls_failed",
    }
}
