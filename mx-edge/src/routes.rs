//! What the control socket answers. The commands of `command` ask it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use delivery::Engine;
use delivery::queue::Queue;
use mail::Address;
use serde::Deserialize;
use serde_json::{Value, json};
use service::control::Readiness;
use spool::Spool;

use crate::drain::Drain;
use crate::explain;
use crate::receive::Edge;
use crate::recipients::Known;
use crate::report::{self, Days};

/// What the routes work on.
#[derive(Clone)]
pub struct Controls {
    /// The edge.
    pub edge: Arc<Edge>,
    /// Its spool.
    pub spool: Arc<dyn Spool>,
    /// What works the spool off.
    pub engine: Engine,
    /// The spool in an operator's hands.
    pub queue: Queue,
    /// What was counted by day.
    pub days: Arc<Days>,
    /// Being taken out of service.
    pub drain: Drain,
    /// What is told of it.
    pub readiness: Readiness,
}

/// JSON, or a status and JSON that says why not.
pub type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// The routes.
pub fn router(controls: Controls) -> Router {
    Router::new()
        .route("/recipients", get(sources))
        .route("/recipients/accept", post(accept))
        .route("/recipients/lookup", post(lookup))
        .route("/drain", get(progress).post(drain))
        .route("/undrain", post(undrain))
        .route("/ended", get(ended))
        .route("/report", get(report))
        .route("/explain", post(explain))
        .with_state(controls)
}

/// An answer that says why not.
pub fn failed(code: StatusCode, error: impl ToString) -> (StatusCode, Json<Value>) {
    (code, Json(json!({ "error": error.to_string() })))
}

async fn sources(State(controls): State<Controls>) -> Answer {
    let sources = controls.edge.recipients.sources();
    let summaries: Vec<_> = sources.iter().map(|source| source.summary()).collect();
    Ok(Json(json!(summaries)))
}

#[derive(Deserialize)]
struct Accept {
    #[serde(default)]
    force: bool,
}

async fn accept(State(controls): State<Controls>, Json(asked): Json<Accept>) -> Answer {
    if !asked.force {
        let why = "this puts versions in force that take much away; look at `mx-edge recipients show` and say --force";
        return Err(failed(StatusCode::BAD_REQUEST, why));
    }
    let sources = controls.edge.recipients.sources().to_vec();
    // Applying writes the copy on disk, so it is not done on the runtime's threads.
    let work = move || {
        let applied = sources.iter().filter_map(|source| source.accept());
        applied.map(|summary| summary.source).collect::<Vec<_>>()
    };
    let applied = tokio::task::spawn_blocking(work).await;
    let applied = applied.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(Json(json!({ "applied": applied })))
}

#[derive(Deserialize)]
struct Lookup {
    address: String,
}

async fn lookup(State(controls): State<Controls>, Json(asked): Json<Lookup>) -> Answer {
    let address = Address::parse(&asked.address);
    let address = address.map_err(|error| failed(StatusCode::BAD_REQUEST, error))?;
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let known = match controls.edge.recipients.lookup(&address, nowhere) {
        Known::Ordinary => "yes",
        Known::Role => "yes, a role",
        Known::Unknown => "no",
        Known::NotOurs => "no, not a domain of ours",
        Known::NotLoaded => "cannot be told, a source was never loaded",
    };
    Ok(Json(
        json!({ "address": address.to_string(), "known": known }),
    ))
}

#[derive(Default, Deserialize)]
struct Begin {
    #[serde(default)]
    to: Option<String>,
}

async fn drain(State(controls): State<Controls>, Json(asked): Json<Begin>) -> Answer {
    let begun = controls.drain.begin(asked.to);
    begun.map_err(|why| failed(StatusCode::BAD_REQUEST, why))?;
    progress(State(controls)).await
}

async fn undrain(State(controls): State<Controls>) -> Answer {
    let ended = controls.drain.end();
    ended.map_err(|why| failed(StatusCode::INTERNAL_SERVER_ERROR, why))?;
    progress(State(controls)).await
}

async fn progress(State(controls): State<Controls>) -> Answer {
    let progress = controls.drain.progress().await;
    let progress = progress.map_err(|error| failed(StatusCode::SERVICE_UNAVAILABLE, error))?;
    Ok(Json(progress))
}

#[derive(Deserialize)]
struct OfDay {
    day: String,
}

async fn report(State(controls): State<Controls>, Query(asked): Query<OfDay>) -> Answer {
    let days = Arc::clone(&controls.days);
    let day = asked.day.clone();
    let found = tokio::task::spawn_blocking(move || days.day(&day)).await;
    let found = found.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let day = found.map_err(|error| failed(StatusCode::BAD_REQUEST, error))?;
    let Some(day) = day else {
        let why = format!(
            "nothing was counted on {}, or it is kept no more (report.retention)",
            asked.day
        );
        return Err(failed(StatusCode::NOT_FOUND, why));
    };
    let open = controls.edge.metrics.sessions_open.get();
    let open = if controls.days.is_today(&day) {
        open
    } else {
        0
    };
    Ok(Json(report::summary(
        &day,
        u64::try_from(open).unwrap_or(0),
    )))
}

async fn explain(State(controls): State<Controls>, Json(asked): Json<explain::Asked>) -> Answer {
    let answer = explain::explain(&controls.edge, &asked).await;
    answer
        .map(Json)
        .map_err(|error| failed(StatusCode::BAD_REQUEST, error))
}

#[derive(Deserialize)]
struct Count {
    count: usize,
}

async fn ended(State(controls): State<Controls>, Query(asked): Query<Count>) -> Answer {
    let work = move || controls.edge.ended.tail(asked.count);
    let lines = tokio::task::spawn_blocking(work).await;
    let lines = lines.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let lines = lines.map_err(|error| failed(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(Json(json!(lines)))
}
