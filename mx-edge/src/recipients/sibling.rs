//! Gives our copy of the directory to sibling edges: `GET /directory` over mutual TLS, with the list host's seal, by which they
//! check it. Nothing is given that is not in force here.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mail::Timestamp;
use mail::directory::Whole;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::source::Source;

/// Copies on their way at once: each is held as text until it is sent.
const COPIES_MAX: usize = 2;

#[derive(Clone)]
struct Giver {
    source: Arc<Source>,
    copies: Arc<Semaphore>,
}

/// The router for [`service::control::serve`].
pub fn router(source: Arc<Source>) -> Router {
    let copies = Arc::new(Semaphore::new(COPIES_MAX));
    Router::new()
        .route("/directory", get(give))
        .with_state(Giver { source, copies })
}

/// A copy that is being sent.
struct Copy {
    text: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Copy {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

async fn give(State(giver): State<Giver>) -> Response {
    let away = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    let Ok(permit) = giver.copies.try_acquire_owned() else {
        return away("copies are being sent to others; ask again");
    };
    let source = giver.source;
    let made = tokio::task::spawn_blocking(move || {
        let current = source.current()?;
        let mut whole = Whole::new(current.seal.clone()?, &current.content);
        let now = Timestamp::now();
        let age = source.age(now);
        whole.confirmed = age.map(|age| now.0.saturating_sub(age.as_millis() as u64));
        serde_json::to_vec(&whole).ok()
    });
    match made.await {
        Ok(Some(text)) => {
            let copy = Copy {
                text,
                _permit: permit,
            };
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (kind, Bytes::from_owner(copy)).into_response()
        }
        Ok(None) => away("no directory is loaded here"),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
