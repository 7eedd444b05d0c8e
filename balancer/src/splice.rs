//! One connection: a node for it, that node's greeting, then bytes both ways until both are done. Never looks into them.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::Config;
use crate::dial::{Greeted, dial};
use crate::shared::{Claimed, Shared};

/// What a client reads when there is no node for it; the edge spools.
const NO_NODE: &[u8] = b"421 4.3.2 no scanner is ready\r\n";

/// Buffer of one direction, bytes.
const BUFFER_BYTES: usize = 16_384;

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
    let config = shared.config();
    let started = Instant::now();
    let Some((_claimed, node)) = find(shared, &config).await else {
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
    splice(client, node.stream, config.splice.idle).await;
    Outcome::Spliced
}

/// A node that has greeted, within `pick.wait` and `pick.attempts_max`.
async fn find(shared: &Arc<Shared>, config: &Config) -> Option<(Claimed, Greeted)> {
    let deadline = Instant::now() + config.pick.wait;
    let mut tried = Vec::new();
    while tried.len() < config.pick.attempts_max {
        let claimed = timeout_at(deadline, shared.claim(&tried)).await.ok()?;
        match dial(claimed.address(), &config.pick).await {
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

/// Copies both ways with half-close. Ends when both ends have, when the node has gone, or when neither has said anything for `idle`.
async fn splice(mut client: TcpStream, mut node: TcpStream, idle: Duration) {
    let (mut client_read, mut client_write) = client.split();
    let (mut node_read, mut node_write) = node.split();
    let (moved, mut seen) = watch::channel(Instant::now());
    let inward = copy(&mut client_read, &mut node_write, &moved);
    let outward = copy(&mut node_read, &mut client_write, &moved);
    let is_node_gone = {
        tokio::pin!(inward, outward);
        let both = async {
            let mut inward_done = false;
            loop {
                tokio::select! {
                    // A client may close its side and still read; a node that has closed will say nothing any more.
                    () = &mut outward => return true,
                    () = &mut inward, if !inward_done => inward_done = true,
                }
            }
        };
        tokio::select! {
            is_node_gone = both => is_node_gone,
            () = silence(&mut seen, idle) => false,
        }
    };
    if is_node_gone {
        // Closing with unread bytes resets the connection, and a reset can overtake the node's last reply.
        let mut sink = vec![0; BUFFER_BYTES];
        let drain = async { while matches!(client_read.read(&mut sink).await, Ok(n) if n > 0) {} };
        let _ = timeout(LINGER, drain).await;
    }
}

/// Copies until the reader ends or either breaks, then closes the writer.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &watch::Sender<Instant>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        moved.send_replace(Instant::now());
    }
    let _ = to.shutdown().await;
}

/// Resolves when nothing has moved for `idle`.
async fn silence(seen: &mut watch::Receiver<Instant>, idle: Duration) {
    loop {
        let until = *seen.borrow_and_update() + idle;
        sleep_until(until).await;
        if *seen.borrow() + idle <= Instant::now() {
            return;
        }
    }
}
