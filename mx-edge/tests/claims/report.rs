//! The daily report: its sums are what the clients were told, also over a kill -9; and what `explain` says of a client that never came.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mx_edge::config::BareNewline;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{MESSAGE, connect, connect_as, envelope, send_from};
use crate::dns::{Dns, script};
use crate::edge::{Site, until};
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;

/// What clients were told, a reply a forward-path: by its first digit.
type Told = BTreeMap<u16, u64>;

/// Traffic of every kind; what was told.
async fn traffic(address: SocketAddr) -> Told {
    let mut told = Told::new();
    for (from, to) in [
        ("ann@good.example", &["joe@b.example"][..]),
        (
            "ann@good.example",
            &["joe@b.example", "nobody@b.example", "x@relay.example"],
        ),
        ("ann@good.example", &["spam@a.example"]),
        ("ann@good.example", &["spam@a.example", "ok@a.example"]),
        ("ann@good.example", &["later@a.example"]),
        ("ann@nowhere.example", &["joe@b.example", "abuse@a.example"]),
        ("", &["one@a.example", "two@a.example"]),
    ] {
        for reply in send_from(address, from, to, MESSAGE).await {
            *told.entry(reply.code / 100).or_default() += 1;
        }
    }
    let mut liar = connect_as(address, "127.0.0.1").await;
    let sent = liar
        .send(&envelope("ann@good.example", &["joe@b.example"]), &[])
        .await;
    *told.entry(sent.unwrap()[0].code / 100).or_default() += 1;
    // Connects and leaves.
    drop(connect(address).await);
    told
}

/// What the report says of the same, after it has come to rest.
fn check(report: &Value, told: &Told) {
    let door = &report["door"];
    let number = |name: &str| door[name].as_u64().unwrap();
    let of = |digit: u16| told.get(&digit).copied().unwrap_or(0);
    assert_eq!(
        (number("accepted"), number("put_off"), number("refused")),
        (of(2), of(4), of(5)),
        "{report:#}"
    );
    let all = ["accepted", "put_off", "refused", "abandoned", "unended"];
    let sum: u64 = all.iter().map(|line| number(line)).sum();
    assert_eq!(sum, number("paths"), "{report:#}");
    for (total, parts) in [
        ("refused", "refused_by"),
        ("refused", "refused_for"),
        ("put_off", "put_off_by"),
        ("put_off", "put_off_for"),
    ] {
        let parts = door[parts].as_object().unwrap().values();
        let sum: u64 = parts.map(|part| part.as_u64().unwrap()).sum();
        assert_eq!(number(total), sum, "{report:#}");
    }
    let (messages, top) = (&report["mail"]["messages"], &report["top"]);
    let taken =
        ["passed", "spooled", "held"].map(|outcome| messages[outcome].as_u64().unwrap_or(0));
    assert_eq!(
        top["senders"]["all"],
        taken.iter().sum::<u64>(),
        "{report:#}"
    );
    for top in top.as_object().unwrap().values() {
        let named = top["named"].as_array().unwrap().iter();
        let named: u64 = named.map(|line| line["count"].as_u64().unwrap()).sum();
        let all = top["all"].as_u64().unwrap();
        assert_eq!(named + top["others"].as_u64().unwrap(), all, "{report:#}");
    }
}

fn site(inside: &Inside, dns: &Dns) -> Site {
    let mut site = Site::new(inside);
    site.config.policy.skip_networks.clear();
    site.config.dns.servers = vec![dns.address];
    site.config.report.write_interval = Duration::from_millis(50);
    site
}

async fn names() -> Dns {
    Dns::start(script(&["good.example MX 10 mail.good.example"])).await
}

#[tokio::test]
async fn the_numbers_add_up_to_what_the_clients_were_told() {
    let dns = names().await;
    let inside = Inside::start(Mode::Listening).await;
    let edge = site(&inside, &dns).start().await;
    let told = traffic(edge.address).await;
    edge.wait_metric("mx_edge_sessions_open", "", 0.0).await;
    let day = edge.running.controls.days.day("today").unwrap().unwrap();
    let report = mx_edge::report::summary(&day, 0);
    check(&report, &told);
    assert_eq!(report["door"]["unended"], 0, "{report:#}");
    let sessions = &report["sessions"];
    let ends = sessions["by_end"].as_object().unwrap().values();
    let ended: u64 = ends.map(|end| end.as_u64().unwrap()).sum();
    assert_eq!(sessions["made"].as_u64().unwrap(), ended, "{report:#}");
    for (line, expected) in [
        ("unknown user", 1),
        ("relay denied", 1),
        ("HELO", 1),
        ("sender address", 1),
    ] {
        assert_eq!(
            report["door"]["refused_by"][line], expected,
            "{line}: {report:#}"
        );
    }
    let text = mx_edge::report::text(&report);
    assert!(
        text.contains("unknown user") && text.contains(" %"),
        "{text}"
    );
    edge.stop().await;
}

/// Says each line and hears its reply; counts replies to RCPT, and those to the end of a message for each forward-path that waited.
async fn dialogue(address: SocketAddr, lines: &[&str], told: &mut Told) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut waiting = 0;
    for line in std::iter::once(&"").chain(lines) {
        if !line.is_empty() {
            let text = format!("{line}\r\n");
            stream.get_mut().write_all(text.as_bytes()).await.unwrap();
        }
        let mut reply = String::new();
        while reply.as_bytes().get(3) != Some(&b' ') {
            reply.clear();
            let read = stream.read_line(&mut reply);
            let read = tokio::time::timeout(PATIENCE, read).await.unwrap();
            assert_ne!(read.unwrap(), 0, "closed instead of a reply to {line:?}");
        }
        let code: u16 = reply[..3].parse().unwrap();
        match *line {
            line if line.starts_with("RCPT") && code == 250 => waiting += 1,
            line if line.starts_with("RCPT") => *told.entry(code / 100).or_default() += 1,
            line if line.ends_with("\n.") => {
                *told.entry(code / 100).or_default() += std::mem::take(&mut waiting);
            }
            _ => {}
        }
    }
}

/// A message for two, and errors of every kind around it.
const ERRORS: [&str; 17] = [
    "NONSENSE",
    "DATA",
    "EHLO client.elsewhere.example",
    "MAIL FROM:<@>",
    "MAIL FROM:<ann@good.example> SIZE=99999999",
    "MAIL FROM:<ann@good.example>",
    "RCPT TO:<joe@b.example>",
    "RCPT TO:<b@>",
    "RCPT TO:<x@relay.example>",
    "RCPT TO:<one@a.example>",
    "RCPT TO:<two@a.example>",
    "DATA",
    "a\nb\r\n.",
    "MAIL FROM:<ann@good.example>",
    "RCPT TO:<spam@a.example>",
    "DATA",
    "Subject: x\r\n\r\ny\r\n.",
];

#[tokio::test]
async fn what_sessions_refuse_without_asking_is_in_the_sums() {
    let dns = names().await;
    let inside = Inside::start(Mode::Listening).await;
    for soft in [false, true] {
        let mut site = site(&inside, &dns);
        site.config.limits.recipients_max = 2;
        site.config.mail.bare_newline = BareNewline::Refuse;
        site.config.policy.soft_bounce = soft;
        let edge = site.start().await;
        let mut told = Told::new();
        dialogue(edge.address, &ERRORS, &mut told).await;
        // Leaves before the end of its message; and one that errs until it is shown out.
        dialogue(edge.address, &ERRORS[2..3], &mut told).await;
        let errs = vec!["NONSENSE"; site.config.limits.errors_max];
        dialogue(edge.address, &errs, &mut told).await;
        edge.wait_metric("mx_edge_sessions_open", "", 0.0).await;
        let day = edge.running.controls.days.day("today").unwrap().unwrap();
        let report = mx_edge::report::summary(&day, 0);
        check(&report, &told);
        let (door, sessions) = (&report["door"], &report["sessions"]);
        assert_eq!(door["put_off_by"]["limits"], 1, "{report:#}");
        let (refused_by, softened) = match soft {
            true => (&door["softened_by"], 5),
            false => (&door["refused_by"], 0),
        };
        assert_eq!(refused_by["recipient address"], 1, "{report:#}");
        assert_eq!(refused_by["message form"], 2, "{report:#}");
        let soft_bounce = door["put_off_by"]["soft bounce"].as_u64().unwrap_or(0);
        assert_eq!(soft_bounce, softened, "{report:#}");
        let objections = &sessions["objections"];
        let errs = errs.len() as u64;
        for (objection, count) in [
            ("syntax", 1 + errs),
            ("sequence", 1),
            ("sender_syntax", 1),
            ("announced_too_large", 1),
            ("recipient_syntax", 1),
            ("too_many_recipients", 1),
            ("bare_newline", 1),
        ] {
            assert_eq!(objections[objection], count, "{objection}: {report:#}");
        }
        assert_eq!(sessions["by_end"]["errors"], 1, "{report:#}");
        assert_eq!(sessions["by_end"]["lost"], 2, "{report:#}");
        assert_eq!(sessions["limits"]["errors of a session"], 1, "{report:#}");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_kill_9_loses_at_most_one_interval_of_the_counts() {
    let dns = names().await;
    let inside = Inside::start(Mode::Listening).await;
    let site = site(&inside, &dns);
    let mut program = Program::new(&site);
    let log = site.folder().join("log");
    let mut told = Told::new();
    for life in 1..=3 {
        let address = program.start(&log).await;
        for (digit, count) in traffic(address).await {
            *told.entry(digit).or_default() += count;
        }
        // Written by now: then the kill costs nothing.
        let written = || {
            std::fs::read_dir(site.config.state.join("report"))
                .unwrap()
                .flatten()
                // The one that is being written counts for nothing until it has its name.
                .filter(|file| file.path().extension().is_some_and(|end| end == "json"))
                .any(|file| {
                    let day: Value =
                        serde_json::from_slice(&std::fs::read(file.path()).unwrap_or_default())
                            .unwrap_or_default();
                    let ends = day["counts"].as_object().into_iter().flatten();
                    let ends = ends.filter(|(name, _)| name.starts_with("sessions_total"));
                    ends.map(|(_, count)| count.as_u64().unwrap()).sum::<u64>() >= 9 * life
                })
        };
        until(written, || "the counts are not written".into()).await;
        program.kill().await;
    }
    program.start(&log).await;
    let said = program.ask(&["--json", "report", "--day", "today"]).await;
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    check(&report, &told);
    assert_eq!(report["starts"], 4, "{report:#}");
    let none = program.ask(&["report", "--day", "2001-01-01"]).await;
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("nothing was counted"),
        "{none:?}"
    );
    program.kill().await;
}

#[tokio::test]
async fn explain_says_what_would_be_said() {
    let dns = names().await;
    let inside = Inside::start(Mode::Listening).await;
    let site = site(&inside, &dns);
    let mut program = Program::new(&site);
    let log = site.folder().join("log");
    program.start(&log).await;
    for (helo, from, rcpt, reply) in [
        (
            "mail.good.example",
            "ann@good.example",
            "joe@b.example",
            "250 accepted",
        ),
        (
            "mail.good.example",
            "ann@nowhere.example",
            "joe@b.example",
            "550 5.1.8",
        ),
        (
            "mail.good.example",
            "ann@nowhere.example",
            "abuse@a.example",
            "250 accepted",
        ),
        ("192.0.2.7", "", "joe@b.example", "550 5.5.2"),
        (
            "mail.good.example",
            "ann@good.example",
            "nobody@b.example",
            "550 5.1.1",
        ),
    ] {
        let words = [
            "explain",
            "--client",
            "192.0.2.7",
            "--helo",
            helo,
            "--from",
            from,
            "--rcpt",
            rcpt,
        ];
        let said = program.ask(&words).await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(
            text.contains(&format!("reply: {reply}")),
            "{helo} {from} {rcpt}: {said:?}"
        );
    }
    let metrics = tokio::time::timeout(PATIENCE, program.ask(&["--json", "report"]))
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&metrics.stdout).unwrap();
    assert_eq!(report["door"]["paths"], 0, "nobody came");
    program.kill().await;
}
