//! The commands of mx-edge and how their answers look to a person. Each is a request to the running daemon.

use clap::Subcommand;
use delivery::safekeeping;
use serde_json::{Value, json};
use service::control::Request;
use service::program::Invocation;

use crate::config::Config;
use crate::forward::copies;

/// `mx-edge COMMAND`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is spooled
    #[command(subcommand)]
    Queue(Queue),
    /// Who is known
    #[command(subcommand)]
    Recipients(Recipients),
    /// Take no new mail; what is spooled goes on
    Drain,
    /// Take mail again
    Undrain,
    /// The newest forward-paths that were taken and not passed in
    Ended {
        /// How many
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// The spool's files: backup, restore, check, export
    #[command(subcommand)]
    Spool(safekeeping::Command),
}

/// `mx-edge queue ...`.
#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Counts by destination
    Tally,
    /// Stop passing spooled mail on; taking mail goes on
    Pause,
    /// Pass spooled mail on again
    Resume,
    /// Try the inside at once, whatever waiting times say
    Nudge,
    /// Send held mail inside again
    Release,
    /// End held mail; it is listed under `ended`
    Drop,
}

/// `mx-edge recipients ...`.
#[derive(Debug, Subcommand)]
pub enum Recipients {
    /// The sources, and what the shrink guard holds back
    Show,
    /// Put versions that the shrink guard holds back in force
    Accept {
        /// Yes, although so much goes away
        #[arg(long)]
        force: bool,
    },
    /// Whether a forward-path is known
    Lookup {
        /// The address
        address: String,
    },
}

/// The request that a command is, or what is done with the spool of this configuration.
pub fn invocation(command: Command, config: &Config) -> Invocation {
    let (request, print): (Request, fn(&Value) -> String) = match command {
        Command::Queue(queue) => match queue {
            Queue::Tally => (get("/queue/tally"), print_tally),
            Queue::Pause => (post("/queue/pause", Value::Null), print_plain),
            Queue::Resume => (post("/queue/resume", Value::Null), print_plain),
            Queue::Nudge => (post("/queue/nudge", Value::Null), print_plain),
            Queue::Release => (post("/queue/release", Value::Null), print_plain),
            Queue::Drop => (post("/queue/drop", Value::Null), print_plain),
        },
        Command::Recipients(recipients) => match recipients {
            Recipients::Show => (get("/recipients"), print_sources),
            Recipients::Accept { force } => (
                post("/recipients/accept", json!({ "force": force })),
                print_plain,
            ),
            Recipients::Lookup { address } => (
                post("/recipients/lookup", json!({ "address": address })),
                print_plain,
            ),
        },
        Command::Drain => (post("/drain", Value::Null), print_plain),
        Command::Undrain => (post("/undrain", Value::Null), print_plain),
        Command::Spool(command) => {
            let trace = config.next_hop.trace;
            let render: safekeeping::Render =
                Box::new(move |head, batch, body| copies(trace, head, batch, body));
            let spool = config.spool_folder();
            return safekeeping::invocation(command, spool, &config.hostname, render);
        }
        Command::Ended { count } => (get(&format!("/ended?count={count}")), print_ended),
    };
    Invocation::Control { request, print }
}

fn get(path: &str) -> Request {
    Request {
        method: "GET",
        path: path.into(),
        body: None,
    }
}

fn post(path: &str, body: Value) -> Request {
    Request {
        method: "POST",
        path: path.into(),
        body: Some(body),
    }
}

/// `key: value`, a line each.
fn print_plain(answer: &Value) -> String {
    let Some(fields) = answer.as_object() else {
        return plain(answer);
    };
    let lines: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{key}: {}", plain(value)))
        .collect();
    lines.join("\n")
}

fn print_tally(answer: &Value) -> String {
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return "nothing is spooled".into();
    }
    let mut lines = vec![format!(
        "{:<12} {:>10} {:>10} {:>8}  {:<26} {}",
        "destination", "batches", "recipients", "leased", "oldest", "next due"
    )];
    for row in rows {
        lines.push(format!(
            "{:<12} {:>10} {:>10} {:>8}  {:<26} {}",
            plain(&row["destination"]),
            plain(&row["batches"]),
            plain(&row["recipients"]),
            plain(&row["leased"]),
            plain(&row["oldest"]),
            plain(&row["next_due"]),
        ));
    }
    lines.join("\n")
}

fn print_sources(answer: &Value) -> String {
    let mut lines = Vec::new();
    for source in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        let state = if source["loaded"] == true {
            format!(
                "version {}, {} entries, {} of them lists",
                plain(&source["version"]),
                source["entries"],
                source["lists"]
            )
        } else {
            "never loaded".into()
        };
        lines.push(format!("{}: {state}", plain(&source["source"])));
        if let Some(trouble) = source["trouble"].as_str() {
            lines.push(format!("  cannot be read: {trouble}"));
        }
        if let Some(blocked) = source["blocked"].as_object() {
            lines.push(format!(
                "  held back: version {}, {} entries, lacks {} entries and the domains {}",
                plain(&blocked["version"]),
                blocked["entries"],
                blocked["lost_entries"],
                blocked["lost_domains"]
            ));
        }
    }
    lines.join("\n")
}

fn print_ended(answer: &Value) -> String {
    let mut lines = Vec::new();
    for line in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        lines.push(format!(
            "{} {} {} <{}> -> <{}> {}",
            plain(&line["time"]),
            plain(&line["kind"]),
            plain(&line["ident"]),
            plain(&line["from"]),
            plain(&line["to"]),
            plain(&line["reply"]),
        ));
    }
    lines.join("\n")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
