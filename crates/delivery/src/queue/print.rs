//! How answers about the queue look to a person; `--json` prints them as they are.

use serde_json::Value;

/// A table: the first row is its head. Columns that hold numbers only are set to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            cells(column)
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|column| {
            cells(column)
                .skip(1)
                .all(|cell| cell.parse::<f64>().is_ok())
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).zip(&numeric);
        let cells = cells.map(|((cell, width), numeric)| match numeric {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Rows of an array's fields, below their names.
fn listed(answer: &Value, columns: &[(&str, &str)]) -> String {
    let entries = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        return "none".into();
    }
    let mut rows = vec![columns.iter().map(|(head, _)| (*head).into()).collect()];
    for entry in entries {
        rows.push(columns.iter().map(|(_, name)| field(entry, name)).collect());
    }
    table(&rows)
}

fn field(entry: &Value, name: &str) -> String {
    match name.strip_suffix("_seconds") {
        Some(_) => age(&entry[name]),
        None => plain(&entry[name]),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).into(),
        other => other.to_string(),
    }
}

/// `3d04h`, `2h07m`, `45s`.
fn age(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_u64() else {
        return "-".into();
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

pub(super) fn tally(answer: &Value) -> String {
    let columns = [
        ("destination", "destination"),
        ("class", "class"),
        ("batches", "batches"),
        ("recipients", "recipients"),
        ("leased", "leased"),
        ("held", "held"),
        ("oldest", "oldest"),
        ("next due", "next_due"),
    ];
    listed(answer, &columns)
}

pub(super) fn list(answer: &Value) -> String {
    let columns = [
        ("message", "message"),
        ("lane", "lane"),
        ("age", "age_seconds"),
        ("tries", "attempts"),
        ("rcpts", "recipients"),
        ("hold", "hold"),
        ("sender", "sender"),
        ("to", "first_recipient"),
        ("list", "list"),
        ("last reply", "reply"),
    ];
    let lines = listed(&answer["batches"], &columns);
    let unknown = unknown_domains(answer);
    match answer["after"].as_str() {
        Some(after) => format!("{lines}{unknown}\nthere is more: --after {after}"),
        None => lines + &unknown,
    }
}

/// Where a site was named and not all domains could be looked up.
fn unknown_domains(answer: &Value) -> String {
    match answer["unknown_domains"].as_u64().unwrap_or_default() {
        0 => String::new(),
        count => format!(
            "\nmail to {count} more domains may lead there too: their exchangers could not be looked up just now"
        ),
    }
}

pub(super) fn show(answer: &Value) -> String {
    let mut lines = Vec::new();
    for name in [
        "message",
        "ident",
        "reverse_path",
        "arrival",
        "accepted",
        "bytes",
        "facts",
    ] {
        lines.push(format!(
            "{}: {}",
            name.replace('_', " "),
            plain(&answer[name])
        ));
    }
    let batches = answer["batches"].as_array().map(Vec::as_slice);
    for batch in batches.unwrap_or_default() {
        lines.push(format!("batch: {}", plain(&batch["batch"])));
        for name in [
            "destination",
            "site",
            "list",
            "lane",
            "attempts",
            "due",
            "in_flight",
            "hold",
            "template",
            "note",
        ] {
            lines.push(format!(
                "  {}: {}",
                name.replace('_', " "),
                plain(&batch[name])
            ));
        }
        let recipients = batch["recipients"].as_array().into_iter().flatten();
        lines.extend(recipients.map(|to| format!("  to: {}", plain(to))));
        let replies = batch["replies"].as_array().map(Vec::as_slice);
        let replies = replies.unwrap_or_default();
        for told in replies {
            lines.push(format!("  reply: {}", plain(&told["reply"])));
            if replies.len() > 1 {
                let to = told["recipients"].as_array().into_iter().flatten();
                lines.extend(to.map(|to| format!("    told to: {}", plain(to))));
            }
        }
    }
    if answer["more"] == true {
        lines.push("there are more batches: `queue list --message` shows all".into());
    }
    lines.join("\n")
}

pub(super) fn acted(answer: &Value) -> String {
    let amount = format!(
        "{} recipients in {} batches",
        plain(&answer["recipients"]),
        plain(&answer["batches"])
    );
    let in_flight = answer["in_flight"].as_u64().unwrap_or_default();
    let under_way = match in_flight {
        0 => String::new(),
        count => format!(
            "\n{count} of these batches are under way just now: what their attempts leave is treated like the others"
        ),
    };
    let unreadable = match answer["unreadable"].as_u64().unwrap_or_default() {
        0 => String::new(),
        count => format!(
            "\n{count} other batches cannot be read just now, and nobody can tell whether they are meant: see `spool_unreadable_batches`"
        ),
    };
    let under_way = under_way + &unreadable + &unknown_domains(answer);
    if let Some(done) = answer["done"].as_str() {
        let hold = match answer["hold"].as_u64() {
            Some(hold) => format!("\nhold {hold}: `queue release --hold {hold}` undoes it"),
            None => String::new(),
        };
        return format!("{done}: {amount}{under_way}{hold}");
    }
    let mut text = format!(
        "would {}: {amount}, the oldest {}{under_way}",
        plain(&answer["would"]),
        age(&answer["oldest_seconds"]),
    );
    let columns = [
        ("destination", "destination"),
        ("recipients", "recipients"),
        ("oldest", "oldest_seconds"),
    ];
    if let Some(grain) = answer["to_seconds"].as_u64() {
        text.push_str(&format!(
            "\ncounted by age, to {grain} seconds; `queue top` with the same conditions tells where it goes"
        ));
    }
    if answer["destinations"]
        .as_array()
        .is_some_and(|lines| !lines.is_empty())
    {
        text.push('\n');
        text.push_str(&listed(&answer["destinations"], &columns));
    }
    if answer["other_recipients"].as_u64() > Some(0) {
        text.push_str(&format!("\nothers: {}", answer["other_recipients"]));
    }
    text
}

pub(super) fn holds(answer: &Value) -> String {
    let columns = [
        ("hold", "hold"),
        ("batches", "batches"),
        ("recipients", "recipients"),
        ("under way", "in_flight"),
        ("made", "made"),
        ("what", "where"),
    ];
    listed(answer, &columns)
}

pub(super) fn top(answer: &Value) -> String {
    let ages = answer["ages"].as_array().into_iter().flatten().map(plain);
    let mut head = vec![plain(&answer["by"]), "T".into()];
    head.extend(ages);
    let last = head
        .last()
        .map_or_else(String::new, |last| format!("{last}+"));
    head.extend([last, "held".into(), "oldest".into()]);
    let mut rows = vec![head];
    let lines = answer["lines"].as_array().into_iter().flatten();
    for line in std::iter::once(&answer["total"])
        .chain(lines)
        .chain(std::iter::once(&answer["others"]))
        .filter(|line| !line.is_null())
    {
        let mut row = vec![plain(&line["name"]), plain(&line["recipients"])];
        row.extend(line["ages"].as_array().into_iter().flatten().map(plain));
        row.extend([plain(&line["held"]), age(&line["oldest_seconds"])]);
        rows.push(row);
    }
    let unknown = unknown_domains(answer);
    match rows.len() {
        1 => "none".to_owned() + &unknown,
        _ => table(&rows) + &unknown,
    }
}

pub(super) fn sites(answer: &Value) -> String {
    let columns = [
        ("site", "site"),
        ("gate", "gate"),
        ("recipients", "recipients"),
        ("in flight", "in_flight"),
        ("in hand", "in_hand"),
        ("window", "window"),
        ("rate", "rate"),
        ("next probe", "probe"),
        ("last trouble", "trouble"),
    ];
    listed(answer, &columns)
}

pub(super) fn state(answer: &Value) -> String {
    let rate = |value: &Value| match value.as_f64() {
        Some(rate) => format!("{rate:.1}/s"),
        None => "-".into(),
    };
    let limit = match answer["drain_rate"].is_null() {
        true => "none".into(),
        false => format!(
            "{} recipients of backlog and retries",
            rate(&answer["drain_rate"])
        ),
    };
    let withheld = match answer["deliver"].as_str() {
        Some("sink") => "\ndeliver: sink, nothing leaves until the configuration says otherwise",
        Some("copy") => "\ndeliver: copy, nothing leaves until `spool adopt`",
        _ => "",
    };
    format!(
        "paused: {}{withheld}\nlimit: {limit}\nwaiting: {} recipients, of these held: {}\noldest: {}\ndrains: {}\nempty in: {}",
        plain(&answer["paused"]),
        plain(&answer["waiting"]),
        plain(&answer["held"]),
        age(&answer["oldest_seconds"]),
        rate(&answer["drained_per_second"]),
        age(&answer["eta_seconds"]),
    )
}

pub(super) fn why(answer: &Value) -> String {
    let waiting = answer["waiting"]
        .as_array()
        .is_some_and(|lines| !lines.is_empty());
    let ended = answer["ended"]
        .as_array()
        .is_some_and(|lines| !lines.is_empty());
    let mut text = Vec::new();
    if waiting {
        let columns = [
            ("message", "message"),
            ("ident", "ident"),
            ("to", "first_recipient"),
            ("rcpts", "recipients"),
            ("lane", "lane"),
            ("age", "age_seconds"),
            ("tries", "attempts"),
            ("due", "due"),
            ("hold", "hold"),
            ("site", "site"),
            ("last reply", "reply"),
        ];
        text.push(format!(
            "waiting:\n{}",
            listed(&answer["waiting"], &columns)
        ));
    }
    if ended {
        let columns = [
            ("time", "time"),
            ("end", "end"),
            ("message", "message"),
            ("ident", "ident"),
            ("to", "to"),
            ("remote", "remote"),
            ("reply", "reply"),
        ];
        text.push(format!("ended:\n{}", listed(&answer["ended"], &columns)));
    }
    if text.is_empty() {
        return format!(
            "{}: nothing waits, and nothing of it is among the newest ends since the start; the log has older ones",
            plain(&answer["what"])
        );
    }
    text.join("\n")
}

pub(super) fn nudged(_: &Value) -> String {
    "every shut site is probed now".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in [
            (0, "0s"),
            (61, "1m01s"),
            (7_620, "2h07m"),
            (273_600, "3d04h"),
        ] {
            assert_eq!(age(&json!(seconds)), expected);
        }
        assert_eq!(age(&Value::Null), "-");
    }

    #[test]
    fn a_table_is_read_downwards() {
        let answer = json!({
            "by": "site", "ages": ["5m", "1d"],
            "total": {"name": "total", "recipients": 12, "held": 0, "ages": [2, 10, 0], "oldest_seconds": 4000},
            "lines": [{"name": "mx.a.example+1", "recipients": 12, "held": 0, "ages": [2, 10, 0], "oldest_seconds": 4000}],
            "others": null,
        });
        assert_eq!(
            top(&answer),
            "site             T  5m  1d  1d+  held  oldest\n\
             total           12   2  10    0     0  1h06m\n\
             mx.a.example+1  12   2  10    0     0  1h06m"
        );
        assert_eq!(
            top(&json!({"by": "site", "ages": ["5m"], "lines": []})),
            "none"
        );
    }

    #[test]
    fn a_hold_says_how_it_is_undone() {
        let done =
            json!({"done": "hold", "hold": 3, "batches": 2, "recipients": 5, "in_flight": 1});
        let text = acted(&done);
        assert!(
            text.starts_with("hold: 5 recipients in 2 batches\n1 of these"),
            "{text}"
        );
        assert!(
            text.ends_with("hold 3: `queue release --hold 3` undoes it"),
            "{text}"
        );
        let text = acted(&json!({"done": "drop", "batches": 2, "recipients": 5, "unreadable": 7}));
        assert!(text.contains("\n7 other batches cannot be read"), "{text}");
        let would = json!({"would": "drop", "batches": 0, "recipients": 0, "in_flight": 0, "destinations": []});
        assert_eq!(
            acted(&would),
            "would drop: 0 recipients in 0 batches, the oldest -"
        );
    }
}
