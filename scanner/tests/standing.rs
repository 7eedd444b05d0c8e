//! Claims about how a scanner stands in the pool, and who may talk to it.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use common::edge::{code, live, message};
use common::list_host::ListHost;
use common::stubs::Stub;
use common::{Scanner, Setup, soon, until};
use serde_json::{Value, json};
use service::control;
use service::shutdown::Shutdown;
use service::tls::{Files, Identity, Role};
use smtp::client::TlsPolicy;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A balancer that keeps what it is told.
struct Balancer {
    address: std::net::SocketAddr,
    told: Arc<Mutex<Vec<Value>>>,
    shutdown: Shutdown,
}

impl Balancer {
    async fn start() -> Self {
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let register = async |State(told): State<Arc<Mutex<Vec<Value>>>>,
                              Json(body): Json<Value>| {
            told.lock().unwrap().push(body);
            Json(json!({ "lease_seconds": 0.3 }))
        };
        let router = Router::new()
            .route("/register", post(register))
            .with_state(told.clone());
        let shutdown = Shutdown::new();
        let any = "127.0.0.1:0".parse().unwrap();
        let served = control::serve(any, None, &[Role::Scanner], router, shutdown.clone());
        Self {
            address: served.await.unwrap(),
            told,
            shutdown,
        }
    }

    fn states(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let states = told
            .iter()
            .map(|body| body["state"].as_str().unwrap().to_owned());
        let mut states: Vec<String> = states.collect();
        states.dedup();
        states
    }
}

async fn agent(scanner: &Scanner) -> String {
    let mut stream = TcpStream::connect(scanner.agent).await.unwrap();
    let mut answer = String::new();
    soon("the agent's line", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}

async fn setup(more: String) -> (Stub, Stub, ListHost, Setup) {
    let (spamd, clamd) = (Stub::spamd().await, Stub::clamd().await);
    let list_host = ListHost::start().await;
    let setup = Setup::of(&spamd, &clamd, &list_host, more);
    (spamd, clamd, list_host, setup)
}

#[tokio::test]
async fn balancers_hear_how_a_scanner_stands_until_it_has_left() {
    let (one, two) = (Balancer::start().await, Balancer::start().await);
    let more = format!(
        "announce.name = 'scan-7'\nannounce.balancers = ['{}', '127.0.0.1:1', '{}']",
        one.address, two.address
    );
    let (spamd, _clamd, _list_host, setup) = setup(more).await;
    let mut scanner = Scanner::ready(&setup).await;
    let hears = async |state: &str| {
        until(&format!("both hear {state}"), async || {
            let heard = |balancer: &Balancer| balancer.states().last().is_some_and(|s| s == state);
            (heard(&one) && heard(&two)).then_some(())
        })
        .await;
    };
    hears("ready").await;
    let body = one.told.lock().unwrap().last().unwrap().clone();
    assert_eq!(body["name"], "scan-7");
    assert_eq!(body["address"], scanner.lmtp.to_string());
    let count = one.told.lock().unwrap().len();
    until("the lease is renewed", async || {
        (one.told.lock().unwrap().len() > count + 2).then_some(())
    })
    .await;
    assert_eq!(agent(&scanner).await, "ready up 100%\n");

    scanner.ask("POST", "/drain").await.unwrap();
    hears("draining").await;
    assert_eq!(agent(&scanner).await, "drain\n");
    scanner.ask("POST", "/undrain").await.unwrap();
    hears("ready").await;

    let address = spamd.address;
    spamd.stop().await;
    // The canary would see it at its next round; a message that meets it makes that now.
    let replies = live(message("ham", "Hello.")).send(&scanner).await;
    assert_eq!(code(&replies[0]), "451 4.3.0");
    hears("down").await;
    assert_eq!(agent(&scanner).await, "down\n");
    let _spamd = Stub::spamd_again(address).await;
    hears("ready").await;

    scanner.terminate();
    hears("leaving").await;
    let states = one.states();
    assert_eq!(states[states.len() - 2..], ["draining", "leaving"]);
    let exit = soon("the scanner ends", scanner.child.wait())
        .await
        .unwrap();
    assert!(exit.success(), "{exit}\n{}", scanner.log());
    one.shutdown.begin();
}

#[tokio::test]
async fn a_node_tells_how_much_of_it_is_in_service() {
    let (one, two, clamd) = (
        Stub::spamd().await,
        Stub::spamd().await,
        Stub::clamd().await,
    );
    let balancer = Balancer::start().await;
    let setup = Setup {
        spamd: vec![one.address.to_string(), two.address.to_string()],
        clamd: vec![clamd.address.to_string()],
        more: format!(
            "announce.balancers = ['{}']\nspamd.scans_max = 4\nclamd.scans_max = 100\nscan.canary_interval = '100ms'",
            balancer.address
        ),
        ..Setup::default()
    };
    let scanner = Scanner::ready(&setup).await;
    let tells = async |slots: u64, line: &str| {
        until(line, async || {
            let told = balancer.told.lock().unwrap().last().cloned();
            (told.is_some_and(|body| body["slots"] == slots)).then_some(())
        })
        .await;
        assert_eq!(agent(&scanner).await, line);
    };
    tells(8, "ready up 100%\n").await;
    let address = two.address;
    two.stop().await;
    tells(4, "ready up 50%\n").await;
    let _two = Stub::spamd_again(address).await;
    tells(8, "ready up 100%\n").await;
    balancer.shutdown.begin();
}

#[tokio::test]
async fn stopping_a_scanner_loses_nothing() {
    let (spamd, clamd, list_host, setup) = setup(String::new()).await;
    let mut scanner = Scanner::ready(&setup).await;
    let held = live(message("HOLD", "Wait."));
    let (replies, ()) = tokio::join!(held.send(&scanner), async {
        spamd.holds(1).await;
        scanner.terminate();
        until("the listener is closed", async || {
            TcpStream::connect(scanner.lmtp).await.err()
        })
        .await;
        spamd.let_go();
        clamd.let_go();
    });
    assert_eq!(code(&replies[0]), "250 2.0.0");
    assert_eq!(list_host.arrived().len(), 1);
    let exit = soon("the scanner ends", scanner.child.wait())
        .await
        .unwrap();
    assert!(exit.success(), "{exit}");
}

#[tokio::test]
async fn a_daemon_without_rules_keeps_a_scanner_out() {
    let (spamd, clamd) = (Stub::spamd_without_rules().await, Stub::clamd().await);
    let setup = Setup {
        spamd: vec![spamd.address.to_string()],
        clamd: vec![clamd.address.to_string()],
        ..Setup::default()
    };
    let scanner = Scanner::start(&setup).await;
    until("a canary has come back wrong", async || {
        let wrong = scanner.metric("scanner_canaries_total", &["wrong"]).await;
        (wrong > 0.0).then_some(())
    })
    .await;
    let status = scanner.ask("GET", "/status").await.unwrap();
    assert_eq!(status["program"]["state"], "down");
    let gate = status["program"]["gates"]["scan"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(gate.contains("rules are not loaded"), "{gate}");
    assert_eq!(agent(&scanner).await, "down\n");
    let replies = live(message("ham", "Hello.")).send(&scanner).await;
    assert_eq!(code(&replies[0]), "451 4.3.0");
}

/// The identity of a node with these roles.
fn identity(dir: &std::path::Path, name: &str, role: Role) -> Files {
    service::authority::node(dir, name, &[role], &[]).unwrap();
    Files {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        authority: Some(dir.join("ca.pem")),
    }
}

#[tokio::test]
async fn between_hosts_only_an_edge_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    service::authority::init(&ca).unwrap();
    let load = |files: Files| Identity::load(&files).unwrap();
    let (edge, other) = (
        load(identity(&ca, "mx1", Role::MxEdge)),
        load(identity(&ca, "lists", Role::Listserv)),
    );
    let own = identity(&ca, "scan-1", Role::Scanner);
    let (spamd, clamd) = (Stub::spamd().await, Stub::clamd().await);
    let list_host = ListHost::at("127.0.0.1:0", Some(other.server())).await;
    let more = format!(
        "inside.certificate = '{}'\ninside.key = '{}'\ninside.authority = '{}'",
        own.certificate.display(),
        own.key.display(),
        own.authority.unwrap().display()
    );
    let setup = Setup::of(&spamd, &clamd, &list_host, more);
    let scanner = Scanner::ready(&setup).await;
    let attempt = live(message("ham", "Hello."));
    let by = |identity: &Identity| {
        let name = Role::Scanner.server_name();
        TlsPolicy::Required(identity.client(), name)
    };
    let table = [
        (by(&edge), "250 2.0.0"),
        (by(&other), "554 5.7.1"),
        (TlsPolicy::Never, "530 5.7.0"),
    ];
    for (policy, expected) in table {
        let replies = soon("replies", attempt.send_by(&scanner, policy)).await;
        assert_eq!(code(&replies[0]), expected, "{}", replies[0]);
    }
    assert_eq!(list_host.arrived().len(), 1, "by mutual TLS");
}
