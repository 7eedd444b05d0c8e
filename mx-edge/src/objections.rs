//! What sessions refuse on their own account, before any policy is asked, and how they end: in this program's words, counted.

use smtp::server::{Ending, Facts, Objection, Refusal};

use crate::receive::Edge;
use crate::told::Told;

/// Counts one, and tells of it if it was a message. `paths_open` forward-paths wait for a message.
pub fn count(edge: &Edge, facts: &Facts, refusal: &Refusal, paths_open: &mut u64) {
    let label = refusal.objection.label();
    let metrics = &edge.metrics;
    metrics.objections.with_label_values(&[label]).inc();
    match refusal.objection {
        Objection::Recipient | Objection::Recipients => {
            metrics.recipients.with_label_values(&[label]).inc();
            if refusal.objection.is_permanent() && refusal.reply.code < 500 {
                metrics.softened.with_label_values(&[label]).inc();
            }
        }
        of_message if of_message.is_of_message() => {
            // The end of those that waited for it.
            *paths_open = 0;
            let told = Told {
                facts,
                from: &refusal.from,
                to: &refusal.to,
                redirected: None,
                message_id: "",
                named: None,
                way: label,
                reply: &refusal.reply,
            };
            told.tell(edge);
        }
        _ => {}
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
