//! Where sessions come in: a connection becomes a session with the client, or with the client that a listed proxy names. A listed
//! proxy must say whom it brings, and nobody else is asked: it is never guessed from what comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use service::listener::Listener;
use service::shutdown::Shutdown;
use smtp::proxy::Header;
use smtp::server::{NotProxied, Settings, proxy_header, serve_between};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::network::contains;
use crate::reason::Reason;
use crate::receive::{Edge, Session};
use crate::rules::Rules;
use crate::served::Served;

/// For a PROXY header; proxy-protocol.txt asks for 3 s at least.
const PROXY_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Doors {
    /// Bound.
    pub listeners: Vec<Listener>,
    /// For new sessions.
    pub settings: watch::Receiver<Arc<Served>>,
}

/// Connections beyond the last session that are told so at once; more wait in the kernel's backlog.
const TURNED_AWAY_AT_ONCE: usize = 256;
/// For one of them to read why, before the connection is torn down.
const LINGER: Duration = Duration::from_millis(200);

impl Doors {
    /// Serves sessions until shutdown.
    pub fn open(self, tasks: &mut JoinSet<()>, edge: &Arc<Edge>, shutdown: &Shutdown) {
        let accepted_max = edge.admission.sessions_max + TURNED_AWAY_AT_ONCE;
        let sessions = Semaphore::new(accepted_max.min(Semaphore::MAX_PERMITS));
        let sessions = Arc::new(sessions);
        for listener in self.listeners {
            let (edge, settings) = (Arc::clone(edge), self.settings.clone());
            let stop = shutdown.watch();
            let serve = move |stream, peer| {
                let (edge, settings) = (Arc::clone(&edge), settings.borrow().clone());
                let place = edge.admission.sessions.take(edge.admission.sessions_max);
                let stop = stop.clone();
                async move {
                    match place {
                        // Boxed, so that a session costs its own state once and not a second time for the way here.
                        Some(_place) => Box::pin(serve(edge, stream, peer, settings, stop)).await,
                        None => Box::pin(turn_away(edge, stream)).await,
                    }
                }
            };
            tasks.spawn(listener.run("session", Arc::clone(&sessions), shutdown.clone(), serve));
        }
    }
}

/// No place is left: said at once, at the cost of one write. Nobody is asked whom it brings.
async fn turn_away(edge: Arc<Edge>, mut stream: TcpStream) {
    let reason = Reason::Sessions;
    edge.count_turned_away(reason);
    let mut reply = Vec::new();
    // Nothing is recorded of it that a token would find.
    reason.reply("").write(&mut reply);
    // A connection that is closed over what it has sent is reset, and takes the reply with it.
    let _ = tokio::time::timeout(LINGER, async {
        stream.write_all(&reply).await?;
        stream.shutdown().await?;
        stream.read(&mut [0; 512]).await
    })
    .await;
}

/// Both ends of a connection, as sessions see them.
struct Ends {
    client: SocketAddr,
    local: SocketAddr,
    /// Nobody is behind the proxy.
    check: bool,
}

async fn serve(
    edge: Arc<Edge>,
    mut stream: TcpStream,
    peer: SocketAddr,
    served: Arc<Served>,
    stop: watch::Receiver<bool>,
) {
    let rules = edge.rules();
    let Some(ends) = ends(&edge, &rules, &mut stream, peer).await else {
        return;
    };
    let settings = Arc::clone(served.of(ends.client.ip()));
    let settings = trusting(&rules, peer, settings);
    let mut session = match ends.check {
        true => Session::check(edge, rules, ends.client),
        false => Session::new(edge, rules, ends.client),
    };
    let between = (ends.client, ends.local);
    let ending = serve_between(stream, between, settings, &mut session, stop).await;
    session.ended(ending);
}

/// Who is at the ends; none when the connection is not served.
async fn ends(
    edge: &Edge,
    rules: &Rules,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Ends> {
    let local = stream.local_addr().ok()?;
    let direct = |check| Ends {
        client: peer,
        local,
        check,
    };
    if !contains(&rules.door.proxies, peer.ip()) {
        return Some(direct(false));
    }
    let header = proxy_header(stream, PROXY_PATIENCE).await;
    let label = match &header {
        Ok(Header::Client { .. }) => "client",
        Ok(Header::Check) => "check",
        Err(NotProxied::Header(_)) => "bad",
        Err(NotProxied::TimedOut) => "timed_out",
        Err(NotProxied::Lost) => "lost",
    };
    edge.metrics.proxied.with_label_values(&[label]).inc();
    match header {
        Ok(Header::Client { client, local }) => Some(Ends {
            client,
            local,
            check: false,
        }),
        Ok(Header::Check) => Some(direct(true)),
        // A proxy that looks whether the port is open.
        Err(why @ NotProxied::Lost) => {
            debug!(event = "proxy", proxy = %peer, %why);
            None
        }
        Err(why) => {
            warn!(
                event = "proxy",
                proxy = %peer,
                %why,
                remedy = "let it send the PROXY header, or take it out of mail.proxies",
                "a listed proxy did not say whom it brings; the connection is closed"
            );
            None
        }
    }
}

/// The settings, with XCLIENT for who may say it.
fn trusting(rules: &Rules, peer: SocketAddr, settings: Arc<Settings>) -> Arc<Settings> {
    if !contains(&rules.door.xclient_networks, peer.ip()) {
        return settings;
    }
    let mut trusting = Settings::clone(&settings);
    trusting.guard.xclient = true;
    Arc::new(trusting)
}
