//! The whole engine over real sockets on loopback.

use std::time::Duration;

use mail::MessageId;
use service::shutdown::Shutdown;
use spool::embedded::{self, Embedded};
use spool::{Class, Destination, Destinations, NewBatch, NewMessage, Spool};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::attempt::Route;
use crate::breaker::Limits;
use crate::engine::{Engine, Settings};
use crate::expiry::Expiry;
use crate::retry::Keys;
use crate::testing::peer::{Manner, Peer, options};
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

/// An engine on a spool with a route `relay` to this address, to which all domains go.
fn engine(
    address: std::net::SocketAddr,
    spool: Arc<dyn Spool>,
    clerk: Arc<Clerk>,
    paused: watch::Receiver<bool>,
) -> Engine {
    let relay = Connections::new(Route {
        hosts: vec![address.to_string()],
        options: options(),
        transactions_max: 100,
        connections_max: 4,
    });
    let settings = Settings {
        host: "test".to_owned(),
        serves: Destinations::Except([Destination::Expand].into()),
        routes: BTreeMap::from([("relay".into(), Arc::new(relay))]),
        pinned: BTreeMap::new(),
        default_route: Some("relay".into()),
        exchangers: None,
        options: options(),
        egresses: Default::default(),
        tls: None,
        sink: false,
        attempts_max: 50,
        bodies_bytes_max: crate::engine::BODIES_BYTES_MAX,
        turn_target: crate::engine::TURN_TARGET,
        site_connections_max: 20,
        schedule: Keys {
            delays: &[Duration::from_millis(50)],
            ..Keys::default()
        }
        .schedule(),
        expiry: Expiry::NEVER,
        rules: Arc::default(),
        paused,
    };
    let metrics = prometheus::Registry::new();
    Engine::new(settings, spool, clerk, &metrics).with_limits(Limits {
        failures: 2,
        probe_interval: PROBE,
        start: 2,
    })
}

fn bench(address: std::net::SocketAddr, verp: bool) -> Bench {
    let spool = Memory::new(Arc::new(mail::Timestamp::now));
    let clerk = Arc::new(Clerk {
        verp,
        ..Clerk::default()
    });
    let (pause, paused) = watch::channel(false);
    let engine = engine(address, spool.clone(), clerk.clone(), paused);
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

// === on the real spool ===

fn open(path: &std::path::Path) -> Arc<Embedded> {
    let spool = Embedded::open(embedded::Options {
        segment_bytes: 1 << 20,
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..embedded::Options::new(path)
    });
    Arc::new(spool.unwrap())
}

async fn accept(spool: &Embedded, n: usize) {
    let now = mail::Timestamp::now();
    let host = format!("d{n}.example");
    let accepted = spool
        .accept(
            NewMessage {
                arrival: now,
                reverse_path: mail::ReversePath::Null,
                parameters: mail::MailParameters::default(),
                facts: bytes::Bytes::new(),
                body: vec![format!("Subject: {n}\r\n\r\nx\r\n").into()],
                batches: vec![NewBatch {
                    destination: Destination::Domain(Domain::parse(&host).unwrap()),
                    class: Class::Ordinary,
                    due: now,
                    recipients: vec![crate::testing::recipient(&format!("u@{host}"))],
                    template: bytes::Bytes::new(),
                    replies: Default::default(),
                }],
            },
            None,
        )
        .await;
    accepted.unwrap();
}

#[tokio::test]
async fn a_crash_of_the_engine_on_the_real_spool_loses_nothing() {
    const MESSAGES: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(Manner::Good).await;
    let (_pause, paused) = watch::channel(false);
    let clerk = Arc::new(Clerk::default());

    let spool = open(folder.path());
    for n in 0..MESSAGES {
        accept(&spool, n).await;
    }
    let first = engine(peer.address, spool.clone(), clerk.clone(), paused.clone());
    let first = tokio::spawn(first.run(Shutdown::new()));
    let end = Instant::now() + PATIENCE;
    while peer.messages() < MESSAGES / 4 {
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
    // With the task everything that it had begun is dropped where it stands.
    first.abort();
    let _ = first.await;
    spool.close().await;
    drop(spool);

    let spool = open(folder.path());
    let shutdown = Shutdown::new();
    let second = engine(peer.address, spool.clone(), clerk.clone(), paused);
    let second = tokio::spawn(second.run(shutdown.clone()));
    let end = Instant::now() + PATIENCE;
    while !spool.tally().await.unwrap().is_empty() {
        assert!(Instant::now() < end, "{:?}", spool.tally().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.begin();
    second.await.unwrap();
    spool.close().await;

    let messages = peer.seen.lock().unwrap().messages.clone();
    let distinct: std::collections::BTreeSet<_> = messages.iter().collect();
    assert_eq!(distinct.len(), MESSAGES, "nothing is lost");
    // Four connections at once, and what 10 ms of settlements may hold.
    let twice = messages.len() - MESSAGES;
    assert!(twice <= 256, "more than the window: {twice}");
}

#[tokio::test]
async fn a_shutdown_on_the_real_spool_repeats_nothing() {
    const MESSAGES: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(Manner::Good).await;
    let (_pause, paused) = watch::channel(false);
    let clerk = Arc::new(Clerk::default());
    for round in 0..4 {
        let spool = open(folder.path());
        if round == 0 {
            for n in 0..MESSAGES {
                accept(&spool, n).await;
            }
        }
        let shutdown = Shutdown::new();
        let engine = engine(peer.address, spool.clone(), clerk.clone(), paused.clone());
        let running = tokio::spawn(engine.run(shutdown.clone()));
        let goal = MESSAGES * (round + 1) / 4;
        let end = Instant::now() + PATIENCE;
        while peer.messages() < goal {
            assert!(Instant::now() < end, "{} of {goal}", peer.messages());
            tokio::task::yield_now().await;
        }
        shutdown.begin();
        running.await.unwrap();
        spool.close().await;
    }
    let messages = peer.seen.lock().unwrap().messages.clone();
    let distinct: std::collections::BTreeSet<_> = messages.iter().collect();
    assert_eq!((distinct.len(), messages.len()), (MESSAGES, MESSAGES));
}

/// Whoever asks for protection gets no connection of those who do not, though one lies idle; and the reverse. By domain, by the
/// exchanger's name, and by the egress.
#[tokio::test]
async fn what_is_to_be_protected_never_goes_over_a_plain_connection() {
    let peer = Peer::start(Manner::Good).await;
    let exchangers = |levels| Wire {
        routes: BTreeMap::new(),
        exchangers: Some(Arc::new(
            Exchangers::new(&["127.0.0.1:9".parse().unwrap()], peer.address.port()).unwrap(),
        )),
        options: options(),
        egresses: Egresses::from([(Arc::from("bulk"), Egress::default())]),
        tls: Some(levels),
        site_connections_max: 4,
        rules: Arc::default(),
        pools: Mutex::default(),
    };
    let here = Site::new(vec![(0, "[127.0.0.1]".into())]);
    let way = |domain: &str, egress: Option<&str>| Way {
        key: Arc::new(Key::Site(here.clone())),
        egress: egress.map(Arc::from),
        domain: Some(Domain::parse(domain).unwrap()),
    };
    let copy = crate::testing::copy("one@a.example");
    let domain = |name: &str| Domain::parse(name).unwrap();
    let wire = exchangers(Levels {
        default: Level::Opportunistic,
        domains: BTreeMap::from([
            (domain("safe.example"), Level::Encrypt),
            (domain("plain.example"), Level::Never),
        ]),
        ..Levels::default()
    });
    // Rows: domain, egress, whether it goes, connections in all.
    for (to, egress, goes, connections) in [
        ("a.example", None, true, 1),
        ("b.example", None, true, 1),
        ("safe.example", None, false, 2),
        ("plain.example", None, true, 3),
        ("a.example", Some("bulk"), true, 4),
        ("b.example", None, true, 4),
        ("safe.example", None, false, 5),
    ] {
        let passed = wire.pass(&way(to, egress), &copy).await;
        match passed {
            Ok(_) => assert!(goes, "{to}"),
            Err(stopped) => {
                assert!(!goes, "{to}: {stopped:?}");
                assert!(matches!(stopped.trouble.cause, Cause::NoTls), "{stopped:?}");
            }
        }
        assert_eq!(peer.connections(), connections, "{to} {egress:?}");
    }
    let messages = peer.messages();
    assert_eq!(messages, 5);

    // By the exchanger's name: who is not named waits, who is named goes as it is said.
    let wire = exchangers(Levels {
        default: Level::Opportunistic,
        domains: BTreeMap::from([(domain("plain.example"), Level::Opportunistic)]),
        exchangers: BTreeMap::from([("[127.0.0.1]".into(), Level::Encrypt)]),
        ..Levels::default()
    });
    for (to, goes) in [
        ("plain.example", true),
        ("a.example", false),
        ("plain.example", true),
    ] {
        let passed = wire.pass(&way(to, None), &copy).await;
        assert_eq!(passed.is_ok(), goes, "{to}");
    }
    assert_eq!(peer.messages(), messages + 2);
}
