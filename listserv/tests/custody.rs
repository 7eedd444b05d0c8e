//! Claims about mail that does not simply pass: quarantine, reports to senders, roles, aliases, and what edges are told.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Host, Sink, Traced, codes};
use mail::trace::{Custody, Spf};
use mail::verdict::Class;
use serde_json::{Value, json};
use service::control::{Request, fetch};
use service::tls::Role;

const POST: &str = "From: ann@four.example\r\nSubject: s\r\n\r\nbody\r\n";

async fn host(sink: &Sink, more: &str) -> Host {
    let host = Host::start(sink, more).await;
    host.command("list create dev@lists.example");
    host.command("member add dev@lists.example first@one.example");
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_mail_that_is_ours_is_kept_and_released_once() {
    let sink = Sink::start().await;
    let mut host = host(&sink, "").await;
    let spam = Traced {
        custody: Custody::Spooled,
        class: Class::Spam,
        ..Traced::clean("mx1.a.1")
    };
    let dev = ["dev@lists.example"];
    for _ in 0..2 {
        let replies = host.bring(&spam, "ann@four.example", &dev, POST).await;
        assert_eq!(codes(&replies), [250]);
    }
    host.kill_and_start().await;
    let held = host.command("quarantine list");
    assert_eq!(held.as_array().unwrap().len(), 1);
    assert_eq!(held[0]["reason"], "spam 15.00");
    assert_eq!(held[0]["recipients"], json!(["dev@lists.example"]));
    let id = held[0]["id"].to_string();
    let shown = host.command(&format!("quarantine show {id}"));
    assert_eq!(shown["message"], POST);
    host.idle().await;
    assert!(sink.taken().is_empty());

    host.command(&format!("quarantine release {id}"));
    let again = host.try_command(&format!("quarantine release {id}"));
    assert!(again.unwrap_err().contains("no held item"));
    sink.wait(1).await;
    host.idle().await;
    assert_eq!(sink.taken().len(), 1);
    assert_eq!(host.command("quarantine list"), json!([]));

    // While the client waits, bad mail is refused; without a verdict it has to be scanned first.
    let live = Traced {
        class: Class::Malware,
        ..Traced::clean("mx1.a.2")
    };
    let refused = host.bring(&live, "ann@four.example", &dev, POST).await;
    assert_eq!(codes(&refused), [550]);
    let other = "Subject: not what was scanned\r\n\r\n";
    let mut client = host.connect().await;
    let envelope = mail::Envelope {
        reverse_path: mail::ReversePath::parse("ann@four.example").unwrap(),
        parameters: mail::MailParameters::default(),
        recipients: vec![mail::Address::parse(dev[0]).unwrap().into()],
    };
    let deferred = client.send(&envelope, &[other.into()]).await.unwrap();
    assert_eq!(codes(&deferred), [451]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bounce_to_a_forged_sender() {
    let sink = Sink::start().await;
    let host = host(&sink, "").await;
    host.command("alias add joe@lists.example refuse@one.example good@two.example");
    let bring = async |ident: &str, spf, from: &str| {
        let traced = Traced {
            spf,
            ..Traced::clean(ident)
        };
        let replies = host
            .bring(&traced, from, &["Joe@lists.example"], POST)
            .await;
        assert_eq!(codes(&replies), [250]);
        host.idle().await;
    };
    bring("mx1.a.1", Spf::Fail, "forged@bank.example").await;
    bring("mx1.a.2", Spf::SoftFail, "maybe@bank.example").await;
    bring("mx1.a.3", Spf::Pass, "ann@four.example").await;
    bring("mx1.a.4", Spf::Pass, "").await;

    let taken = sink.wait(5).await;
    assert_eq!(taken.len(), 5);
    let reports: Vec<_> = taken
        .iter()
        .filter(|mail| mail.to == ["ann@four.example"])
        .collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].from, "");
    assert!(reports[0].message.contains("refuse@one.example"));
    assert!(
        reports[0].message.contains("550 5.1.1"),
        "{}",
        reports[0].message
    );
    let forwards: Vec<_> = taken
        .iter()
        .filter(|mail| mail.to == ["good@two.example"])
        .collect();
    assert_eq!(forwards.len(), 4);
    assert_eq!(forwards[0].from, "forged@bank.example");
    assert_eq!(
        forwards[0].field("Delivered-To").as_deref(),
        Some("Joe@lists.example")
    );
    assert!(forwards[0].message.ends_with(POST));

    host.accounts().await;
    let suppressed = host.command("bounce suppressed");
    let reasons: Vec<&str> = suppressed
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["null-sender", "unverified", "spf-fail"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_reach_the_postmaster() {
    let sink = Sink::start().await;
    let host = host(
        &sink,
        "postmaster = [\"boss@five.example\"]\ndomains = [\"more.example\"]",
    )
    .await;
    let spam = Traced {
        custody: Custody::Spooled,
        class: Class::Spam,
        ..Traced::clean("mx1.a.1")
    };
    let to = [
        "abuse@lists.example",
        "Postmaster@more.example",
        "dev-owner@lists.example",
    ];
    let replies = host.bring(&spam, "ann@four.example", &to[..2], POST).await;
    assert_eq!(codes(&replies), [250, 250]);
    let replies = host
        .post("mx1.a.2", "ann@four.example", &to[2..], POST)
        .await;
    assert_eq!(codes(&replies), [250]);
    let taken = sink.wait(3).await;
    assert!(taken.iter().all(|mail| mail.to == ["boss@five.example"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_to_a_role_without_a_postmaster_is_kept() {
    let sink = Sink::start().await;
    let host = host(&sink, "").await;
    let replies = host
        .post(
            "mx1.a.1",
            "ann@four.example",
            &["security@lists.example"],
            POST,
        )
        .await;
    assert_eq!(codes(&replies), [250]);
    host.idle().await;
    let held = host.command("quarantine list");
    host.accounts().await;
    assert!(held[0]["reason"].as_str().unwrap().starts_with("unowned"));
    assert!(sink.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_learn_of_a_new_list_at_once() {
    let sink = Sink::start().await;
    let host = Host::start(&sink, "").await;
    let get = async |query: &str| {
        let request = Request::get(format!("/directory{query}"));
        let wait = Duration::from_secs(60);
        let (status, body) = fetch(
            host.directory,
            None,
            Role::Listserv,
            &request,
            1 << 20,
            wait,
        )
        .await
        .unwrap();
        (
            status,
            serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        )
    };
    // An empty directory is told to nobody, and makes nobody unknown.
    assert_eq!(get("").await.0, 503);
    let replies = host
        .post("mx1.a.1", "ann@four.example", &["dev@lists.example"], POST)
        .await;
    assert_eq!(codes(&replies), [451]);

    host.command("list create Dev@lists.example");
    host.command("alias add joe@other.example joe@one.example");
    // The list alone may be told first.
    let both = async {
        loop {
            let (status, whole) = get("").await;
            if status == 200 && whole["addresses"] == json!(["joe@other.example"]) {
                return whole;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), both).await;
    let first = told.expect("edges are told at once");
    assert_eq!(first["domains"], json!(["lists.example", "other.example"]));
    assert_eq!(first["lists"], json!(["dev@lists.example"]));
    let version = first["seal"]["version"].as_str().unwrap();
    let digest = first["seal"]["digest"].as_str().unwrap();
    let held = format!("?since={version}&digest={digest}");
    assert_eq!(get(&held).await.0, 304);

    let waiting = format!("{held}&wait=50");
    let (news, _) = tokio::join!(get(&waiting), async {
        host.command("list create news@lists.example")
    });
    assert_eq!(news.0, 226, "only what changed");
    assert_eq!(news.1["from"], *version);
    assert_eq!(
        news.1["change"]["add"]["lists"],
        json!(["news@lists.example"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told() {
    let sink = Sink::start().await;
    let host = host(&sink, "").await;
    let table = [
        ("list create dev@lists.example", "exists already"),
        ("list create nonsense", "no local part or no domain"),
        ("list create postmaster@lists.example", "role"),
        ("list show other@lists.example", "does not exist"),
        (
            "member add other@lists.example a@b.example",
            "does not exist",
        ),
        (
            "member add dev@lists.example dev@lists.example",
            "member of itself",
        ),
        ("alias add dev@lists.example a@b.example", "exists already"),
        ("quarantine drop 99", "no held item"),
    ];
    for (words, expected) in table {
        let error = host.try_command(words).unwrap_err();
        assert!(error.contains(expected), "{words}: {error}");
    }
}
