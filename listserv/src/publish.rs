//! The directory for edges: `GET /directory?since=VERSION&wait=SECONDS` over mutual TLS. Answers when the version is another one,
//! or says 304 after the wait. An empty or unread directory is never told: edges would refuse everybody.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mail::verdict::Keys;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::directory::{Directory, Names, hex};
use crate::metrics::{Metrics, count};
use crate::secrets::Secrets;

/// Longest wait of one request; an edge asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is told to edges.
#[derive(Clone)]
pub struct Publisher {
    /// The names.
    pub directory: Directory,
    /// Further domains.
    pub config: watch::Receiver<Config>,
    /// Signs, when there is a key.
    pub secrets: watch::Receiver<Secrets>,
    /// Counters.
    pub metrics: Metrics,
    /// Ends waiting at shutdown.
    pub stop: watch::Receiver<bool>,
}

#[derive(Deserialize)]
struct Since {
    since: Option<String>,
    #[serde(default)]
    wait: u64,
}

impl Publisher {
    /// The router for [`service::control::serve`].
    pub fn router(self) -> Router {
        Router::new()
            .route("/directory", get(answer))
            .with_state(Arc::new(self))
    }

    async fn wait(&self, since: Option<&str>, wait: Duration) -> Option<Arc<Names>> {
        let mut watch = self.directory.watch();
        let mut stop = self.stop.clone();
        let news = watch.wait_for(|names| {
            names
                .as_ref()
                .is_some_and(|names| !names.is_empty() && Some(names.version()) != since)
        });
        tokio::select! {
            found = news => found.ok().and_then(|names| names.clone()),
            () = tokio::time::sleep(wait.min(WAIT_MAX)) => None,
            _ = stop.wait_for(|stop| *stop) => None,
        }
    }
}

async fn answer(State(publisher): State<Arc<Publisher>>, Query(query): Query<Since>) -> Response {
    let wait = Duration::from_secs(query.wait);
    let news = publisher.wait(query.since.as_deref(), wait).await;
    let response = match news {
        Some(names) => {
            let keys = publisher.secrets.borrow().directory.clone();
            let domains = publisher.config.borrow().domains.clone();
            let body = document(&names, &domains, keys.as_ref());
            (StatusCode::OK, axum::Json(body)).into_response()
        }
        None if publisher
            .directory
            .names()
            .is_some_and(|names| !names.is_empty()) =>
        {
            StatusCode::NOT_MODIFIED.into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the directory is not loaded, or empty",
        )
            .into_response(),
    };
    count(&publisher.metrics.published, response.status().as_str());
    response
}

/// The directory as JSON. The signature is over the version and the rest with sorted keys and no white space.
fn document(names: &Names, domains: &[String], keys: Option<&Keys>) -> Value {
    let mut all = names.domains();
    all.extend(
        domains
            .iter()
            .filter_map(|text| mail::Domain::parse(text).ok())
            .map(|domain| domain.to_string()),
    );
    all.sort_unstable();
    all.dedup();
    let rest = json!({
        "addresses": names.addresses(),
        "domains": all,
        "lists": names.lists(),
    });
    let version = names.version();
    let mut document = rest.clone();
    document["version"] = version.into();
    if let Some(keys) = keys {
        let tag = keys.sign(&[version.as_bytes(), rest.to_string().as_bytes()]);
        document["signature"] = hex(&tag).into();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Address;

    #[test]
    fn signed_over_version_and_content() {
        let names = Names::new(
            vec![Address::parse("Dev@lists.example").unwrap()],
            vec![Address::parse("joe@lists.example").unwrap()],
        );
        let keys = Keys::new(&[b"0123456789abcdef".to_vec()]).unwrap();
        let document = document(&names, &["more.example".into()], Some(&keys));
        let rest = r#"{"addresses":["joe@lists.example"],"domains":["lists.example","more.example"],"lists":["dev@lists.example"]}"#;
        let tag = keys.sign(&[names.version().as_bytes(), rest.as_bytes()]);
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(document["signature"], hex);
        assert_eq!(document["version"], names.version());
        assert_eq!(document["lists"], json!(["dev@lists.example"]));
    }
}
