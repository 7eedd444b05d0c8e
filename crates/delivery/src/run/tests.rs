//! The engine's claims, on a paused clock: days pass in milliseconds and nothing depends on the machine's speed.

mod edge;
mod ends;
mod flow;
mod rules;
mod sites;

use std::sync::Arc;
use std::time::Duration;

use mail::Domain;
use service::shutdown::Shutdown;
use spool::{Destination, Destinations};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::breaker::Limits;
use crate::engine::{Engine, Settings};
use crate::rules::{Rules, Table};
use crate::testing::{Clerk, Memory, World, clock, settings};

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

    /// As on an edge: with its rule, and a route for what waits for a list host.
    fn edge(world: World, clerk: Clerk, attempts_max: usize) -> Self {
        let own = "[[rule]]\nname = \"away\"\nsites = [\"list\"]\nenhanced = [\"4.4.1\"]\naction = \"away\"";
        let mut bench = Self::new(world, clerk, attempts_max);
        let settings = Settings {
            serves: Destinations::Only(vec![
                Destination::Inside,
                Destination::Route("list".into()),
            ]),
            rules: Arc::new(Rules::with(Table::parse(own).unwrap()).unwrap()),
            ..bench.engine.settings()
        };
        bench.engine = bench.engine.clone().with_settings(settings);
        bench
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
            attempts_max,
            ..settings(paused)
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

    /// Delivered, bounced, expired, set aside.
    fn ends(&self) -> [u64; 4] {
        let ends = *self.spool.ends.lock().unwrap();
        assert_eq!(ends.dropped, 0, "only operators drop");
        [ends.delivered, ends.bounced, ends.expired, ends.set_aside]
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

/// Whatever a test is about: every settlement accounts for every recipient.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let unbalanced = self.spool.unbalanced.lock().unwrap().clone();
            assert!(unbalanced.is_empty(), "{unbalanced:?}");
        }
    }
}

fn domain(name: &str) -> Destination {
    Destination::Domain(Domain::parse(name).unwrap())
}
