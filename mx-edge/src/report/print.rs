//! The report as a person reads it: a count a line, with its share.

use serde_json::Value;

/// As text.
pub fn text(report: &Value) -> String {
    let mut page = Page::default();
    let (door, sessions) = (&report["door"], &report["sessions"]);
    page.0.push(format!(
        "mx-edge, {} (UTC), started {} times on that day",
        report["day"].as_str().unwrap_or_default(),
        report["starts"]
    ));
    let paths = number(&door["paths"]);
    page.head("at the door, by forward-path");
    if paths == 0 {
        page.0.push("  nobody was named".into());
    }
    page.line("accepted", &door["accepted"], paths);
    page.line("rejected (5xx)", &door["refused"], paths);
    page.parts(&door["refused_by"], number(&door["refused"]));
    page.line("put off (4xx)", &door["put_off"], paths);
    page.parts(&door["put_off_by"], number(&door["put_off"]));
    let softened = &door["softened_by"];
    if softened.as_object().is_some_and(|by| !by.is_empty()) {
        page.0
            .push("    soft bounce is on; these would have been rejected:".into());
        page.parts_at("      ", softened, number(&door["put_off"]));
    }
    page.line("abandoned by the client", &door["abandoned"], paths);
    page.line("under way, or cut by a restart", &door["unended"], paths);
    page.line("all", &door["paths"], paths);
    let made = number(&sessions["made"]);
    page.head("sessions");
    page.line("connections", &sessions["made"], made);
    page.parts(&sessions["by_end"], made);
    page.line("open now", &sessions["open"], made);
    page.line("cut by a restart", &sessions["cut_by_restart"], made);
    page.section("turned away before the greeting", &sessions["turned_away"]);
    page.section("limits reached", &sessions["limits"]);
    page.section("senders refused at MAIL", &sessions["senders"]);
    page.section("errors in the dialogue", &sessions["objections"]);
    page.section("screened", &sessions["screened"]);
    let mail = &report["mail"];
    page.section("messages", &mail["messages"]);
    page.line("bytes accepted", &mail["bytes_accepted"], 0);
    page.section("forward-paths taken", &mail["taken"]);
    page.section("forward-paths passed on or ended", &mail["done"]);
    page.section("forward-paths held", &mail["held"]);
    page.section("rejected (5xx), by reason", &door["refused_for"]);
    page.section("put off (4xx), by reason", &door["put_off_for"]);
    page.top(
        "messages taken, by domain of the sender",
        &report["top"]["senders"],
    );
    page.top(
        "rejected (5xx), by client",
        &report["top"]["refused_clients"],
    );
    page.top(
        "put off (4xx), by client",
        &report["top"]["put_off_clients"],
    );
    page.section("scanner's verdicts", &report["scanner"]["verdicts"]);
    page.section(
        "not checked by the scanner",
        &report["scanner"]["unchecked"],
    );
    page.section("malware", &report["scanner"]["malware"]);
    page.section("named rules that hit", &report["rules"]);
    page.section("rules at warn", &report["warned"]);
    page.section("SPF", &report["spf"]);
    page.section("second policy", &report["shadow"]);
    page.0.join("\n")
}

#[derive(Default)]
struct Page(Vec<String>);

impl Page {
    fn head(&mut self, title: &str) {
        self.0.push(String::new());
        self.0.push(title.into());
    }

    /// Nothing is said of a line without a count.
    fn line(&mut self, name: &str, count: &Value, of: u64) {
        self.count("  ", name, number(count), of);
    }

    fn count(&mut self, indent: &str, name: &str, count: u64, of: u64) {
        if count == 0 {
            return;
        }
        let name = format!("{indent}{name}");
        self.0.push(match of {
            0 => format!("{name:<40} {count:>14}"),
            of => format!(
                "{name:<40} {count:>14} {:>7.2} %",
                count as f64 * 100.0 / of as f64
            ),
        });
    }

    fn parts(&mut self, parts: &Value, of: u64) {
        self.parts_at("    ", parts, of);
    }

    /// The largest first.
    fn parts_at(&mut self, indent: &str, parts: &Value, of: u64) {
        let parts = parts.as_object().into_iter().flatten();
        let mut parts: Vec<(&String, u64)> =
            parts.map(|(name, count)| (name, number(count))).collect();
        parts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in parts {
            self.count(indent, name, count, of);
        }
    }

    /// Those who come most; `others` are all the rest.
    fn top(&mut self, title: &str, top: &Value) {
        let all = number(&top["all"]);
        if all == 0 {
            return;
        }
        self.head(title);
        for line in top["named"].as_array().into_iter().flatten() {
            let mut name = line["name"].as_str().unwrap_or_default().to_owned();
            if number(&line["too_high_by_at_most"]) > 0 {
                name += " (at most)";
            }
            self.count("    ", &name, number(&line["count"]), all);
        }
        self.count("    ", "others", number(&top["others"]), all);
    }

    fn section(&mut self, title: &str, parts: &Value) {
        let all: u64 = parts
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, count)| number(count))
            .sum();
        if all > 0 {
            self.head(title);
            self.parts(parts, all);
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
