//! Readiness, and requests between hosts: who is let in, who is believed, what is bounded.

use std::path::Path;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::authority;
use crate::shutdown::Shutdown;
use crate::tls::{Files, Role};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const DEADLINE: Duration = Duration::from_secs(30);

/// A CA with one node a role, named `n-ROLE`.
fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    authority::init(dir.path()).unwrap();
    for role in Role::ALL {
        authority::node(dir.path(), &format!("n-{}", role.name()), &[role], &[]).unwrap();
    }
    dir
}

fn identity(dir: &Path, role: Role) -> Identity {
    let name = format!("n-{}", role.name());
    Identity::load(&Files {
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        authority: Some(dir.join("ca.pem")),
    })
    .unwrap()
}

fn router() -> Router {
    Router::new()
        .route(
            "/names",
            get(async |Extension(peer): Extension<Peer>| peer.names.join(",")),
        )
        .route("/echo", post(async |body: axum::body::Bytes| body))
        .route("/large", get(async || "x".repeat(100_000)))
}

async fn listserv(identity: Option<Identity>, shutdown: &Shutdown) -> SocketAddr {
    let roles = &[Role::MxEdge, Role::Operator];
    serve(LOOPBACK, identity, roles, router(), shutdown.clone())
        .await
        .unwrap()
}

fn request(method: &'static str, path: &str, body: Option<serde_json::Value>) -> Request {
    Request {
        method,
        path: path.into(),
        body,
    }
}

async fn ask_names(
    address: SocketAddr,
    identity: Option<&Identity>,
    role: Role,
) -> Result<(u16, String), String> {
    let request = request("GET", "/names", None);
    let (status, body) = fetch(address, identity, role, &request, 1000, DEADLINE).await?;
    Ok((status, String::from_utf8(body).unwrap()))
}

#[tokio::test]
async fn roles_are_held_on_both_sides() {
    let dir = site();
    let node = |role| identity(dir.path(), role);
    let shutdown = Shutdown::new();
    let address = listserv(Some(node(Role::Listserv)), &shutdown).await;

    let edge = node(Role::MxEdge);
    let answer = ask_names(address, Some(&edge), Role::Listserv).await;
    assert_eq!(answer, Ok((200, "n-mx-edge,mx-edge".into())));
    let scanner = node(Role::Scanner);
    let (status, text) = ask_names(address, Some(&scanner), Role::Listserv)
        .await
        .unwrap();
    assert_eq!(status, 403);
    assert!(text.contains("mx-edge, operator"), "{text}");
    let error = ask_names(address, Some(&edge), Role::Balancer)
        .await
        .unwrap_err();
    assert!(error.contains("TLS as balancer"), "{error}");
    let error = ask_names(address, None, Role::Listserv).await.unwrap_err();
    assert!(error.contains("listserv at"), "{error}");

    let foreign = site();
    let foreign = identity(foreign.path(), Role::MxEdge);
    let error = ask_names(address, Some(&foreign), Role::Listserv)
        .await
        .unwrap_err();
    assert!(error.contains("TLS as listserv"), "{error}");
    shutdown.begin();
    shutdown.drained().await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let dir = site();
    let shutdown = Shutdown::new();
    let good = |role| identity(dir.path(), role);
    // Loaded while it was good; it expires as the program runs.
    let soon = |role: Role| {
        let now = time::OffsetDateTime::now_utc();
        let name = format!("soon-{}", role.name());
        let validity = (
            now - time::Duration::hours(1),
            now + time::Duration::seconds(1),
        );
        authority::node_valid(dir.path(), &name, &[role], &[], validity).unwrap();
        Identity::load(&Files {
            certificate: dir.path().join(format!("{name}.pem")),
            key: dir.path().join(format!("{name}.key")),
            authority: Some(dir.path().join("ca.pem")),
        })
        .unwrap()
    };
    let (edge, list) = (soon(Role::MxEdge), soon(Role::Listserv));
    let expired = listserv(Some(list.clone()), &shutdown).await;
    let address = listserv(Some(good(Role::Listserv)), &shutdown).await;
    while edge.seconds_left() >= 0 || list.seconds_left() >= 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = ask_names(expired, Some(&good(Role::MxEdge)), Role::Listserv).await;
    let error = error.unwrap_err();
    assert!(
        error.contains("TLS as listserv") && error.contains("expired"),
        "{error}"
    );
    let error = ask_names(address, Some(&edge), Role::Listserv).await;
    let error = error.unwrap_err();
    assert!(error.contains("CertificateExpired"), "{error}");
}

#[tokio::test]
async fn plain_is_for_loopback_alone() {
    let shutdown = Shutdown::new();
    let address = listserv(None, &shutdown).await;
    let answer = ask_names(address, None, Role::Listserv).await;
    assert_eq!(answer, Ok((200, String::new())));
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let listen = listen.parse().unwrap();
        let refused = serve(listen, None, &[Role::MxEdge], router(), shutdown.clone()).await;
        assert!(refused.unwrap_err().remedy.contains("[inside]"));
    }
    let elsewhere = "192.0.2.1:80".parse().unwrap();
    let error = ask_names(elsewhere, None, Role::Listserv)
        .await
        .unwrap_err();
    assert!(error.contains("in plain"), "{error}");
}

#[tokio::test]
async fn bodies_and_waits_are_bounded() {
    let shutdown = Shutdown::new();
    let address = listserv(None, &shutdown).await;
    let get = |path| request("GET", path, None);
    let ask = async |request: Request, limit, deadline| {
        fetch(address, None, Role::Listserv, &request, limit, deadline).await
    };
    let (status, body) = ask(get("/large"), 100_000, DEADLINE).await.unwrap();
    assert_eq!((status, body.len()), (200, 100_000));
    assert!(ask(get("/large"), 99_999, DEADLINE).await.is_err());
    assert_eq!(ask(get("/absent"), 1000, DEADLINE).await.unwrap().0, 404);
    let (status, body) = ask(
        request("POST", "/echo", Some(json!({"a": 1}))),
        1000,
        DEADLINE,
    )
    .await
    .unwrap();
    assert_eq!((status, body.as_slice()), (200, &b"{\"a\":1}"[..]));
    let large = json!("x".repeat(2 << 20));
    let status = ask(request("POST", "/echo", Some(large)), 1000, DEADLINE).await;
    assert!(status.is_err() || status.is_ok_and(|(status, _)| status == 413));
    assert!(ask(get("no path"), 1000, DEADLINE).await.is_err());

    let silent = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = silent.local_addr().unwrap();
    let request = request("GET", "/", None);
    let short = Duration::from_millis(50);
    let error = fetch(address, None, Role::Listserv, &request, 1000, short).await;
    assert!(error.unwrap_err().contains("no answer in 50ms"));
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_lets_a_request_end() {
    let shutdown = Shutdown::new();
    let (started, release) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let handler = {
        let (started, release) = (started.clone(), release.clone());
        async move || {
            started.notify_one();
            release.notified().await;
            "done"
        }
    };
    let router = Router::new()
        .route("/", get(handler))
        .layer(DefaultBodyLimit::max(10));
    let address = serve(LOOPBACK, None, &[Role::MxEdge], router, shutdown.clone())
        .await
        .unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    started.notified().await;
    shutdown.begin();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0);
    release.notify_one();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    shutdown.drained().await;
}

#[test]
fn ready_when_every_condition_is_met() {
    let readiness = Readiness::default();
    assert_eq!(readiness.reason(), None);
    readiness.set("spool", Err("poisoned".into()));
    readiness.set("directory", Err("not loaded".into()));
    assert_eq!(readiness.reason().unwrap(), "directory: not loaded");
    readiness.set("directory", Ok(()));
    assert_eq!(readiness.reason().unwrap(), "spool: poisoned");
    readiness.set("spool", Ok(()));
    assert_eq!(readiness.reason(), None);
}

#[test]
fn not_ready_before_anything_is_published() {
    let readiness = Readiness::default();
    let control = Control::new(readiness.clone(), "started", Default::default());
    assert!(readiness.reason().unwrap().starts_with("started: "));
    control.listener("mail", LOOPBACK);
    assert_eq!(readiness.reason(), None);
}
