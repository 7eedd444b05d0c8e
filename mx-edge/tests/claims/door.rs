//! Who comes in: the access list, proxies that say whom they bring, rates, and what happens when there is too much of anything.

use crate::edge::{Site, until};
use crate::inside::Inside;
use crate::raw::{RCPT, Raw, networks, starts};

#[tokio::test]
async fn the_access_list_decides_and_a_broken_one_changes_nothing() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("access");
    std::fs::write(
        &list,
        "127.0.0.2 reject you send nothing but bounces\n127.0.0.3 drop\n127.0.0.4 permit\n127.0.0.0/8 dunno\n",
    )
    .unwrap();
    site.config.access.files = vec![list.clone()];
    site.config.mail.contact = "https://help.example/".into();
    let edge = site.start().await;

    let mut rejected = Raw::from("127.0.0.2", &edge).await;
    starts(&rejected.hear().await, "220 ");
    starts(&rejected.begin().await, "250 ");
    let reply = rejected.say(RCPT).await;
    starts(&reply, "554 5.7.1 ");
    assert!(reply.contains("nothing but bounces") && reply.contains("https://help.example/"));
    starts(
        &rejected.say("RCPT TO:<nobody@b.example>").await,
        "550 5.1.1",
    );
    starts(
        &rejected.say("RCPT TO:<postmaster@b.example>").await,
        "250 ",
    );
    let mut dropped = Raw::from("127.0.0.3", &edge).await;
    starts(&dropped.hear().await, "521 5.3.2 ");
    assert_eq!(dropped.hear().await, "", "and closed");
    edge.wait_metric("mx_edge_turned_away_sessions_total", "access_dropped", 1.0)
        .await;

    // As SIGHUP with a bad line; then with a good one.
    std::fs::write(&list, "127.0.0.2 perhaps\n").unwrap();
    edge.changes.send_replace(site.config.clone());
    // Each reload, good or bad, leaves its mark.
    edge.wait_metric("mx_edge_reloads_total", "failed", 1.0)
        .await;
    let rules = || edge.running.controls.edge.rules();
    let mut still = Raw::from("127.0.0.3", &edge).await;
    starts(&still.hear().await, "521 ");
    std::fs::write(&list, "127.0.0.2 permit\n").unwrap();
    edge.changes.send_replace(site.config.clone());
    until(
        || rules().door.access.len() == 1,
        || "not read again".into(),
    )
    .await;
    let mut permitted = Raw::from("127.0.0.2", &edge).await;
    starts(&permitted.hear().await, "220 ");
    starts(&permitted.begin().await, "250 ");
    starts(&permitted.say(RCPT).await, "250 ");
    drop((rejected, permitted));
    edge.stop().await;
}

#[tokio::test]
async fn a_listed_proxy_says_whom_it_brings_and_nobody_else_can() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("access");
    std::fs::write(
        &list,
        "203.0.113.7 drop\n127.0.0.0/8 drop no list hits a proxy\n",
    )
    .unwrap();
    site.config.access.files = vec![list];
    site.config.mail.proxies = networks(&["127.0.0.5"]);
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    let edge = site.start().await;

    // Behind the proxy it is the client whom the list hits, in both versions; header and first words in one packet.
    let mut dropped = Raw::from("127.0.0.5", &edge).await;
    dropped
        .send(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 25\r\n")
        .await;
    starts(&dropped.hear().await, "521 ");
    let mut dropped = Raw::from("127.0.0.5", &edge).await;
    dropped
        .send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\x00\x71\x07\xc6\x33\x64\x01\x12\x67\0\x19")
        .await;
    starts(&dropped.hear().await, "521 ");
    let mut other = Raw::from("127.0.0.5", &edge).await;
    other
        .send(b"PROXY TCP4 203.0.113.8 198.51.100.1 4711 25\r\n")
        .await;
    starts(&other.hear().await, "220 ");
    starts(&other.begin().await, "250 ");
    starts(
        &other.say("RCPT TO:<postmaster@[198.51.100.1]>").await,
        "250 ",
    );
    drop(other);
    edge.wait_metric("mx_edge_sessions_total", "", 3.0).await;

    // A check is answered, and in no figure but its own.
    for header in [
        "PROXY UNKNOWN\r\n".as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ] {
        let mut check = Raw::from("127.0.0.5", &edge).await;
        check.send(header).await;
        starts(&check.hear().await, "220 ");
        starts(&check.begin().await, "450 4.3.0 ");
        starts(&check.say("QUIT").await, "221 ");
    }
    edge.wait_metric("mx_edge_proxied_connections_total", "check", 2.0)
        .await;
    assert_eq!(edge.metric("mx_edge_sessions_total", ""), 3.0);
    assert_eq!(edge.metric("mx_edge_sessions_open", ""), 0.0);

    // It must speak it; nobody else may, not even our own hosts.
    let mut silent = Raw::from("127.0.0.5", &edge).await;
    silent.send(b"EHLO client.elsewhere.example\r\n").await;
    assert_eq!(silent.hear().await, "", "closed without a word");
    edge.wait_metric("mx_edge_proxied_connections_total", "bad", 1.0)
        .await;
    let mut liar = Raw::from("127.0.0.6", &edge).await;
    starts(&liar.hear().await, "220 ");
    starts(
        &liar
            .say("PROXY TCP4 203.0.113.9 198.51.100.1 4711 25")
            .await,
        "500 ",
    );
    edge.stop().await;
}

#[tokio::test]
async fn xclient_is_believed_of_those_who_are_trusted() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.mail.xclient_networks = networks(&["127.0.0.5"]);
    site.config.limits.sessions_per_client_max = 1;
    let edge = site.start().await;
    let mut trusted = Raw::from("127.0.0.5", &edge).await;
    starts(&trusted.hear().await, "220 ");
    trusted.say("EHLO proxy.example").await;
    starts(
        &trusted.say("XCLIENT ADDR=203.0.113.7 PORT=4711").await,
        "220 ",
    );
    starts(&trusted.begin().await, "250 ");
    // It is no session of the proxy's any more, but one of the client's.
    let mut second = Raw::from("127.0.0.5", &edge).await;
    starts(&second.hear().await, "220 ");
    second.say("EHLO proxy.example").await;
    starts(&second.say("XCLIENT ADDR=203.0.113.7").await, "421 4.7.0 ");
    let mut stranger = Raw::from("127.0.0.6", &edge).await;
    starts(&stranger.hear().await, "220 ");
    stranger.say("EHLO client.elsewhere.example").await;
    starts(
        &stranger.say("XCLIENT ADDR=203.0.113.8").await,
        "550 5.7.0 ",
    );
    drop((trusted, second));
    edge.stop().await;
}

#[tokio::test]
async fn what_comes_too_often_is_told_to_come_later() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    let limits = [
        "3 connections a minute",
        "1 messages a minute",
        "2 recipients a minute",
    ];
    site.config.rates.limits = limits.iter().map(|limit| limit.parse().unwrap()).collect();
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    let edge = site.start().await;
    let mut client = Raw::from("127.0.0.2", &edge).await;
    starts(&client.hear().await, "220 ");
    starts(&client.begin().await, "250 ");
    starts(&client.say("RCPT TO:<nobody@b.example>").await, "550 5.1.1");
    starts(&client.say(RCPT).await, "250 ");
    starts(&client.say(RCPT).await, "450 4.7.1 ");
    client.say("RSET").await;
    starts(&client.say("MAIL FROM:<>").await, "450 4.7.1 ");
    for expected in ["220 ", "220 ", "421 4.7.0 "] {
        starts(&Raw::from("127.0.0.2", &edge).await.hear().await, expected);
    }
    for _ in 0..5 {
        let mut own = Raw::from("127.0.0.6", &edge).await;
        starts(&own.hear().await, "220 ");
        starts(&own.begin().await, "250 ");
    }
    edge.stop().await;
}

#[tokio::test]
async fn without_memory_new_clients_are_told_to_come_later() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.limits.memory_bytes_max = 1;
    let edge = site.start().await;
    edge.wait_metric("mx_edge_stressed", "", 1.0).await;
    let mut client = Raw::from("127.0.0.2", &edge).await;
    starts(&client.hear().await, "421 4.3.2 ");
    edge.stop().await;
}

#[tokio::test]
async fn many_sessions_are_stress_until_there_are_few() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.limits.sessions_max = 5;
    let edge = site.start().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::from("127.0.0.2", &edge).await;
        starts(&client.hear().await, "220 ");
        open.push(client);
    }
    let pressure = &edge.running.controls.edge.admission.pressure;
    assert!(pressure.is_stressed());
    // One error is enough now, also in a session that began before.
    starts(&open[0].say("WHAT").await, "500 ");
    starts(&open[0].hear().await, "421 4.7.0 ");
    open.truncate(2);
    until(|| !pressure.is_stressed(), || "still stressed".into()).await;
    starts(&open[1].say("WHAT").await, "500 ");
    edge.stop().await;
}

/// One for whom no limit may end a session.
async fn errs(mut client: Raw) {
    for _ in 0..10 {
        starts(&client.say("WHAT").await, "500 ");
        starts(&client.say("NOOP").await, "250 ");
    }
    starts(&client.say("QUIT").await, "221 ");
}

#[tokio::test]
async fn errors_and_junk_end_a_strangers_session_and_never_ours_or_a_proxys() {
    let inside = Inside::start(crate::inside::Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    site.config.mail.proxies = networks(&["127.0.0.5"]);
    site.config.mail.xclient_networks = networks(&["127.0.0.7"]);
    site.config.limits.errors_max = 3;
    site.config.limits.errors_soft = 2;
    site.config.limits.junk_commands_max = 5;
    let edge = site.start().await;

    let mut junk = Raw::from("127.0.0.2", &edge).await;
    starts(&junk.hear().await, "220 ");
    for _ in 0..8 {
        starts(&junk.say("NOOP").await, "250 ");
    }
    starts(&junk.hear().await, "421 4.7.0 ");
    edge.wait_metric("mx_edge_objections_total", "junk_commands", 3.0)
        .await;
    for host in ["127.0.0.6", "127.0.0.7"] {
        let mut own = Raw::from(host, &edge).await;
        starts(&own.hear().await, "220 ");
        errs(own).await;
    }
    // A proxy's own check, and a proxy that brings itself.
    for header in ["PROXY UNKNOWN", "PROXY TCP4 127.0.0.5 127.0.0.1 4711 25"] {
        let mut proxy = Raw::from("127.0.0.5", &edge).await;
        starts(&proxy.say(header).await, "220 ");
        errs(proxy).await;
    }
    // Whom a trusted host names is a stranger again.
    let mut named = Raw::from("127.0.0.7", &edge).await;
    starts(&named.hear().await, "220 ");
    named.say("EHLO proxy.example").await;
    starts(&named.say("XCLIENT ADDR=203.0.113.7").await, "220 ");
    for _ in 0..3 {
        starts(&named.say("WHAT").await, "500 ");
    }
    starts(&named.hear().await, "421 4.7.0 ");
    edge.stop().await;
}
