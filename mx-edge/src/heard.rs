//! What the inside's replies tell of a message's scan, for the report. Pure but for its counters.

use mail::Reply;
use mail::verdict::{self, Class};

use crate::metrics::Metrics;

/// Names of malware that are counted apart; each is a series of its own.
const MALWARE_MAX: usize = 200;

fn lines(replies: &[Reply]) -> impl Iterator<Item = &str> {
    replies
        .iter()
        .flat_map(|reply| &reply.lines)
        .map(String::as_str)
}

/// The class that a scanner has told; one message has one.
pub fn class(replies: &[Reply]) -> Option<Class> {
    lines(replies).find_map(Class::told_in)
}

/// Counts it, and the malware that was named.
pub fn count(replies: &[Reply], metrics: &Metrics) {
    if let Some(class) = class(replies) {
        metrics.verdicts.with_label_values(&[class.as_str()]).inc();
    }
    let Some(name) = lines(replies).find_map(verdict::malware_in) else {
        return;
    };
    let families = prometheus::core::Collector::collect(&metrics.malware);
    let known = families
        .first()
        .map(|family| family.get_metric())
        .unwrap_or_default();
    let is_known = known
        .iter()
        .any(|metric| metric.get_label()[0].value() == name);
    let label = if is_known || known.len() < MALWARE_MAX {
        name
    } else {
        "other"
    };
    metrics.malware.with_label_values(&[label]).inc();
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
        let malware = |name: &str| metrics.malware.with_label_values(&[name]).get();
        assert_eq!(metrics.verdicts.with_label_values(&["malware"]).get(), 1);
        assert_eq!(malware("Worm.X-1"), 1);
        for number in 0..2 * MALWARE_MAX {
            count(&[reply(&format!("malware found (W{number})"))], &metrics);
        }
        assert!(malware("other") >= MALWARE_MAX as u64);
    }
}
