//! One connection: a node for it, that node's greeting, then bytes both ways until both are done. Never looks into them; when they move
//! and who moved last tells how the node stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::{Pick, Splice};
use crate::dial::{Greeted, dial};
use crate::moves::Moves;
use crate::shared::{Claimed, Shared};
use crate::{flow, proxy};

/// What a client reads when there is no node for it; the edge spools.
const NO_NODE: &[u8] = b"421 4.3.2 no scanner is ready\r\n";

/// Buffer for what a client still sends to a node that has gone, bytes.
const LINGER_BYTES: usize = 4096;

/// How long a client may go on sending after its node has gone, so that it can read the node's last words.
const LINGER: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It had a node; both directions are done, or one has broken, or both were silent too long.
    Spliced,
    /// It was told 421.
    NoNode,
    /// The client went before it had a node.
    Lost,
}

impl Outcome {
    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Spliced => "spliced",
            Self::NoNode => "no_node",
            Self::Lost => "lost",
        }
    }
}

/// Serves one connection to its end.
pub async fn serve(mut client: TcpStream, shared: &Arc<Shared>) -> Outcome {
    let (pick, limits) = {
        let config = shared.config();
        (config.pick, config.splice)
    };
    let started = Instant::now();
    let ends = client
        .peer_addr()
        .and_then(|peer| Ok((peer, client.local_addr()?)));
    let Ok(ends) = ends else {
        return Outcome::Lost;
    };
    let Some((claimed, node)) = find(shared, ends, &pick).await else {
        let told = async {
            client.write_all(NO_NODE).await?;
            client.shutdown().await
        };
        return match timeout(LINGER, told).await {
            Ok(Ok(())) => Outcome::NoNode,
            _ => Outcome::Lost,
        };
    };
    let seconds = started.elapsed().as_secs_f64();
    shared.metrics.pick_seconds.observe(seconds);
    if client.write_all(&node.greeting).await.is_err() {
        return Outcome::Lost;
    }
    let is_cut = splice(client, node.stream, claimed.moves(), &limits).await;
    if is_cut {
        shared
            .metrics
            .failures
            .with_label_values(&["unanswered"])
            .inc();
    }
    claimed.ended(is_cut);
    Outcome::Spliced
}

/// A node that has greeted, within `pick.wait` and `pick.attempts_max`.
async fn find(
    shared: &Arc<Shared>,
    (client, local): (SocketAddr, SocketAddr),
    settings: &Pick,
) -> Option<(Claimed, Greeted)> {
    let deadline = Instant::now() + settings.wait;
    let mut tried = Vec::new();
    while tried.len() < settings.attempts_max {
        let claimed = timeout_at(deadline, shared.claim(&tried)).await.ok()?;
        let header = claimed
            .proxy_protocol()
            .then(|| proxy::client(client, local));
        match dial(claimed.address(), header.as_deref(), settings).await {
            Ok(greeted) => return Some((claimed, greeted)),
            Err(failure) => {
                let reason = [failure.label()];
                shared.metrics.failures.with_label_values(&reason).inc();
                tried.push(claimed.name().to_owned());
                claimed.failed(&failure.to_string());
            }
        }
    }
    None
}

/// Moves bytes both ways with half-close. Ends when both ends have, when the node has gone, when neither has said anything for
/// `idle`, or after `total`. Whether the node left the client without an answer.
async fn splice(
    mut client: TcpStream,
    mut node: TcpStream,
    moves: &Moves,
    settings: &Splice,
) -> bool {
    let (mut client_read, mut client_write) = client.split();
    let (mut node_read, mut node_write) = node.split();
    let moved = |by_client| move || moves.moved(by_client, Instant::now());
    let kernel_from = settings.kernel_from;
    let ended = {
        let inward = flow::run(&mut client_read, &mut node_write, kernel_from, moved(true));
        let outward = flow::run(&mut node_read, &mut client_write, kernel_from, moved(false));
        tokio::pin!(inward, outward);
        let both = async {
            let mut is_client_gone = false;
            loop {
                tokio::select! {
                    // A client may close its side and still read; a node that has closed will say nothing any more.
                    flowed = &mut outward => return (flowed, is_client_gone),
                    _ = &mut inward, if !is_client_gone => is_client_gone = true,
                }
            }
        };
        tokio::select! {
            ended = both => Some(ended),
            () = moves.silence(settings.idle) => None,
            () = sleep(settings.total) => None,
        }
    };
    let is_unanswered = moves.waits(Instant::now()).is_some();
    let Some((flowed, is_client_gone)) = ended else {
        return is_unanswered;
    };
    // Closing with unread bytes resets the connection, and a reset can overtake the node's last reply.
    let mut sink = vec![0; LINGER_BYTES];
    let drain = async { while matches!(client_read.read(&mut sink).await, Ok(n) if n > 0) {} };
    let _ = timeout(LINGER, drain).await;
    !is_client_gone && (is_unanswered || flowed.is_err())
}
