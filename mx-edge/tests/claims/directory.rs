//! The directory that listserv publishes, pulled from a scripted one: nobody is unknown before it came, a shrunken one waits for
//! an operator, and an absent list host changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mx_edge::recipients::directory::Wire;
use serde::Deserialize;
use service::shutdown::Shutdown;
use tokio::sync::watch;

use crate::client::{codes, send};
use crate::edge::{Edge, Site, until};
use crate::inside::{Inside, Mode};

/// A list host: what it publishes; nothing while it is broken.
type Published = watch::Receiver<Option<Wire>>;

#[derive(Deserialize)]
struct Asked {
    since: String,
    wait: u64,
}

async fn answer(State(mut published): State<Published>, Query(asked): Query<Asked>) -> Response {
    let fresh = |wire: &Option<Wire>| wire.as_ref().is_none_or(|wire| wire.version != asked.since);
    let waited = tokio::time::timeout(Duration::from_secs(asked.wait), published.wait_for(fresh));
    match waited.await {
        Err(_) => StatusCode::NOT_MODIFIED.into_response(),
        Ok(wire) => match wire.unwrap().clone() {
            Some(wire) => Json(wire).into_response(),
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
    }
}

async fn list_host(published: Published, shutdown: &Shutdown) -> SocketAddr {
    let router = Router::new()
        .route("/directory", get(answer))
        .with_state(published);
    let anywhere = "127.0.0.1:0".parse().unwrap();
    service::control::serve(anywhere, None, &[], router, shutdown.clone())
        .await
        .unwrap()
}

fn wire(version: &str, members: usize) -> Option<Wire> {
    Some(Wire {
        version: version.into(),
        domains: vec!["lists.example".into()],
        addresses: (0..members)
            .map(|n| format!("u{n}@lists.example"))
            .collect(),
        lists: vec!["dev@lists.example".into()],
        signature: None,
    })
}

async fn reply(edge: &Edge, to: &str) -> String {
    codes(&send(edge.address, &[to]).await).remove(0)
}

async fn wait_version(edge: &Edge, version: &str) {
    let source = &edge.running.controls.edge.recipients.sources()[0];
    let seen = || source.seen().unwrap_or_default();
    until(|| &*seen() == version, || format!("version {}", seen())).await;
}

#[tokio::test]
async fn an_empty_directory_refuses_nobody() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let stop = Shutdown::new();
    let (publish, published) = watch::channel(None);
    site.config.recipients.files.clear();
    site.config.directory.servers = vec![list_host(published, &stop).await];
    site.config.directory.pause_max = Duration::from_millis(50);

    // Never loaded: nobody is unknown, and the edge is not ready.
    let edge = site.start().await;
    assert_eq!(reply(&edge, "dev@lists.example").await, "451 4.3.0");
    assert_eq!(reply(&edge, "joe@relay.example").await, "451 4.3.0");
    assert!(edge.readiness.reason().unwrap().contains("never loaded"));

    // Loaded.
    publish.send_replace(wire("1", 1000));
    wait_version(&edge, "1").await;
    until(
        || edge.readiness.reason().is_none(),
        || edge.readiness.reason().unwrap_or_default(),
    )
    .await;
    assert_eq!(
        reply(&edge, "dev-subscribe@lists.example").await,
        "250 2.0.0"
    );
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u1000@lists.example").await, "550 5.1.1");
    assert_eq!(reply(&edge, "joe@relay.example").await, "554 5.7.1");

    // A shrunken one is not applied.
    publish.send_replace(wire("2", 900));
    wait_version(&edge, "2").await;
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    edge.wait_metric("mx_edge_source_blocked", "directory", 1.0)
        .await;

    // A list host that breaks empties nothing, and neither does a restart without it.
    publish.send_replace(None);
    edge.wait_metric("mx_edge_source_failing", "directory", 1.0)
        .await;
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    edge.stop().await;
    stop.begin();
    stop.drained().await;
    let edge = site.start().await;
    assert_eq!(edge.readiness.reason(), None);
    assert_eq!(reply(&edge, "u999@lists.example").await, "250 2.0.0");
    assert_eq!(reply(&edge, "u1000@lists.example").await, "550 5.1.1");
    edge.stop().await;
}

#[tokio::test]
async fn an_operator_may_force_a_shrunken_directory() {
    let inside = Inside::start(Mode::Listening).await;
    let mut site = Site::new(&inside);
    let stop = Shutdown::new();
    let (publish, published) = watch::channel(wire("1", 1000));
    site.config.recipients.files.clear();
    site.config.directory.servers = vec![list_host(published, &stop).await];
    let edge = site.start().await;
    wait_version(&edge, "1").await;
    publish.send_replace(wire("2", 900));
    wait_version(&edge, "2").await;
    let source = Arc::clone(&edge.running.controls.edge.recipients.sources()[0]);
    assert_eq!(source.summary().blocked.unwrap().lost_entries, 100);
    assert_eq!(source.accept().unwrap().entries, 901);
    assert_eq!(reply(&edge, "u999@lists.example").await, "550 5.1.1");
    edge.stop().await;
    stop.begin();
}
