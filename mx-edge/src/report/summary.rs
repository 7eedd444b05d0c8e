//! From a day's counts to the figures operators know from log reports. Pure. Every forward-path that a client named is in exactly one line:
//! accepted, refused with a 5xx, put off with a 4xx, or abandoned; what is missing from the sum is said, never hidden.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Counts, Day};
use crate::reason::Reason;

/// The report's figures. `open` are forward-paths and sessions under way now, for the present day.
pub fn summary(day: &Day, sessions_open: u64) -> Value {
    let counts = &day.counts;
    let named = all(counts, "recipients_total");
    let ends = End::sum(counts);
    let paths: u64 = named.values().sum();
    let let_in = named.get("accepted").copied().unwrap_or(0);
    let ended: u64 = ends.ended();
    let mut refused = Groups::default();
    let mut put_off = Groups::default();
    for reason in Reason::ALL {
        let label = reason.label();
        let at_rcpt = named.get(label).copied().unwrap_or(0);
        let at_end = |kind| {
            all_where(counts, "path_ends_total", "outcome", kind)
                .get(label)
                .copied()
                .unwrap_or(0)
        };
        match reason.is_permanent() {
            true => refused.add(reason.group(), at_rcpt + at_end("refused")),
            false => put_off.add(reason.group(), at_rcpt + at_end("deferred")),
        }
        // With soft_bounce a permanent refusal was told as a deferral.
        if reason.is_permanent() {
            put_off.add("soft bounce", at_end("deferred"));
        }
    }
    let inside = |kind: &str| {
        let ends = all_where(counts, "path_ends_total", "outcome", kind);
        let own = |label: &&String| {
            Reason::ALL
                .iter()
                .any(|reason| reason.label() == label.as_str())
        };
        ends.iter()
            .filter(|(label, _)| !own(label))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    refused.add("content", inside("refused"));
    put_off.add("inside", inside("deferred"));
    let sessions = all(counts, "sessions_total");
    let made = one(counts, "connections_total");
    let over: u64 = sessions.values().sum();
    json!({
        "day": day.day,
        "starts": day.starts,
        "door": {
            "paths": paths,
            "accepted": ends.accepted,
            "refused": refused.total(),
            "refused_by": refused.0,
            "put_off": put_off.total(),
            "put_off_by": put_off.0,
            "abandoned": ends.abandoned,
            "unended": let_in.saturating_sub(ended),
        },
        "sessions": {
            "made": made,
            "by_end": sessions,
            "open": sessions_open,
            "cut_by_restart": made.saturating_sub(over + sessions_open),
            "turned_away": all(counts, "turned_away_total"),
            "screened": all(counts, "screened_sessions_total"),
        },
        "mail": {
            "messages": all(counts, "messages_total"),
            "bytes_accepted": one(counts, "accepted_bytes_total"),
            "taken": all(counts, "taken_recipients_total"),
            "done": all(counts, "done_recipients_total"),
            "held": all(counts, "held_recipients_total"),
        },
        "scanner": {
            "verdicts": all(counts, "verdicts_total"),
            "malware": all(counts, "malware_total"),
        },
        "warned": all(counts, "warned_recipients_total"),
        "spf": all(counts, "spf_total"),
        "shadow": by_first(counts, "shadow_recipients_total", "outcome"),
    })
}

/// Counts by the name of a line; lines with nothing are left out.
#[derive(Default)]
struct Groups(BTreeMap<&'static str, u64>);

impl Groups {
    fn add(&mut self, group: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(group).or_default() += count;
        }
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// How forward-paths that were let in at RCPT ended.
struct End {
    accepted: u64,
    abandoned: u64,
    others: u64,
}

impl End {
    fn sum(counts: &Counts) -> Self {
        let by = by_first(counts, "path_ends_total", "outcome");
        let of = |kind: &str| by.get(kind).copied().unwrap_or(0);
        Self {
            accepted: of("passed") + of("spooled"),
            abandoned: of("abandoned"),
            others: of("refused") + of("deferred"),
        }
    }

    fn ended(&self) -> u64 {
        self.accepted + self.abandoned + self.others
    }
}

/// The labels of `name{a=b,c=d}`, when it is this counter.
fn labels<'a>(key: &'a str, name: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let labels = key
        .strip_prefix(name)?
        .strip_prefix('{')?
        .strip_suffix('}')?;
    Some(
        labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .collect(),
    )
}

/// A counter with one label, by its value.
fn all(counts: &Counts, name: &str) -> BTreeMap<String, u64> {
    let mut by = BTreeMap::new();
    for (key, count) in counts {
        if let Some([(_, value)]) = labels(key, name).as_deref() {
            *by.entry((*value).to_owned()).or_default() += count;
        }
    }
    by
}

/// A counter without labels.
fn one(counts: &Counts, name: &str) -> u64 {
    counts.get(&format!("{name}{{}}")).copied().unwrap_or(0)
}

/// A counter with two labels where one has this value, by the other.
fn all_where(counts: &Counts, name: &str, label: &str, is: &str) -> BTreeMap<String, u64> {
    let mut by = BTreeMap::new();
    for (key, count) in counts {
        let Some(labels) = labels(key, name) else {
            continue;
        };
        if labels.contains(&(label, is)) {
            let other = labels.iter().find(|(name, _)| *name != label);
            *by.entry(other.map_or("", |(_, value)| value).to_owned())
                .or_default() += count;
        }
    }
    by
}

fn by_first(counts: &Counts, name: &str, label: &str) -> BTreeMap<String, u64> {
    let mut by = BTreeMap::new();
    for (key, count) in counts {
        let labels = labels(key, name).unwrap_or_default();
        if let Some((_, value)) = labels.iter().find(|(name, _)| *name == label) {
            *by.entry((*value).to_owned()).or_default() += count;
        }
    }
    by
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of a real day: three refusals in four are unknown users.
    fn day() -> Day {
        let counts = [
            ("recipients_total{reason=accepted}", 100),
            ("recipients_total{reason=unknown_recipient}", 300),
            ("recipients_total{reason=dnsbl}", 50),
            ("recipients_total{reason=domain_listed}", 7),
            ("recipients_total{reason=helo_syntax}", 10),
            ("recipients_total{reason=sender_unknown}", 3),
            ("recipients_total{reason=relay_denied}", 2),
            ("recipients_total{reason=greylisted}", 20),
            ("path_ends_total{outcome=passed,reason=through}", 60),
            ("path_ends_total{outcome=spooled,reason=busy}", 10),
            ("path_ends_total{outcome=refused,reason=spam}", 12),
            ("path_ends_total{outcome=refused,reason=header}", 4),
            ("path_ends_total{outcome=deferred,reason=spool_full}", 5),
            ("path_ends_total{outcome=abandoned,reason=}", 8),
            ("connections_total{}", 500),
            ("sessions_total{outcome=quit}", 240),
            ("sessions_total{outcome=lost}", 250),
        ];
        Day {
            day: "2026-11-25".into(),
            starts: 1,
            counts: counts.map(|(name, count)| (name.to_owned(), count)).into(),
        }
    }

    #[test]
    fn every_path_is_in_one_line() {
        let report = summary(&day(), 4);
        let door = &report["door"];
        let number = |name: &str| door[name].as_u64().unwrap();
        let lines = ["accepted", "refused", "put_off", "abandoned", "unended"];
        assert_eq!(number("paths"), 492);
        assert_eq!(lines.iter().map(|line| number(line)).sum::<u64>(), 492);
        assert_eq!(number("unended"), 1);
        for (line, expected) in [
            ("unknown user", 300),
            ("RBL", 57),
            ("HELO", 10),
            ("header", 4),
            ("content", 12),
        ] {
            assert_eq!(door["refused_by"][line], expected, "{line}");
        }
        assert_eq!(door["put_off_by"]["recipient address"], 20);
        assert_eq!(report["sessions"]["cut_by_restart"], 6);
    }

    #[test]
    fn a_day_with_nothing_is_a_report() {
        let report = summary(&Day::default(), 0);
        assert_eq!(report["door"]["paths"], 0);
        assert!(super::super::text(&report).contains("nobody"));
    }
}
