//! What `make run` shows: a line for each mail that has come to its end, put together from the programs' logs.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Idents that may be remembered at once; the oldest are forgotten first.
const MAILS_MAX: usize = 10_000;

/// Follows a log file as it grows.
pub struct Follower {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl Follower {
    /// From the file's present end on.
    pub fn new(path: &Path) -> Self {
        let offset = std::fs::metadata(path)
            .map(|metadata| metadata.len())
            .unwrap_or(0);
        Self {
            path: path.to_owned(),
            offset,
            rest: Vec::new(),
        }
    }

    /// The JSON events that were completed since the last call.
    pub fn events(&mut self) -> Vec<Value> {
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        let mut fresh = Vec::new();
        if file.seek(SeekFrom::Start(self.offset)).is_err() || file.read_to_end(&mut fresh).is_err()
        {
            return Vec::new();
        }
        self.offset += fresh.len() as u64;
        self.rest.extend(fresh);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        whole
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }
}

/// What is known of a mail on its way.
#[derive(Default)]
struct Mail {
    from: String,
    to: String,
    verdict: String,
    expected: u64,
    delivered: u64,
    failed: u64,
    end: Option<String>,
}

/// Puts events together, in whatever order the logs give them.
#[derive(Default)]
pub struct Watch {
    mails: BTreeMap<String, Mail>,
    order: VecDeque<String>,
    /// listserv's message ids, by which some of its events name a mail.
    idents: BTreeMap<String, String>,
    /// Ended since the last call of [`Watch::lines`].
    ended: Vec<String>,
    /// Ended before it: by now every program's word on them has been read.
    due: Vec<String>,
}

impl Watch {
    /// Takes one event.
    pub fn take(&mut self, event: &Value) {
        let message = text(event, "message");
        let ident = match text(event, "ident") {
            ident if ident.is_empty() => self.idents.get(&message).cloned().unwrap_or_default(),
            ident => ident,
        };
        if ident.is_empty() {
            return;
        }
        match text(event, "event").as_str() {
            "message" => self.at_the_door(event, &ident),
            "verdict" => {
                let verdict = format!("{} {}", text(event, "class"), text(event, "score"));
                self.mail(&ident).verdict = verdict.trim().to_owned();
            }
            "accepted" => {
                self.idents.insert(message, ident);
            }
            "expanded" => {
                let members = event.get("members").and_then(Value::as_u64).unwrap_or(0);
                self.mail(&ident).expected = members;
            }
            "answer" => {
                let end = format!("answered: {}", text(event, "outcome"));
                self.end(&ident, end);
            }
            // The edge has passed on what it kept: that is no end.
            "delivered" | "failed" if ["inside", "list"].contains(&&*text(event, "site")) => {}
            "delivered" => {
                self.mail(&ident).delivered += 1;
                self.told(&ident, &text(event, "remote"));
            }
            "failed" => {
                self.mail(&ident).failed += 1;
                self.told(&ident, &text(event, "remote"));
            }
            "quarantined" => self.end(&ident, format!("quarantined: {}", text(event, "reason"))),
            _ => {}
        }
    }

    /// A line for each mail that had ended, and had passed the door, when this was called last.
    pub fn lines(&mut self) -> Vec<String> {
        let due = std::mem::replace(&mut self.due, std::mem::take(&mut self.ended));
        let mut lines = Vec::new();
        for ident in due {
            match self.mails.get_mut(&ident) {
                Some(mail) if !mail.has_passed_the_door() => self.due.push(ident),
                Some(mail) => lines.extend(mail.end.take().map(|end| mail.line(&end))),
                None => {}
            }
        }
        lines
    }

    fn at_the_door(&mut self, event: &Value, ident: &str) {
        let mail = self.mail(ident);
        mail.from = format!("<{}>", text(event, "from"));
        mail.to = text(event, "to");
        match text(event, "outcome").as_str() {
            "passed" => {}
            "spooled" => self.end(ident, "kept at the edge, to be passed on later".into()),
            outcome => self.end(ident, format!("{outcome}: {}", text(event, "reply"))),
        }
    }

    /// One recipient more has its mail, or will never have it.
    fn told(&mut self, ident: &str, remote: &str) {
        let mail = self.mail(ident);
        if mail.delivered + mail.failed < mail.expected.max(1) {
            return;
        }
        let mut end = format!("delivered to {} by {remote}", mail.delivered);
        if mail.failed > 0 {
            end.push_str(&format!(", failed for {}", mail.failed));
        }
        self.end(ident, end);
    }

    fn end(&mut self, ident: &str, end: String) {
        self.mail(ident).end = Some(end);
        if !self.ended.iter().any(|known| known == ident) {
            self.ended.push(ident.to_owned());
        }
    }

    fn mail(&mut self, ident: &str) -> &mut Mail {
        if !self.mails.contains_key(ident) {
            self.order.push_back(ident.to_owned());
            if self.order.len() > MAILS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.mails.remove(&oldest);
                self.idents.retain(|_, ident| *ident != oldest);
            }
        }
        self.mails.entry(ident.to_owned()).or_default()
    }
}

impl Mail {
    fn has_passed_the_door(&self) -> bool {
        !self.from.is_empty()
    }

    fn line(&self, end: &str) -> String {
        let verdict = if self.verdict.is_empty() {
            "not scanned"
        } else {
            &self.verdict
        };
        format!("{} -> {}  [{verdict}]  {end}", self.from, self.to)
    }
}

/// A field of an event as text; the programs' JSON logs hold their fields at the top or below `fields`.
fn text(event: &Value, key: &str) -> String {
    let value = event
        .get(key)
        .or_else(|| event.get("fields").and_then(|fields| fields.get(key)));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The lines after each event in turn has been read, with a look between any two.
    fn check(events: &[Value], expected: &[&str]) {
        let mut watch = Watch::default();
        let mut lines = Vec::new();
        for event in events {
            watch.take(event);
            lines.extend(watch.lines());
        }
        lines.extend(watch.lines());
        lines.extend(watch.lines());
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_line_for_each_mail_in_whatever_order_the_logs_tell() {
        let door = |outcome: &str| json!({"event": "message", "ident": "e.1.1", "from": "a@x", "to": "dev@y", "outcome": outcome, "reply": "550 5.7.1 spam"});
        let verdict =
            json!({"event": "verdict", "ident": "e.1.1", "class": "clean", "score": "0.1"});
        let accepted = json!({"event": "accepted", "ident": "e.1.1", "message": "77"});
        let expanded = json!({"event": "expanded", "message": "77", "members": 2});
        let delivered =
            json!({"event": "delivered", "ident": "e.1.1", "message": "77", "remote": "mx"});
        let whole = "<a@x> -> dev@y  [clean 0.1]  delivered to 2 by mx";
        let events = [
            &verdict,
            &accepted,
            &expanded,
            &delivered,
            &delivered,
            &door("passed"),
        ];
        check(&events.map(Value::clone), &[whole]);
        let events = [
            &verdict,
            &accepted,
            &door("passed"),
            &expanded,
            &delivered,
            &delivered,
        ];
        check(&events.map(Value::clone), &[whole]);
        check(
            &[verdict.clone(), door("refused")],
            &["<a@x> -> dev@y  [clean 0.1]  refused: 550 5.7.1 spam"],
        );
        check(
            &[door("refused")],
            &["<a@x> -> dev@y  [not scanned]  refused: 550 5.7.1 spam"],
        );
        let answer = json!({"event": "answer", "message": "77", "outcome": "confirm-subscribe"});
        check(
            &[verdict, accepted, answer, door("passed")],
            &["<a@x> -> dev@y  [clean 0.1]  answered: confirm-subscribe"],
        );
    }
}
