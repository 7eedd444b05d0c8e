//! The whole engine over real sockets on loopback.

use std::time::Duration;

use mail::MessageId;
use service::shutdown::Shutdown;
use smtp::Protocol;
use smtp::client::{Timeouts, TlsPolicy};
use spool::{Destination, Destinations};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::attempt::Route;
use crate::breaker::Limits;
use crate::engine::{Engine, Settings};
use crate::retry::Schedule;
use crate::testing::peer::{Manner, Peer};
use crate::testing::{Clerk, Memory};

/// Nothing here takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_millis(100);

struct Bench {
    spool: Arc<Memory>,
    clerk: Arc<Clerk>,
    shutdown: Shutdown,
    _pause: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

/// An engine with a route `relay` to this address, to which all domains go.
fn bench(address: std::net::SocketAddr, verp: bool) -> Bench {
    let clock: crate::engine::Clock = Arc::new(mail::Timestamp::now);
    let spool = Memory::new(clock);
    let clerk = Arc::new(Clerk {
        verp,
        ..Clerk::default()
    });
    let options = Options {
        protocol: Protocol::Smtp,
        helo: "client.example".into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    };
    let relay = Connections::new(Route {
        hosts: vec![address.to_string()],
        options: options.clone(),
        transactions_max: 100,
        connections_max: 4,
    });
    let (pause, paused) = watch::channel(false);
    let settings = Settings {
        host: "test".to_owned(),
        serves: Destinations::Except(vec![Destination::Expand]),
        routes: BTreeMap::from([("relay".into(), Arc::new(relay))]),
        pinned: BTreeMap::new(),
        default_route: Some("relay".into()),
        exchangers: None,
        options,
        attempts_max: 50,
        site_connections_max: 20,
        schedule: Schedule {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(50),
            give_up: None,
        },
        paused,
    };
    let metrics = prometheus::Registry::new();
    let engine =
        Engine::new(settings, spool.clone(), clerk.clone(), &metrics).with_limits(Limits {
            failures: 2,
            probe_interval: PROBE,
            start: 2,
        });
    let shutdown = Shutdown::new();
    let running = tokio::spawn(engine.run(shutdown.clone()));
    Bench {
        spool,
        clerk,
        shutdown,
        _pause: pause,
        running,
    }
}

impl Bench {
    fn add(&self, recipients: &[&str]) -> MessageId {
        let domain = recipients[0].rsplit_once('@').unwrap().1;
        let domain = Domain::parse(domain).unwrap();
        self.spool.add(Destination::Domain(domain), recipients)
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < end,
                "never: {what}; {:?}",
                self.clerk.heard()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn drained(&self) {
        self.until("drained", |bench| bench.spool.left().is_empty())
            .await;
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn every_recipient_gets_its_own_end() {
    let peer = Peer::start(Manner::Picky(&[
        ("gone", "550 5.1.1 no such user"),
        ("full", "452 4.2.2 full"),
    ]))
    .await;
    let bench = bench(peer.address, false);
    bench.add(&[
        "one@a.example",
        "gone@a.example",
        "full@a.example",
        "two@a.example",
    ]);
    bench
        .until("tried again", |b| b.clerk.heard().len() >= 5)
        .await;
    assert_eq!(
        bench.clerk.heard()[..5],
        [
            "one@a.example delivered",
            "gone@a.example failed",
            "full@a.example deferred",
            "two@a.example delivered",
            "full@a.example deferred"
        ]
    );
    bench
        .until("settled", |b| b.spool.left()[0].recipients.len() == 1)
        .await;
    assert_eq!(peer.messages(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn copies_of_a_batch_go_over_one_connection_in_order() {
    let peer = Peer::start(Manner::Good).await;
    let bench = bench(peer.address, true);
    let to: Vec<String> = (0..20).map(|n| format!("u{n}@a.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.add(&to);
    bench.drained().await;
    assert_eq!(peer.connections(), 1);
    assert_eq!(peer.messages(), 20);
    let said: Vec<String> = to.iter().map(|to| format!("RCPT TO:<{to}>")).collect();
    let heard: Vec<String> = peer
        .said("RCPT")
        .iter()
        .map(|l| l[..l.find('>').unwrap() + 1].to_owned())
        .collect();
    assert_eq!(heard, said);
    bench.stop().await;
}

#[tokio::test]
async fn a_dead_route_flows_when_it_returns() {
    // A port that nobody listens on, and later somebody does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = bench(address, false);
    for n in 0..200 {
        bench.add(&[&format!("u{n}@d{n}.example")]);
    }
    bench.until("tried", |b| b.clerk.heard().len() >= 3).await;
    assert!(bench.clerk.heard().iter().all(|h| h.ends_with("deferred")));
    let peer = Peer::on(TcpListener::bind(address).await.unwrap(), Manner::Good);
    bench.drained().await;
    assert_eq!(peer.messages(), 200);
    assert!(peer.connections() <= 8, "reused: {}", peer.connections());
    let attempts = bench.spool.left().iter().map(|b| b.attempts).max();
    assert_eq!(attempts, None);
    bench.stop().await;
}

#[tokio::test]
async fn a_peer_that_turns_connections_away_loses_and_doubles_nothing() {
    let peer = Peer::start(Manner::Refuses("421 4.7.0 too many")).await;
    let bench = bench(peer.address, false);
    for n in 0..50 {
        bench.add(&[&format!("u{n}@a.example")]);
    }
    bench
        .until("turned away", |_| peer.connections() >= 3)
        .await;
    *peer.manner.lock().unwrap() = Manner::Good;
    bench.drained().await;
    assert_eq!(peer.messages(), 50);
    bench.stop().await;
}
