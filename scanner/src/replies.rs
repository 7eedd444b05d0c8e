//! The replies of the scanner, each from what was decided. Words and numbers; decides nothing.

use mail::verdict::{Class, Verdict, malware_told, unchecked_told};
use mail::{EnhancedStatus, Reply};

use crate::headers::points;
use crate::relay::Failure;

/// The refusal of a bad message while its client waits. `reference` lets a postmaster find it in the logs.
pub fn refusal(verdict: &Verdict, kill: i32, contact: &str, reference: &str) -> Reply {
    let more = if contact.is_empty() { "" } else { " see " };
    let reason = &verdict.reason;
    let (code, enhanced, text) = match verdict.class {
        Class::Malware => (550, (5, 7, 1), malware_told(reason)),
        Class::Banned => (550, (5, 7, 1), format!("banned content ({reason})")),
        Class::Ambiguous | Class::Unscanned => (550, (5, 6, 0), unchecked_told(reason)),
        Class::Oversized => (552, (5, 3, 4), unchecked_told(reason)),
        Class::BadHeader => (550, (5, 6, 0), format!("bad header ({reason})")),
        Class::Spam | Class::Spammy | Class::Clean => {
            let score = verdict.score_hundredths.map(points).unwrap_or_default();
            let text = format!(
                "looks like spam (score {score}, refused from {})",
                points(kill)
            );
            (550, (5, 7, 1), text)
        }
    };
    let told = verdict.class.told();
    let text = format!("{text}, {told} [{reference}]{more}{contact}");
    Reply::new(code, enhanced, text)
}

/// What a policy puts off.
pub fn deferral(class: Class, reference: &str) -> Reply {
    let text = format!(
        "put off by this site's policy, {} [{reference}]",
        class.told()
    );
    Reply::new(451, (4, 7, 1), text)
}

/// No list host took it: the verdict travels back to the edge, which presents it with the next attempt.
pub fn unreached(class: Class, failure: &Failure, token: Vec<String>) -> Reply {
    let told = class.told();
    let text = match failure {
        Failure::Unreachable(_) => format!("list host cannot be reached, {told}"),
        Failure::Cut(_) => format!("list host did not answer, {told}"),
    };
    with_token(Reply::new(451, (4, 4, 1), text), token)
}

/// The same for mail that is not scanned.
pub fn unreached_exempt(failure: &Failure) -> Reply {
    let text = match failure {
        Failure::Unreachable(_) => "list host cannot be reached",
        Failure::Cut(_) => "list host did not answer",
    };
    Reply::new(451, (4, 4, 1), text)
}

/// A list host's reply as it goes back: a deferral carries the verdict, so that the next attempt need not scan; an acceptance tells the
/// class, for the edge's report.
pub fn passed_on(mut reply: Reply, class: Class, token: impl FnOnce() -> Vec<String>) -> Reply {
    match reply.code {
        ..400 => {
            if let Some(line) = reply.lines.last_mut() {
                line.push_str(&format!(", {}", class.told()));
            }
            reply
        }
        400..500 => with_token(reply, token()),
        _ => reply,
    }
}

/// The metric's label of a reply to mail that was passed on as `passed`.
pub fn outcome(reply: &Reply, passed: &'static str) -> &'static str {
    match reply.code {
        ..400 => passed,
        400..500 => "deferred",
        _ => "refused",
    }
}

fn with_token(mut reply: Reply, token: Vec<String>) -> Reply {
    // RFC 2034 4: every line carries the same status, so there must be one.
    reply.enhanced.get_or_insert(EnhancedStatus(4, 0, 0));
    let text = std::mem::replace(&mut reply.lines, token);
    reply.lines.extend(text);
    reply
}
