//! Sites that want less, providers that object to us, and how fast things go: never a recipient's fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mail::{Reply, Timestamp};
use spool::Class;
use tokio::time::Instant;

use super::{Bench, MINUTE, domain};
use crate::board::GateState;
use crate::testing::{Clerk, World, accepted};

const YAHOO: &str = "mta.yahoodns.net";
const SECOND: Duration = Duration::from_secs(1);

/// Everybody in a copy is answered so.
fn all(copy: &crate::Copy, reply: &Reply) -> Vec<Reply> {
    vec![reply.clone(); copy.envelope.recipients.len()]
}

#[tokio::test(start_paused = true)]
async fn a_site_that_wants_less_gets_less_and_then_all_of_it() {
    let angry = Arc::new(AtomicBool::new(true));
    let is_angry = angry.clone();
    let world = World::that(move |_, copy| match is_angry.load(Ordering::Relaxed) {
        true => all(copy, &Reply::new(451, (4, 7, 0), "too much")),
        false => accepted(copy),
    });
    let bench = Bench::new(world, Clerk::default(), 50).start();
    for n in 0..3000 {
        bench
            .spool
            .add(domain("a.example"), &[&format!("u{n}@a.example")]);
    }
    bench.pass(MINUTE).await;
    let before = bench.world.tries.load(Ordering::Relaxed);
    bench.pass(10 * SECOND).await;
    let tries = bench.world.tries.load(Ordering::Relaxed) - before;
    assert!(tries <= 3, "one in ten seconds is the least: {tries}");
    bench.pass(2 * SECOND).await;
    let shown = bench.engine.sites();
    assert_eq!(shown[0].gate, GateState::Limited);
    assert_eq!(shown[0].window, 1, "{shown:?}");
    assert!(shown[0].rate.is_some_and(|rate| rate < 0.5), "{shown:?}");
    assert_eq!(bench.ends(), [0; 4], "nobody has ended");
    assert_eq!(
        bench.clerk.blameless.lock().unwrap().len(),
        bench.clerk.heard().len(),
        "nobody is blamed"
    );
    angry.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    while bench.spool.left().len() > 10 {
        bench.pass(SECOND).await;
        assert!(
            begun.elapsed() < 60 * MINUTE,
            "{}",
            bench.spool.left().len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_objects_shuts_its_site_after_three_messages() {
    let angry = Arc::new(AtomicBool::new(true));
    let is_angry = angry.clone();
    let world = World::that(move |key, copy| {
        match is_angry.load(Ordering::Relaxed) && key.to_string() == YAHOO {
            true => all(
                copy,
                &Reply::new(553, (5, 7, 1), "[BL21] Connections will not be accepted"),
            ),
            false => accepted(copy),
        }
    });
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let bench = Bench::new(world, clerk, 50).start();
    let to: Vec<String> = (0..50).map(|n| format!("u{n}@{YAHOO}")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.spool.add(domain(YAHOO), &to);
    bench.pass(10 * SECOND).await;
    assert_eq!(
        bench.world.tries.load(Ordering::Relaxed),
        3,
        "not fifty times"
    );
    assert_eq!(
        bench.metric("delivery_sites_shut"),
        0.0,
        "one message shuts nothing"
    );
    for n in 0..20 {
        bench.spool.add(domain(YAHOO), &[&format!("v{n}@{YAHOO}")]);
    }
    bench.spool.add(domain("b.example"), &["one@b.example"]);
    bench.pass(MINUTE).await;
    assert_eq!(bench.metric("delivery_sites_shut"), 1.0);
    let tries = bench.world.tries.load(Ordering::Relaxed);
    angry.store(false, Ordering::Relaxed);
    bench.pass(3 * 60 * MINUTE).await;
    assert_eq!(
        bench.world.tries.load(Ordering::Relaxed),
        tries,
        "four hours it said"
    );
    assert_eq!(
        bench.ends(),
        [1, 0, 0, 0],
        "a 5xx for all of us is nobody's end"
    );
    assert!(bench.metric("delivery_rules_total") >= 3.0);
    bench.pass(70 * MINUTE).await;
    assert!(bench.spool.left().is_empty(), "{:?}", bench.spool.left());
    assert_eq!(bench.ends(), [71, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn recipients_who_are_answered_for_the_site_hold_nobody_up() {
    let world = World::that(|_, copy| {
        match copy.envelope.recipients[0]
            .address
            .local()
            .starts_with("bad")
        {
            true => all(copy, &Reply::new(450, (4, 7, 1), "not from you")),
            false => accepted(copy),
        }
    });
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let bench = Bench::new(world, clerk, 10).start();
    let bad = (0..4).map(|n| format!("bad{n}@a.example"));
    let to: Vec<String> = bad
        .chain((0..20).map(|n| format!("u{n}@a.example")))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.spool.add(domain("a.example"), &to);
    bench.pass(20 * MINUTE).await;
    assert_eq!(bench.ends(), [20, 0, 0, 0], "{:?}", bench.clerk.heard());
    assert_eq!(bench.spool.left()[0].recipients.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn greylisting_slows_nobody_down() {
    let begun = Instant::now();
    let world = World::that(move |_, copy| match begun.elapsed() < MINUTE {
        true => all(copy, &Reply::new(450, (4, 7, 1), "Greylisted, come again")),
        false => accepted(copy),
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    for n in 0..100 {
        bench
            .spool
            .add(domain("a.example"), &[&format!("u{n}@a.example")]);
    }
    bench.pass(SECOND).await;
    assert_eq!(bench.world.tries.load(Ordering::Relaxed), 100);
    bench.pass(5 * MINUTE).await;
    assert!(bench.spool.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_site_allows_is_kept() {
    let mut world = World::kind();
    world.rate = Some(2.0);
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let bench = Bench::new(world, clerk, 50).start();
    let to: Vec<String> = (0..100).map(|n| format!("u{n}@a.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.spool.add(domain("a.example"), &to);
    for n in 0..20 {
        bench
            .spool
            .add(domain("a.example"), &[&format!("v{n}@a.example")]);
    }
    bench.pass(30 * SECOND).await;
    let tries = bench.world.tries.load(Ordering::Relaxed);
    assert!((55..=65).contains(&tries), "two a second: {tries}");
    let seen = bench.world.seen.lock().unwrap();
    let close = seen
        .windows(2)
        .filter(|two| two[1].2 - two[0].2 < Duration::from_millis(400));
    assert_eq!(close.count(), 0, "evenly");
}

#[tokio::test(start_paused = true)]
async fn the_drain_is_limited_while_live_mail_flows() {
    let bench = Bench::new(World::kind(), Clerk::default(), 50);
    let old = Timestamp(crate::testing::EPOCH.0 - 2 * 3_600_000);
    for n in 0..1000 {
        let host = format!("d{}.example", n % 20);
        let (one, two) = (format!("u{n}@{host}"), format!("v{n}@{host}"));
        bench
            .spool
            .add_of(Class::Ordinary, old, domain(&host), &[&one, &two]);
    }
    bench.engine.set_rate(Some(50.0));
    let bench = bench.start();
    bench.pass(10 * SECOND).await;
    let got = bench.world.recipients().len();
    assert!(
        (490..=520).contains(&got),
        "fifty recipients a second: {got}"
    );
    let begun = Instant::now();
    bench
        .spool
        .add(domain("live.example"), &["one@live.example"]);
    while !bench
        .world
        .recipients()
        .contains(&"one@live.example".to_owned())
    {
        bench.pass(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < Duration::from_millis(100));
    }
    bench.engine.set_rate(Some(1.0));
    bench.pass(SECOND).await;
    let before = bench.world.recipients().len();
    bench.pass(10 * SECOND).await;
    let slow = bench.world.recipients().len() - before;
    assert!((8..=14).contains(&slow), "{slow}");
    bench.engine.set_rate(None);
    assert_eq!(bench.engine.rate(), None);
    bench.drained().await;
}
