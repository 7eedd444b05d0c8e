//! Claims about several daemons of a kind: load is shared, one that fails costs a retry, and nobody waits without limit.

#![allow(clippy::unwrap_used)]

mod common;

use common::edge::{code, codes, live, message};
use common::list_host::ListHost;
use common::stubs::Stub;
use common::{Scanner, Setup, until};

/// A scanner with several daemons of each kind.
struct World {
    spamds: Vec<Stub>,
    clamds: Vec<Stub>,
    list_host: ListHost,
    scanner: Scanner,
}

impl World {
    /// All of them in service.
    async fn with(spamds: Vec<Stub>, clamds: Vec<Stub>, more: &str) -> Self {
        let unfit = 0;
        Self::without(unfit, spamds, clamds, more).await
    }

    /// All but so many in service.
    async fn without(unfit: usize, spamds: Vec<Stub>, clamds: Vec<Stub>, more: &str) -> Self {
        let list_host = ListHost::start().await;
        let addresses =
            |stubs: &[Stub]| stubs.iter().map(|stub| stub.address.to_string()).collect();
        let setup = Setup {
            spamd: addresses(&spamds),
            clamd: addresses(&clamds),
            list_host: Some(list_host.address),
            more: more.into(),
        };
        let scanner = Scanner::ready(&setup).await;
        let in_service = (spamds.len() + clamds.len() - unfit) as f64;
        let world = Self {
            spamds,
            clamds,
            list_host,
            scanner,
        };
        until("the daemons are in service", async || {
            (world.in_service().await == in_service).then_some(())
        })
        .await;
        world
    }

    async fn in_service(&self) -> f64 {
        self.scanner.metric("scanner_daemon_in_service", &[]).await
    }

    /// The `state` that status tells of a daemon.
    async fn state(&self, stub: &Stub) -> String {
        let status = self.scanner.ask("GET", "/status").await.unwrap();
        let daemons = status["program"]["daemons"].as_array().unwrap().clone();
        let address = stub.address.to_string();
        let told = daemons.iter().find(|daemon| daemon["address"] == *address);
        told.unwrap()["state"].as_str().unwrap().to_owned()
    }

    async fn retries(&self, daemon: &str) -> f64 {
        self.scanner
            .metric("scanner_retries_total", &[daemon])
            .await
    }
}

async fn spamds() -> Vec<Stub> {
    vec![Stub::spamd().await, Stub::spamd().await]
}

async fn clamds() -> Vec<Stub> {
    vec![Stub::clamd().await, Stub::clamd().await]
}

#[tokio::test]
async fn a_daemon_that_dies_costs_a_retry_and_no_message() {
    let mut world = World::with(spamds().await, clamds().await, "").await;
    let (dead, alive) = (world.spamds.remove(0), &world.spamds[0]);
    let address = dead.address;
    dead.stop().await;
    let ham = live(message("ham", "Hello."));
    let mut sent = 0;
    // The first that meets it makes its canary look.
    until("it is out of service", async || {
        sent += 1;
        assert_eq!(codes(&ham.send(&world.scanner).await), ["250 2.0.0"]);
        (world.in_service().await == 3.0).then_some(())
    })
    .await;
    let retries = world.retries("spamd").await;
    assert!(retries >= 1.0);
    for _ in 0..4 {
        assert_eq!(codes(&ham.send(&world.scanner).await), ["250 2.0.0"]);
    }
    assert_eq!(
        world.retries("spamd").await,
        retries,
        "it is not asked any more"
    );
    assert_eq!(world.list_host.arrived().len(), sent + 4);
    assert_eq!(alive.scans(), sent + 4);
    let status = world.scanner.ask("GET", "/status").await.unwrap();
    assert_eq!(
        status["program"]["state"], "ready",
        "one of each kind is enough"
    );
    let back = Stub::spamd_again(address).await;
    until("it is back by itself", async || {
        (world.state(&back).await == "in service").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mute_daemon_is_left_for_another() {
    let world = World::with(spamds().await, clamds().await, "scan.attempt = '200ms'").await;
    // Whichever is asked first is mute, the other one answers.
    let held = live(message("HOLD-SPAMD-ONLY", "Wait."));
    let (replies, ()) = tokio::join!(held.send(&world.scanner), async {
        let asked = until("a daemon is asked", async || {
            let held = |stub: &&Stub| stub.held.load(std::sync::atomic::Ordering::SeqCst) == 1;
            world.spamds.iter().position(|stub| held(&stub))
        })
        .await;
        world.spamds[1 - asked].let_go();
    });
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    assert_eq!(world.retries("spamd").await, 1.0);
    assert_eq!(world.spamds[0].scans() + world.spamds[1].scans(), 2);
}

#[tokio::test]
async fn load_is_shared_and_no_queue_grows_without_limit() {
    let more = "spamd.scans_max = 1\nscan.waiting_max = 2";
    let world = World::with(spamds().await, clamds().await, more).await;
    let held = |number: usize| live(message(&format!("HOLD-SPAMD-ONLY-{number}"), "Wait."));
    let (one, two) = (held(1), held(2));
    let (three, four) = (held(3), held(4));
    let full = async {
        for stub in &world.spamds {
            stub.holds(1).await;
        }
        until("two wait", async || {
            let waiting = world.scanner.metric("scanner_waiting", &["spamd"]).await;
            (waiting == 2.0).then_some(())
        })
        .await;
        let (code, reply) = held(5).code(&world.scanner).await;
        assert_eq!(code, "451 4.3.2");
        assert!(reply.text().contains("no free scan slot"), "{reply}");
        let full = world
            .scanner
            .metric("scanner_trouble_total", &["spamd", "full"])
            .await;
        assert_eq!(full, 1.0);
        for stub in &world.spamds {
            stub.let_go();
        }
    };
    let (one, two, three, four, ()) = tokio::join!(
        one.send(&world.scanner),
        two.send(&world.scanner),
        three.send(&world.scanner),
        four.send(&world.scanner),
        full
    );
    for replies in [one, two, three, four] {
        assert_eq!(codes(&replies), ["250 2.0.0"]);
    }
    assert_eq!(world.spamds[0].scans() + world.spamds[1].scans(), 4);
}

#[tokio::test]
async fn large_mail_goes_to_the_daemon_that_looks_at_it() {
    let clamds = vec![Stub::clamd_blind(2 << 20).await, Stub::clamd().await];
    let world = World::with(vec![Stub::spamd().await], clamds, "").await;
    let limits = [2 << 20, 8 << 20];
    for (stub, expected) in world.clamds.iter().zip(limits) {
        let address = stub.address.to_string();
        until("clamd's limit is known", async || {
            let bytes = world
                .scanner
                .metric("scanner_clamd_bytes_max", &[&address])
                .await;
            (bytes == f64::from(expected)).then_some(())
        })
        .await;
    }
    let before = (world.clamds[0].scans(), world.clamds[1].scans());
    for number in 0..3 {
        let text = "A line of text.\r\n".repeat(150_000);
        let large = live(message(&format!("large-{number}"), &text));
        assert_eq!(codes(&large.send(&world.scanner).await), ["250 2.0.0"]);
    }
    let after = (world.clamds[0].scans(), world.clamds[1].scans());
    assert_eq!((after.0 - before.0, after.1 - before.1), (0, 3));
}

#[tokio::test]
async fn signatures_that_are_too_old_are_not_relied_on() {
    let clamds = vec![
        Stub::clamd_of("ClamAV 1.4.6/27000/Tue Sep  1 08:00:00 2020").await,
        Stub::clamd().await,
    ];
    let more = "clamd.signatures_age_max = '7d'";
    let world = World::without(1, vec![Stub::spamd().await], clamds, more).await;
    let clamd = &world.clamds[0];
    let address = clamd.address.to_string();
    let age = "scanner_clamd_signatures_age_seconds";
    let age = world.scanner.metric(age, &[&address]).await;
    assert!(age > 5.0 * 365.0 * 86_400.0, "{age}");
    let state = world.state(clamd).await;
    assert!(state.contains("days old"), "{state}");
    let before = clamd.scans();
    for number in 0..3 {
        let replies = live(message(&format!("ham-{number}"), "Hello."))
            .send(&world.scanner)
            .await;
        assert_eq!(code(&replies[0]), "250 2.0.0");
    }
    assert_eq!(clamd.scans(), before);
}
