//! A daemon's own control: the Unix socket with everything, and TCP without the program's routes.
//! It outlives the program's work, so that a drain can be watched.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::http::{connection, limited};
use super::socket::Socket;
use super::{Caller, Control, Readiness, Settings, lock};
use crate::listener::Listener;
use crate::metrics::ServiceMetrics;
use crate::shutdown::Shutdown;
use crate::trouble::StartError;

/// Commands and scrapes at once, on each of the two.
const SESSIONS_MAX: usize = 64;
/// Commands may carry a message.
const BODY_BYTES_MAX: usize = 128 << 20;
/// The wait after a failed accept on the Unix socket.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the routes of every program show.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) started: OffsetDateTime,
    pub(crate) control: Control,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: ServiceMetrics,
    /// The program's: what it still does.
    pub(crate) work: Shutdown,
    /// Keys whose change waits for the next start.
    pub(crate) waiting: Mutex<Vec<String>>,
}

impl Server {
    /// Binds both and serves them until `end`, which is not the program's own shutdown.
    pub(crate) async fn start(
        self: Arc<Self>,
        settings: &Settings,
        end: Shutdown,
    ) -> Result<(), StartError> {
        let socket = Socket::bind(&settings.socket)?;
        let listener = Listener::bind(settings.listen).await?;
        self.control.publish("control", (&listener).into());
        let open = limited(self.routes(), BODY_BYTES_MAX);
        let full = limited(
            self.routes().fallback(program_routes(&self.control)),
            BODY_BYTES_MAX,
        );

        let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
        let tcp_end = end.clone();
        tokio::spawn(
            listener.run("control", sessions, end.clone(), move |stream, _| {
                connection(stream, open.clone(), tcp_end.clone())
            }),
        );
        let activity = end.activity("control socket");
        tokio::spawn(async move {
            let _until_the_file_is_gone = activity;
            accept_unix(socket, full, end).await;
        });
        Ok(())
    }

    fn routes(self: &Arc<Self>) -> Router {
        let (status, ready, metrics) = (self.clone(), self.clone(), self.clone());
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async move || ready.readyz()))
            .route("/status", get(async move || axum::Json(status.status())))
            .route("/metrics", get(async move || metrics.metrics()))
    }

    fn readyz(&self) -> Response {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() {
            return "ready\n".into_response();
        }
        let mut text = String::from("not ready\n");
        for (condition, reason) in reasons {
            text.push_str(&format!("{condition}: {reason}\n"));
        }
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }

    fn status(&self) -> serde_json::Value {
        let reasons = self.readiness.reasons();
        let control = &self.control;
        let certificates = control.certificates().into_iter();
        let certificates: serde_json::Map<_, _> = certificates
            .map(|(name, left)| (name.into(), json!({ "seconds_left": left })))
            .collect();
        json!({
            "name": self.name,
            "version": self.version,
            "process": std::process::id(),
            "started": self.started.format(&Rfc3339).unwrap_or_default(),
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "draining": self.work.begun(),
            "activities": self.work.activities(),
            "waiting_for_start": *lock(&self.waiting),
            "listeners": control.listeners(),
            "certificates": certificates,
            "program": control.program_status(),
        })
    }

    /// A reload has found these keys changed, which the program reads at its start alone.
    pub(crate) fn waits(&self, keys: Vec<String>) {
        self.metrics.waiting(keys.len());
        *lock(&self.waiting) = keys;
    }

    fn metrics(&self) -> Response {
        let ready = self.readiness.reason().is_none();
        let text = self.metrics.text(&self.control, ready, &self.work);
        ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
    }
}

/// Asks for the program's routes at each request: the socket answers before the program has made them.
fn program_routes(control: &Control) -> impl Fn(Request) -> RouteFuture + Clone + Send + 'static {
    let control = control.clone();
    move |request| {
        let routes = control.program_routes();
        Box::pin(async move {
            match routes {
                Some(mut routes) => match routes.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
                None => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the program is starting and takes no commands yet; try again\n",
                )
                    .into_response(),
            }
        })
    }
}

type RouteFuture = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

/// Accepts until the end; its own user alone can connect, so a failure is only ever a lack of descriptors.
async fn accept_unix(socket: Socket, router: Router, end: Shutdown) {
    let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
    let accepting = async {
        loop {
            let permit = sessions.clone().acquire_owned().await;
            match socket.listener.accept().await {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().map(|peer| peer.uid()).ok();
                    let router = router.clone().layer(axum::Extension(Caller { uid }));
                    let session = connection(stream, router, end.clone());
                    let activity = end.activity("control session");
                    tokio::spawn(async move {
                        let _held = (permit, activity);
                        session.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(event = "accept_failed", listener = "control socket", %error);
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = end.wait() => {}
        never = accepting => { let _: Infallible = never; }
    }
}
