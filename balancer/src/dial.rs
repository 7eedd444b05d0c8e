//! Reaching a node: TCP, then its whole greeting, each under its deadline. What is mute or says no is not spliced to.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Pick;
use crate::greeting::{self, Progress};
use crate::proxy;

/// How long a probe waits for the reply to its QUIT.
const QUIT_DEADLINE: Duration = Duration::from_secs(1);

/// Why a node is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Connected, but no whole greeting in time.
    #[error("no greeting in time")]
    Silent,
    /// It closed the connection before its greeting was whole.
    #[error("closed before its greeting")]
    Closed,
    /// It greets with something else than 220.
    #[error("refuses: {0}")]
    Refused(String),
    /// Not SMTP or LMTP.
    #[error("not a greeting: {0}")]
    Nonsense(String),
}

impl Failure {
    /// The metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::Refused(_) => "refused",
            Self::Nonsense(_) => "nonsense",
        }
    }
}

/// A node that has greeted.
#[derive(Debug)]
pub struct Greeted {
    /// The connection.
    pub stream: TcpStream,
    /// All bytes it has sent: the greeting, and whatever followed at once.
    pub greeting: Vec<u8>,
}

/// Connects, says `header` where the node wants to know who the client is, and reads the greeting.
pub async fn dial(
    address: SocketAddr,
    header: Option<&[u8]>,
    settings: &Pick,
) -> Result<Greeted, Failure> {
    let mut stream = match timeout(settings.connect, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Connect(error.to_string())),
        Err(_) => return Err(Failure::Connect("no answer in time".into())),
    };
    // What is spliced comes in whole commands and replies: holding them back would only add delay.
    let nodelay = stream.set_nodelay(true);
    nodelay.map_err(|error| Failure::Connect(error.to_string()))?;
    match timeout(settings.greeting, greet(&mut stream, header)).await {
        Ok(Ok(greeting)) => Ok(Greeted { stream, greeting }),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Silent),
    }
}

async fn greet(stream: &mut TcpStream, header: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
    if let Some(header) = header {
        let written = stream.write_all(header).await;
        written.map_err(|_| Failure::Closed)?;
    }
    let mut bytes = Vec::with_capacity(512);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Failure::Closed),
            Ok(_) => {}
        }
        match greeting::read(&bytes) {
            Progress::More => {}
            Progress::Welcome => return Ok(bytes),
            Progress::Refusal => return Err(Failure::Refused(printable(&bytes))),
            Progress::Nonsense => return Err(Failure::Nonsense(printable(&bytes))),
        }
    }
}

/// Greeting and QUIT: a node's log shows a session that ended as sessions do.
pub async fn probe(
    address: SocketAddr,
    proxy_protocol: bool,
    settings: &Pick,
) -> Result<(), Failure> {
    let header = proxy_protocol.then(proxy::probe);
    let Greeted { mut stream, .. } = dial(address, header.as_deref(), settings).await?;
    let quit = async {
        stream.write_all(b"QUIT\r\n").await?;
        stream.read_buf(&mut Vec::with_capacity(512)).await
    };
    // It has greeted; how it says goodbye is no matter.
    let _ = timeout(QUIT_DEADLINE, quit).await;
    Ok(())
}

fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(120).collect()
}
