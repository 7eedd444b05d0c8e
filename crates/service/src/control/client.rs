//! Asking a daemon: over its control socket, or another host's over mutual TLS.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Request;
use crate::tls::{Identity, Role};

/// A command's answer: a queue's listing is the largest.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// A command may wait for a drain.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3600);

/// A command's request to the daemon behind a control socket: status code and body. The error says what to do.
pub async fn ask(socket: &Path, request: &Request) -> Result<(u16, Vec<u8>), String> {
    let shown = socket.display();
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "the program is not running: nobody answers at {shown}; start it, or give with --config the file it runs with"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "the control socket {shown} is not yours; run this as root or as the program's user"
        ),
        _ => format!("cannot reach the control socket {shown}: {error}"),
    })?;
    let answer = exchange(stream, "localhost", request, ANSWER_BYTES_MAX);
    match tokio::time::timeout(ANSWER_WAIT_MAX, answer).await {
        Ok(answer) => answer.map_err(|error| format!("the program at {shown}: {error}")),
        Err(_) => Err(format!(
            "the program at {shown} gave no answer in {ANSWER_WAIT_MAX:?}"
        )),
    }
}

/// A request to another host's [`serve`](super::serve): status code and body, at most `limit_bytes`. The peer must show a
/// certificate with `role`. Plain, without an identity, on loopback alone.
pub async fn fetch(
    address: SocketAddr,
    identity: Option<&Identity>,
    role: Role,
    request: &Request,
    limit_bytes: usize,
    deadline: Duration,
) -> Result<(u16, Vec<u8>), String> {
    if identity.is_none() && !address.ip().to_canonical().is_loopback() {
        return Err(format!(
            "{address} would be asked in plain, and nobody is trusted by address; set [inside] certificate, key and authority"
        ));
    }
    let answer = async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        match identity {
            None => exchange(stream, role.name(), request, limit_bytes).await,
            Some(identity) => {
                let connector = TlsConnector::from(identity.client());
                let stream = connector.connect(role.server_name(), stream).await;
                let stream = stream.map_err(|error| format!("TLS as {}: {error}", role.name()))?;
                exchange(stream, role.name(), request, limit_bytes).await
            }
        }
    };
    let answer = tokio::time::timeout(deadline, answer).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer in {deadline:?}")));
    answer.map_err(|error| format!("{} at {address}: {error}", role.name()))
}

/// One request on one connection.
async fn exchange<S>(
    stream: S,
    host: &str,
    request: &Request,
    limit_bytes: usize,
) -> Result<(u16, Vec<u8>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut wire = axum::http::Request::builder()
        .method(request.method)
        .uri(&request.path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    let body = match &request.body {
        None => Body::empty(),
        Some(json) => {
            wire = wire.header(header::CONTENT_TYPE, "application/json");
            Body::from(json.to_string())
        }
    };
    let wire = wire.body(body);
    let wire = wire.map_err(|error| format!("{} {}: {error}", request.method, request.path))?;

    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answer = async {
        let response = sender.send_request(wire).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), limit_bytes)
            .collect()
            .await;
        let body: Bytes = body
            .map_err(|error| format!("reading the answer: {error}"))?
            .to_bytes();
        Ok((status, body.into()))
    };
    // The connection is driven here, not by a task: given up, it is closed.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = answer.as_mut() => answer,
        ended = connection => match ended {
            // All was read; the answer is whole or says what is missing.
            Ok(()) => answer.await,
            Err(error) => Err(failed(error)),
        },
    }
}
