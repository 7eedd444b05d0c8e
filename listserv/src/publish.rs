//! The directory for edges: `GET /directory?since=VERSION&digest=DIGEST&seen=VERSION&wait=SECONDS` over mutual TLS. `since` and its digest
//! are what the edge has in force, `seen` what it holds back.
//!
//! 226: what changed since then. 200: the whole. 304: nothing newer after the wait. 409: nothing newer than what is held back. 503: an
//! empty or unread directory, which is never told, since edges would refuse everybody.

mod editor;
mod recall;

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mail::directory::{Delta, Digest, Version, Whole};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tracing::{error, warn};

pub use editor::{Edition, Editions, Editor};

use crate::directory::{Directory, Kin};
use crate::metrics::{Metrics, count};

/// Longest wait of one request; an edge asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is told to edges.
pub struct Publisher {
    /// The versions.
    pub editions: Editions,
    /// Where it is kept which versions were published.
    pub directory: Directory,
    /// Counters.
    pub metrics: Metrics,
    /// Ends waiting at shutdown.
    pub stop: watch::Receiver<bool>,
    /// The whole of a version as it is sent, made once for all edges that ask at the same time.
    pub whole: Mutex<Option<(Version, Weak<Text>)>>,
}

/// Text that is sent to several.
pub struct Text(Vec<u8>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Shared(Arc<Text>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    since: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    seen: String,
    #[serde(default)]
    wait: u64,
}

impl Asked {
    /// What the edge has in force.
    fn held(&self) -> Option<(Version, Digest)> {
        let digest = Digest::try_from(self.digest.clone()).ok()?;
        Some((self.since.parse().ok()?, digest))
    }
}

impl Publisher {
    /// The router for [`service::control::serve`].
    pub fn router(self) -> Router {
        Router::new()
            .route("/directory", get(answer))
            .with_state(Arc::new(self))
    }

    async fn wait(&self, asked: &Asked) -> Option<Arc<Edition>> {
        let held = asked.held();
        let seen = asked.seen.parse().ok();
        let (mut newest, mut stop) = (self.editions.newest.clone(), self.stop.clone());
        let news = newest.wait_for(|edition| {
            edition.as_ref().is_some_and(|edition| {
                let seal = &edition.seal;
                held != Some((seal.version, seal.digest)) && seen != Some(seal.version)
            })
        });
        let wait = Duration::from_secs(asked.wait).min(WAIT_MAX);
        tokio::select! {
            found = news => found.ok().and_then(|edition| edition.clone()),
            () = tokio::time::sleep(wait) => None,
            _ = stop.wait_for(|stop| *stop) => None,
        }
    }

    /// An edge that holds what this host never published tells that this host lags behind: it says so, and counts on in a new epoch.
    async fn judge(&self, held: Version, digest: Digest) {
        let newest = self.editions.newest.borrow().clone();
        let ours = newest.map(|newest| newest.seal.version);
        let judged = self.directory.write(move |store| store.judge(held, digest));
        match judged.await {
            Ok(Kin::Ours) => {}
            Ok(Kin::Foreign) => count(&self.metrics.strange_versions, "foreign"),
            Ok(Kin::Parted) => {
                count(&self.metrics.strange_versions, "parted");
                error!(
                    event = "directory_parted",
                    held = %held,
                    ours = ours.map(|ours| ours.to_string()),
                    "an edge holds a version of the directory that was never published here: this host was restored from a backup or runs \
                     behind another one; edges hold its versions back until `mx-edge recipients accept --force`"
                );
            }
            Err(error) => warn!(event = "directory_parted", reason = %error, "cannot be told"),
        }
    }

    async fn tell(&self, edition: Arc<Edition>, held: Option<Version>) -> Response {
        let change = held.and_then(|held| Some((held, self.editions.since(held)?)));
        if let Some((from, change)) = change
            && change.len() <= edition.content.entries() / 2
        {
            let seal = edition.seal.clone();
            return json(StatusCode::IM_USED, &Delta { from, seal, change });
        }
        let mut kept = self.whole.lock().await;
        let version = edition.seal.version;
        let same = kept.as_ref().filter(|(of, _)| *of == version);
        if let Some(text) = same.and_then(|(_, text)| text.upgrade()) {
            return body(StatusCode::OK, Bytes::from_owner(Shared(text)));
        }
        let work = move || {
            let whole = Whole::new(edition.seal.clone(), &edition.content);
            serde_json::to_vec(&whole).unwrap_or_default()
        };
        let Ok(text) = tokio::task::spawn_blocking(work).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let text = Arc::new(Text(text));
        *kept = Some((version, Arc::downgrade(&text)));
        body(StatusCode::OK, Bytes::from_owner(Shared(text)))
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => body(status, text.into()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn body(status: StatusCode, text: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn answer(State(publisher): State<Arc<Publisher>>, Query(asked): Query<Asked>) -> Response {
    let held = asked.held();
    let newest = publisher.editions.newest.borrow().clone();
    let newest = newest.map(|newest| (newest.seal.version, newest.seal.digest));
    if let Some((version, digest)) = held
        && held != newest
        // What was told before it held anything back need not be told again at every poll.
        && asked.seen.is_empty()
    {
        publisher.judge(version, digest).await;
    }
    let response = match publisher.wait(&asked).await {
        Some(edition) => {
            publisher
                .tell(edition, held.map(|(version, _)| version))
                .await
        }
        None => {
            let newest = publisher.editions.newest.borrow().clone();
            match newest.map(|newest| (newest.seal.version, newest.seal.digest)) {
                None => {
                    let why = "the directory is not loaded, or empty";
                    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
                }
                newest if newest == held => StatusCode::NOT_MODIFIED.into_response(),
                Some(_) => StatusCode::CONFLICT.into_response(),
            }
        }
    };
    count(&publisher.metrics.published, response.status().as_str());
    response
}

#[cfg(test)]
mod tests;
