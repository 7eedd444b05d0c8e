//! The screen at a running edge: what ends the wait and what does not, who is shown out, and what is remembered for how long.

use std::net::IpAddr;
use std::time::Duration;

use mail::Timestamp;
use mx_edge::config::{DnsList, Measure};

use crate::dns::{Dns, script};
use crate::edge::{Edge, Site};
use crate::inside::{Inside, Mode};
use crate::raw::{RCPT, Raw, starts};

const CLIENT: &str = "127.0.0.9";
const SCREENED: &str = "mx_edge_screened_sessions_total";

/// An edge that takes nobody on loopback for known, with one list.
fn strict(inside: &Inside, dns: &Dns) -> Site {
    let mut site = Site::new(inside);
    let screen = &mut site.config.screen;
    screen.skip_networks.clear();
    screen.wait = Duration::from_millis(300);
    screen.wait_stressed = screen.wait;
    site.config.dns.servers = vec![dns.address];
    site.config.dnsbl.skip_networks.clear();
    site.config.dnsbl.lists = vec![DnsList {
        zone: "bl.example".into(),
        name: "bl".into(),
        codes: "127.0.0.2".parse().unwrap(),
        weight: 1,
        self_test: false,
        texts: Vec::new(),
    }];
    site
}

async fn names(lines: &[&str]) -> Dns {
    Dns::start(script(lines)).await
}

/// Sends a message as one should.
async fn behave(mut client: Raw) {
    starts(&client.hear().await, "220 ");
    starts(&client.begin().await, "250 ");
    starts(&client.say(RCPT).await, "250 ");
    starts(&client.say("DATA").await, "354");
    starts(&client.say("Subject: x\r\n\r\nHello.\r\n.").await, "250 ");
    starts(&client.say("QUIT").await, "221 ");
}

#[tokio::test]
async fn a_list_that_warns_does_not_end_the_wait() {
    let dns = names(&["9.0.0.127.bl.example A 127.0.0.2"]).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.dnsbl.action = Measure::Warn;
    let edge = site.start().await;
    let began = tokio::time::Instant::now();
    let mut client = Raw::from(CLIENT, &edge).await;
    starts(&client.hear().await, "220 ");
    assert!(
        began.elapsed() >= site.config.screen.wait,
        "it did not wait"
    );
    client.begin().await;
    starts(&client.say(RCPT).await, "250 ");
    assert_eq!(edge.metric("mx_edge_warned_recipients_total", "dnsbl"), 1.0);
    client.say("QUIT").await;
    edge.wait_metric(SCREENED, "passed", 1.0).await;
    edge.stop().await;

    // One that counts does; nobody waits for half a minute here.
    site.config.dnsbl.action = Measure::Enforce;
    site.config.screen.wait = Duration::from_secs(29);
    let edge = site.start().await;
    edge.running
        .controls
        .edge
        .passes
        .forget(CLIENT.parse().unwrap());
    let mut client = Raw::from(CLIENT, &edge).await;
    starts(&client.hear().await, "220 ");
    client.begin().await;
    starts(&client.say(RCPT).await, "554 5.7.1 ");
    client.say("QUIT").await;
    edge.wait_metric(SCREENED, "cut", 1.0).await;
    edge.stop().await;
}

#[tokio::test]
async fn an_alias_without_end_lists_nobody_and_costs_little() {
    let mut lines = vec![
        "9.0.0.127.bl.example CNAME loop.example".to_owned(),
        "loop.example CNAME loop.example".into(),
        "10.0.0.127.bl.example CNAME n0.example".into(),
    ];
    lines.extend((0..500).map(|n| format!("n{n}.example CNAME n{}.example", n + 1)));
    lines.push("n500.example A 127.0.0.2".into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let dns = names(&lines).await;
    let inside = Inside::start(Mode::Listening).await;
    let edge = strict(&inside, &dns).start().await;
    for client in [CLIENT, "127.0.0.10"] {
        behave(Raw::from(client, &edge).await).await;
    }
    assert!(dns.queries() < 60, "{} queries", dns.queries());
    edge.stop().await;
}

#[tokio::test]
async fn a_test_at_drop_shows_out_as_soon_as_it_knows() {
    let dns = names(&["9.0.0.127.bl.example A 127.0.0.2"]).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.screen.action = Measure::Drop;
    site.config.dnsbl.action = Measure::Drop;
    site.config.screen.wait = Duration::from_secs(29);
    let edge = site.start().await;
    let mut listed = Raw::from(CLIENT, &edge).await;
    let reply = listed.hear().await;
    starts(&reply, "521 5.3.2 ");
    assert!(reply.contains("listed by bl"), "{reply}");
    assert_eq!(listed.hear().await, "", "and closed");
    let mut hasty = Raw::from("127.0.0.10", &edge).await;
    let reply = hasty.say("EHLO bot.example").await;
    starts(&reply, "521 5.3.2 ");
    assert!(reply.contains("EHLO bot.example"), "{reply}");
    let turned_away = "mx_edge_turned_away_sessions_total";
    for reason in ["dnsbl", "spoke_first"] {
        edge.wait_metric(turned_away, reason, 1.0).await;
    }
    // Who need not wait is asked about at RCPT.
    let passes = &edge.running.controls.edge.passes;
    let client: IpAddr = CLIENT.parse().unwrap();
    passes.waited.grant_for(client, Duration::from_secs(60));
    let mut known = Raw::from(CLIENT, &edge).await;
    starts(&known.hear().await, "220 ");
    known.begin().await;
    starts(&known.say("RCPT TO:<postmaster@b.example>").await, "250 ");
    known.say("RSET").await;
    known.say("MAIL FROM:<ann@elsewhere.example>").await;
    starts(&known.say(RCPT).await, "521 5.3.2 ");
    assert_eq!(known.hear().await, "", "and closed");
    edge.stop().await;
}

/// For how long each test was passed: wait, session, lists; rounded up to ten seconds, 0 when it was not.
fn passes(edge: &Edge, client: &str) -> [u64; 3] {
    let client = client.parse().unwrap();
    let now = Timestamp::now();
    edge.running.controls.edge.passes.tests().map(|(_, kept)| {
        let left = kept
            .until(client)
            .map_or(0, |until| until.since(now).as_secs());
        left.next_multiple_of(10)
    })
}

const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn each_test_has_an_end_of_its_own_over_restarts_and_a_fault_ends_all() {
    // Answers that do not count: the list says nothing against them, and for how long.
    let dns = names(&[
        "9.0.0.127.bl.example A 127.0.0.9",
        "9.0.0.127.bl.example TTL 1",
        "10.0.0.127.bl.example A 127.0.0.9",
        "10.0.0.127.bl.example TTL 86400",
        "11.0.0.127.bl.example A 127.0.0.9",
        "11.0.0.127.bl.example TTL 600",
        "12.0.0.127.bl.example FAILS",
    ])
    .await;
    let inside = Inside::start(Mode::Listening).await;
    let site = strict(&inside, &dns);
    let mut edge = site.start().await;
    let expected = [
        (CLIENT, [DAY, 30 * DAY, 60]),
        ("127.0.0.10", [DAY, 30 * DAY, 3600]),
        ("127.0.0.11", [DAY, 30 * DAY, 600]),
        ("127.0.0.12", [DAY, 30 * DAY, 0]),
    ];
    for (client, _) in expected {
        behave(Raw::from(client, &edge).await).await;
    }
    edge.wait_metric("mx_edge_sessions_open", "", 0.0).await;
    for restart in [false, true] {
        if restart {
            edge.stop().await;
            edge = site.start().await;
        }
        for (client, expected) in expected {
            assert_eq!(
                passes(&edge, client),
                expected,
                "{client}, restart {restart}"
            );
        }
    }
    // It need not wait, and nobody is asked about it.
    let asked = dns.queries();
    behave(Raw::from("127.0.0.10", &edge).await).await;
    edge.wait_metric(SCREENED, "known", 1.0).await;
    assert_eq!(edge.metric("mx_edge_dnsbl_clients_total", "known"), 1.0);
    let about = "mx_edge_dnsbl_answers_total";
    assert_eq!(edge.metric(about, ""), 0.0, "{asked}");

    let mut browser = Raw::from("127.0.0.10", &edge).await;
    starts(&browser.hear().await, "220 ");
    starts(&browser.say("POST / HTTP/1.1").await, "554 ");
    drop(browser);
    edge.wait_metric("mx_edge_sessions_total", "foreign", 1.0)
        .await;
    assert_eq!(passes(&edge, "127.0.0.10"), [0; 3]);
    let mut hasty = Raw::from(CLIENT, &edge).await;
    edge.running
        .controls
        .edge
        .passes
        .waited
        .forget(CLIENT.parse().unwrap());
    drop(hasty);
    hasty = Raw::from(CLIENT, &edge).await;
    hasty.say("EHLO bot.example").await;
    assert_eq!(passes(&edge, CLIENT), [0; 3]);
    edge.stop().await;
}

#[tokio::test]
async fn who_tries_a_backup_alone_waits_each_time() {
    let dns = names(&[]).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.mail.listen.push("127.0.0.2:0".parse().unwrap());
    site.config.screen.backup_addresses = vec!["127.0.0.2".parse().unwrap()];
    let edge = site.start().await;
    let [primary, backup] = edge.running.listeners[..] else {
        panic!("two listeners");
    };
    for visits in 1..=2 {
        behave(Raw::at(CLIENT, backup).await).await;
        edge.wait_metric(SCREENED, "backup", visits.into()).await;
    }
    assert_eq!(passes(&edge, CLIENT)[..2], [0, 0]);
    behave(Raw::at(CLIENT, primary).await).await;
    edge.wait_metric(SCREENED, "passed", 1.0).await;
    behave(Raw::at(CLIENT, backup).await).await;
    edge.wait_metric(SCREENED, "known", 1.0).await;
    edge.stop().await;
}

#[tokio::test]
async fn under_stress_a_stranger_waits_less_and_is_greeted_once() {
    use tokio::io::AsyncReadExt;
    let dns = names(&[]).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.screen.wait = Duration::from_secs(29);
    site.config.screen.wait_stressed = Duration::from_millis(100);
    site.config.limits.sessions_max = 10;
    site.config.mail.own_networks = vec!["127.0.0.6".parse().unwrap()];
    let edge = site.start().await;
    let pressure = &edge.running.controls.edge.admission.pressure;
    let before = Raw::from(CLIENT, &edge).await;
    edge.wait_metric("mx_edge_sessions_open", "", 1.0).await;
    assert!(!pressure.is_stressed());
    let mut own = Vec::new();
    while !pressure.is_stressed() {
        let mut host = Raw::from("127.0.0.6", &edge).await;
        starts(&host.hear().await, "220 ");
        own.push(host);
        assert!(own.len() < 10, "never stressed");
    }
    let began = tokio::time::Instant::now();
    let mut client = Raw::from("127.0.0.10", &edge).await;
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"Mailflow\r\n") {
        greeting.push(client.0.read_u8().await.unwrap());
    }
    assert!(began.elapsed() >= site.config.screen.wait_stressed);
    assert!(
        began.elapsed() < site.config.screen.wait,
        "as without stress"
    );
    // Some clients take each line that says so for a greeting of its own.
    let greeting = String::from_utf8(greeting).unwrap();
    assert!(
        greeting.starts_with("220-mx1.example\r\n220 "),
        "{greeting}"
    );
    assert_eq!(greeting.matches("ESMTP").count(), 1, "{greeting}");
    drop((before, client, own));
    edge.stop().await;
}
