//! One log line as text: fields in their order, every value quoted and escaped so that it stays one value.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::Level;
use tracing::field::{Field, Visit};

/// A value longer than this is cut: a log line is no place for a message.
const VALUE_BYTES_MAX: usize = 4096;

/// Fields in the order in which they were recorded.
#[derive(Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

enum Value {
    Text(String),
    /// Numbers and booleans: the same in both formats.
    Plain(String),
}

impl Fields {
    /// Takes a span's fields, but for those that the event has itself.
    pub(super) fn inherit(&mut self, above: &Fields) {
        for (name, value) in &above.0 {
            if !self.0.iter().any(|(own, _)| own == name) {
                let value = match value {
                    Value::Text(text) => Value::Text(text.clone()),
                    Value::Plain(text) => Value::Plain(text.clone()),
                };
                self.0.push((name, value));
            }
        }
    }

    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // The last one counts: a span's field may be recorded again; and JSON must not have a key twice.
        match self.0.iter_mut().find(|(own, _)| *own == name) {
            Some(place) => place.1 = value,
            None => self.0.push((name, value)),
        }
    }

    fn set_text(&mut self, field: &Field, mut text: String) {
        if text.len() > VALUE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
            text.push_str("...");
        }
        self.set(field, Value::Text(text));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set_text(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.set(field, Value::Plain(value.to_string())),
            // JSON has no NaN.
            false => self.set(field, Value::Text(value.to_string())),
        }
    }
}

/// An event with its time and place.
pub(super) struct Line<'a> {
    pub(super) time: OffsetDateTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) fields: &'a Fields,
}

impl Line<'_> {
    /// key=value.
    pub(super) fn text(&self) -> String {
        let mut line = format!("time={} level={} target=", self.time(), self.level());
        push_text(&mut line, self.target);
        for (name, value) in &self.fields.0 {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            match value {
                Value::Text(text) => push_text(&mut line, text),
                Value::Plain(text) => line.push_str(text),
            }
        }
        line
    }

    /// One JSON object, in ASCII.
    pub(super) fn json(&self) -> String {
        let mut line = format!(
            "{{\"time\":\"{}\",\"level\":\"{}\"",
            self.time(),
            self.level()
        );
        line.push_str(",\"target\":");
        push_json(&mut line, self.target);
        for (name, value) in &self.fields.0 {
            line.push(',');
            push_json(&mut line, name);
            line.push(':');
            match value {
                Value::Text(text) => push_json(&mut line, text),
                Value::Plain(text) => line.push_str(text),
            }
        }
        line.push('}');
        line
    }

    fn time(&self) -> String {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        self.time.format(format).unwrap_or_default()
    }

    fn level(&self) -> &'static str {
        match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }
    }
}

/// Bare when nothing in it could end it; otherwise quoted.
fn push_text(line: &mut String, text: &str) {
    let bare = |c: char| !(c == ' ' || c == '"' || c == '\\' || c == '=' || unsafe_in_text(c));
    if !text.is_empty() && text.chars().all(bare) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if unsafe_in_text(c) => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// What moves a terminal's cursor, ends a line somewhere, or turns the direction of reading.
fn unsafe_in_text(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || (c.is_whitespace() && c != ' ')
}

fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            ' '..='~' => line.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_one_value() {
        for (value, text, json) in [
            ("passed", "passed", r#""passed""#),
            ("", r#""""#, r#""""#),
            ("250 ok", r#""250 ok""#, r#""250 ok""#),
            ("a=b", r#""a=b""#, r#""a=b""#),
            ("say \"x\"", r#""say \"x\"""#, r#""say \"x\"""#),
            ("a\\", r#""a\\""#, r#""a\\""#),
            ("a\nb", r#""a\nb""#, r#""a\u000ab""#),
            ("\u{1b}[2J", r#""\u{1b}[2J""#, r#""\u001b[2J""#),
            ("\u{202e}x", r#""\u{202e}x""#, r#""\u202ex""#),
            ("a\u{a0}b", r#""a\u{a0}b""#, r#""a\u00a0b""#),
            ("ü@x", "ü@x", r#""\u00fc@x""#),
            ("😀", "😀", r#""\ud83d\ude00""#),
        ] {
            let (mut as_text, mut as_json) = (String::new(), String::new());
            push_text(&mut as_text, value);
            push_json(&mut as_json, value);
            assert_eq!(as_text, text);
            assert_eq!(as_json, json);
            assert_eq!(serde_json::from_str::<String>(&as_json).unwrap(), value);
        }
    }
}
