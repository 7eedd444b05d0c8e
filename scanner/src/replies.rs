//! The replies of the scanner, each from what was decided. Words and numbers; decides nothing.

use mail::verdict::{Action, Class, Verdict, malware_told, unchecked_told};
use mail::{EnhancedStatus, Reply};

use crate::config::Config;
use crate::headers::points;
use crate::relay::Failure;

/// An action's word in logs and JSON.
pub fn word(action: Action) -> &'static str {
    match action {
        Action::Pass => "pass",
        Action::Refuse => "refuse",
        Action::Quarantine => "quarantine",
    }
}

/// The refusal of a bad message while its client waits. `reference` lets a postmaster find it in the logs.
pub fn refusal(verdict: &Verdict, config: &Config, reference: &str) -> Reply {
    let contact = &config.receive.contact;
    let more = if contact.is_empty() { "" } else { " see " };
    let (enhanced, text) = match verdict.class {
        Class::Malware => ((5, 7, 1), malware_told(&verdict.reason)),
        Class::Unchecked => ((5, 6, 0), unchecked_told(&verdict.reason)),
        _ => {
            let score = verdict.score_hundredths.map(points).unwrap_or_default();
            let kill = points(config.levels.levels().kill);
            let text = format!("looks like spam (score {score}, refused from {kill})");
            ((5, 7, 1), text)
        }
    };
    Reply::new(
        550,
        enhanced,
        format!(
            "{text}, {} [{reference}]{more}{contact}",
            verdict.class.told()
        ),
    )
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
