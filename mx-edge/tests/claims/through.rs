//! While the inside answers, the client hears what the inside said, and nothing is spooled.

use mail::trace::{Custody, Spf};

use crate::client::{MESSAGE, codes, send, send_from};
use crate::edge::{Edge, Site};
use crate::inside::{Inside, Mode};

async fn edge(mode: Mode) -> (Inside, Site, Edge) {
    let inside = Inside::start(mode).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    (inside, site, edge)
}

#[tokio::test]
async fn a_message_is_the_inside_s_when_the_client_reads_250() {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    let forged = format!("X-Mailflow-Trace: ident=mx1.1.1; custody=live\r\n{MESSAGE}");
    let replies = send_from(
        edge.address,
        "ann@elsewhere.example",
        &["dev@lists.example"],
        &forged,
    )
    .await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    let got = inside.got();
    let [got] = got.as_slice() else {
        panic!("{got:?}")
    };

    let text = String::from_utf8(got.message.to_vec()).unwrap();
    let (received, rest) = text.split_at(text.find("From:").unwrap());
    assert!(received.starts_with("Received: from client.elsewhere.example ([127.0.0.1])\r\n\tby mx1.example (Mailflow) with ESMTP id mx1."), "{received}");
    assert!(
        received.contains("\r\n\tfor <dev@lists.example>;\r\n\t"),
        "{received}"
    );
    assert_eq!(rest, MESSAGE, "as it was sent, without the forged trace");

    let trace = got.trace.as_ref().unwrap();
    assert_eq!(trace.custody, Custody::Live);
    assert_eq!(trace.client, std::net::IpAddr::from([127, 0, 0, 1]));
    assert_eq!(&*trace.helo, "client.elsewhere.example");
    assert_eq!(
        (trace.spf, trace.exempt, &trace.verdict),
        (Spf::None, false, &None)
    );
    assert_eq!(trace.ident.as_str(), got.ident());
    assert_eq!(got.xforward.addr, Some(trace.client));
    assert_eq!(
        got.xforward.helo.as_deref(),
        Some("client.elsewhere.example")
    );
    assert_eq!(got.xforward.proto.as_deref(), Some("ESMTP"));
    assert_eq!(edge.metric("mx_edge_messages_total", "passed"), 1.0);
    edge.stop().await;
}

/// Sends to these recipients; the reply of each, who has the message inside, how many are in the spool, how many are listed.
async fn check(to: &[&str], expected: &[&str], accepted: &[&str], spooled: f64, ended: f64) {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    let replies = send(edge.address, to).await;
    assert_eq!(codes(&replies), expected, "{to:?}");
    let got: Vec<String> = inside.got().iter().flat_map(|got| got.accepted()).collect();
    assert_eq!(got, accepted, "{to:?}");
    assert_eq!(
        edge.metric("mx_edge_taken_recipients_total", "spool"),
        spooled,
        "{to:?}"
    );
    assert_eq!(
        edge.metric("mx_edge_done_recipients_total", "ended"),
        ended,
        "{to:?}"
    );
    let listed = edge.running.controls.edge.ended.tail(10).unwrap();
    assert_eq!(listed.len() as f64, ended, "{to:?}");
    edge.stop().await;
}

#[tokio::test]
async fn many_recipients_have_one_answer() {
    let (dev, joe) = ("dev@lists.example", "joe@a.example");
    let (spam, user, later) = ("spam@a.example", "user@a.example", "later@a.example");
    check(&[dev, joe], &["250 2.0.0"; 2], &[dev, joe], 0.0, 0.0).await;
    check(&[spam], &["550 5.7.1"], &[], 0.0, 0.0).await;
    check(&[user, spam], &["550 5.7.1"; 2], &[], 0.0, 0.0).await;
    check(&[user], &["550 5.1.1"], &[], 0.0, 0.0).await;
    check(&[dev, spam, user], &["250 2.0.0"; 3], &[dev], 0.0, 2.0).await;
    check(&[dev, later], &["250 2.0.0"; 2], &[dev], 1.0, 0.0).await;
    check(&[spam, later], &["250 2.0.0"; 2], &[], 1.0, 1.0).await;
    check(&[later], &["250 2.0.0"], &[], 1.0, 0.0).await;
}

#[tokio::test]
async fn a_message_for_postmaster_is_not_mixed_with_others() {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    let to = [
        "dev@lists.example",
        "postmaster@lists.example",
        "abuse@b.example",
        "joe@b.example",
    ];
    let replies = send(edge.address, &to).await;
    assert_eq!(
        codes(&replies),
        ["250 2.0.0", "452 4.5.3", "452 4.5.3", "250 2.0.0"]
    );
    let replies = send(edge.address, &to[1..3]).await;
    assert_eq!(codes(&replies), ["250 2.0.0"; 2]);
    let replies = send(edge.address, &["postmaster@mx1.example"]).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    let got: Vec<_> = inside.got().iter().map(|got| got.accepted()).collect();
    assert_eq!(
        got,
        [
            vec![to[0], to[3]],
            vec![to[1], to[2]],
            vec!["postmaster@a.example"]
        ]
    );
    edge.stop().await;
}

#[tokio::test]
async fn strangers_and_relays_are_refused_at_rcpt() {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    for (from, to, expected) in [
        (
            "ann@elsewhere.example",
            &["nobody@b.example"][..],
            &["550 5.1.1"][..],
        ),
        (
            "ann@elsewhere.example",
            &["joe@relay.example"],
            &["554 5.7.1"],
        ),
        (
            "ann@elsewhere.example",
            &["nobody@b.example", "joe@b.example"],
            &["550 5.1.1", "250 2.0.0"],
        ),
        (
            "",
            &["joe@b.example", "dev@lists.example"],
            &["250 2.0.0", "452 4.5.3"],
        ),
    ] {
        let replies = send_from(edge.address, from, to, MESSAGE).await;
        assert_eq!(codes(&replies), expected, "{to:?}");
    }
    assert_eq!(inside.got().len(), 2);
    assert_eq!(
        edge.metric("mx_edge_recipients_total", "unknown_recipient"),
        2.0
    );
    assert_eq!(edge.metric("mx_edge_recipients_total", "relay_denied"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn a_loop_ends() {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    let looping = "Received: from a by b; Fri, 20 Nov 2026 12:04:05 +0000\r\n".repeat(50) + MESSAGE;
    let replies = send_from(
        edge.address,
        "ann@elsewhere.example",
        &["joe@b.example"],
        &looping,
    )
    .await;
    assert_eq!(codes(&replies), ["554 5.4.6"]);
    assert!(inside.got().is_empty());
    edge.stop().await;
}

#[tokio::test]
async fn own_networks_are_exempt_and_may_not_relay() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.mail.own_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = site.start().await;
    assert_eq!(
        codes(&send(edge.address, &["joe@b.example"]).await),
        ["250 2.0.0"]
    );
    assert_eq!(
        codes(&send(edge.address, &["joe@relay.example"]).await),
        ["554 5.7.1"]
    );
    assert!(inside.got()[0].trace.as_ref().unwrap().exempt);
    assert_eq!(inside.got()[0].xforward.source.as_deref(), Some("LOCAL"));
    assert_eq!(edge.metric("mx_edge_done_recipients_total", "exempt"), 1.0);
    edge.stop().await;
}
