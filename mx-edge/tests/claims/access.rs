//! Lines that an operator adds to the access list: in force at once, over restarts, and over by themselves; never on our own hosts.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpSocket;

use crate::edge::{Site, until};
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;

/// What a client that comes from there hears first.
async fn greeting(edge: SocketAddr, from: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = BufReader::new(socket.connect(edge).await.unwrap());
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut line));
    read.await.unwrap().unwrap();
    line
}

async fn said(program: &Program, words: &[&str]) -> (bool, String) {
    let output = program.ask(words).await;
    let all = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(all).unwrap())
}

/// Adds a line that drops a client; says how that went.
async fn drop_client(program: &Program, network: &str, until: &str) -> (bool, String) {
    let words = [
        "access",
        "add",
        network,
        "--word",
        "drop",
        "--until",
        until,
        "--note",
        "sends worms",
    ];
    said(program, &words).await
}

fn site(inside: &Inside) -> Site {
    let mut site = Site::new(inside);
    site.config.mail.own_networks = vec!["127.0.0.1".parse().unwrap()];
    let limit = "1000 connections a minute".parse().unwrap();
    site.config.rates.limits = vec![limit];
    site.config.mail.proxies = vec!["127.0.0.80".parse().unwrap()];
    site
}

#[tokio::test]
async fn a_line_added_at_run_time_outlasts_a_restart_and_ends_by_itself() {
    let inside = Inside::start(Mode::Listening).await;
    let site = site(&inside);
    let log = site.folder().join("log");
    let mut program = Program::new(&site);
    let mut edge = program.start(&log).await;
    assert!(greeting(edge, "127.0.0.9").await.starts_with("220"));

    let (done, text) = drop_client(&program, "127.0.0.9", "1h").await;
    assert!(done, "{text}");
    for _ in 0..2 {
        let heard = greeting(edge, "127.0.0.9").await;
        assert!(
            heard.starts_with("521") && heard.contains("sends worms"),
            "{heard}"
        );
        assert!(greeting(edge, "127.0.0.10").await.starts_with("220"));
        let (_, list) = said(&program, &["access", "list"]).await;
        assert!(
            list.contains("127.0.0.9/32 drop") && list.contains("by uid "),
            "{list}"
        );
        program.kill().await;
        edge = program.start(&log).await;
    }
    let explain = [
        "explain",
        "--client",
        "127.0.0.9",
        "--helo",
        "x.example",
        "--from",
        "a@b.example",
        "--rcpt",
        "joe@b.example",
    ];
    let (_, text) = said(&program, &explain).await;
    assert!(
        text.contains("reply: 521") && text.contains("`access add`"),
        "{text}"
    );
    assert!(
        text.contains("greeting: at once") && text.contains("limit: 1000 connections in 60 s"),
        "{text}"
    );

    let (done, text) = said(&program, &["access", "remove", "127.0.0.9"]).await;
    assert!(done, "{text}");
    assert!(greeting(edge, "127.0.0.9").await.starts_with("220"));
    let (done, _) = said(&program, &["access", "remove", "127.0.0.9"]).await;
    assert!(!done, "it is gone already");

    let (done, text) = drop_client(&program, "127.0.0.9", "2s").await;
    assert!(done, "{text}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !greeting(edge, "127.0.0.9").await.starts_with("220") {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the line does not end"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for outcome in ["added", "removed", "over"] {
        until(
            || told(&log, outcome),
            || format!("{outcome} is not in the log"),
        )
        .await;
    }
    program.kill().await;
}

/// Whether the log tells what became of a line.
fn told(log: &Path, outcome: &str) -> bool {
    let log = std::fs::read_to_string(log).unwrap();
    let change = format!("change=\"access {outcome}\"");
    log.lines()
        .any(|line| line.contains("event=audit") && line.contains(&change))
}

#[tokio::test]
async fn no_line_is_taken_on_a_proxy_or_a_host_of_ours() {
    let inside = Inside::start(Mode::Listening).await;
    let site = site(&inside);
    let mut program = Program::new(&site);
    let edge = program.start(&site.folder().join("log")).await;
    for (network, until, why) in [
        ("127.0.0.1", "1h", "our own"),
        ("127.0.0.64/27", "1h", "a proxy (mail.proxies)"),
        ("127.0.0.0/8", "1h", "our own"),
        ("127.0.0.9", "2020-01-01T00:00:00Z", "is over"),
        ("127.0.0.9", "soon", "how long"),
    ] {
        let (done, text) = drop_client(&program, network, until).await;

        assert!(!done && text.contains(why), "{network}: {text}");
    }
    let (_, list) = said(&program, &["access", "list"]).await;
    assert!(list.contains("no line was added"), "{list}");
    assert!(greeting(edge, "127.0.0.1").await.starts_with("220"));
    program.kill().await;
}
