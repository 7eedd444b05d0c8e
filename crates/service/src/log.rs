//! Logs: one event a line, key=value or JSON, on stderr (systemd's journal keeps it).
//! A value can forge neither a line nor a key: whoever controls what is logged controls nothing else.

mod line;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use line::{Fields, Line};

/// What a filter without `=` may be.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// `text` (key=value) or `json`.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter.
    pub level: String,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// key=value.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: "info".into(),
        }
    }
}

impl LogSettings {
    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Option<crate::program::Complaint> {
        let error = self.filter().err()?;
        Some(crate::program::Complaint {
            key: "log.level".into(),
            what: format!("{:?} is no level", self.level),
            why: error,
            remedy: "give error, warn, info, debug, trace, or a filter such as info,mx_edge=debug"
                .into(),
        })
    }

    fn filter(&self) -> Result<EnvFilter, String> {
        // A lone misspelt level would be taken for the name of a room, and all others would fall silent.
        let levels = self
            .level
            .split(',')
            .filter(|part| !part.contains(['=', '[']));
        for level in levels.map(str::trim) {
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                return Err(format!("{level:?} is none of {}", LEVELS.join(" ")));
            }
        }
        let filter = EnvFilter::builder().parse(&self.level);
        filter.map_err(|error| error.to_string())
    }
}

/// Changes how a running program logs.
#[derive(Clone)]
pub struct Handle {
    json: Arc<AtomicBool>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Handle {
    /// Takes new settings into force; they have been checked.
    pub fn apply(&self, settings: &LogSettings) {
        self.json
            .store(settings.format == Format::Json, Ordering::Relaxed);
        if let Ok(filter) = settings.filter() {
            // It fails only when the subscriber is gone, with the process.
            let _ = self.filter.reload(filter);
        }
    }
}

/// Sends the process's events to stderr. Called once, by `program::main`; a second call changes nothing.
pub fn init(settings: &LogSettings) -> Handle {
    let filter = settings.filter().unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, filter_handle) = reload::Layer::new(filter);
    let json = Arc::new(AtomicBool::new(settings.format == Format::Json));
    let lines = Lines::new(json.clone(), |line| {
        // A closed pipe must not end a mail daemon: whoever reads the log may come back.
        drop(std::io::stderr().lock().write_all(line));
    });
    let subscriber = Registry::default().with(filter).with(lines);
    // Fails when there is one already: a test's, which then sees the events.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let payload = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(event = "panic", %place, payload, "a mistake in the program; please report it");
    }));
    Handle {
        json,
        filter: filter_handle,
    }
}

/// Writes each event as one line with one call.
struct Lines<W> {
    json: Arc<AtomicBool>,
    write: W,
}

impl<W: Fn(&[u8])> Lines<W> {
    fn new(json: Arc<AtomicBool>, write: W) -> Self {
        Self { json, write }
    }
}

/// A span's fields, repeated on each event inside it (a session's ids).
struct SpanFields(RwLock<Fields>);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: Fn(&[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut()
                .insert(SpanFields(RwLock::new(fields)));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(fields)) = span.extensions().get() {
            values.record(&mut *fields.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event);
        for span in scope.into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(above)) = span.extensions().get() {
                fields.inherit(&above.read().unwrap_or_else(PoisonError::into_inner));
            }
        }
        let line = Line {
            time: time::OffsetDateTime::now_utc(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            fields: &fields,
        };
        let mut text = match self.json.load(Ordering::Relaxed) {
            true => line.json(),
            false => line.text(),
        };
        text.push('\n');
        (self.write)(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn logged(json: bool, log: impl FnOnce()) -> Vec<String> {
        let out: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = out.clone();
        let lines = Lines::new(Arc::new(AtomicBool::new(json)), move |line| {
            sink.lock().unwrap().extend_from_slice(line);
        });
        tracing::subscriber::with_default(Registry::default().with(lines), log);
        let out = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let forged = "x\r\ntime=0 level=info event=message outcome=passed\u{2028}\u{9b}31m";
        let log = || {
            let span =
                tracing::info_span!("session", session = "s1", client = tracing::field::Empty);
            let _inside = span.enter();
            span.record("client", "192.0.2.1");
            tracing::info!(event = "message", from = forged, size = 5, spooled = true);
        };
        let text = logged(false, log);
        assert_eq!(text.len(), 1, "{text:?}");
        let tail = concat!(
            " level=info target=service::log::tests event=message",
            " from=\"x\\r\\ntime=0 level=info event=message outcome=passed\\u{2028}\\u{9b}31m\"",
            " size=5 spooled=true session=s1 client=192.0.2.1"
        );
        assert!(text[0].starts_with("time=2"), "{}", text[0]);
        assert!(text[0].ends_with(tail), "{}", text[0]);

        let json = logged(true, log);
        assert_eq!(json.len(), 1);
        let value: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!(value["event"], "message");
        assert_eq!(value["from"], forged);
        assert_eq!(value["size"], 5);
        assert_eq!(value["spooled"], true);
        assert_eq!(value["client"], "192.0.2.1");
        assert!(json[0].is_ascii(), "{}", json[0]);
    }

    #[test]
    fn levels_are_checked() {
        for (level, good) in [
            ("info", true),
            ("info,mx_edge=debug", true),
            ("warn,mx_edge[session]=trace", true),
            ("INFO", true),
            ("=,=", false),
            ("", false),
            ("debgu", false),
            ("mx_edge=debgu", false),
        ] {
            let settings = LogSettings {
                level: level.into(),
                ..LogSettings::default()
            };
            assert_eq!(settings.check().is_none(), good, "{level}");
        }
    }
}
