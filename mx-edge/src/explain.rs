//! `mx-edge explain`: what the policy in force would answer one client for one recipient, rule by rule, with the evidence. Asks the DNS as
//! a session would; refuses, counts and remembers nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mail::{Address, Domain, ReversePath};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::Standing;
use crate::config::Action;
use crate::inquiry::{Inquiry, Ruling};
use crate::policy::content::Judgement;
use crate::policy::decide::{self, Judged};
use crate::policy::tables::{Says, Table};
use crate::policy::{self, Transaction};
use crate::reason::Reason;
use crate::receive::Edge;
use crate::rules::Rules;

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct Asked {
    client: IpAddr,
    helo: String,
    from: String,
    rcpt: String,
    /// Header and body, for the rules on what a message says.
    message: Option<String>,
}

/// A message's file, for `--message`.
pub fn read_message(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    // As it comes over the wire.
    Ok(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

/// The answer; an error when an address is none.
pub async fn explain(edge: &Arc<Edge>, asked: &Asked) -> Result<Value, String> {
    let from = ReversePath::parse(asked.from.trim_matches(['<', '>']));
    let from = from.map_err(|error| format!("--from {:?}: {error}", asked.from))?;
    let rcpt = Address::parse(asked.rcpt.trim_matches(['<', '>']));
    let rcpt = rcpt.map_err(|error| format!("--rcpt {:?}: {error}", asked.rcpt))?;
    let rules = edge.rules();
    let known = edge
        .recipients
        .lookup(&rcpt, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let transaction = Transaction {
        null_sender: from == ReversePath::Null,
        ..Transaction::default()
    };
    let recipient = policy::recipient(known, &transaction, rules.null_sender_recipients_max);
    let said = |refusal: Option<(Reason, &str)>| match refusal {
        Some((reason, evidence)) => rules.refusal(reason, evidence, "TOKEN").to_string(),
        None => "250 accepted".into(),
    };
    let access = access(edge, &rules, asked.client);
    let standing = edge.admission.entry(&rules.door, asked.client);
    let standing = standing.map(|entry| entry.standing);
    let refused = match (&standing, recipient) {
        // Whoever is written to: it is not even greeted.
        (Err(refused), _) => Some((refused.reason, refused.evidence.as_str())),
        (_, Err(reason)) => Some((reason, "")),
        (Ok(Standing::Rejected(note)), Ok(policy::Scanning::Ordinary)) => {
            Some((Reason::Access, &**note))
        }
        _ => None,
    };
    let exempt = matches!(&standing, Ok(standing) if standing.is_exempt());
    let door = door(edge, &rules, asked.client, exempt);
    if refused.is_some() || exempt {
        let reply = said(refused);
        return Ok(
            json!({ "recipient": format!("{known:?}"), "reply": reply, "rules": [], "access": access, "door": door }),
        );
    }
    let ours = Domain::parse(&asked.helo).is_ok_and(|helo| helo == rules.hostname);
    let ordinary = recipient == Ok(policy::Scanning::Ordinary);
    let run = async |ruling: &Arc<Ruling>| {
        let mut inquiry = Inquiry::new(ruling, asked.client).dry();
        inquiry.greeted(&asked.helo, ours);
        inquiry.sender(&from);
        let decision = inquiry.decide(&rcpt.to_string()).await;
        let judged = judged(ruling, asked.message.as_deref(), ordinary).decision;
        let refusal = decision.refusal.filter(|_| ordinary).or(judged.refusal);
        let refusal = refusal.as_ref();
        let reply = said(refusal.map(|finding| (finding.reason, finding.evidence.as_str())));
        let held = decision.hold.filter(|_| ordinary).or(judged.hold);
        let held = held.filter(|_| refusal.is_none());
        let named = judged.named.iter().map(|(rule, what)| {
            json!({ "rule": format!("rule {rule}"), "says": what, "evidence": "of the message" })
        });
        let rules: Vec<Value> = judgements(&inquiry).into_iter().chain(named).collect();
        json!({ "reply": reply, "held_by": held, "discarded_by": judged.discard, "rules": rules })
    };
    let mut answer = run(&rules.ruling).await;
    answer["access"] = access;
    answer["door"] = door;
    answer["recipient"] = json!(format!("{known:?}"));
    answer["exempt"] = json!(!ordinary);
    if let Some(shadow) = &rules.shadow {
        answer["shadow"] = run(shadow.ruling()).await;
    }
    Ok(answer)
}

/// What the rules on a message say of this one.
fn judged(ruling: &Ruling, message: Option<&str>, ordinary: bool) -> Judgement {
    match message {
        None => Judgement::default(),
        Some(message) if ordinary => ruling.checks.judge(message.as_bytes()),
        Some(message) => Judgement {
            decision: ruling.checks.structure(message.as_bytes()),
            ..Judgement::default()
        },
    }
}

/// The line of the access list that decides about the client, if one does.
fn access(edge: &Edge, rules: &Rules, client: IpAddr) -> Value {
    if let Some(key) = rules.door.spares(client) {
        return json!({ "word": "permit", "from": key });
    }
    let Some(found) = rules.door.line(&edge.admission.added, client) else {
        return Value::Null;
    };
    let from = if found.at_run_time {
        "`access add`"
    } else {
        "access.files"
    };
    json!({
        "word": found.line.word,
        "until": found.line.until.map(|until| until.rfc3339()),
        "note": found.line.note,
        "from": from,
    })
}

/// What the door knows of a client: how long it would wait, what it has passed and until when, how near it is to each limit.
fn door(edge: &Edge, rules: &Rules, client: IpAddr, exempt: bool) -> Value {
    let stressed = edge.admission.pressure.is_stressed();
    let screen = rules.screen.as_ref().filter(|_| !exempt);
    let wait = screen.and_then(|screen| screen.wait(client, stressed));
    let passed = edge.passes.tests().map(|(test, kept)| {
        let until = kept.until(client).map(|until| until.rfc3339());
        (test.to_owned(), json!(until))
    });
    let now = tokio::time::Instant::now();
    let limits = rules.door.limits.iter().filter_map(|limit| {
        let lately = edge.admission.rates.lately(limit, client, now)?;
        Some(
            json!({ "limit": limit.to_string(), "action": limit.action, "lately": lately.round() }),
        )
    });
    let limits: Vec<Value> = limits.filter(|_| !exempt).collect();
    json!({
        "waits_seconds": wait.map(|wait| wait.as_secs_f32()),
        "passed_until": serde_json::Map::from_iter(passed),
        "limits": limits,
    })
}

/// Each rule with its action and what it says.
fn judgements(inquiry: &Inquiry) -> Vec<Value> {
    let policy = &inquiry.ruling().policy;
    let rules = decide::RULES
        .iter()
        .filter(|reason| **reason != Reason::Table);
    let rules = rules.map(|&reason| {
        let action = policy.action(reason);
        let (says, evidence) = match decide::judge(policy, reason, inquiry.evidence()) {
            _ if action == Action::Off => ("off", String::new()),
            Judged::Clear => ("clear", String::new()),
            Judged::Needs(_) => ("not asked", String::new()),
            Judged::Hit(evidence) if action == Action::Warn => ("warns", evidence),
            Judged::Hit(evidence) => ("refuses", evidence),
        };
        json!({ "rule": reason.label(), "says": says, "evidence": evidence })
    });
    let said = |table: &Table| match table.says(inquiry.evidence()) {
        Says::Nothing => ("clear", String::new()),
        Says::Needs(_) => ("not asked", String::new()),
        Says::Permits(_) | Says::Refuses(_) | Says::Holds(_) if inquiry.evidence().exempt => {
            ("clear", String::new())
        }
        Says::Permits(evidence) => ("permits", evidence),
        Says::Refuses(evidence) | Says::Holds(evidence) if table.action == Action::Warn => {
            ("warns", evidence)
        }
        Says::Refuses(evidence) => ("refuses", evidence),
        Says::Holds(evidence) => ("holds", evidence),
    };
    let tables = policy.tables.active().map(|table| {
        let (says, evidence) = said(table);
        json!({ "rule": format!("table {}", table.name), "says": says, "evidence": evidence })
    });
    tables.chain(rules).collect()
}

fn door_lines(door: &Value) -> Vec<String> {
    let mut lines = vec![match door["waits_seconds"].as_f64() {
        Some(seconds) => format!("greeting: after {seconds} s"),
        None => "greeting: at once".into(),
    }];
    for (test, until) in door["passed_until"].as_object().into_iter().flatten() {
        if let Some(until) = until.as_str() {
            lines.push(format!("passed: {test}, until {until}"));
        }
    }
    for limit in door["limits"].as_array().into_iter().flatten() {
        let word = |name: &str| limit[name].as_str().unwrap_or_default().to_owned();
        let (what, action) = (word("limit"), word("action"));
        lines.push(format!(
            "limit: {what} ({action}), {} lately",
            limit["lately"]
        ));
    }
    lines
}

/// As text.
pub fn text(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![
        format!("recipient: {}", word(&answer["recipient"])),
        format!("reply: {}", word(&answer["reply"])),
    ];
    if let Some(rule) = answer["held_by"].as_str() {
        lines.push(format!(
            "held: by the rule {rule}, until `mx-edge queue release --rule {rule}`"
        ));
    }
    if let Some(rule) = answer["discarded_by"].as_str() {
        lines.push(format!("discarded: by the rule {rule}"));
    }
    let access = &answer["access"];
    if access.is_object() {
        lines.push(format!(
            "access list: {} {} ({}{})",
            word(&access["word"]),
            word(&access["note"]),
            word(&access["from"]),
            access["until"]
                .as_str()
                .map(|end| format!(", until {end}"))
                .unwrap_or_default()
        ));
    }
    lines.extend(door_lines(&answer["door"]));
    if answer["exempt"] == true {
        lines.push("the recipient is a role: no rule below refuses it".into());
    }
    let mut rules = |rules: &Value| {
        for rule in rules.as_array().into_iter().flatten() {
            lines.push(format!(
                "  {:<20} {:<10} {}",
                word(&rule["rule"]),
                word(&rule["says"]),
                word(&rule["evidence"])
            ));
        }
    };
    rules(&answer["rules"]);
    if let Some(shadow) = answer.get("shadow") {
        rules(&json!([{ "rule": "second policy:", "says": "", "evidence": shadow["reply"] }]));
        rules(&shadow["rules"]);
    }
    lines.join("\n")
}
