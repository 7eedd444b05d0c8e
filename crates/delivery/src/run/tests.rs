//! The engine's claims, on a paused clock: days pass in milliseconds and nothing depends on the machine's speed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::{Domain, Timestamp};
use service::shutdown::Shutdown;
use spool::{Class, Destination, Destinations, Spool};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::breaker::Limits;
use crate::engine::{Engine, Settings};
use crate::retry::Schedule;
use crate::testing::{Clerk, Memory, World, accepted, clock, reply};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// An engine at work in a world.
struct Bench {
    spool: Arc<Memory>,
    world: Arc<World>,
    clerk: Arc<Clerk>,
    engine: Engine,
    shutdown: Shutdown,
    pause: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
    metrics: prometheus::Registry,
}

impl Bench {
    fn new(world: World, clerk: Clerk, attempts_max: usize) -> Self {
        let clock = clock();
        let spool = Memory::new(clock.clone());
        Self::with(spool, world, clerk, attempts_max, clock)
    }

    fn with(
        spool: Arc<Memory>,
        world: World,
        clerk: Clerk,
        attempts_max: usize,
        clock: crate::engine::Clock,
    ) -> Self {
        let (world, clerk) = (Arc::new(world), Arc::new(clerk));
        let (pause, paused) = watch::channel(false);
        let settings = Settings {
            host: "test".to_owned(),
            serves: Destinations::Except(vec![Destination::Expand]),
            routes: Default::default(),
            pinned: Default::default(),
            default_route: None,
            exchangers: None,
            options: smtp::client::Options {
                protocol: smtp::Protocol::Smtp,
                helo: "test.example".into(),
                tls: smtp::client::TlsPolicy::Never,
                timeouts: Default::default(),
                source: None,
                chunking: false,
            },
            attempts_max,
            site_connections_max: 20,
            schedule: Schedule::default(),
            paused,
        };
        let metrics = prometheus::Registry::new();
        let engine = Engine::with_transport(
            settings,
            spool.clone(),
            clerk.clone(),
            &metrics,
            world.clone(),
            clock,
        )
        .with_limits(Limits {
            failures: 3,
            probe_interval: MINUTE,
            start: 5,
        });
        Self {
            spool,
            world,
            clerk,
            engine,
            shutdown: Shutdown::new(),
            pause,
            running: None,
            metrics,
        }
    }

    fn start(mut self) -> Self {
        let run = self.engine.clone().run(self.shutdown.clone());
        self.running = Some(tokio::spawn(run));
        self
    }

    /// Lets so much time pass.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until nothing is left in the spool, at most a minute of the paused clock.
    async fn drained(&self) {
        let end = Instant::now() + MINUTE;
        while !self.spool.left().is_empty() {
            assert!(Instant::now() < end, "not drained: {:?}", self.spool.left());
            self.pass(Duration::from_millis(5)).await;
        }
    }

    async fn stop(&mut self) {
        self.shutdown.begin();
        self.running.take().unwrap().await.unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        family
            .get_metric()
            .iter()
            .map(|m| m.get_gauge().get_value() + m.get_counter().get_value())
            .sum()
    }
}

fn domain(name: &str) -> Destination {
    Destination::Domain(Domain::parse(name).unwrap())
}

#[tokio::test(start_paused = true)]
async fn partial_results_leave_only_whom_they_concern() {
    let world = World::that(|_, copy| {
        let replies = copy
            .envelope
            .recipients
            .iter()
            .map(|r| match r.address.local() {
                "gone" => reply(550, "no such user"),
                "full" => reply(452, "mailbox full"),
                _ => reply(250, "ok"),
            });
        replies.collect()
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.spool.add(
        domain("a.example"),
        &["one@a.example", "gone@a.example", "full@a.example"],
    );
    bench.pass(Duration::from_secs(10)).await;
    let left = bench.spool.left();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].recipients.len(), 1);
    assert_eq!(left[0].recipients[0].address.local(), "full");
    assert_eq!(left[0].attempts, 1);
    assert_eq!(&*left[0].reply, "452 4.0.0 mailbox full");
    assert_eq!(&left[0].note[..], b"noted");
    // 300 s, up to a quarter of jitter off; then again and again, never a second 5xx.
    let wait = left[0].due.since(crate::testing::EPOCH);
    assert!(
        wait >= Duration::from_secs(225) && wait <= Duration::from_secs(301),
        "{wait:?}"
    );
    bench.pass(Duration::from_secs(3600)).await;
    let heard = bench.clerk.heard();
    assert_eq!(
        heard
            .iter()
            .filter(|h| *h == "gone@a.example failed")
            .count(),
        1
    );
    assert_eq!(
        heard
            .iter()
            .filter(|h| *h == "one@a.example delivered")
            .count(),
        1
    );
    assert!(
        heard
            .iter()
            .filter(|h| *h == "full@a.example deferred")
            .count()
            >= 3,
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_4xx_then_success_is_delivered_once() {
    let begun = Instant::now();
    let world = World::that(move |_, copy| match begun.elapsed() < 10 * MINUTE {
        true => vec![reply(450, "greylisted")],
        false => accepted(copy),
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(Duration::from_secs(3600)).await;
    assert!(bench.spool.left().is_empty());
    let heard = bench.clerk.heard();
    assert_eq!(
        heard.iter().filter(|h| h.ends_with("delivered")).count(),
        1,
        "{heard:?}"
    );
}

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
    assert_eq!(
        delivered + recipients,
        20,
        "nothing is lost, nothing is twice"
    );
    assert!(left.iter().all(|b| b.attempts == 0));
    let all = spool::Wanted {
        destinations: Destinations::Except(Vec::new()),
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
async fn a_spool_that_refuses_stops_the_engine_and_costs_nothing() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.spool.refuses.store(true, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    let claims = bench.spool.claims.load(Ordering::Relaxed);
    bench.spool.add(domain("b.example"), &["two@b.example"]);
    bench.pass(10 * MINUTE).await;
    assert_eq!(
        bench.spool.claims.load(Ordering::Relaxed),
        claims,
        "nothing is claimed"
    );
    bench.spool.refuses.store(false, Ordering::Relaxed);
    bench.drained().await;
    let delivered = bench.world.recipients();
    assert_eq!(delivered.len(), 2, "each once: {delivered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_settlement_repeats_what_was_not_settled_and_no_more() {
    let clock = clock();
    let spool = Memory::new(clock.clone());
    let first = Bench::with(
        spool.clone(),
        World::kind(),
        Clerk::default(),
        10,
        clock.clone(),
    )
    .start();
    spool.add(domain("a.example"), &["settled@a.example"]);
    first.drained().await;
    spool.refuses.store(true, Ordering::Relaxed);
    spool.add(domain("a.example"), &["window@a.example"]);
    // Claims are refused too while the spool is unhealthy: claim as the engine did a moment before.
    spool.refuses.store(false, Ordering::Relaxed);
    first.pass(Duration::from_millis(6)).await;
    first.running.as_ref().unwrap().abort();
    let seen = first.world.recipients();
    spool.forget_leases();
    let second = Bench::with(spool.clone(), World::kind(), Clerk::default(), 10, clock).start();
    second.drained().await;
    assert_eq!(
        seen,
        ["settled@a.example", "window@a.example"],
        "delivered, not settled"
    );
    assert_eq!(
        second.world.recipients(),
        ["window@a.example"],
        "the stated window"
    );
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_body_is_set_aside_and_blocks_nobody() {
    let bench = Bench::new(World::kind(), Clerk::default(), 1);
    let bad = bench.spool.add(domain("a.example"), &["bad@a.example"]);
    bench.spool.corrupt(bad);
    bench.spool.add(domain("a.example"), &["good@a.example"]);
    let bench = bench.start();
    bench.drained().await;
    assert_eq!(bench.world.recipients(), ["good@a.example"]);
    assert_eq!(
        bench.clerk.heard(),
        ["good@a.example delivered"],
        "no silent bounce"
    );
    assert_eq!(bench.metric("delivery_corrupt_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn mail_is_given_up_five_days_after_acceptance_here_also_at_a_dead_site() {
    let world = World::that(|_, _| vec![reply(450, "later")]);
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.world.kill("dead.example");
    // It spent ten days on an edge before: those do not count.
    let arrival = Timestamp(crate::testing::EPOCH.0 - 10 * 86_400_000);
    bench.spool.add_of(
        Class::Ordinary,
        arrival,
        domain("a.example"),
        &["slow@a.example"],
    );
    for n in 0..20 {
        let to = format!("u{n}@dead.example");
        bench
            .spool
            .add_of(Class::Ordinary, arrival, domain("dead.example"), &[&to]);
    }
    bench.pass(5 * DAY - 2 * MINUTE).await;
    assert_eq!(bench.spool.left().len(), 21);
    bench.pass(2 * 3600 * Duration::from_secs(1)).await;
    assert!(bench.spool.left().is_empty(), "{:?}", bench.spool.left());
    let told = bench.clerk.told.lock().unwrap().clone();
    let failed: Vec<_> = told
        .iter()
        .filter(|(_, _, kind, _)| *kind == "failed")
        .collect();
    assert_eq!(failed.len(), 21);
    assert!(failed.iter().all(|(.., code)| *code == 554));
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
async fn a_fault_of_the_owner_loses_nothing_and_sends_nothing_twice() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.clerk.panics.store(true, Ordering::Relaxed);
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.spool.left()[0].attempts, 1);
    bench.clerk.panics.store(false, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    assert!(bench.spool.left().is_empty());

    let world = World::that(|_, copy| {
        let replies = copy
            .envelope
            .recipients
            .iter()
            .map(|r| match r.address.local() {
                "gone" => reply(550, "no such user"),
                _ => reply(250, "ok"),
            });
        replies.collect()
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.clerk.refuses.store(true, Ordering::Relaxed);
    bench
        .spool
        .add(domain("a.example"), &["one@a.example", "gone@a.example"]);
    bench.pass(Duration::from_secs(1)).await;
    let left = bench.spool.left();
    assert_eq!(
        left[0].recipients.len(),
        1,
        "who failed stays, to fail again"
    );
    bench.clerk.refuses.store(false, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    assert_eq!(bench.clerk.heard(), ["gone@a.example failed"]);
    assert_eq!(
        bench.world.recipients(),
        ["one@a.example", "gone@a.example", "gone@a.example"]
    );
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
