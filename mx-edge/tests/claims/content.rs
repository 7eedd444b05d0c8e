//! Rules on what messages say, at a running edge: refused, held, discarded, redirected, marked; each in the account and the report.

use bytes::Bytes;
use mx_edge::config::{Action, BodyRule, Config, HeaderRule, Of, Then};

use crate::client::{MESSAGE, codes, connect, envelope, send_from};
use crate::edge::Site;
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;

fn header(name: &str, pattern: &str, then: Then, value: &str) -> HeaderRule {
    HeaderRule {
        name: name.into(),
        field: "Subject".into(),
        of: Of::Message,
        pattern: pattern.parse().unwrap(),
        then,
        value: value.into(),
        action: Action::Enforce,
    }
}

fn rules(config: &mut Config) {
    let policy = &mut config.policy;
    policy.redirect_to = "desk@a.example".into();
    policy.headers = vec![
        header("marked", "mark", Then::Prepend, "X-Site-Rule: marked"),
        header("moved", "move", Then::Redirect, ""),
        header("kept", "keep", Then::Hold, ""),
        header("gone", "vanish", Then::Discard, ""),
    ];
    let body = |name: &str, pattern: &str, action| BodyRule {
        name: name.into(),
        pattern: pattern.parse().unwrap(),
        then: Then::Reject,
        value: String::new(),
        action,
    };
    policy.body = vec![
        body("worm", "^click +here\\.?$", Action::Enforce),
        body("doubt", "lottery", Action::Warn),
    ];
}

fn message(subject: &str, body: &str) -> String {
    format!("From: ann@elsewhere.example\r\nSubject: {subject}\r\n\r\n{body}\r\n")
}

#[tokio::test]
async fn rules_on_what_a_message_says_do_what_they_say() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    rules(&mut site.config);
    let edge = site.start().await;
    let two = ["joe@b.example", "dev@a.example"];
    for (subject, body, to, expected) in [
        ("hello", "nothing", &two[..], "250 2.0.0"),
        ("please mark", "text", &two, "250 2.0.0"),
        ("please move", "text", &two, "250 2.0.0"),
        ("mark, move and keep", "text", &two, "250 2.0.0"),
        ("vanish", "text", &two, "250 2.0.0"),
        ("hello", "click here", &two, "550 5.7.1"),
        ("hello", "a lottery", &two, "250 2.0.0"),
        ("vanish", "click here", &["abuse@a.example"], "250 2.0.0"),
    ] {
        let text = message(subject, body);
        let replies = send_from(edge.address, "ann@elsewhere.example", to, &text).await;
        let expected = vec![expected; to.len()];
        assert_eq!(codes(&replies), expected, "{subject}: {replies:?}");
    }
    let got = inside.got();
    let (to, marks): (Vec<_>, Vec<_>) = (got.iter())
        .map(|got| {
            let text = String::from_utf8_lossy(&got.message).into_owned();
            (
                got.accepted().join(","),
                text.matches("\r\nX-Site-Rule: marked\r\n").count(),
            )
        })
        .unzip();
    let both = "joe@b.example,dev@a.example";
    assert_eq!(to, [both, both, "desk@a.example", both, "abuse@a.example"]);
    assert_eq!(marks, [0, 1, 0, 0, 0]);
    let held = edge.running.controls.spool.tally().await.unwrap();
    assert_eq!(held.iter().map(|line| line.recipients).sum::<u64>(), 1);
    let ended = edge.running.controls.edge.ended.tail(10).unwrap();
    let said: Vec<String> = (ended.iter())
        .map(|line| {
            [&line["kind"], &line["to"]]
                .map(|word| word.as_str().unwrap())
                .join(" ")
        })
        .collect();
    assert_eq!(
        said,
        [
            "held desk@a.example",
            "discarded joe@b.example",
            "discarded dev@a.example"
        ]
    );
    for (rule, hits) in [
        ("marked", 2.0),
        ("moved", 2.0),
        ("kept", 1.0),
        ("gone", 1.0),
        ("worm", 1.0),
        ("doubt", 1.0),
    ] {
        assert_eq!(edge.metric("mx_edge_rule_hits_total", rule), hits, "{rule}");
    }
    // Every path is in one line of the report, and what was taken is accounted for.
    let day = edge.running.controls.days.day("today").unwrap().unwrap();
    let report = mx_edge::report::summary(&day, 0);
    let door = &report["door"];
    assert_eq!(
        (&door["paths"], &door["accepted"]),
        (&15.into(), &13.into()),
        "{report:#}"
    );
    assert_eq!(door["refused_by"]["body"], 2, "{report:#}");
    assert_eq!(door["unended"], 0, "{report:#}");
    assert_eq!(report["mail"]["messages"]["discarded"], 1, "{report:#}");
    let text = mx_edge::report::text(&report);
    for line in [
        "gone discarded",
        "moved redirected",
        "marked prepended",
        "doubt warned",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let sum = |name: &str| edge.metric(name, "");
    edge.wait_metric("mx_edge_spooled_recipients", "held", 1.0)
        .await;
    assert_eq!(
        sum("mx_edge_taken_recipients_total"),
        sum("mx_edge_done_recipients_total") + sum("mx_edge_spooled_recipients")
    );
    edge.stop().await;
}

#[tokio::test]
async fn what_is_built_to_kill_parsers_is_refused_whoever_it_is_for() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let nest = "Content-Type: message/rfc822\r\n\r\n".repeat(200) + "x\r\n";
    let parts = "Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned()
        + &"--b\r\n\r\n\r\n".repeat(2000);
    let edge = site.start().await;
    for (text, why) in [
        (&nest, "nested deeper than 100 levels"),
        (&parts, "more than 1000 parts"),
    ] {
        for to in ["joe@b.example", "abuse@a.example"] {
            let replies = send_from(edge.address, "ann@elsewhere.example", &[to], text).await;
            assert_eq!(codes(&replies), ["554 5.6.0"], "{to}: {replies:?}");
            assert!(replies[0].to_string().contains(why), "{replies:?}");
        }
    }
    assert!(inside.got().is_empty());
    assert_eq!(edge.metric("mx_edge_path_ends_total", "structure"), 4.0);
    // The session goes on.
    let mut client = connect(edge.address).await;
    for text in [nest.as_bytes(), MESSAGE.as_bytes()] {
        let mail = envelope("ann@elsewhere.example", &["joe@b.example"]);
        let parts = [Bytes::copy_from_slice(text)];
        let _ = client.send(&mail, &parts).await.unwrap();
    }
    assert_eq!(inside.got().len(), 1);
    edge.stop().await;

    site.config.policy.structure = Action::Warn;
    let edge = site.start().await;
    let replies = send_from(
        edge.address,
        "ann@elsewhere.example",
        &["joe@b.example"],
        &nest,
    )
    .await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    assert_eq!(
        edge.metric("mx_edge_warned_recipients_total", "structure"),
        1.0
    );
    edge.stop().await;
}

#[tokio::test]
async fn explain_tries_the_rules_on_a_message_and_a_second_policy_sees_them() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    rules(&mut site.config);
    site.config.policy.skip_networks.clear();
    site.config.policy.sender_unknown = Action::Off;
    site.config.policy.client_name = Action::Off;
    let (next, table) = (site.folder().join("next.toml"), site.folder().join("odd"));
    std::fs::write(&table, "@odd.example hold\n").unwrap();
    std::fs::write(
        &next,
        format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['/nowhere']\n[spf]\nenabled = false\n\
             [policy]\nskip_networks = []\nsender_unknown = 'off'\nclient_name = 'off'\n\
             [[policy.tables]]\nname = 'odd'\nabout = 'sender'\nfile = '{}'\n\
             [[policy.body]]\nname = 'text'\npattern = 'casino'\n",
            table.display()
        ),
    )
    .unwrap();
    site.config.shadow.file = next;
    let mut program = Program::new(&site);
    let edge = program.start(&site.folder().join("log")).await;
    let file = site.folder().join("message");
    for (subject, body, from, parts) in [
        (
            "keep",
            "text",
            "a@b.example",
            ["reply: 250", "held: by the rule kept"],
        ),
        (
            "hello",
            "click here",
            "a@b.example",
            ["reply: 550 5.7.1", "rule worm"],
        ),
        (
            "vanish",
            "text",
            "a@b.example",
            ["reply: 250", "discarded: by the rule gone"],
        ),
        (
            "hello",
            "casino",
            "x@odd.example",
            ["reply: 250", "rule text"],
        ),
    ] {
        std::fs::write(&file, message(subject, body).replace("\r\n", "\n")).unwrap();
        let words = [
            "explain",
            "--client",
            "192.0.2.7",
            "--helo",
            "h.example",
            "--from",
            from,
            "--rcpt",
            "joe@b.example",
            "--message",
            file.to_str().unwrap(),
        ];
        let said = program.ask(&words).await;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        for part in parts {
            assert!(text.contains(part), "{subject} {body}: {part}: {said:?}");
        }
    }
    for from in ["x@odd.example", "a@b.example"] {
        let replies = send_from(edge, from, &["joe@b.example"], &message("hi", "casino")).await;
        assert_eq!(codes(&replies), ["250 2.0.0"], "{from}");
    }
    assert_eq!(
        inside.wait_for(2).await.len(),
        2,
        "it refuses and holds nobody"
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let said = program.ask(&["--json", "report"]).await;
        let report: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        let shadow = &report["shadow"];
        if shadow["would_hold"] == 1 && shadow["would_refuse"] == 2 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{report:#}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    program.kill().await;
}

#[tokio::test]
async fn a_pattern_that_is_none_is_told_with_its_place() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    rules(&mut site.config);
    let program = Program::new(&site);
    let file = site.folder().join("mx-edge.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let broken = text.replace("lottery", "lott(ery");
    let line = 1 + broken
        .lines()
        .position(|line| line.contains("lott("))
        .unwrap();
    std::fs::write(&file, broken).unwrap();
    let checked = program.ask(&["--check"]).await;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(
        said.contains(&format!("mx-edge.toml:{line}:")) && said.contains("unclosed group"),
        "{said}"
    );
}
