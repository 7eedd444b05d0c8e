//! From a day's counts to the figures operators know from log reports. Pure. Every forward-path that a client named is in exactly one line:
//! accepted, refused with a 5xx, put off with a 4xx, or abandoned; what is missing from the sum is said, never hidden. What
//! counts is what the client was told: a refusal that `soft_bounce` softened is put off.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use smtp::server::Ending;

use super::{Counts, Day};
use crate::objections;
use crate::reason::{LIMITS, Reason};

/// The report's figures. `open` are forward-paths and sessions under way now, for the present day.
pub fn summary(day: &Day, sessions_open: u64) -> Value {
    let counts = &day.counts;
    let sessions = all(counts, "sessions_total");
    let made = one(counts, "connections_total");
    let over: u64 = sessions.values().sum();
    json!({
        "day": day.day,
        "starts": day.starts,
        "door": door(counts),
        "sessions": {
            "made": made,
            "limits": limits(counts),
            "by_end": sessions,
            "open": sessions_open,
            "cut_by_restart": made.saturating_sub(over + sessions_open),
            "turned_away": all(counts, "turned_away_sessions_total"),
            "screened": all(counts, "screened_sessions_total"),
            "senders": refusals(counts, "senders_total"),
            "objections": all(counts, "objections_total"),
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
            "unchecked": all(counts, "unchecked_total"),
        },
        "rules": rules(counts),
        "top": day.top.shown(),
        "warned": all(counts, "warned_recipients_total"),
        "warned_sessions": all(counts, "warned_sessions_total"),
        "spf": all(counts, "spf_total"),
        "shadow": by_first(counts, "shadow_recipients_total", "outcome"),
        "shadow_admissions": by_first(counts, "shadow_admissions_total", "outcome"),
    })
}

/// What became of every forward-path.
fn door(counts: &Counts) -> Value {
    let named = all(counts, "recipients_total");
    let softened = all(counts, "softened_recipients_total");
    let at_message = |kind| all_where(counts, "path_ends_total", "outcome", kind);
    let (at_message_refused, at_message_put_off) = (at_message("refused"), at_message("deferred"));
    let ends = End::sum(counts);
    let of = |by: &BTreeMap<String, u64>, label: &str| by.get(label).copied().unwrap_or(0);
    let (mut refused, mut put_off) = (Groups::default(), Groups::default());
    let mut soft = Groups::default();
    let (mut refused_for, mut put_off_for) = (Reasons::default(), Reasons::default());
    for reason in Reason::ALL {
        let (label, group) = (reason.label(), reason.group());
        let at_rcpt = of(&named, label);
        let late = of(&at_message_put_off, label);
        if reason.is_permanent() {
            let told_softly = of(&softened, label).min(at_rcpt);
            let count = at_rcpt - told_softly + of(&at_message_refused, label);
            refused.add(group, count);
            refused_for.add(label, count);
            soft.add(group, told_softly + late);
            put_off_for.add(label, told_softly + late);
        } else {
            put_off.add(group, at_rcpt + late);
            put_off_for.add(label, at_rcpt + late);
        }
    }
    // What the inside says is passed on, but for a deferral: that is spooled. So one that was passed on was softened.
    refused.add("content", refused_for.add_not_ours(&at_message_refused));
    soft.add("content", put_off_for.add_not_ours(&at_message_put_off));
    put_off.add("soft bounce", soft.total());
    json!({
        "paths": named.values().sum::<u64>(),
        "accepted": ends.accepted,
        "refused": refused.total(),
        "refused_by": refused.0,
        "refused_for": refused_for.0,
        "put_off": put_off.total(),
        "put_off_by": put_off.0,
        "put_off_for": put_off_for.0,
        "softened_by": soft.0,
        "abandoned": ends.abandoned,
        "unended": of(&named, "accepted").saturating_sub(ends.ended()),
    })
}

/// Counts by reason; those with nothing are left out.
#[derive(Default)]
struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    fn add(&mut self, label: &str, count: u64) {
        if count > 0 {
            *self.0.entry(label.to_owned()).or_default() += count;
        }
    }

    /// Adds those that are no reasons of this edge; their sum.
    fn add_not_ours(&mut self, by: &BTreeMap<String, u64>) -> u64 {
        let ours = |label: &str| Reason::ALL.iter().any(|reason| reason.label() == label);
        let others = by.iter().filter(|(label, _)| !ours(label));
        others
            .inspect(|(label, count)| self.add(label, **count))
            .map(|(_, count)| count)
            .sum()
    }
}

/// How often each limit was reached: at a session's start, at MAIL, at RCPT, by a message, by too many errors or too much time.
fn limits(counts: &Counts) -> BTreeMap<String, u64> {
    let mut limits = BTreeMap::new();
    let mut add = |name: &str, by: &BTreeMap<String, u64>, of: &str| {
        if let Some(count) = by.get(of).filter(|count| **count > 0) {
            *limits.entry(name.to_owned()).or_default() += count;
        }
    };
    // What sessions say on their own account is counted there, and a recipient among recipients too.
    let objections = all(counts, "objections_total");
    let counters = [
        "starttls_total",
        "turned_away_sessions_total",
        "senders_total",
        "recipients_total",
    ];
    let counters = counters.map(|name| all(counts, name));
    for reason in Reason::ALL.into_iter().filter(|one| one.group() == LIMITS) {
        let label = reason.label();
        match reason {
            Reason::Session(_) => add(label, &objections, label),
            _ => counters.iter().for_each(|by| add(label, by, label)),
        }
    }
    let ends = all(counts, "sessions_total");
    add(
        "errors of a session",
        &ends,
        objections::ending(Ending::Errors),
    );
    add("time", &ends, objections::ending(Ending::TimedOut));
    limits
}

/// Why something was refused.
fn refusals(counts: &Counts, name: &str) -> BTreeMap<String, u64> {
    let mut by = all(counts, name);
    by.remove("accepted");
    by
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
            accepted: of("passed") + of("spooled") + of("held") + of("discarded"),
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

/// What named rules did: `bulk held` each.
fn rules(counts: &Counts) -> BTreeMap<String, u64> {
    let mut by = BTreeMap::new();
    for (key, count) in counts {
        let labels = labels(key, "rule_hits_total").unwrap_or_default();
        let of = |name: &str| labels.iter().find(|(label, _)| *label == name);
        if let (Some((_, rule)), Some((_, outcome))) = (of("rule"), of("outcome")) {
            by.insert(format!("{rule} {outcome}"), *count);
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
            ("recipients_total{reason=too_many_recipients}", 6),
            ("objections_total{objection=too_many_recipients}", 6),
            ("recipients_total{reason=recipient_rate}", 2),
            ("objections_total{objection=syntax}", 11),
            ("objections_total{objection=announced_too_large}", 1),
            ("objections_total{objection=junk_commands}", 9),
            ("senders_total{reason=accepted}", 90),
            ("senders_total{reason=message_rate}", 4),
            ("turned_away_sessions_total{reason=client_sessions}", 30),
            ("turned_away_sessions_total{reason=draining}", 2),
            ("softened_recipients_total{reason=relay_denied}", 1),
            ("path_ends_total{outcome=abandoned,reason=}", 8),
            ("connections_total{}", 500),
            ("sessions_total{outcome=quit}", 240),
            ("sessions_total{outcome=lost}", 244),
            ("sessions_total{outcome=errors}", 5),
            ("sessions_total{outcome=timed_out}", 1),
        ];
        Day {
            day: "2026-11-25".into(),
            starts: 1,
            top: Default::default(),
            counts: counts.map(|(name, count)| (name.to_owned(), count)).into(),
        }
    }

    #[test]
    fn every_path_is_in_one_line() {
        let report = summary(&day(), 4);
        let door = &report["door"];
        let number = |name: &str| door[name].as_u64().unwrap();
        let lines = ["accepted", "refused", "put_off", "abandoned", "unended"];
        assert_eq!(number("paths"), 500);
        assert_eq!(lines.iter().map(|line| number(line)).sum::<u64>(), 500);
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
        for (total, parts) in [("refused", "refused_for"), ("put_off", "put_off_for")] {
            let parts = door[parts].as_object().unwrap().values();
            let sum: u64 = parts.map(|part| part.as_u64().unwrap()).sum();
            assert_eq!(sum, number(total), "{door:#}");
        }
        assert_eq!(door["put_off_for"]["spool_full"], 5);
        assert_eq!(door["put_off_for"]["relay_denied"], 1);
        assert_eq!(door["refused_for"]["spam"], 12);
        assert_eq!(door["put_off_by"]["recipient address"], 20);
        assert_eq!(door["put_off_by"]["limits"], 8);
        // Told a 4xx for it, and so not among those that were refused.
        assert_eq!(door["put_off_by"]["soft bounce"], 1);
        assert_eq!(door["softened_by"]["relay denied"], 1);
        assert_eq!(door["refused_by"]["relay denied"], 1);
        assert_eq!(report["sessions"]["cut_by_restart"], 6);
    }

    #[test]
    fn every_limit_has_its_line() {
        let report = summary(&day(), 4);
        let expected = json!({
            "announced_too_large": 1,
            "client_sessions": 30,
            "errors of a session": 5,
            "junk_commands": 9,
            "message_rate": 4,
            "recipient_rate": 2,
            "time": 1,
            "too_many_recipients": 6,
        });
        assert_eq!(report["sessions"]["limits"], expected);
        assert_eq!(report["sessions"]["turned_away"]["draining"], 2);
        let senders = &report["sessions"]["senders"];
        assert_eq!(senders, &json!({ "message_rate": 4 }));
        let text = super::super::text(&report);
        for line in ["lost", "too_many_recipients", "syntax", "soft bounce"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_day_with_nothing_is_a_report() {
        let report = summary(&Day::default(), 0);
        assert_eq!(report["door"]["paths"], 0);
        assert!(super::super::text(&report).contains("nobody"));
    }
}
