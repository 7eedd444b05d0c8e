//! Every refusal, at whatever stage and whoever says it: token and contact in its text, one event in the log, one entry in the records, and
//! `why` finds it by client, by address and by token.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mx_edge::config::BareNewline;
use serde_json::Value;

use crate::edge::{Site, until};
use crate::inside::{Inside, Mode};
use crate::killed::Program;
use crate::raw::Raw;

const CONTACT: &str = "https://help.example/";
const MAIL: &str = "MAIL FROM:<ann@elsewhere.example>";
const ANN: &str = "ann@elsewhere.example";

/// One client's session: what it says, and how the last of it is answered.
struct Case {
    lines: &'static [&'static str],
    reason: &'static str,
    code: &'static str,
    /// An address by which it is found; empty when nobody was named.
    address: &'static str,
}

const fn case(
    lines: &'static [&'static str],
    reason: &'static str,
    code: &'static str,
    address: &'static str,
) -> Case {
    Case {
        lines,
        reason,
        code,
        address,
    }
}

const JOE: &str = "RCPT TO:<joe@b.example>";
/// [`JOE`] a hundred times.
const MANY: &str = "MANY";

#[rustfmt::skip]
const CASES: [Case; 23] = [
    // 127.0.1.0 is the first client.
    case(&[], "access_dropped", "521 5.3.2", ""),
    case(&["EHLO x", MAIL, JOE], "access", "554 5.7.1", "joe@b.example"),
    case(&["EHLO x", "MAIL FROM:<x@>"], "sender_syntax", "501 5.1.7", "x@"),
    case(&["EHLO x", "MAIL FROM:<ann@elsewhere.example> SIZE=9999"], "announced_too_large", "552 5.3.4", ANN),
    case(&["EHLO x", MAIL, JOE, "RSET", MAIL, "RSET", MAIL], "message_rate", "450 4.7.1", ANN),
    case(&["EHLO x", MAIL, MANY, "RSET", MAIL, JOE, JOE], "recipient_rate", "450 4.7.1", "joe@b.example"),
    case(&["EHLO x", MAIL, "RCPT TO:<nobody@b.example>"], "unknown_recipient", "550 5.1.1", "nobody@b.example"),
    case(&["EHLO x", MAIL, "RCPT TO:<x@relay.example>"], "relay_denied", "554 5.7.1", "x@relay.example"),
    case(&["EHLO 192.0.2.1", MAIL, JOE], "helo_syntax", "550 5.5.2", ANN),
    case(&["EHLO x", MAIL, "RCPT TO:<z@>"], "recipient_syntax", "501 5.1.3", "z@"),
    case(&["EHLO x", "MAIL FROM:<>", JOE, JOE], "null_sender_recipients", "452 4.5.3", "joe@b.example"),
    case(&["EHLO x", MAIL, MANY, "RCPT TO:<b@a.example>"], "too_many_recipients", "452 4.5.3", "b@a.example"),
    case(&["EHLO x", MAIL, "DATA"], "sequence", "554 5.5.1", ANN),
    case(&["EHLO x", MAIL, JOE, "DATA", "a\nb\r\n."], "bare_newline", "550 5.5.2", "joe@b.example"),
    case(&["EHLO x", MAIL, JOE, "DATA", "X: {long}\r\n."], "too_large", "552 5.3.4", "joe@b.example"),
    case(&["EHLO x", MAIL, JOE, "DATA", "Received: a\r\nReceived: b\r\nReceived: c\r\n\r\n."], "loop", "554 5.4.6", "joe@b.example"),
    case(&["EHLO x", MAIL, "RCPT TO:<spam@a.example>", "DATA", "Subject: x\r\n\r\n."], "through", "550 5.7.1", "spam@a.example"),
    case(&["NONSENSE"], "syntax", "500 5.5.1", ""),
    case(&["EHLO x", MAIL, "GET / HTTP/1.1"], "foreign", "554 5.5.1", ANN),
    case(&["EHLO x", MAIL, JOE, "DATA\r\nSubject: ahead"], "pipelined", "554 5.5.0", "joe@b.example"),
    case(&["EHLO x", MAIL, JOE, "X", "X", "X"], "too_many_errors", "421 4.7.0", "joe@b.example"),
    case(&["EHLO x", MAIL, JOE, ""], "timed_out", "421 4.4.2", "joe@b.example"),
    // One of its two said at the end of the message before, so that the session goes on.
    case(&["EHLO x", MAIL, JOE, "DATA", "a\nb\r\n.", "VRFY", "STARTTLS"], "sequence", "502 5.5.1", ""),
];

fn client(at: usize) -> String {
    format!("127.0.1.{at}")
}

fn site(inside: &Inside) -> Site {
    let mut site = Site::new(inside);
    let folder = site.folder().to_owned();
    let list = folder.join("access");
    std::fs::write(&list, "127.0.1.0 drop\n127.0.1.1 reject\n").unwrap();
    let config = &mut site.config;
    config.access.files = vec![list];
    config.mail.contact = CONTACT.into();
    config.mail.bare_newline = BareNewline::Refuse;
    config.policy.skip_networks.clear();
    config.policy.helo_syntax = mx_edge::config::Action::Enforce;
    config.policy.sender_unknown = mx_edge::config::Action::Off;
    config.log.format = service::log::Format::Json;
    config.limits.message_bytes_max = 4096;
    config.limits.recipients_max = 100;
    config.limits.null_sender_recipients_max = 1;
    config.limits.hops_max = 2;
    config.limits.errors_max = 3;
    config.limits.errors_soft = 3;
    config.limits.command_timeout = Duration::from_secs(2);
    config.rates.limits = vec![
        "2 messages a minute".parse().unwrap(),
        "101 recipients a minute".parse().unwrap(),
    ];
    site
}

/// Says what a case says; every refusal that it hears, codes and text.
async fn play(case: &Case, raw: &mut Raw) -> Vec<String> {
    let mut heard = vec![raw.hear().await];
    for line in case.lines {
        let line = line.replace("{long}", &"x".repeat(5000));
        heard.push(match line.as_str() {
            // Nothing more, until its time is up.
            "" => raw.hear().await,
            MANY => {
                for _ in 0..100 {
                    let reply = raw.say(JOE).await;
                    assert!(reply.starts_with("250 "), "{reply}");
                }
                continue;
            }
            line => raw.say(line).await,
        });
    }
    if case.reason == "too_many_errors" {
        heard.push(raw.hear().await);
    }
    heard.retain(|reply| reply.starts_with(['4', '5']));
    heard
}

/// The events of refusals in the log, by session.
fn events(log: &Path, session: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let refuses = |line: &Value| {
        let no = |code: &str| {
            line["reply"]
                .as_str()
                .is_some_and(|it| it.starts_with(code))
        };
        line["session"] == session && (no("4") || no("5"))
    };
    lines.filter(refuses).collect()
}

/// What the records have of the same: replies.
fn recorded(answer: &Value, session: &str) -> Vec<String> {
    let lines = answer["happened"].as_array().into_iter().flatten();
    let of_session = lines.filter(|line| line["session"] == session);
    let mut replies = Vec::new();
    for line in of_session {
        let refused = line["refused"].as_array().into_iter().flatten();
        for one in refused.chain([line]) {
            let reply = one["reply"].as_str().unwrap_or_default();
            if reply.starts_with(['4', '5']) {
                replies.push(reply.to_owned());
            }
        }
    }
    replies
}

fn token(reply: &str) -> &str {
    let (_, token) = reply.rsplit_once('[').unwrap_or_else(|| panic!("{reply}"));
    token.split(']').next().unwrap()
}

async fn why(program: &Program, what: &str) -> (Value, String) {
    let json = program.ask(&["--json", "why", what]).await;
    let text = program.ask(&["why", what]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    (serde_json::from_slice(&json.stdout).unwrap(), text)
}

async fn check(soft: bool) {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = site(&inside);
    site.config.policy.soft_bounce = soft;
    let mut program = Program::new(&site);
    let log = site.folder().join("log");
    let edge = program.start(&log).await;
    let mut clients = BTreeMap::new();
    for (at, case) in CASES.iter().enumerate() {
        let mut raw = Raw::at(&client(at), edge).await;
        let said = play(case, &mut raw).await;
        drop(raw);
        let last = said
            .last()
            .unwrap_or_else(|| panic!("{}: not refused", case.reason));
        let code = match soft {
            true => case.code.replacen('5', "4", 1).replacen(" 5.", " 4.", 1),
            false => case.code.to_owned(),
        };
        let code = if case.code.starts_with('4') {
            case.code.into()
        } else {
            code
        };
        assert!(last.starts_with(&code), "{}: {last}", case.reason);
        for reply in &said {
            assert!(reply.trim_end().ends_with(CONTACT), "{reply}");
            assert!(!soft || reply.starts_with('4'), "{reply}");
        }
        for reply in &said {
            let table = match reply.starts_with('5') {
                true => "refused_clients",
                false => "put_off_clients",
            };
            *clients.entry((table, client(at))).or_insert(0) += 1;
        }
        let session = token(last);
        let records = || {
            let folder = std::fs::read_dir(site.config.state.join("records"));
            let files = folder.unwrap().flatten();
            let text = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).unwrap();
            let over = format!("\"session\":\"{session}\"");
            files.map(text).any(|text| {
                let mut lines = text.lines();
                lines.any(|line| line.contains(&over) && line.contains("\"event\":\"session\""))
            })
        };
        until(records, || format!("{}: no record", case.reason)).await;
        let logged = events(&log, session);
        let trimmed: Vec<&str> = said.iter().map(|reply| reply.trim_end()).collect();
        let replies = logged.iter().map(|line| line["reply"].as_str().unwrap());
        assert_eq!(replies.collect::<Vec<_>>(), trimmed, "{}", case.reason);
        let event = logged.last().unwrap();
        let reason = ["reason", "way"].map(|name| &event[name]);
        assert!(reason.contains(&&Value::from(case.reason)), "{event}");
        assert_eq!(event["client"], client(at), "{event}");
        if let Some(helo) = case
            .lines
            .first()
            .and_then(|line| line.strip_prefix("EHLO "))
        {
            assert_eq!(event["helo"], helo, "{event}");
        }
        let by = [session, &client(at), case.address];
        for what in by.into_iter().filter(|what| !what.is_empty()) {
            let (answer, text) = why(&program, what).await;
            let mut known = recorded(&answer, session);
            known.sort_by_key(|reply| trimmed.iter().position(|said| said == reply));
            assert_eq!(known, trimmed, "{} by {what}: {answer:#}", case.reason);
            assert!(text.contains(case.reason), "{what}: {text}");
        }
    }
    check_top(&program, clients).await;
    program.kill().await;
}

/// The report's tables are what clients were told, one by one.
async fn check_top(program: &Program, clients: BTreeMap<(&str, String), u64>) {
    let report = program.ask(&["--json", "report"]).await;
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    for table in ["refused_clients", "put_off_clients"] {
        let of_table = clients.iter().filter(|((name, _), _)| *name == table);
        let told: BTreeMap<&str, u64> = of_table.map(|((_, who), n)| (&**who, *n)).collect();
        let top = &report["top"][table];
        assert_eq!(top["all"], told.values().sum::<u64>(), "{table}: {top:#}");
        for line in top["named"].as_array().unwrap() {
            let name = line["name"].as_str().unwrap();
            assert_eq!(line["count"], told[name], "{name}: {top:#}");
        }
    }
}

#[tokio::test]
async fn every_refusal_is_one_event_and_is_found() {
    check(false).await;
}

/// As Postfix does it: syntax errors too (`smtpd_chat_reply`).
#[tokio::test]
async fn softly_nobody_is_refused_for_good() {
    check(true).await;
}
