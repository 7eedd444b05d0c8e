//! Sites that are dead, return, hang up or cannot be found.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::Domain;
use spool::Destination;
use tokio::time::Instant;

use super::{Bench, DAY, MINUTE, domain};
use crate::board::GateState;
use crate::testing::{Clerk, World, accepted, reply};

#[tokio::test(start_paused = true)]
async fn a_site_dead_for_a_day_flows_within_a_probe_of_its_return() {
    let bench = Bench::new(World::kind(), Clerk::default(), 50).start();
    bench.world.kill("dead.example");
    for n in 0..500 {
        bench
            .spool
            .add(domain("dead.example"), &[&format!("u{n}@dead.example")]);
    }
    bench.pass(DAY).await;
    assert_eq!(bench.spool.left().len(), 500);
    assert!(
        bench.spool.left().iter().all(|b| b.attempts == 0),
        "no retry times of their own"
    );
    let tries = bench.world.tries.load(Ordering::Relaxed);
    assert!(tries <= 1440 + 20, "more than a probe a minute: {tries}");
    assert_eq!(bench.metric("delivery_sites_shut"), 1.0);
    let shown = bench.engine.sites();
    assert_eq!(shown.len(), 1);
    assert_eq!(&*shown[0].site, "dead.example");
    assert_eq!(shown[0].gate, GateState::Shut);
    assert!(shown[0].trouble.contains("4.4.1"), "{shown:?}");
    let leads = bench.engine.site_of(&domain("dead.example"));
    assert_eq!(leads.as_deref(), Some("dead.example"));
    assert_eq!(bench.engine.site_of(&domain("unknown.example")), None);
    bench.world.revive("dead.example");
    let back = Instant::now();
    let mut window = 0;
    while !bench.spool.left().is_empty() {
        bench.pass(Duration::from_millis(100)).await;
        window = window.max(bench.world.most.load(Ordering::Relaxed));
        assert!(
            back.elapsed() <= MINUTE + Duration::from_secs(5),
            "{} left",
            bench.spool.left().len()
        );
    }
    assert!(window <= 20);
    assert_eq!(bench.metric("delivery_sites_shut"), 0.0);
    assert_eq!(bench.world.recipients().len(), 500);
    bench.pass(2 * crate::board::SHOW_INTERVAL).await;
    let shown = bench.engine.sites();
    assert_eq!(shown[0].gate, GateState::Open, "{shown:?}");
    assert_eq!((shown[0].in_hand, shown[0].in_flight), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn others_flow_while_a_site_is_dead() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.world.kill("dead.example");
    for n in 0..2000 {
        bench
            .spool
            .add(domain("dead.example"), &[&format!("u{n}@dead.example")]);
    }
    bench.pass(Duration::from_secs(5)).await;
    for n in 0..100 {
        bench
            .spool
            .add(domain("good.example"), &[&format!("u{n}@good.example")]);
    }
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.world.recipients().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_probes_at_once() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.world.kill("dead.example");
    for n in 0..5 {
        bench
            .spool
            .add(domain("dead.example"), &[&format!("u{n}@dead.example")]);
    }
    bench.pass(10 * MINUTE).await;
    bench.world.revive("dead.example");
    bench.engine.nudge();
    bench.pass(Duration::from_millis(100)).await;
    assert!(!bench.world.recipients().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_recipient_that_makes_a_peer_hang_up_does_not_stop_the_others() {
    let world = World::that(
        |_, copy| match copy.envelope.recipients[0].address.local() {
            "bad" => vec![reply(599, "")],
            _ => accepted(copy),
        },
    );
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let bench = Bench::new(world, clerk, 10).start();
    bench.spool.add(
        domain("a.example"),
        &["bad@a.example", "one@a.example", "two@a.example"],
    );
    bench.pass(Duration::from_secs(1)).await;
    let left = bench.spool.left();
    assert_eq!(left[0].recipients.len(), 1);
    assert_eq!(left[0].attempts, 1);
    assert_eq!(
        bench.metric("delivery_sites_shut"),
        0.0,
        "one message never shuts a gate"
    );
}

#[tokio::test(start_paused = true)]
async fn lookups_that_fail_wait_and_those_that_are_sure_end() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10);
    let unsure = Domain::parse("unsure.example").unwrap();
    let gone = Domain::parse("gone.example").unwrap();
    bench
        .world
        .lookups
        .lock()
        .unwrap()
        .insert(unsure.clone(), reply(451, "servfail"));
    bench
        .world
        .lookups
        .lock()
        .unwrap()
        .insert(gone, reply(550, "nxdomain"));
    let bench = bench.start();
    bench
        .spool
        .add(domain("unsure.example"), &["one@unsure.example"]);
    bench
        .spool
        .add(domain("gone.example"), &["two@gone.example"]);
    bench.pass(10 * MINUTE).await;
    let heard = bench.clerk.heard();
    assert!(heard.contains(&"two@gone.example failed".to_owned()));
    let deferred = heard
        .iter()
        .filter(|h| *h == "one@unsure.example deferred")
        .count();
    assert!((9..=11).contains(&deferred), "once a minute: {deferred}");
    assert_eq!(bench.spool.left()[0].attempts, 0);
    bench.world.lookups.lock().unwrap().clear();
    bench.pass(MINUTE + Duration::from_secs(1)).await;
    assert!(bench.spool.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_not_configured_keeps_its_mail() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench
        .spool
        .add(Destination::Route("missing".into()), &["one@a.example"]);
    bench.pass(10 * MINUTE).await;
    let heard = bench.clerk.heard();
    assert!(
        (5..=15).contains(&heard.len()),
        "about once a minute: {heard:?}"
    );
    assert_eq!(bench.spool.left().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_dead_sites_all_return_in_time() {
    let bench = Bench::new(World::kind(), Clerk::default(), 200).start();
    let hosts: Vec<String> = (0..1200).map(|n| format!("d{n}.example")).collect();
    for host in &hosts {
        bench.world.kill(host);
        bench.spool.add(domain(host), &[&format!("u@{host}")]);
    }
    bench.pass(5 * MINUTE).await;
    assert_eq!(bench.metric("delivery_sites_shut"), 1200.0);
    assert!(
        bench.metric("delivery_in_hand") <= 1050.0,
        "probes in hand are bounded"
    );
    hosts.iter().for_each(|host| bench.world.revive(host));
    bench.pass(MINUTE + Duration::from_secs(10)).await;
    assert_eq!(bench.spool.left().len(), 0);
    assert_eq!(bench.world.recipients().len(), 1200);
}
