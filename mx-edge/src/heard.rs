//! What the inside's replies tell of a message's scan, for the report. Pure but for its counters.

use mail::Reply;
use mail::verdict::{self, Class};
use prometheus::IntCounterVec;

use crate::metrics::Metrics;

/// Names that are counted apart; each is a series of its own.
const NAMES_MAX: usize = 200;

fn lines<'a>(replies: impl IntoIterator<Item = &'a Reply>) -> impl Iterator<Item = &'a str> {
    let replies = replies.into_iter();
    replies.flat_map(|reply| &reply.lines).map(String::as_str)
}

/// The class that a scanner has told; one message has one.
pub fn class<'a>(replies: impl IntoIterator<Item = &'a Reply>) -> Option<Class> {
    lines(replies).find_map(Class::told_in)
}

/// Counts it, with the malware that was named, or why it could not be checked.
pub fn count<'a>(replies: impl IntoIterator<Item = &'a Reply> + Clone, metrics: &Metrics) {
    if let Some(class) = class(replies.clone()) {
        metrics.verdicts.with_label_values(&[class.as_str()]).inc();
    }
    for (counters, name) in [
        (
            &metrics.malware,
            lines(replies.clone()).find_map(verdict::malware_in),
        ),
        (
            &metrics.unchecked,
            lines(replies).find_map(verdict::unchecked_in),
        ),
    ] {
        if let Some(name) = name {
            count_named(counters, name);
        }
    }
}

/// One more of a name that others gave; `other` when there are too many of them.
fn count_named(counters: &IntCounterVec, name: &str) {
    let families = prometheus::core::Collector::collect(counters);
    let known = families
        .first()
        .map(|family| family.get_metric())
        .unwrap_or_default();
    let is_known = known
        .iter()
        .any(|metric| metric.get_label()[0].value() == name);
    let label = if is_known || known.len() < NAMES_MAX {
        name
    } else {
        "other"
    };
    counters.with_label_values(&[label]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_and_malware_are_heard_once_a_message() {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let reply = |text: &str| Reply::new(550, (5, 7, 1), text);
        let worm = reply("malware found (Worm.X-1), scanned as malware [mx1.1.1]");
        count(&[worm.clone(), worm], &metrics);
        count(&[reply("no such user")], &metrics);
        let deep = "message cannot be checked (nested deeper than 50 levels), scanned as unscanned";
        count(&[reply(deep)], &metrics);
        let unchecked = |name: &str| metrics.unchecked.with_label_values(&[name]).get();
        assert_eq!(unchecked("nested deeper than 50 levels"), 1);
        let malware = |name: &str| metrics.malware.with_label_values(&[name]).get();
        assert_eq!(metrics.verdicts.with_label_values(&["malware"]).get(), 1);
        assert_eq!(malware("Worm.X-1"), 1);
        for number in 0..2 * NAMES_MAX {
            count(&[reply(&format!("malware found (W{number})"))], &metrics);
        }
        assert!(malware("other") >= NAMES_MAX as u64);
    }
}
