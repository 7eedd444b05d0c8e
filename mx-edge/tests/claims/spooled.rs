//! While the inside does not answer, mail is answered 250 in bounded time, kept, and passed in once when the inside is back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::trace::Custody;

use crate::client::{MESSAGE, codes, envelope, send, try_connect};
use crate::edge::{Edge, Site, until};
use crate::faulty::Fault;
use crate::inside::{Got, Inside, Mode, PATIENCE, TOKEN};

async fn edge(mode: Mode) -> (Inside, Site, Edge) {
    let inside = Inside::start(mode).await;
    let site = Site::new(&inside);
    let edge = site.start().await;
    (inside, site, edge)
}

/// With the inside in this state a message is kept, and comes once when the inside is back.
async fn check(mode: Mode) {
    let (inside, _site, edge) = edge(mode).await;
    let start = Instant::now();
    let replies = send(edge.address, &["dev@lists.example"]).await;
    assert_eq!(codes(&replies), ["250 2.0.0"], "{mode:?}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{mode:?}: {:?}",
        start.elapsed()
    );
    assert_eq!(
        edge.metric("mx_edge_messages_total", "spooled"),
        1.0,
        "{mode:?}"
    );

    inside.set(Mode::Listening);
    let kept = |got: &Got| {
        let trace = got.trace.as_ref().unwrap();
        trace.custody == Custody::Spooled && !got.accepted().is_empty()
    };
    let got = inside.wait(|got| got.iter().any(kept)).await;
    let last = got.last().unwrap();
    assert_eq!(last.accepted(), ["dev@lists.example"], "{mode:?}");
    assert!(last.message.ends_with(MESSAGE.as_bytes()), "{mode:?}");
    assert!(
        last.message
            .starts_with(b"Received: from client.elsewhere.example"),
        "{mode:?}"
    );
    let trace = last.trace.as_ref().unwrap();
    assert_eq!(trace.ident.as_str(), last.ident(), "{mode:?}");
    edge.wait_metric("mx_edge_done_recipients_total", "passed", 1.0)
        .await;
    edge.wait_metric("mx_edge_spooled_recipients", "waiting", 0.0)
        .await;
    assert_eq!(
        edge.metric("mx_edge_taken_recipients_total", ""),
        1.0,
        "{mode:?}"
    );
    let idents: std::collections::HashSet<_> = inside.got().iter().map(|got| got.ident()).collect();
    assert_eq!(
        idents.len(),
        1,
        "{mode:?}: however often it is sent, it has one name"
    );
    edge.stop().await;
}

#[tokio::test]
async fn inside_down_mail_is_kept() {
    check(Mode::Down).await;
}

#[tokio::test]
async fn inside_mute_mail_is_kept() {
    check(Mode::Mute).await;
}

#[tokio::test]
async fn inside_garbled_mail_is_kept() {
    check(Mode::Garbage).await;
}

#[tokio::test]
async fn a_lost_reply_makes_no_second_message() {
    check(Mode::Forgetful).await;
}

#[tokio::test]
async fn a_deferral_s_verdict_is_presented_again() {
    let (inside, _site, edge) = edge(Mode::Deferring).await;
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"]
    );
    // Deferred while the client waited, then at least once out of the spool.
    inside.wait_for(3).await;
    inside.set(Mode::Listening);
    let got = inside
        .wait(|got| got.iter().any(|got| !got.accepted().is_empty()))
        .await;
    let verdicts: Vec<_> = got
        .iter()
        .map(|got| got.trace.as_ref().unwrap().verdict.as_deref())
        .collect();
    assert_eq!(verdicts[0], None);
    assert!(
        verdicts[1..].iter().all(|verdict| *verdict == Some(TOKEN)),
        "{verdicts:?}"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_returning_list_host_is_met_by_a_slow_start() {
    const SCANNED: usize = 30;
    const UNSCANNED: usize = 10;
    let inside = Inside::start(Mode::Deferring).await;
    let mut site = Site::new(&inside);
    site.config.forward.reply_timeout = Duration::from_secs(60);
    let edge = site.start().await;
    for _ in 0..SCANNED {
        let replies = send(edge.address, &["dev@lists.example"]).await;
        assert_eq!(codes(&replies), ["250 2.0.0"]);
    }
    edge.wait_metric("delivery_sites_shut", "", 1.0).await;
    // Mail that no scanner has seen yet is scanned though no list host is there: that gate is another.
    inside.set(Mode::Down);
    for _ in 0..UNSCANNED {
        let replies = send(edge.address, &["dev@lists.example"]).await;
        assert_eq!(codes(&replies), ["250 2.0.0"]);
    }
    let scans = |got: &[Got]| {
        let fresh = got.iter().filter(|got| {
            let trace = got.trace.as_ref().unwrap();
            trace.custody == Custody::Spooled && trace.verdict.is_none()
        });
        fresh.count()
    };
    assert_eq!(scans(&inside.got()), 0);
    inside.set(Mode::Deferring);
    inside.wait(|got| scans(got) == UNSCANNED).await;

    // What waits is let in by one; nothing else goes until that one is answered.
    inside.set(Mode::Holding);
    assert_eq!(inside.holds().await, 1);
    assert_eq!(edge.metric("delivery_in_flight", ""), 1.0);
    inside.set(Mode::Listening);
    let accepted = |got: &[Got]| got.iter().filter(|got| !got.accepted().is_empty()).count();
    let got = inside
        .wait(|got| accepted(got) == SCANNED + UNSCANNED)
        .await;
    assert_eq!(scans(&got), UNSCANNED, "each was scanned once");
    let done = (SCANNED + UNSCANNED) as f64;
    edge.wait_metric("mx_edge_done_recipients_total", "passed", done)
        .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_shut_way_through_keeps_nobody_waiting() {
    let inside = Inside::start(Mode::Mute).await;
    let mut site = Site::new(&inside);
    site.config.through.failures_max = 1;
    site.config.through.budget = Duration::from_secs(1);
    site.config.through.probe_interval = Duration::from_secs(3600);
    let edge = site.start().await;
    send(edge.address, &["dev@lists.example"]).await;
    assert_eq!(edge.metric("mx_edge_through_shut", ""), 1.0);
    for _ in 0..20 {
        assert_eq!(
            codes(&send(edge.address, &["dev@lists.example"]).await),
            ["250 2.0.0"]
        );
    }
    assert_eq!(edge.metric("mx_edge_through_total", "trouble"), 1.0);
    assert_eq!(edge.metric("mx_edge_through_total", "shut"), 20.0);
    inside.set(Mode::Listening);
    inside.wait_for(21).await;
    edge.stop().await;
}

#[tokio::test]
async fn live_mail_that_finds_the_inside_back_wakes_the_backlog() {
    let inside = Inside::start(Mode::Down).await;
    let mut site = Site::new(&inside);
    site.config.through.failures_max = 2;
    site.config.forward.probe_interval = Duration::from_secs(60);
    let edge = site.start().await;
    for _ in 0..4 {
        send(edge.address, &["dev@lists.example"]).await;
    }
    inside.set(Mode::Listening);
    // Sent until one of them was the probe; by itself the engine would look in an hour's time...
    while edge.metric("mx_edge_through_total", "answered") == 0.0 {
        send(edge.address, &["dev@lists.example"]).await;
    }
    let kept = |got: &Got| got.trace.as_ref().unwrap().custody == Custody::Spooled;
    inside.wait(|got| got.iter().any(kept)).await;
    edge.stop().await;
}

/// A full list host is not asked by every client's message: the live way slows down as the queue does, and nobody is kept waiting.
#[tokio::test]
async fn a_full_list_host_hears_less_of_the_live_way() {
    let (inside, _site, edge) = edge(Mode::Listening).await;
    for _ in 0..20 {
        let replies = send(edge.address, &["full@a.example"]).await;
        assert_eq!(codes(&replies), ["250 2.0.0"]);
    }
    let tried = edge.metric("mx_edge_through_total", "answered");
    let kept = edge.metric("mx_edge_through_total", "busy");
    assert!(
        tried <= 3.0 && tried + kept == 20.0,
        "{tried} tried, {kept} kept at once"
    );
    let got = inside.got();
    let live = got.iter().filter(|got| {
        let trace = got.trace.as_ref().unwrap();
        trace.custody == Custody::Live
    });
    assert_eq!(live.count() as f64, tried);
    edge.stop().await;
}

#[tokio::test]
async fn more_than_fits_through_is_spooled_at_once() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.through.bytes_max = 0;
    let edge = site.start().await;
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"]
    );
    assert_eq!(edge.metric("mx_edge_through_total", "busy"), 1.0);
    let got = inside.wait_for(1).await;
    assert_eq!(got[0].trace.as_ref().unwrap().custody, Custody::Spooled);
    edge.stop().await;
}

/// What is said to a message, once its client is greeted: while there is no way in for mail it may have to come again for that.
async fn heard(edge: &Edge, to: &[&str]) -> Vec<String> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match try_connect(edge.address).await {
            Ok(mut client) => {
                let mail = envelope("ann@elsewhere.example", to);
                let parts = [Bytes::from_static(MESSAGE.as_bytes())];
                let replies = client.send(&mail, &parts).await.unwrap();
                client.quit().await;
                return codes(&replies);
            }
            Err(trouble) => assert!(format!("{trouble:?}").contains("code: 421"), "{trouble:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is never greeted");
}

/// What a client hears with the spool in this state, while the inside listens and while it is down.
async fn check_fault(fault: Fault, down: &str) {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    site.config.spool.deadline = Duration::from_millis(300);
    let edge = site.start().await;
    edge.spool.set(fault);
    let to = ["dev@lists.example"];
    assert_eq!(
        codes(&send(edge.address, &["dev@lists.example"]).await),
        ["250 2.0.0"],
        "{fault:?}"
    );
    inside.set(Mode::Down);
    for _ in 0..7 {
        assert_eq!(heard(&edge, &to).await, [down], "{fault:?}");
    }
    // Bad mail is still refused, and a client with one deferred recipient is told to come again rather than lied to.
    inside.set(Mode::Refusing);
    let mut reply = down.to_owned();
    while reply == down {
        // Until one is the probe.
        reply = heard(&edge, &to).await.remove(0);
    }
    assert_eq!(reply, "550 5.7.1", "{fault:?}");
    inside.set(Mode::Listening);
    let both = ["dev@lists.example", "later@a.example"];
    assert_eq!(heard(&edge, &both).await, [down; 2], "{fault:?}");
    edge.stop().await;
}

#[tokio::test]
async fn a_spool_that_cannot_keep_lies_to_nobody() {
    check_fault(Fault::Full, "452 4.3.1").await;
    check_fault(Fault::Slow, "451 4.3.2").await;
    check_fault(Fault::Poisoned, "451 4.3.0").await;
    check_fault(Fault::Stuck, "451 4.3.0").await;
}

#[tokio::test]
async fn a_poisoned_spool_is_not_ready_and_says_why() {
    let (_inside, _site, edge) = edge(Mode::Listening).await;
    edge.spool.set(Fault::Poisoned);
    let says = || edge.readiness.reason().unwrap_or_default();
    until(|| says().contains("sync failed"), says).await;
    edge.stop().await;
}

#[tokio::test]
async fn what_the_inside_refuses_later_is_held_until_an_operator_decides() {
    let (inside, _site, edge) = edge(Mode::Down).await;
    let to = ["dev@lists.example", "spam@a.example"];
    assert_eq!(codes(&send(edge.address, &to).await), ["250 2.0.0"; 2]);
    inside.set(Mode::Listening);
    edge.wait_metric("mx_edge_spooled_recipients", "held", 1.0)
        .await;
    edge.wait_metric("mx_edge_spooled_recipients", "waiting", 0.0)
        .await;
    assert_eq!(edge.metric("mx_edge_held_recipients_total", "refused"), 1.0);
    assert_eq!(edge.metric("mx_edge_done_recipients_total", "passed"), 1.0);
    let before = inside.got().len();

    // Released, it is tried anew, with the same name; refused again, it is held again.
    let controls = edge.running.controls.clone();
    let settle = async |kind| {
        let (edge, spool) = (&controls.edge, &*controls.spool);
        let all = spool::Predicate::default();
        let settled = mx_edge::held::settle(edge, spool, kind, &all).await;
        settled.unwrap().recipients
    };
    assert_eq!(settle(mx_edge::ended::Kind::Released).await, 1);
    let got = inside.wait_for(before + 1).await;
    assert_eq!(got[before].ident(), got[before - 1].ident());
    assert_eq!(got[before].accepted(), Vec::<String>::new());
    edge.wait_metric("mx_edge_held_recipients_total", "refused", 2.0)
        .await;
    // It is there with the settlement that ends the attempt.
    while settle(mx_edge::ended::Kind::Dropped).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    edge.wait_metric("mx_edge_spooled_recipients", "held", 0.0)
        .await;
    assert_eq!(edge.metric("mx_edge_done_recipients_total", "ended"), 1.0);
    let kinds: Vec<_> = controls
        .edge
        .ended
        .tail(10)
        .unwrap()
        .iter()
        .map(|line| line["kind"].clone())
        .collect();
    assert_eq!(kinds, ["held", "released", "held", "dropped"]);
    edge.stop().await;
}
