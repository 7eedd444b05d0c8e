//! How much goes at once and in which order; pause, shutdown, idleness.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::Timestamp;
use spool::{Class, Destinations, Spool};
use tokio::time::Instant;

use super::{Bench, DAY, MINUTE, domain};
use crate::testing::{Clerk, World, reply};

#[tokio::test(start_paused = true)]
async fn copies_leave_one_a_recipient_in_order() {
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let bench = Bench::new(World::kind(), clerk, 10).start();
    let to: Vec<String> = (0..50).map(|n| format!("u{n}@a.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.spool.add(domain("a.example"), &to);
    bench.drained().await;
    assert_eq!(bench.world.recipients(), to);
    assert_eq!(bench.world.seen.lock().unwrap().len(), 50);
    assert_eq!(bench.clerk.told.lock().unwrap().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn limits_hold() {
    let mut world = World::kind();
    world.takes = Duration::from_millis(100);
    world.ceiling = 4;
    let bench = Bench::new(world, Clerk::default(), 6).start();
    for n in 0..100 {
        bench
            .spool
            .add(domain("a.example"), &[&format!("u{n}@a.example")]);
    }
    bench.drained().await;
    assert_eq!(bench.world.most.load(Ordering::Relaxed), 4, "the site's");
    for n in 0..100 {
        let host = format!("d{n}.example");
        bench.spool.add(domain(&host), &[&format!("u@{host}")]);
    }
    bench.drained().await;
    assert_eq!(bench.world.most.load(Ordering::Relaxed), 6, "the engine's");
}

#[tokio::test(start_paused = true)]
async fn live_mail_does_not_wait_behind_a_backlog() {
    let mut world = World::kind();
    world.takes = Duration::from_millis(20);
    let bench = Bench::new(world, Clerk::default(), 10);
    let old = Timestamp(crate::testing::EPOCH.0 - 2 * 3_600_000);
    for n in 0..5000 {
        let host = format!("d{}.example", n % 50);
        bench.spool.add_of(
            Class::Ordinary,
            old,
            domain(&host),
            &[&format!("u{n}@{host}")],
        );
    }
    let bench = bench.start();
    bench.pass(Duration::from_secs(1)).await;
    for n in 0..20 {
        let begun = Instant::now();
        let to = format!("live{n}@live.example");
        bench.spool.add(domain("live.example"), &[&to]);
        while !bench.world.recipients().contains(&to) {
            bench.pass(Duration::from_millis(5)).await;
            assert!(
                begun.elapsed() < Duration::from_millis(150),
                "{:?}",
                begun.elapsed()
            );
        }
    }
    assert!(
        bench.spool.left().len() > 2000,
        "the backlog was there all the time"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_while_paused() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10);
    bench.pause.send_replace(true);
    let bench = bench.start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(MINUTE).await;
    assert_eq!(bench.spool.claims.load(Ordering::Relaxed), 0);
    bench.pause.send_replace(false);
    bench.drained().await;
    assert_eq!(bench.world.recipients(), ["one@a.example"]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_is_under_way_and_gives_back_the_rest() {
    let mut world = World::kind();
    world.takes = Duration::from_secs(20);
    let clerk = Clerk {
        verp: true,
        ..Clerk::default()
    };
    let mut bench = Bench::new(world, clerk, 2).start();
    for n in 0..10 {
        let (one, two) = (format!("one{n}@a.example"), format!("two{n}@a.example"));
        bench.spool.add(domain("a.example"), &[&one, &two]);
    }
    bench.pass(Duration::from_secs(25)).await;
    let begun = Instant::now();
    bench.stop().await;
    assert!(
        begun.elapsed() <= Duration::from_secs(21),
        "{:?}",
        begun.elapsed()
    );
    let left = bench.spool.left();
    let delivered = bench.world.recipients().len();
    let recipients: usize = left.iter().map(|b| b.recipients.len()).sum();
    assert_eq!(bench.ends(), [delivered as u64, 0, 0, 0]);
    assert_eq!(
        delivered + recipients,
        20,
        "nothing is lost, nothing is twice"
    );
    assert!(left.iter().all(|b| b.attempts == 0));
    let all = spool::Wanted {
        destinations: Destinations::Except([].into()),
        lanes: [100; 4],
    };
    let claimed = bench.spool.claim("other", &all);
    assert_eq!(
        claimed.await.unwrap().len(),
        left.len(),
        "no lease was kept"
    );
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_cut_and_kept() {
    let mut world = World::kind();
    world.takes = 10 * MINUTE;
    let mut bench = Bench::new(world, Clerk::default(), 2).start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(Duration::from_secs(1)).await;
    let begun = Instant::now();
    bench.stop().await;
    assert!(begun.elapsed() <= MINUTE + Duration::from_secs(1));
    assert_eq!(bench.spool.left()[0].recipients.len(), 1);
    assert!(
        bench.clerk.heard().is_empty(),
        "what was not attempted is not told"
    );
}

#[tokio::test(start_paused = true)]
async fn settlements_are_grouped() {
    let bench = Bench::new(World::kind(), Clerk::default(), 500).start();
    for n in 0..1000 {
        let host = format!("d{n}.example");
        bench.spool.add(domain(&host), &[&format!("u@{host}")]);
    }
    bench.drained().await;
    let groups = bench.spool.groups.lock().unwrap().clone();
    assert_eq!(groups.iter().sum::<usize>(), 1000);
    assert!(groups.len() < 100, "{groups:?}");
    assert!(groups.iter().all(|&n| n <= 256));
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_and_postponed_mail_cost_nothing() {
    let bench = Bench::new(
        World::that(|_, _| vec![reply(450, "later")]),
        Clerk::default(),
        10,
    )
    .start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(MINUTE).await;
    let claims = bench.spool.claims.load(Ordering::Relaxed);
    assert!(claims < 20, "{claims}");
    bench.pass(DAY).await;
    let attempts = bench.world.tries.load(Ordering::Relaxed);
    let claims = bench.spool.claims.load(Ordering::Relaxed);
    assert!(
        claims < 20 + 8 * attempts,
        "{claims} claims for {attempts} attempts"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_keeps_everything_whatever_it_is_told() {
    let mut bench = Bench::new(World::kind(), Clerk::default(), 10);
    let mut settings = bench.engine.settings();
    settings.sink = true;
    bench.engine = bench.engine.clone().with_settings(settings);
    assert_eq!(bench.engine.withheld(), Some(crate::Withheld::Sink));
    let bench = bench.start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pause.send_replace(true);
    bench.pause.send_replace(false);
    bench.engine.nudge();
    // Longer than anything waits for its host: it is neither sent nor given up.
    bench.pass(DAY * 30).await;
    assert_eq!(bench.world.tries.load(Ordering::Relaxed), 0);
    assert!(bench.clerk.heard().is_empty());
    assert_eq!(bench.spool.claims.load(Ordering::Relaxed), 0);
    let left = bench.spool.left();
    assert_eq!((left.len(), left[0].attempts), (1, 0));
}
