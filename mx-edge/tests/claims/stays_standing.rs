//! An edge ends and starts again: what it said 250 to is there, no name is given twice, and a drain takes no new mail.

use crate::client::{codes, connect, envelope, send, try_connect};
use crate::edge::Site;
use crate::inside::{Inside, Mode};

#[tokio::test]
async fn kept_mail_is_passed_on_by_the_next_life() {
    let inside = Inside::start(Mode::Down).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    for _ in 0..3 {
        assert_eq!(
            codes(&send(edge.address, &["dev@lists.example"]).await),
            ["250 2.0.0"]
        );
    }
    edge.stop().await;

    let edge = site.start().await;
    edge.wait_metric("mx_edge_spooled_at_start_recipients", "", 3.0)
        .await;
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"]
    );
    inside.set(Mode::Listening);
    let got = inside.wait_for(4).await;
    let mut idents: Vec<_> = got.iter().map(|got| got.ident()).collect();
    idents.sort();
    idents.dedup();
    assert_eq!(idents.len(), 4);
    edge.wait_metric("mx_edge_spooled_recipients", "waiting", 0.0)
        .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_drained_edge_takes_no_new_mail_and_passes_the_old_on() {
    let inside = Inside::start(Mode::Down).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    send(edge.address, &["dev@lists.example"]).await;
    let mut open = connect(edge.address).await;
    let draining = &edge.running.controls.edge.draining;
    draining.store(true, std::sync::atomic::Ordering::Relaxed);

    let refused = try_connect(edge.address).await.err().unwrap();
    assert!(refused.to_string().contains("421 4.3.2"), "{refused}");
    let mail = envelope("ann@elsewhere.example", &["dev@lists.example"]);
    match open.send(&mail, &[]).await {
        Ok(replies) => assert_eq!(codes(&replies), ["421 4.3.2"]),
        Err(trouble) => assert!(trouble.to_string().contains("421 4.3.2"), "{trouble}"),
    }
    inside.set(Mode::Listening);
    inside.wait_for(1).await;
    edge.stop().await;
}

#[tokio::test]
async fn one_client_cannot_take_all_sessions() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.limits.sessions_per_client_max = 2;
    let edge = site.start().await;
    let first = connect(edge.address).await;
    let _second = connect(edge.address).await;
    let refused = try_connect(edge.address).await.err().unwrap();
    assert!(refused.to_string().contains("421 4.7.0"), "{refused}");
    first.quit().await;
    edge.wait_metric("mx_edge_sessions_total", "quit", 1.0)
        .await;
    connect(edge.address).await.quit().await;
    edge.stop().await;
}

#[tokio::test]
async fn a_reload_changes_the_rules_of_new_sessions() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let edge = site.start().await;
    let refusal = async || {
        send(edge.address, &["nobody@b.example"])
            .await
            .remove(0)
            .text()
    };
    assert!(!refusal().await.contains("https://help.example/"));
    assert_eq!(
        codes(&send(edge.address, &["joe@new.example"]).await),
        ["554 5.7.1"]
    );

    site.config.mail.contact = "https://help.example/".into();
    site.config.recipients.domains = vec!["new.example".into()];
    edge.changes.send_replace(site.config.clone());
    while !refusal().await.contains("https://help.example/") {}
    assert_eq!(
        codes(&send(edge.address, &["joe@new.example"]).await),
        ["550 5.1.1"]
    );
    assert_eq!(
        codes(&send(edge.address, &["postmaster@new.example"]).await),
        ["250 2.0.0"]
    );
    edge.stop().await;
}

#[tokio::test]
async fn every_forward_path_is_accounted_for() {
    let inside = Inside::start(Mode::Listening).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    let (dev, spam, later) = ("dev@lists.example", "spam@a.example", "later@a.example");
    for to in [
        &[dev][..],
        &[dev, spam],
        &[dev, later],
        &[spam],
        &[spam, later],
    ] {
        send(edge.address, to).await;
    }
    inside.set(Mode::Down);
    send(edge.address, &[dev, spam]).await;
    inside.set(Mode::Listening);
    // 1 + 2 + 2 + 0 + 2 + 2 answered 250: four passed, two refused beside others, one held, two waiting.
    edge.wait_metric("mx_edge_spooled_recipients", "held", 1.0)
        .await;
    edge.wait_metric("mx_edge_spooled_recipients", "waiting", 2.0)
        .await;
    assert_eq!(edge.metric("mx_edge_taken_recipients_total", ""), 9.0);
    assert_eq!(edge.metric("mx_edge_done_recipients_total", "passed"), 4.0);
    assert_eq!(edge.metric("mx_edge_done_recipients_total", "ended"), 2.0);
    edge.stop().await;
}
