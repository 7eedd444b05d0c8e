//! HTTP between the house's hosts: mutual TLS with a role, plain on loopback alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::http::{connection, limited};
use crate::listener::Listener;
use crate::shutdown::Shutdown;
use crate::tls::{Identity, Role, names};
use crate::trouble::StartError;

/// Peers at once; a site has some tens of hosts.
const SESSIONS_MAX: usize = 512;
/// What a host has to say to another.
const BODY_BYTES_MAX: usize = 1 << 20;
/// From the first byte to the end of the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// The peer of a request on [`serve`], as an axum extension (`Extension<Peer>`).
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The names in its verified certificate; empty on plain loopback.
    pub names: Arc<[String]>,
}

/// Serves a router to other hosts: over mutual TLS for peers whose certificate names one of `roles`; plain when `identity` is
/// `None`, which is refused unless `listen` is loopback. Returns the bound address and runs until shutdown.
///
/// A peer of the site with another role reads 403 and which roles are let in. A handler that waits long must listen for
/// shutdown: it is cut a few seconds after that.
pub async fn serve(
    listen: SocketAddr,
    identity: Option<Identity>,
    roles: &'static [Role],
    router: Router,
    shutdown: Shutdown,
) -> Result<SocketAddr, StartError> {
    if identity.is_none() && !listen.ip().to_canonical().is_loopback() {
        return Err(StartError {
            what: format!("cannot serve other hosts on {listen} in plain"),
            why: "nobody is trusted by address".into(),
            remedy: "set [inside] certificate, key and authority, or listen on 127.0.0.1".into(),
        });
    }
    let listener = Listener::bind(listen).await?;
    let address = listener.address();
    let acceptor = identity.map(|identity| TlsAcceptor::from(identity.server()));
    let router = limited(router, BODY_BYTES_MAX);
    let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
    let end = shutdown.clone();
    let running = listener.run(
        "peer session",
        sessions,
        shutdown,
        move |stream, address| {
            let (acceptor, router, end) = (acceptor.clone(), router.clone(), end.clone());
            async move {
                match acceptor {
                    None => connection(stream, with_peer(router, address, Vec::new()), end).await,
                    Some(acceptor) => secure(stream, address, acceptor, roles, router, end).await,
                }
            }
        },
    );
    tokio::spawn(running);
    Ok(address)
}

async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    roles: &'static [Role],
    router: Router,
    end: Shutdown,
) {
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(event = "peer_refused", peer = %address, %error);
            return;
        }
        Err(_) => {
            tracing::info!(event = "peer_refused", peer = %address, error = "handshake timed out");
            return;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let names = chain.first().map_or(Vec::new(), |leaf| names(leaf));
    let let_in = roles
        .iter()
        .any(|role| names.iter().any(|name| name == role.name()));
    if let_in {
        connection(stream, with_peer(router, address, names), end).await;
    } else {
        tracing::warn!(event = "peer_refused", peer = %address, names = %names.join(","), error = "wrong role");
        connection(stream, forbidden(roles), end).await;
    }
}

fn with_peer(router: Router, address: SocketAddr, names: Vec<String>) -> Router {
    let names = names.into();
    router.layer(axum::Extension(Peer { address, names }))
}

fn forbidden(roles: &'static [Role]) -> Router {
    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
    let text = format!(
        "your certificate names none of the roles let in here: {}\n",
        names.join(", ")
    );
    Router::new().fallback(async move || (StatusCode::FORBIDDEN, text))
}
