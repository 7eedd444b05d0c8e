//! Claims about lists, over the real program: a post reaches every member once, in its own envelope, unchanged below its header.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Host, Sink, codes};
use serde_json::json;

const POST: &str = "DKIM-Signature: v=1; b=x\r\nFrom: Ann <ann@four.example>\r\nSender: secretary@four.example\r\n\
    Subject: hello\r\n  there\r\nPrecedence: bulk\r\nMessage-ID: <1@four.example>\r\n\r\nBody\t \r\n.dot\r\n";

async fn host_with_members(sink: &Sink) -> Host {
    let host = Host::start(sink, "").await;
    host.command("list create Dev@lists.example --owner boss@five.example");
    let added = host.command(
        "member add dev@lists.example first@one.example second@two.example Third@one.example",
    );
    assert_eq!(added, json!({"added": 3, "already": 0}));
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_reaches_every_member_once() {
    let sink = Sink::start().await;
    let mut host = host_with_members(&sink).await;
    let to = [
        "dev@LISTS.example",
        "DEV@lists.example",
        "nobody@lists.example",
    ];
    let replies = host.post("mx1.a.1", "ann@four.example", &to, POST).await;
    assert_eq!(codes(&replies), [250, 250, 550]);

    let mut taken = sink.wait(3).await;
    taken.sort_by(|a, b| a.to.cmp(&b.to));
    let envelopes: Vec<(&str, &str)> = taken
        .iter()
        .map(|mail| (mail.from.as_str(), mail.to[0].as_str()))
        .collect();
    assert_eq!(
        envelopes,
        [
            (
                "Dev-return-1-Third=one.example@lists.example",
                "Third@one.example"
            ),
            (
                "Dev-return-1-first=one.example@lists.example",
                "first@one.example"
            ),
            (
                "Dev-return-1-second=two.example@lists.example",
                "second@two.example"
            ),
        ]
    );
    for mail in &taken {
        let kept = POST
            .replace("Sender: secretary@four.example\r\n", "")
            .replace("Precedence: bulk\r\n", "");
        assert!(mail.message.ends_with(&kept), "{}", mail.message);
        assert_eq!(
            mail.field("List-Id").as_deref(),
            Some("<Dev.lists.example>")
        );
        assert_eq!(mail.field("Precedence").as_deref(), Some("list"));
        assert_eq!(
            mail.field("Sender").as_deref(),
            Some("Dev-owner@lists.example")
        );
        assert_eq!(mail.field("X-Mailflow-Trace"), None);
        let received = mail.field("Received").unwrap();
        assert!(
            received.starts_with("from client.example ([192.0.2.7]) by host.example"),
            "{received}"
        );
    }

    // The same ident again: 250, and nothing happens; also after a restart.
    let again = host
        .post("mx1.a.1", "ann@four.example", &to[..1], POST)
        .await;
    assert_eq!(codes(&again), [250]);
    host.idle().await;
    host.stop().await;
    host.start_again().await;
    let again = host
        .post("mx1.a.1", "ann@four.example", &to[..1], POST)
        .await;
    assert_eq!(codes(&again), [250]);
    host.idle().await;
    assert_eq!(sink.taken().len(), 3);

    // What a member gets back into the list is a loop.
    let looped = host
        .post("mx1.a.2", "first@one.example", &to[..1], &taken[0].message)
        .await;
    assert_eq!(codes(&looped), [554]);
    let null = host.post("mx1.a.3", "", &to[..1], POST).await;
    assert_eq!(codes(&null), [550]);

    // The next post has the next number.
    host.post("mx1.a.4", "ann@four.example", &to[..1], POST)
        .await;
    let taken = sink.wait(6).await;
    assert!(
        taken[5].from.starts_with("Dev-return-2-"),
        "{}",
        taken[5].from
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_post_and_gives_no_second_number() {
    let sink = Sink::start().await;
    let mut host = host_with_members(&sink).await;
    let posts = 20;
    for n in 0..posts {
        let ident = format!("mx1.b.{n:x}");
        let replies = host
            .post(&ident, "ann@four.example", &["dev@lists.example"], POST)
            .await;
        assert_eq!(codes(&replies), [250]);
        if n % 5 == 2 {
            host.kill_and_start().await; // somewhere between acceptance and delivery
        }
    }
    host.idle().await;
    let mut numbers: Vec<(String, String)> = sink
        .taken()
        .iter()
        .map(|mail| (mail.to[0].clone(), mail.from.clone()))
        .collect();
    numbers.sort();
    numbers.dedup(); // a kill between a delivery and its settlement may repeat it
    assert_eq!(numbers.len(), 3 * posts);
    assert_eq!(
        host.command("list show dev@lists.example")["last_post"],
        posts
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bounces_are_counted_per_member() {
    let sink = Sink::start().await;
    let host = Host::start(&sink, "").await;
    host.command("list create dev@lists.example");
    host.command(
        "member add dev@lists.example refuse@one.example good@one.example late@two.example",
    );
    host.post("mx1.a.1", "ann@four.example", &["dev@lists.example"], POST)
        .await;
    sink.wait(2).await;
    host.idle().await;
    // One host takes it and returns it later; a delay is no bounce.
    let returned = ["dev-return-1-late=two.example@lists.example"];
    let delay = "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\
        Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: delayed\r\n\r\n--b--\r\n";
    for (ident, text) in [
        ("mx1.a.2", delay),
        ("mx1.a.3", "Subject: failure\r\n\r\n"),
        ("mx1.a.4", "Subject: failure\r\n\r\n"),
    ] {
        let replies = host.post(ident, "", &returned, text).await;
        assert_eq!(codes(&replies), [250]);
    }
    host.idle().await;
    let bounces = host.command("bounce show dev@lists.example");
    let lines: Vec<(&str, u64)> = bounces
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (
                line["member"].as_str().unwrap(),
                line["posts"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(lines, [("late@two.example", 1), ("refuse@one.example", 1)]);
    host.accounts().await;
    // Nobody was told: neither the author nor anybody else.
    assert_eq!(sink.taken().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_has_against_us_is_no_members_fault() {
    let sink = Sink::start().await;
    let host = Host::start(&sink, "").await;
    host.command("list create dev@lists.example");
    host.command("member add dev@lists.example limited@comcast.net good@one.example");
    host.post("mx1.a.1", "ann@four.example", &["dev@lists.example"], POST)
        .await;
    // Refused for good, to whoever takes it at its word.
    sink.wait(2).await;
    host.idle().await;
    let bounces = host.command("bounce show dev@lists.example");
    assert_eq!(bounces.as_array().unwrap().len(), 0, "{bounces}");
    host.accounts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_joins_and_leaves_by_mail() {
    let sink = Sink::start().await;
    let host = Host::start(&sink, "").await;
    host.command("list create dev@lists.example");
    let joe = "Joe@one.example";
    let ask = "Subject: hi\r\nMessage-ID: <q@one.example>\r\n\r\n";
    let members = || host.command("member list dev@lists.example");

    host.post("mx1.a.1", joe, &["dev-subscribe@lists.example"], ask)
        .await;
    let confirm = sink.wait(1).await.remove(0);
    assert_eq!((confirm.from.as_str(), confirm.to[0].as_str()), ("", joe));
    assert_eq!(
        confirm.field("From").as_deref(),
        Some("dev-help@lists.example")
    );
    assert_eq!(
        confirm.field("Auto-Submitted").as_deref(),
        Some("auto-replied")
    );
    let reply_to = confirm.field("Reply-To").unwrap();
    assert!(reply_to.starts_with("dev-sc."), "{reply_to}");
    assert_eq!(members(), json!([]));

    // Nobody but the mailbox's owner, and no machine in his place, confirms.
    let forged = reply_to.replacen("Joe=one", "Eve=one", 1);
    let refused = host.post("mx1.a.2", joe, &[&forged], ask).await;
    assert_eq!(codes(&refused), [550]);
    let vacation = "Subject: away\r\nAuto-Submitted: auto-replied\r\n\r\n";
    host.post("mx1.a.3", joe, &[&reply_to], vacation).await;
    host.idle().await;
    assert_eq!(members(), json!([]));

    host.post("mx1.a.4", joe, &[&reply_to], ask).await;
    let welcome = sink.wait(2).await.remove(1);
    assert_eq!(
        welcome.field("Subject").as_deref(),
        Some("WELCOME to dev@lists.example")
    );
    assert_eq!(members(), json!([joe]));
    host.post("mx1.a.5", joe, &[&reply_to.to_lowercase()], ask)
        .await;
    let already = sink.wait(3).await.remove(2);
    assert_eq!(
        already.field("Subject").as_deref(),
        Some("you are subscribed to dev@lists.example")
    );
    assert_eq!(members(), json!([joe]));

    // Leaving, by the request address.
    let leave = "Subject: unsubscribe\r\n\r\n";
    host.post(
        "mx1.a.6",
        "joe@one.example",
        &["dev-request@lists.example"],
        leave,
    )
    .await;
    let confirm = sink.wait(4).await.remove(3);
    let reply_to = confirm.field("Reply-To").unwrap();
    assert!(reply_to.starts_with("dev-uc."), "{reply_to}");
    host.post("mx1.a.7", joe, &[&reply_to], ask).await;
    sink.wait(5).await;
    assert_eq!(members(), json!([]));

    // No more than ten answers a day: one address cannot be flooded by somebody who forges it.
    for n in 0..8 {
        host.post(&format!("mx1.b.{n}"), joe, &["dev-help@lists.example"], ask)
            .await;
    }
    host.idle().await;
    host.accounts().await;
    assert_eq!(sink.taken().len(), 10);
}
