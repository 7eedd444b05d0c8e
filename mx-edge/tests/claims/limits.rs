//! What there is too much of is told at once and to nobody else: sessions, clients that wait, handshakes, memory, a spool without room.

use std::time::Duration;

use mx_edge::admission::rates::Limit;
use mx_edge::config::{Action, Measure};

use crate::client::send;
use crate::edge::{Edge, Site, until};
use crate::encrypted::public;
use crate::faulty::Fault;
use crate::inside::{Inside, Mode, PATIENCE};
use crate::killed::Program;
use crate::raw::{RCPT, Raw, networks, starts};

const TURNED_AWAY: &str = "mx_edge_turned_away_sessions_total";

/// Comes again until it is greeted so.
async fn until_greeted(edge: std::net::SocketAddr, with: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let heard = Raw::at("127.0.0.9", edge).await.hear().await;
        if heard.starts_with(with) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{heard:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn beyond_the_last_session_a_connection_is_told_at_once() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.limits.sessions_max = 2;
    let edge = site.start().await;
    let mut open = Vec::new();
    for client in ["127.0.0.2", "127.0.0.3"] {
        let mut client = Raw::from(client, &edge).await;
        starts(&client.hear().await, "220 ");
        open.push(client);
    }
    for _ in 0..300 {
        let mut third = Raw::from("127.0.0.4", &edge).await;
        starts(&third.hear().await, "421 4.3.2 ");
        assert_eq!(third.hear().await, "", "and closed");
    }
    assert_eq!(edge.metric(TURNED_AWAY, "sessions"), 300.0);
    starts(&open[0].say("EHLO x.example").await, "250 ");
    drop(open.pop());
    until_greeted(edge.address, "220 ").await;
    drop(open);
    edge.wait_metric("mx_edge_sessions_open", "", 0.0).await;
    let (made, ended) = ("mx_edge_connections_total", "mx_edge_sessions_total");
    until(
        || edge.metric(made, "") == edge.metric(ended, ""),
        || "a connection is in no figure".into(),
    )
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn too_many_that_wait_leave_room_for_who_need_not() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.limits.sessions_max = 40;
    site.config.screen.sessions_percent_max = 5;
    site.config.screen.wait = Duration::from_secs(25);
    site.config.screen.wait_stressed = Duration::from_secs(25);
    site.config.screen.skip_networks = networks(&["127.0.0.8"]);
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    let edge = site.start().await;
    let waiting = [
        Raw::from("127.0.0.2", &edge).await,
        Raw::from("127.0.0.3", &edge).await,
    ];
    let screening = &edge.running.controls.edge.admission.screening;
    until(|| screening.taken() == 2, || "nobody waits".into()).await;
    let mut third = Raw::from("127.0.0.4", &edge).await;
    starts(&third.hear().await, "421 4.3.2 ");
    assert_eq!(edge.metric(TURNED_AWAY, "screening"), 1.0);
    for client in ["127.0.0.6", "127.0.0.8"] {
        let mut client = Raw::from(client, &edge).await;
        starts(&client.hear().await, "220 ");
    }
    drop(waiting);
    until(|| screening.taken() == 0, || "places stay taken".into()).await;
    // Who has behaved before finds a place whoever waits.
    let memory = &edge.running.controls.edge.passes;
    let client = "127.0.0.5".parse().unwrap();
    memory.behaved.grant_for(client, Duration::from_secs(60));
    let waiting = [
        Raw::from("127.0.0.2", &edge).await,
        Raw::from("127.0.0.3", &edge).await,
    ];
    until(|| screening.taken() == 2, || "nobody waits".into()).await;
    let known = Raw::from("127.0.0.5", &edge).await;
    until(
        || screening.taken() == 3,
        || format!("{} wait, not 3", screening.taken()),
    )
    .await;
    drop((waiting, known));
    edge.stop().await;
}

#[tokio::test]
async fn handshakes_are_limited_by_client_and_never_ours_or_an_exceptions() {
    let ca = tempfile::tempdir().unwrap();
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.tls = Some(public(ca.path()));
    site.config.rates.limits = vec![Limit {
        skip_networks: networks(&["127.0.0.7"]),
        .."1 tls a minute".parse().unwrap()
    }];
    site.config.rates.skip_networks = networks(&["127.0.0.8"]);
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    let edge = site.start().await;
    let start_tls = async |client: &str| {
        let mut client = Raw::from(client, &edge).await;
        starts(&client.hear().await, "220 ");
        client.say("EHLO client.elsewhere.example").await;
        let reply = client.say("STARTTLS").await;
        (client, reply)
    };
    for spared in ["127.0.0.6", "127.0.0.7", "127.0.0.8"] {
        for _ in 0..3 {
            starts(&start_tls(spared).await.1, "220 2.0.0");
        }
    }
    starts(&start_tls("127.0.0.2").await.1, "220 2.0.0");
    let (mut again, reply) = start_tls("127.0.0.2").await;
    starts(&reply, "454 4.7.0 ");
    assert!(reply.contains("1 tls in 60 s"), "{reply}");
    starts(
        &again.say("MAIL FROM:<ann@elsewhere.example>").await,
        "250 ",
    );
    starts(&again.say(RCPT).await, "250 ");
    drop(again);
    assert_eq!(edge.metric("mx_edge_starttls_total", "tls_rate"), 1.0);
    assert_eq!(edge.metric("mx_edge_starttls_total", "accepted"), 10.0);
    edge.stop().await;
}

/// An edge with such a line on 127.0.0.2, and what is done with whom it rejects.
async fn listed(site: &mut Site, line: &str, rejects: Measure) -> Edge {
    let list = site.folder().join("access");
    std::fs::write(&list, format!("127.0.0.2 {line}\n")).unwrap();
    site.config.access.files = vec![list];
    site.config.access.action = rejects;
    site.start().await
}

#[tokio::test]
async fn a_line_that_only_warns_is_counted_and_hits_nobody() {
    let inside = Inside::start(Mode::Listening).await;
    let (recipients, sessions) = (
        "mx_edge_warned_recipients_total",
        "mx_edge_warned_sessions_total",
    );
    for (line, rejects, metric, label) in [
        ("warn tried out", Measure::Enforce, recipients, "access"),
        ("reject tried out", Measure::Warn, recipients, "access"),
        ("drop tried out", Measure::Warn, sessions, "access_dropped"),
    ] {
        let mut site = Site::new(&inside);
        let edge = listed(&mut site, line, rejects).await;
        let mut client = Raw::from("127.0.0.2", &edge).await;
        starts(&client.hear().await, "220 ");
        client.begin().await;
        starts(&client.say(RCPT).await, "250 ");
        assert_eq!(edge.metric(metric, label), 1.0, "{line}");
        drop(client);
        edge.stop().await;
    }
    let mut site = Site::new(&inside);
    let edge = listed(&mut site, "reject at once", Measure::Drop).await;
    let mut client = Raw::from("127.0.0.2", &edge).await;
    starts(&client.hear().await, "521 5.3.2 ");
    edge.stop().await;
}

#[tokio::test]
async fn a_rate_that_only_warns_is_counted_and_hits_nobody() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let warns = |text: &str| Limit {
        action: Action::Warn,
        ..text.parse().unwrap()
    };
    let limits = ["1 connections", "1 messages", "1 recipients"];
    site.config.rates.limits = limits
        .map(|limit| warns(&format!("{limit} a minute")))
        .into();
    let edge = site.start().await;
    for _ in 0..3 {
        let mut client = Raw::from("127.0.0.2", &edge).await;
        starts(&client.hear().await, "220 ");
        starts(&client.begin().await, "250 ");
        starts(&client.say(RCPT).await, "250 ");
    }
    for reason in ["connection_rate", "message_rate", "recipient_rate"] {
        assert_eq!(edge.metric("mx_edge_warned_sessions_total", reason), 2.0);
    }
    edge.stop().await;
}

#[tokio::test]
async fn with_no_way_in_new_clients_are_told_to_come_later() {
    let inside = Inside::start(Mode::Down).await;
    let mut site = Site::new(&inside);
    site.config.through.failures_max = 1;
    site.config.through.probe_interval = Duration::from_secs(20);
    let edge = site.start().await;
    edge.spool.set(Fault::Full);
    // While the inside may answer nobody is turned away.
    until_greeted(edge.address, "220 ").await;
    send(edge.address, &["dev@lists.example"]).await;
    until_greeted(edge.address, "421 4.3.1 ").await;
    assert!(!edge.readiness.reasons().is_empty());
    edge.spool.set(Fault::None);
    until_greeted(edge.address, "220 ").await;
    edge.stop().await;
}

#[tokio::test]
async fn a_client_that_fills_memory_keeps_others_out_until_it_is_gone() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let log = site.folder().join("log");
    let mut program = Program::new(&site);
    program.start(&log).await;
    let usual = program.resident_bytes();
    program.kill().await;
    site.config.limits.memory_bytes_max = usual + (24 << 20);
    let mut program = Program::new(&site);
    let edge = program.start(&log).await;
    until_greeted(edge, "220 ").await;

    let mut large = Raw::at("127.0.0.2", edge).await;
    starts(&large.hear().await, "220 ");
    large.begin().await;
    starts(&large.say(RCPT).await, "250 ");
    starts(&large.say("DATA").await, "354");
    let lines =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1 << 14);
    for _ in 0..45 {
        large.send(lines.as_bytes()).await;
    }
    until_greeted(edge, "421 4.3.2 ").await;
    drop(large);
    until_greeted(edge, "220 ").await;
    program.kill().await;
}
