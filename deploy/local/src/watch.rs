//! What `make run` shows: a line for each mail that has come to its end, put together from the programs' logs.

use std::collections::BTreeMap;
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
}

/// Puts events together; says a line whenever a mail has come to an end.
#[derive(Default)]
pub struct Watch {
    mails: BTreeMap<String, Mail>,
    order: std::collections::VecDeque<String>,
}

impl Watch {
    /// Takes one event and returns the line it completes, if any.
    pub fn take(&mut self, event: &Value) -> Option<String> {
        let ident = text(event, "ident");
        match text(event, "event").as_str() {
            "message" => self.at_the_door(event, ident),
            "verdict" => {
                let mail = self.mail(ident);
                mail.verdict = format!("{} {}", text(event, "class"), text(event, "score"))
                    .trim()
                    .to_owned();
                None
            }
            "expanded" => {
                let members = event.get("members").and_then(Value::as_u64).unwrap_or(0);
                self.mail(ident).expected = members;
                None
            }
            "delivered" => self.ended(ident, |mail| mail.delivered += 1, event),
            "failed" => self.ended(ident, |mail| mail.failed += 1, event),
            "quarantined" => {
                let reason = text(event, "reason");
                let mail = self.mail(ident);
                Some(line(mail, &format!("quarantined: {reason}")))
            }
            _ => None,
        }
    }

    fn at_the_door(&mut self, event: &Value, ident: String) -> Option<String> {
        let outcome = text(event, "outcome");
        let mail = self.mail(ident);
        mail.from = text(event, "from");
        mail.to = text(event, "to");
        match outcome.as_str() {
            "passed" => None,
            "spooled" => Some(line(mail, "kept at the edge, to be passed on later")),
            _ => Some(line(mail, &format!("{outcome}: {}", text(event, "reply")))),
        }
    }

    fn ended(&mut self, ident: String, count: impl Fn(&mut Mail), event: &Value) -> Option<String> {
        let mail = self.mail(ident);
        count(mail);
        if mail.delivered + mail.failed < mail.expected.max(1) {
            return None;
        }
        let mut end = format!(
            "delivered to {} by {}",
            mail.delivered,
            text(event, "remote")
        );
        if mail.failed > 0 {
            end.push_str(&format!(", failed for {}", mail.failed));
        }
        Some(line(mail, &end))
    }

    fn mail(&mut self, ident: String) -> &mut Mail {
        if !self.mails.contains_key(&ident) {
            self.order.push_back(ident.clone());
            if self.order.len() > MAILS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.mails.remove(&oldest);
            }
        }
        self.mails.entry(ident).or_default()
    }
}

fn line(mail: &Mail, end: &str) -> String {
    let verdict = if mail.verdict.is_empty() {
        "not scanned"
    } else {
        &mail.verdict
    };
    format!("<{}> -> {}  [{verdict}]  {end}", mail.from, mail.to)
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
