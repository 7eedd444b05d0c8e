//! docs/metrics.md and the metrics of the four running programs are the same, both ways: name, type, labels, help, and who looks at each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use end_to_end::{Harness, hurried, settings};

/// One row of the page, or one metric of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// A row, with what no program says.
struct Row {
    metric: Metric,
    /// It appears with its first event.
    late: bool,
    unit: String,
    who: String,
}

/// Whoever looks at a metric is one of these.
const WHO: [&str; 4] = ["pager", "operator", "planner", "postmaster"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('\u{1}', "|"))
            .collect();
        let [name, kind, labels, unit, help, who] = cells.as_slice() else {
            panic!("six cells in a row: {line}");
        };
        let labels = labels.split(", ").filter(|label| *label != "-");
        let row = Row {
            metric: Metric {
                kind: kind.clone(),
                labels: labels.map(|label| label.trim_matches('`').into()).collect(),
                help: help.clone(),
            },
            late: name.ends_with('†'),
            unit: unit.clone(),
            who: who.clone(),
        };
        let name = name.trim_end_matches('†').trim_matches('`').to_owned();
        let twice = rows.insert(name.clone(), row).is_some();
        assert!(!twice, "{name} is there twice");
    }
    rows
}

/// Adds what a program shows.
fn collect(text: &str, found: &mut BTreeMap<String, Metric>) {
    let mut name = String::new();
    for line in text.lines() {
        if let Some((named, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            name = named.to_owned();
            let metric = found.entry(name.clone()).or_insert_with(|| Metric {
                kind: String::new(),
                labels: BTreeSet::new(),
                help: String::new(),
            });
            help.trim().clone_into(&mut metric.help);
            continue;
        }
        let Some(metric) = found.get_mut(&name) else {
            continue;
        };
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind = rest.rsplit(' ').next().unwrap_or_default();
            kind.clone_into(&mut metric.kind);
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            for label in labels
                .split("=\"")
                .filter_map(|part| part.rsplit(['"', ',']).next())
            {
                if !label.is_empty() && label != "le" {
                    metric.labels.insert(label.to_owned());
                }
            }
        }
    }
}

/// Everything that the sources of the product say in quotes and could be a metric's name.
fn words_of_sources() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["crates", "mx-edge", "balancer", "scanner", "listserv"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|is| is == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                words.extend(text.split('"').map(str::to_owned));
            }
        }
    }
    words
}

/// The row that is missing or wrong.
fn expected(name: &str, metric: &Metric) -> String {
    let labels: Vec<String> = metric
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let labels = match labels.is_empty() {
        true => "-".to_owned(),
        false => labels.join(", "),
    };
    let help = metric.help.replace('|', "\\|");
    format!(
        "| `{name}` | {} | {labels} | UNIT | {help} | WHO |",
        metric.kind
    )
}

#[test]
fn the_metrics_page_is_the_metrics() {
    let mut options = hurried(settings());
    options.scanners = 1;
    let harness = Harness::stubbed(options);
    let mut found = BTreeMap::new();
    for program in harness.site.programs() {
        let address = harness.site.address(&format!("{program}.control"));
        let (_, text) = local::http::get(address, "/metrics").expect("it answers");
        collect(&text, &mut found);
    }
    assert!(found.len() > 80, "{found:#?}");
    let page = page();
    let mut wrong = Vec::new();
    for (name, metric) in &found {
        match page.get(name) {
            Some(row) if row.metric == *metric => {}
            Some(_) => wrong.push(format!("correct: {}", expected(name, metric))),
            None => wrong.push(format!("add: {}", expected(name, metric))),
        }
    }
    let words = words_of_sources();
    for (name, row) in &page {
        let short = name.strip_prefix("mx_edge_").unwrap_or(name);
        if !words.contains(name) && !words.contains(short) {
            wrong.push(format!("{name}: no program has it, take its row out"));
        } else if !row.late && !found.contains_key(name) {
            wrong.push(format!("{name}: not shown from the start, mark it †"));
        }
        if row.unit.is_empty() || !WHO.iter().any(|who| row.who.starts_with(who)) {
            wrong.push(format!(
                "{name}: say its unit, and who looks: one of {WHO:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "docs/metrics.md:\n{}", wrong.join("\n"));
}
