//! A second policy's door: its access list, rates and wait keep nobody out, and where they would have is counted.

use std::time::Duration;

use mx_edge::config::Action;

use crate::edge::{Edge, Site};
use crate::inside::{Inside, Mode};
use crate::raw::{RCPT, Raw, networks, starts};

const ADMISSIONS: &str = "mx_edge_shadow_admissions_total";
const RECIPIENTS: &str = "mx_edge_shadow_recipients_total";

/// An edge with such a second configuration beside its own.
async fn edge(site: &mut Site, next: &str) -> Edge {
    let file = site.folder().join("next.toml");
    let whole = format!(
        "[directory]\nservers = []\n[recipients]\nfiles = ['/nowhere']\n[spf]\nenabled = false\n{next}"
    );
    std::fs::write(&file, whole).unwrap();
    site.config.shadow.file = file;
    site.start().await
}

/// Comes, names a recipient, and is told this.
async fn comes(edge: &Edge, client: &str, expected: &str) {
    let mut client = Raw::from(client, edge).await;
    starts(&client.hear().await, "220 ");
    starts(&client.begin().await, "250 ");
    starts(&client.say(RCPT).await, expected);
    starts(&client.say("QUIT").await, "221 ");
}

#[tokio::test]
async fn a_second_access_list_and_rates_are_counted_where_they_differ() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let list = site.folder().join("access");
    let lines = "127.0.0.2 drop\n127.0.0.3 reject\n127.0.0.4 permit\n127.0.0.6 drop\n";
    std::fs::write(&list, lines).unwrap();
    let live = site.folder().join("live");
    std::fs::write(&live, "127.0.0.4 reject\n").unwrap();
    site.config.access.files = vec![live];
    site.config.mail.own_networks = networks(&["127.0.0.6"]);
    let next = format!(
        "[access]\nfiles = ['{}']\n[[rates.limits]]\nof = 'messages'\nmost = 1\nipv4_prefix = 32\n",
        list.display()
    );
    let edge = edge(&mut site, &next).await;
    comes(&edge, "127.0.0.2", "250 ").await;
    comes(&edge, "127.0.0.3", "250 ").await;
    comes(&edge, "127.0.0.4", "554 ").await;
    comes(&edge, "127.0.0.6", "250 ").await;
    for _ in 0..3 {
        comes(&edge, "127.0.0.9", "250 ").await;
    }
    edge.wait_metric(ADMISSIONS, "access_dropped", 1.0).await;
    edge.wait_metric(ADMISSIONS, "message_rate", 2.0).await;
    edge.wait_metric(ADMISSIONS, "same", 6.0).await;
    edge.wait_metric(RECIPIENTS, "would_refuse", 1.0).await;
    edge.wait_metric(RECIPIENTS, "would_accept", 1.0).await;
    assert_eq!(edge.metric(RECIPIENTS, "access"), 2.0);
    edge.stop().await;
}

#[tokio::test]
async fn a_second_wait_is_counted_where_it_differs() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.screen.wait = Duration::from_millis(100);
    site.config.screen.wait_stressed = site.config.screen.wait;
    site.config.screen.skip_networks = networks(&["127.0.0.2"]);
    let next = "[screen]\nskip_networks = ['127.0.0.3']\n";
    let edge = edge(&mut site, next).await;
    for client in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        comes(&edge, client, "250 ").await;
    }
    assert_eq!(edge.metric(ADMISSIONS, "would_wait"), 1.0);
    assert_eq!(edge.metric(ADMISSIONS, "would_not_wait"), 1.0);
    edge.stop().await;
}

/// A notification for two recipients that has come through two hosts: the codes of the second recipient and of the message, if there is one.
async fn notifies(edge: &Edge, second: &str, message: &str) {
    let mut client = Raw::from("127.0.0.2", edge).await;
    starts(&client.hear().await, "220 ");
    client.say("EHLO client.elsewhere.example").await;
    starts(&client.say("MAIL FROM:<>").await, "250 ");
    starts(&client.say(RCPT).await, "250 ");
    starts(&client.say(RCPT).await, second);
    starts(&client.say("DATA").await, "354");
    let received = "Received: from a by b; Fri, 20 Nov 2026 12:04:05 +0000\r\n".repeat(2);
    let text = format!("{received}Subject: x\r\n\r\nHello.\r\n.");
    starts(&client.say(&text).await, message);
    client.say("QUIT").await;
}

#[tokio::test]
async fn a_second_policys_loops_and_notifications_are_counted_where_they_differ() {
    let inside = Inside::start(Mode::Listening).await;
    let strict = "[limits]\nhops_max = 2\nnull_sender_recipients_max = 1\n";
    let lax = "[policy]\nhops = 'off'\nnull_sender_recipients = 'off'\n";
    for (live, next, second, message, outcome) in [
        (Action::Off, strict, "250 ", "250 ", "would_refuse"),
        (Action::Enforce, lax, "452 ", "554 ", "would_accept"),
    ] {
        let mut site = Site::new(&inside);
        site.config.policy.hops = live;
        site.config.policy.null_sender_recipients = live;
        site.config.limits.hops_max = 2;
        let edge = edge(&mut site, next).await;
        notifies(&edge, second, message).await;
        edge.wait_metric(RECIPIENTS, outcome, 2.0).await;
        assert_eq!(edge.metric(RECIPIENTS, "loop"), 1.0);
        assert_eq!(edge.metric(RECIPIENTS, "null_sender_recipients"), 1.0);
        edge.stop().await;
    }
}

#[tokio::test]
async fn loops_and_notifications_may_only_be_told() {
    let inside = Inside::start(Mode::Listening).await;
    let warned = "mx_edge_warned_recipients_total";
    for (action, counted) in [(Action::Warn, 1.0), (Action::Off, 0.0)] {
        let mut site = Site::new(&inside);
        site.config.policy.hops = action;
        site.config.policy.null_sender_recipients = action;
        site.config.limits.hops_max = 2;
        let edge = site.start().await;
        notifies(&edge, "250 ", "250 ").await;
        assert_eq!(edge.metric(warned, "null_sender_recipients"), counted);
        assert_eq!(edge.metric(warned, "loop"), counted);
        edge.stop().await;
    }
}
