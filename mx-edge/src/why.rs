//! `mx-edge why`: what happened to a message, a client or a recipient's mail, from the records, the list of ended mail and the spool; and
//! `mx-edge person`: the same records of one person, exported or erased.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};
use service::control::{Caller, Request};
use tracing::info;

use crate::routes::{Answer, Controls, failed};

/// Messages that are looked for in the spool at most.
const MESSAGES_MAX: usize = 50;

/// Of whom or what something is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A client.
    Client(IpAddr),
    /// A message, by the field of its author.
    MessageId(String),
    /// A recipient or a sender.
    Address(String),
    /// A message or a session, by its name here.
    Name(String),
}

impl Who {
    /// As an operator gives it: an address of a client, `<MESSAGE-ID>`, a recipient's or sender's address, an ident, a session's token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_matches(['[', ']']);
        if text.is_empty() || text.len() > 500 {
            return Err(
                "say what: a client's address, <MESSAGE-ID>, a recipient, an ident or a session"
                    .into(),
            );
        }
        if let Ok(client) = text.parse::<IpAddr>() {
            return Ok(Self::Client(client.to_canonical()));
        }
        Ok(match (text.starts_with('<'), text.contains('@')) {
            (true, _) => Self::MessageId(text.to_ascii_lowercase()),
            (_, true) => Self::Address(text.to_ascii_lowercase()),
            _ => Self::Name(text.to_ascii_lowercase()),
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Client(client) => client.to_string(),
            Self::MessageId(text) | Self::Address(text) | Self::Name(text) => text.clone(),
        }
    }

    /// Whether a line of a file may name it: cheap, so that most lines need not be read.
    pub fn named_in(&self, line: &[u8]) -> bool {
        let wanted = self.text();
        // JSON writes some characters in another way; then every line is read.
        let plain = wanted
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        let line = line.to_ascii_lowercase();
        !plain || memchr::memmem::find(&line, wanted.as_bytes()).is_some()
    }

    /// Whether a line names it.
    pub fn is_in(&self, line: &Value) -> bool {
        let is = |value: &Value, wanted: &str| {
            (value.as_str()).is_some_and(|text| text.eq_ignore_ascii_case(wanted))
        };
        let any = |value: &Value, wanted: &str| match value {
            Value::Array(all) => all.iter().any(|one| is(one, wanted)),
            one => is(one, wanted),
        };
        match self {
            Self::Client(client) => {
                let said = line["client"].as_str().and_then(|text| text.parse().ok());
                said.is_some_and(|said: IpAddr| said == *client)
            }
            Self::MessageId(id) => is(&line["message_id"], id),
            Self::Name(name) => is(&line["ident"], name) || is(&line["session"], name),
            Self::Address(address) => {
                let refused = line["refused"].as_array().into_iter().flatten();
                let mut refused = refused.flat_map(|one| [&one["to"], &one["from"]]);
                is(&line["from"], address)
                    || any(&line["to"], address)
                    || is(&line["redirected"], address)
                    || refused.any(|path| any(path, address))
            }
        }
    }
}

/// `mx-edge person ...`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything that is recorded of an address or a client
    Export {
        /// An address, or a client's
        who: String,
    },
    /// Takes it out of the records and of the list of ended mail; mail that waits is no record and stays
    Erase {
        /// An address, or a client's
        who: String,
        /// Yes, for good
        #[arg(long)]
        yes: bool,
    },
}

/// The request that a command is, and how its answer looks.
pub fn request(command: Command) -> (Request, fn(&Value) -> String) {
    match command {
        Command::Export { who } => why(who),
        Command::Erase { who, yes } => {
            let asked = json!({ "what": who, "sure": yes });
            (Request::post("/person/erase", asked), |answer| {
                format!("{} lines erased", answer["erased"])
            })
        }
    }
}

/// `mx-edge why WHAT`.
pub fn why(what: String) -> (Request, fn(&Value) -> String) {
    (Request::post("/why", json!({ "what": what })), text)
}

/// The routes.
pub fn router(controls: Controls) -> Router {
    Router::new()
        .route("/why", post(tell))
        .route("/person/erase", post(erase))
        .with_state(controls)
}

#[derive(Deserialize)]
struct Asked {
    what: String,
    #[serde(default)]
    sure: bool,
}

async fn tell(State(controls): State<Controls>, Json(asked): Json<Asked>) -> Answer {
    let broken = |error: &dyn std::fmt::Display| failed(StatusCode::INTERNAL_SERVER_ERROR, error);
    let who = Who::parse(&asked.what).map_err(|why| failed(StatusCode::BAD_REQUEST, why))?;
    let edge = std::sync::Arc::clone(&controls.edge);
    let wanted = who.clone();
    let look = move || Ok((edge.trail.find(&wanted)?, edge.ended.find(&wanted)?));
    let looked = tokio::task::spawn_blocking(look).await;
    let looked: std::io::Result<_> = looked.map_err(|error| broken(&error))?;
    let (known, ended) = looked.map_err(|error| broken(&error))?;
    let lines = known.lines.iter().chain(&ended);
    let idents = lines.filter_map(|line| line["ident"].as_str());
    let names: BTreeSet<String> = idents.map(str::to_owned).collect();
    // First what was asked for: of a batch that several names find, that line is shown which tells of the one that is meant.
    let asked = matches!(who, Who::Address(_) | Who::Name(_)).then(|| who.text());
    let names = asked.iter().chain(names.iter().rev());
    let mut waiting: Vec<Value> = Vec::new();
    for name in names.take(MESSAGES_MAX) {
        // A session's name is none that the spool knows.
        if !name.contains(['.', '@']) {
            continue;
        }
        let found = controls.queue.why(name).await;
        let found = found.map_err(|refusal| failed(refusal.0, refusal.1))?;
        for line in found["waiting"].as_array().into_iter().flatten() {
            if !waiting.iter().any(|known| known["batch"] == line["batch"]) {
                waiting.push(line.clone());
            }
        }
    }
    Ok(Json(json!({
        "what": who.text(),
        "happened": known.lines,
        "more": known.more,
        "ended": ended,
        "waiting": waiting,
        "since": known.since,
    })))
}

async fn erase(
    State(controls): State<Controls>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Asked>,
) -> Answer {
    let who = Who::parse(&asked.what).map_err(|why| failed(StatusCode::BAD_REQUEST, why))?;
    if !asked.sure {
        let why = "this takes records out for good; look at `mx-edge person export` and say --yes";
        return Err(failed(StatusCode::CONFLICT, why));
    }
    let edge = std::sync::Arc::clone(&controls.edge);
    let days = std::sync::Arc::clone(&controls.days);
    let work = move || {
        if let Who::Client(client) = who {
            days.erase(client)?;
        }
        Ok(edge.trail.erase(&who)? + edge.ended.erase(&who)?)
    };
    let erased: Result<std::io::Result<u64>, _> = tokio::task::spawn_blocking(work).await;
    let erased = erased.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let erased = erased.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    // Not of whom: the log would keep what was to be forgotten.
    info!(event = "audit", by = %caller, change = "person erase", lines = erased);
    Ok(Json(json!({ "erased": erased })))
}

/// As text: what happened, how it ended, what waits; or that nothing is known.
pub fn text(answer: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => {
            let all = all.iter().filter_map(Value::as_str);
            all.collect::<Vec<_>>().join(",")
        }
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let line = |line: &Value| {
        let mut parts = vec![
            word(&line["time"]),
            word(&line["event"]),
            word(&line["kind"]),
        ];
        for name in [
            "ident",
            "session",
            "client",
            "helo",
            "from",
            "to",
            "redirected",
            "rule",
            "message_id",
            "outcome",
            "way",
            "reason",
            "remote",
            "reply",
        ] {
            let value = word(&line[name]);
            if !value.is_empty() {
                parts.push(format!("{name}={value}"));
            }
        }
        let mut text = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        for one in line["refused"].as_array().into_iter().flatten() {
            let whom = match word(&one["to"]) {
                to if to.is_empty() => word(&one["stage"]),
                to => to,
            };
            text += &format!(
                "\n    refused {whom} from <{}>: {} {}, told {}",
                word(&one["from"]),
                word(&one["reason"]),
                word(&one["evidence"]),
                word(&one["reply"])
            );
        }
        text
    };
    let mut lines = Vec::new();
    let mut part = |title: &str, all: &Value| {
        let all: Vec<String> = all.as_array().into_iter().flatten().map(line).collect();
        if !all.is_empty() {
            lines.push(format!("{title}:"));
            lines.extend(all.into_iter().map(|line| format!("  {line}")));
        }
    };
    part("happened", &answer["happened"]);
    part("taken and not passed in", &answer["ended"]);
    for waits in answer["waiting"].as_array().into_iter().flatten() {
        lines.push(format!(
            "waits: {} to {} ({} recipients), {} attempts, due {} {}",
            word(&waits["ident"]),
            word(&waits["first_recipient"]),
            word(&waits["recipients"]),
            word(&waits["attempts"]),
            word(&waits["due"]),
            word(&waits["reply"])
        ));
    }
    if answer["more"] == true {
        lines.insert(0, "older lines are left out".into());
    }
    let since = answer["since"].as_str();
    match (lines.is_empty(), since) {
        (true, None) => format!(
            "nothing is known of {}: there are no records yet",
            word(&answer["what"])
        ),
        (true, Some(since)) => {
            format!(
                "nothing is known of {}; records go back to {since}",
                word(&answer["what"])
            )
        }
        (false, since) => {
            lines.push(format!("records go back to {}", since.unwrap_or("now")));
            lines.join("\n")
        }
    }
}
