//! The commands of mx-edge and how their answers look to a person. Each is a request to the running daemon.

use clap::Subcommand;
use delivery::{queue, safekeeping};
use serde_json::{Value, json};
use service::control::Request;
use service::program::Invocation;

use crate::access;
use crate::config::Config;
use crate::drain;
use crate::explain;
use crate::forward::{copies, held};
use crate::records;
use crate::report;
use crate::why;

/// `mx-edge COMMAND`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is spooled, and what to do about it
    #[command(subcommand)]
    Queue(queue::Command),
    /// How every recipient that was ever spooled ended, or that it waits; exits 1 when that does not add up
    Reconcile,
    /// Who is known
    #[command(subcommand)]
    Recipients(Recipients),
    /// What operators add to the access list while the edge runs
    #[command(subcommand)]
    Access(access::Command),
    /// Take no new mail, pass on what is spooled, and say when this host is empty and may go; a restart changes nothing
    Drain {
        /// Hand the spool over to a sibling edge: its `handover.listen`
        #[arg(long, value_name = "HOST:PORT")]
        to: Option<String>,
        /// Begin, and do not wait until it is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Take mail again
    Undrain,
    /// What to publish so that others encrypt to this host: TLSA, MTA-STS, TLS reports
    Dns(records::Arguments),
    /// What happened to a message, a client's or a recipient's mail: a client's address, <MESSAGE-ID>, an address, an ident or a session
    Why {
        /// Of what
        what: String,
    },
    /// What is recorded of one person
    #[command(subcommand)]
    Person(why::Command),
    /// The newest forward-paths that were taken and not passed in
    Ended {
        /// How many
        #[arg(long, default_value_t = 20)]
        count: usize,
    },
    /// What one day came to, by reason
    Report {
        /// `2026-11-25`, `today` or `yesterday`; days are UTC
        #[arg(long, default_value = "today")]
        day: String,
    },
    /// What the policy would answer, rule by rule, with the evidence; nothing is remembered of it
    Explain {
        /// The client's address
        #[arg(long)]
        client: std::net::IpAddr,
        /// What it calls itself
        #[arg(long)]
        helo: String,
        /// The reverse-path; empty or <> for a notification
        #[arg(long)]
        from: String,
        /// The forward-path
        #[arg(long)]
        rcpt: String,
        /// A file with a message, for the rules on what it says
        #[arg(long, value_name = "FILE", value_parser = explain::read_message)]
        message: Option<String>,
    },
    /// The spool's files: backup, restore, check, export
    #[command(subcommand)]
    Spool(safekeeping::Command),
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
        Command::Queue(mut command) => {
            // What the inside refused waits for nobody else.
            if let Some(words) = command.unsaid() {
                words.refused = true;
            }
            return queue::invocation(command);
        }
        Command::Reconcile => return queue::reconcile(),
        Command::Access(command) => access::request(command),
        Command::Why { what } => why::why(what),
        Command::Person(command) => why::request(command),
        Command::Recipients(recipients) => match recipients {
            Recipients::Show => (Request::get("/recipients"), print_sources),
            Recipients::Accept { force } => (
                Request::post("/recipients/accept", json!({ "force": force })),
                print_plain,
            ),
            Recipients::Lookup { address } => (
                Request::post("/recipients/lookup", json!({ "address": address })),
                print_plain,
            ),
        },
        Command::Drain { to, no_wait } => {
            let begin = Request::post("/drain", json!({ "to": to }));
            if !no_wait {
                return Invocation::Follow {
                    begin,
                    look: Request::get("/drain"),
                    print: drain::text,
                    over: drain::is_empty,
                };
            }
            (begin, drain::text)
        }
        Command::Undrain => (Request::post("/undrain", json!({})), drain::text),
        Command::Dns(arguments) => {
            let config = config.clone();
            return Invocation::Here(Box::new(move || records::print(&arguments, &config)));
        }
        Command::Spool(command) => {
            let trace = config.next_hop.trace;
            let render: safekeeping::Render =
                Box::new(move |head, batch, body| copies(trace, head, batch, body));
            let spool = config.spool_folder();
            let owned = safekeeping::Owned {
                render,
                waits_for_word: |batch| batch.destination == held(),
            };
            return safekeeping::invocation(command, spool, &config.hostname, owned);
        }
        Command::Report { day } => {
            // The only characters a day has; anything else is complained of over there.
            let plain: String = day
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            (Request::get(format!("/report?day={plain}")), report::text)
        }
        Command::Explain {
            client,
            helo,
            from,
            rcpt,
            message,
        } => {
            let asked = json!({
                "client": client,
                "helo": helo,
                "from": from,
                "rcpt": rcpt,
                "message": message,
            });
            (Request::post("/explain", asked), explain::text)
        }
        Command::Ended { count } => (Request::get(format!("/ended?count={count}")), print_ended),
    };
    Invocation::Control { request, print }
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
                "  held back, {}: version {}, {} entries, lacks {} entries and the domains {}",
                plain(&blocked["why"]),
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
