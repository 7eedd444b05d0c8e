//! The rules on client and sender at a running edge: who is refused and by what, whom nobody asks about, what a second policy would do.

use std::time::Duration;

use mx_edge::config::{Action, HeaderRule, Of, Then};

use bytes::Bytes;

use crate::client::{MESSAGE, codes, connect_as, connect_from, envelope, send_from};
use crate::dns::{Dns, Script, script};
use crate::edge::Site;
use crate::inside::{Inside, Mode};

fn names() -> Script {
    script(&[
        "good.example MX 10 mail.good.example",
        "plain.example A 192.0.2.7",
        "null.example MX 0 .",
        "empty.example TXT nothing here",
        "silent.example SILENT",
        "broken.example FAILS",
        "1.0.0.127.in-addr.arpa PTR client.elsewhere.example",
        "client.elsewhere.example A 127.0.0.1",
    ])
}

/// An edge that takes nobody on loopback for its own.
fn strict(inside: &Inside, dns: &Dns) -> Site {
    let mut site = Site::new(inside);
    site.config.policy.skip_networks.clear();
    site.config.policy.timeout = Duration::from_millis(500);
    site.config.dns.servers = vec![dns.address];
    site.config.dns.timeout = Duration::from_millis(500);
    site
}

#[tokio::test]
async fn a_sender_nobody_could_answer_is_refused_and_silence_is_nobodys_fault() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let edge = strict(&inside, &dns).start().await;
    for (from, expected) in [
        ("ann@good.example", "250 2.0.0"),
        ("ann@plain.example", "250 2.0.0"),
        ("", "250 2.0.0"),
        ("ann@null.example", "550 5.7.27"),
        ("ann@empty.example", "550 5.1.8"),
        ("ann@nowhere.example", "550 5.1.8"),
        ("ann@pc", "550 5.1.8"),
        ("ann@silent.example", "250 2.0.0"),
        ("ann@broken.example", "250 2.0.0"),
    ] {
        let replies = send_from(edge.address, from, &["joe@b.example"], MESSAGE).await;
        assert_eq!(codes(&replies), [expected], "{from:?}: {replies:?}");
    }
    // Roles are for whoever has trouble with us.
    let replies = send_from(edge.address, "ann@pc", &["abuse@a.example"], MESSAGE).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    assert_eq!(
        edge.metric("mx_edge_recipients_total", "sender_unknown"),
        2.0
    );
    edge.stop().await;
}

#[tokio::test]
async fn nobody_is_asked_about_who_is_refused_for_less() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let edge = strict(&inside, &dns).start().await;
    for (helo, to, expected) in [
        ("client.elsewhere.example", "nobody@b.example", "550 5.1.1"),
        ("client.elsewhere.example", "joe@relay.example", "554 5.7.1"),
        ("127.0.0.1", "joe@b.example", "550 5.5.2"),
        ("[192.0.2.1]", "joe@b.example", "550 5.5.2"),
    ] {
        let mut client = connect_as(edge.address, helo).await;
        let sent = client.send(&envelope("ann@good.example", &[to]), &[]).await;
        assert_eq!(codes(&sent.unwrap()), [expected], "{helo} {to}");
    }
    assert_eq!(dns.queries(), 0);
    edge.stop().await;
}

#[tokio::test]
async fn helo_must_name_a_host_that_exists_where_that_is_wanted() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.policy.helo_unknown = Action::Enforce;
    let edge = site.start().await;
    for (helo, expected) in [
        ("client.elsewhere.example", "250 2.0.0"),
        ("good.example", "250 2.0.0"),
        ("silent.example", "250 2.0.0"),
        ("[127.0.0.1]", "250 2.0.0"),
        ("nowhere.example", "550 5.7.1"),
    ] {
        let mut client = connect_as(edge.address, helo).await;
        let mail = envelope("ann@good.example", &["joe@b.example"]);
        let parts = [Bytes::from_static(MESSAGE.as_bytes())];
        let replies = client.send(&mail, &parts).await.unwrap();
        assert_eq!(codes(&replies), [expected], "{helo}: {replies:?}");
    }
    assert_eq!(edge.metric("mx_edge_recipients_total", "helo_unknown"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn who_may_not_send_for_a_domain_is_refused_where_that_is_wanted() {
    let mut records = names();
    records.extend(script(&[
        "mine.example TXT v=spf1 ip4:127.0.0.1 -all",
        "mine.example A 192.0.2.7",
        "theirs.example TXT v=spf1 ip4:192.0.2.0/24 -all",
        "theirs.example A 192.0.2.7",
        "maybe.example TXT v=spf1 ip4:192.0.2.0/24 ~all",
        "maybe.example A 192.0.2.7",
    ]));
    let dns = Dns::start(records).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    site.config.policy.spf_fail = Action::Enforce;
    let edge = site.start().await;
    for (from, to, expected) in [
        ("ann@mine.example", "joe@b.example", "250 2.0.0"),
        ("ann@maybe.example", "joe@b.example", "250 2.0.0"),
        ("ann@good.example", "joe@b.example", "250 2.0.0"),
        ("ann@theirs.example", "joe@b.example", "550 5.7.23"),
        ("ann@theirs.example", "abuse@a.example", "250 2.0.0"),
    ] {
        let replies = send_from(edge.address, from, &[to], MESSAGE).await;
        assert_eq!(codes(&replies), [expected], "{from} {to}: {replies:?}");
    }
    assert_eq!(edge.metric("mx_edge_recipients_total", "spf_fail"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn a_rule_at_warn_refuses_nobody_and_soft_bounce_refuses_nobody_for_good() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.policy.sender_unknown = Action::Warn;
    let edge = site.start().await;
    let replies = send_from(
        edge.address,
        "ann@nowhere.example",
        &["joe@b.example"],
        MESSAGE,
    )
    .await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    assert_eq!(
        edge.metric("mx_edge_warned_recipients_total", "sender_unknown"),
        1.0
    );
    edge.stop().await;

    site.config.policy.sender_unknown = Action::Enforce;
    site.config.policy.soft_bounce = true;
    let edge = site.start().await;
    for (from, to, expected) in [
        ("ann@nowhere.example", "joe@b.example", "450 4.1.8"),
        ("ann@good.example", "nobody@b.example", "450 4.1.1"),
        ("ann@good.example", "spam@a.example", "450 4.7.1"),
    ] {
        let replies = send_from(edge.address, from, &[to], MESSAGE).await;
        assert_eq!(codes(&replies), [expected], "{from} {to}");
    }
    edge.stop().await;
}

#[tokio::test]
async fn a_header_field_is_refused_by_a_rule_with_its_name() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.policy.headers = vec![HeaderRule {
        name: "no-claims".into(),
        field: "Subject".into(),
        of: Of::Message,
        pattern: "^a +claim$".parse().unwrap(),
        then: Then::Reject,
        value: String::new(),
        action: Action::Enforce,
    }];
    let edge = site.start().await;
    let to = ["joe@b.example"];
    let replies = send_from(edge.address, "ann@good.example", &to, MESSAGE).await;
    assert_eq!(codes(&replies), ["550 5.7.1"]);
    assert!(replies[0].to_string().contains("no-claims"), "{replies:?}");
    let role = ["abuse@a.example"];
    let replies = send_from(edge.address, "ann@good.example", &role, MESSAGE).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    edge.stop().await;
}

#[tokio::test]
async fn a_second_policy_refuses_nobody_and_every_difference_is_counted() {
    let dns = Dns::start(names()).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    let file = site.folder().join("next.toml");
    let next = format!(
        "[dns]\nservers = ['{}']\n[directory]\nservers = []\n[recipients]\nfiles = ['/nowhere']\n\
         [policy]\nskip_networks = []\nsender_unknown = 'off'\nclient_unconfirmed = 'enforce'\n\
         [[policy.headers]]\nname = 'no-claims'\nfield = 'Subject'\npattern = 'claim'\n",
        dns.address
    );
    std::fs::write(&file, next).unwrap();
    site.config.shadow.file = file;
    let edge = site.start().await;
    let to = ["joe@b.example"];
    let replies = send_from(edge.address, "ann@good.example", &to, MESSAGE).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    let replies = send_from(edge.address, "ann@nowhere.example", &to, MESSAGE).await;
    assert_eq!(codes(&replies), ["550 5.1.8"]);
    let shadow = "mx_edge_shadow_recipients_total";
    edge.wait_metric(shadow, "same", 1.0).await;
    edge.wait_metric(shadow, "would_accept", 1.0).await;
    edge.wait_metric(shadow, "would_refuse", 1.0).await;
    assert_eq!(edge.metric(shadow, "header"), 1.0);
    edge.stop().await;
}

#[tokio::test]
async fn who_comes_again_is_let_in_from_then_on() {
    let mut records = names();
    records.extend(script(&[
        "pass.example TXT v=spf1 ip4:127.0.0.1 -all",
        "pass.example A 192.0.2.7",
    ]));
    let dns = Dns::start(records).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.greylist.action = Action::Enforce;
    site.config.greylist.delay = Duration::from_secs(1);
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    let edge = site.start().await;
    let to = ["joe@b.example"];
    let first = send_from(edge.address, "ann@good.example", &to, MESSAGE).await;
    assert_eq!(codes(&first), ["451 4.7.1"]);
    let passes = send_from(edge.address, "ann@pass.example", &to, MESSAGE).await;
    assert_eq!(codes(&passes), ["250 2.0.0"]);
    let again = || send_from(edge.address, "ann@good.example", &to, MESSAGE);
    let deadline = tokio::time::Instant::now() + crate::inside::PATIENCE;
    while codes(&again().await) != ["250 2.0.0"] {
        assert!(tokio::time::Instant::now() < deadline, "it never gets in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    edge.stop().await;
    // It is known after a restart too.
    let edge = site.start().await;
    let later = send_from(edge.address, "ann@good.example", &to, MESSAGE).await;
    assert_eq!(codes(&later), ["250 2.0.0"]);
    edge.stop().await;
}

/// A large sender's next attempt comes from another host, of another network.
#[tokio::test]
async fn whom_spf_vouches_for_may_come_again_from_anywhere() {
    let mut records = names();
    records.extend(script(&[
        "pool.example TXT v=spf1 ip4:127.0.0.0/16 -all",
        "pool.example A 192.0.2.7",
    ]));
    let dns = Dns::start(records).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = strict(&inside, &dns);
    site.config.greylist.action = Action::Enforce;
    site.config.greylist.delay = Duration::from_secs(1);
    site.config.greylist.spf_pass = true;
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    let edge = site.start().await;
    let send = async |sender: &str, source: &str| {
        let mut client = connect_from(edge.address, source).await;
        let mail = envelope(sender, &["joe@b.example"]);
        let parts = [Bytes::from_static(MESSAGE.as_bytes())];
        codes(&client.send(&mail, &parts).await.unwrap())
    };
    let (pool, good) = ("ann@pool.example", "ann@good.example");
    for sender in [pool, good] {
        assert_eq!(send(sender, "127.0.1.1").await, ["451 4.7.1"], "{sender}");
    }
    let deadline = tokio::time::Instant::now() + crate::inside::PATIENCE;
    while send(pool, "127.0.2.2").await != ["250 2.0.0"] {
        assert!(tokio::time::Instant::now() < deadline, "it never gets in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nobody vouches for this one: another network is another client, however long ago the first one came.
    assert_eq!(send(good, "127.0.2.2").await, ["451 4.7.1"]);
    edge.stop().await;
}

#[tokio::test]
async fn results_in_our_name_are_ours_alone() {
    let dns = Dns::start(script(&["good.example TXT v=spf1 ip4:127.0.0.1 -all"])).await;
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.dns.servers = vec![dns.address];
    site.config.spf.enabled = true;
    site.config.spf.skip_networks.clear();
    let edge = site.start().await;
    let forged = format!(
        "Authentication-Results: (x) MX1.example;\r\n dkim=pass\r\nAuthentication-Results: other.example; dkim=pass\r\n{MESSAGE}"
    );
    send_from(
        edge.address,
        "ann@good.example",
        &["joe@b.example"],
        &forged,
    )
    .await;
    let got = inside.got();
    let text = String::from_utf8_lossy(&got[0].message).into_owned();
    let (head, rest) = text.split_once("\r\nReceived: ").unwrap();
    assert_eq!(
        head.replace("\r\n", ""),
        "Authentication-Results: mx1.example; spf=pass smtp.mailfrom=good.example"
    );
    assert!(!rest.contains("MX1.example"), "{text}");
    assert!(
        rest.contains("Authentication-Results: other.example; dkim=pass"),
        "{text}"
    );
    edge.stop().await;
}
