//! One HTTP/1.1 connection on any stream: every wait and every size has its limit.

use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::shutdown::Shutdown;

/// From the first byte waited for to the end of the header.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Request line and header together.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// However long a client keeps a connection busy: it may simply connect again.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(3600);
/// How long a request under way may go on after shutdown has begun.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The same router, reading bodies up to so many bytes.
pub(super) fn limited(router: Router, body_bytes_max: usize) -> Router {
    router.layer(DefaultBodyLimit::max(body_bytes_max))
}

/// Serves until the client has gone or shutdown ends it.
pub(super) async fn connection<S>(stream: S, router: Router, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(CONNECTION_LIFE_MAX) => return,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(SHUTDOWN_GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = "http_connection_failed", %error);
    }
}
