//! A site's own tables at a running edge: who is refused, permitted and held by them, also by the hosts of a domain; what an operator
//! does with what they hold; and a file with a bad line.

use bytes::Bytes;
use mx_edge::config::{Action, Subject, TableFile};
use serde_json::Value;

use crate::client::{MESSAGE, codes, connect_as, envelope, send_from};
use crate::dns::{Dns, Script, script};
use crate::edge::Site;
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;

const TO: [&str; 1] = ["joe@b.example"];

fn names() -> Script {
    script(&[
        "good.example MX 10 mail.good.example",
        "mail.good.example A 192.0.2.1",
        "rented.example MX 10 mx.rented.example",
        "rented.example MX 20 nowhere.rented.example",
        "mx.rented.example A 203.0.113.25",
        "nowhere.rented.example SILENT",
        "plain.example A 203.0.113.26",
        "a.b.parked.example MX 10 mail.good.example",
        "parked.example NS ns.parking.example",
        "ns.parking.example A 198.51.100.53",
        "silent.example SILENT",
    ])
}

/// An edge that takes nobody on loopback for its own, with these tables.
fn site(inside: &Inside, dns: &Dns, tables: &[(&str, Subject, &str)]) -> Site {
    let mut site = Site::new(inside);
    site.config.policy.skip_networks.clear();
    site.config.policy.timeout = std::time::Duration::from_millis(800);
    site.config.dns.servers = vec![dns.address];
    site.config.dns.timeout = std::time::Duration::from_millis(300);
    for (name, about, lines) in tables {
        let file = site.folder().join(name);
        std::fs::write(&file, lines).unwrap();
        site.config.policy.tables.push(TableFile {
            name: (*name).into(),
            about: *about,
            file,
            action: Action::Enforce,
        });
    }
    site
}

#[tokio::test]
async fn tables_refuse_permit_and_hold() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let tables = [
        (
            "senders",
            Subject::Sender,
            "friend@nowhere.example permit\n.bulk.example reject you send bulk\n@odd.example hold\n",
        ),
        ("hosts", Subject::Helo, ".dynamic.example reject\n"),
        ("lists", Subject::Recipient, "closed@b.example reject\n"),
        (
            "nets",
            Subject::SenderMx,
            "203.0.113.0/24 reject bulletproof\n",
        ),
        ("zones", Subject::SenderNs, "198.51.100.0/24 hold\n"),
    ];
    let site = site(&inside, &dns, &tables);
    std::fs::write(site.folder().join("known"), "@b.example\n@a.example\n").unwrap();
    let edge = site.start().await;
    for (helo, from, to, expected) in [
        (
            "h.example",
            "ann@good.example",
            "joe@b.example",
            "250 2.0.0",
        ),
        // The rules would refuse a sender whose domain is not there.
        (
            "h.example",
            "friend@nowhere.example",
            "joe@b.example",
            "250 2.0.0",
        ),
        (
            "h.example",
            "foe@nowhere.example",
            "joe@b.example",
            "550 5.1.8",
        ),
        (
            "h.example",
            "ann@a.bulk.example",
            "joe@b.example",
            "554 5.7.1",
        ),
        (
            "h.example",
            "ann@a.bulk.example",
            "abuse@a.example",
            "250 2.0.0",
        ),
        (
            "1.dynamic.example",
            "ann@good.example",
            "joe@b.example",
            "554 5.7.1",
        ),
        (
            "h.example",
            "ann@good.example",
            "closed@b.example",
            "554 5.7.1",
        ),
        // One of its hosts does not answer.
        (
            "h.example",
            "ann@rented.example",
            "joe@b.example",
            "554 5.7.1",
        ),
        // Without MX the domain is its own.
        (
            "h.example",
            "ann@plain.example",
            "joe@b.example",
            "554 5.7.1",
        ),
        (
            "h.example",
            "ann@silent.example",
            "joe@b.example",
            "250 2.0.0",
        ),
        (
            "h.example",
            "ann@a.b.parked.example",
            "joe@b.example",
            "250 2.0.0",
        ),
    ] {
        let mut client = connect_as(edge.address, helo).await;
        let parts = [Bytes::from_static(MESSAGE.as_bytes())];
        let replies = client.send(&envelope(from, &[to]), &parts).await.unwrap();
        assert_eq!(
            codes(&replies),
            [expected],
            "{helo} {from} {to}: {replies:?}"
        );
    }
    let refused = send_from(edge.address, "ann@a.bulk.example", &TO, MESSAGE).await;
    let said = refused[0].to_string();
    assert!(said.contains("(senders: you send bulk)"), "{said}");
    assert_eq!(edge.metric("mx_edge_recipients_total", "table"), 6.0);
    assert_eq!(edge.metric("mx_edge_rule_hits_total", "nets"), 2.0);
    assert_eq!(edge.metric("mx_edge_messages_total", "held"), 1.0);
    assert_eq!(edge.metric("mx_edge_held_recipients_total", "rule"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn a_table_with_a_bad_line_leaves_the_old_one_in_force() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let site = site(
        &inside,
        &dns,
        &[("t", Subject::Sender, "@one.example reject\n")],
    );
    let edge = site.start().await;
    let code = async || {
        let replies = send_from(edge.address, "ann@one.example", &TO, MESSAGE).await;
        codes(&replies).remove(0)
    };
    assert_eq!(code().await, "554 5.7.1");
    let file = site.folder().join("t");
    for (lines, outcome, expected) in [
        (
            "@one.example dunno\none.example dunno\n",
            "failed",
            "554 5.7.1",
        ),
        ("@one.example permit\n", "applied", "250 2.0.0"),
    ] {
        std::fs::write(&file, lines).unwrap();
        edge.changes.send_replace(site.config.clone());
        edge.wait_metric("mx_edge_reloads_total", outcome, 1.0)
            .await;
        assert_eq!(code().await, expected, "{lines}");
    }
    edge.stop().await;
    // Nor does it start with one.
    std::fs::write(&file, "\none.example dunno\n").unwrap();
    let program = Program::new(&site);
    let checked = program.ask(&["--check"]).await;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(
        said.contains("/t: line 2: ") && said.contains("one.example"),
        "{said}"
    );
}

async fn said(program: &Program, words: &[&str]) -> String {
    let output = program.ask(words).await;
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(program: &Program, words: &[&str]) -> Value {
    let words = [&["--json"], words].concat();
    serde_json::from_str(&said(program, &words).await).unwrap()
}

#[tokio::test]
async fn what_a_rule_holds_waits_until_an_operator_decides() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let tables = [
        ("odd", Subject::Sender, "@odd.example hold\n"),
        ("even", Subject::Sender, "@even.example hold\n"),
    ];
    let mut site = site(&inside, &dns, &tables);
    site.config.policy.sender_unknown = Action::Off;
    let log = site.folder().join("log");
    let mut program = Program::new(&site);
    let mut edge = program.start(&log).await;
    for from in ["ann@odd.example", "bob@odd.example", "cid@even.example"] {
        let replies = send_from(edge, from, &TO, MESSAGE).await;
        assert_eq!(codes(&replies), ["250 2.0.0"], "{from}: {replies:?}");
    }
    let report = said(&program, &["report"]).await;
    for line in [
        "accepted                                            3",
        "odd held",
        "forward-paths held",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    program.kill().await;
    edge = program.start(&log).await;
    let replies = send_from(edge, "dan@good.example", &TO, MESSAGE).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    assert_eq!(inside.wait_for(1).await.len(), 1, "what is held stays");

    let holds = |listing: &Value| {
        let lines = listing["batches"].as_array().unwrap().iter();
        let mut holds: Vec<String> = lines
            .map(|line| line["hold"].as_str().unwrap_or("-").to_owned())
            .collect();
        holds.sort();
        holds
    };
    let listing = json(&program, &["queue", "list", "--held"]).await;
    assert_eq!(holds(&listing), ["even", "odd", "odd"], "{listing:#}");
    let listing = json(&program, &["queue", "list", "--rule", "odd"]).await;
    assert_eq!(holds(&listing), ["odd", "odd"], "{listing:#}");
    let listing = json(&program, &["queue", "list", "--refused"]).await;
    assert!(holds(&listing).is_empty(), "{listing:#}");
    let account = json(&program, &["reconcile"]).await;
    assert_eq!(
        (&account["held"], &account["balances"]),
        (&3.into(), &true.into())
    );
    let explained = said(
        &program,
        &[
            "explain",
            "--client",
            "192.0.2.7",
            "--helo",
            "h.example",
            "--from",
            "x@odd.example",
            "--rcpt",
            TO[0],
        ],
    );
    let explained = explained.await;
    assert!(
        explained.contains("held: by the rule odd") && explained.contains("reply: 250"),
        "{explained}"
    );
    let why = said(&program, &["why", "ann@odd.example"]).await;
    assert!(why.contains("held"), "{why}");

    // What nobody named stays: the plain commands mean what the inside refused.
    let released = json(&program, &["queue", "release"]).await;
    assert_eq!(released["recipients"], 0, "{released:#}");
    let dropped = json(&program, &["queue", "drop", "--rule", "even", "--yes"]).await;
    assert_eq!(dropped["recipients"], 1, "{dropped:#}");
    let released = json(&program, &["queue", "release", "--rule", "odd"]).await;
    assert_eq!(released["recipients"], 2, "{released:#}");
    let got = inside.wait_for(3).await;
    let mut from: Vec<String> = (got.iter())
        .map(|got| got.envelope.reverse_path.to_string())
        .collect();
    from.sort();
    assert_eq!(
        from,
        ["ann@odd.example", "bob@odd.example", "dan@good.example"]
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let account = json(&program, &["reconcile"]).await;
        if account["waiting"] == 0 {
            assert_eq!(
                (&account["dropped"], &account["delivered"]),
                (&1.into(), &2.into())
            );
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{account:#}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    program.kill().await;
}
