//! A peer on loopback that speaks just enough SMTP to misbehave in a chosen way, line by line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::attempt::Copy;

/// A connection to nobody in particular.
pub(crate) fn options() -> Options {
    Options {
        protocol: Protocol::Smtp,
        helo: "client.example".into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source: None,
        chunking: true,
    }
}

/// A message that can be sent, in two parts.
pub(crate) fn letter(to: &str) -> Copy {
    Copy {
        parts: vec![
            Bytes::from_static(b"A: b\r\n"),
            Bytes::from_static(b"\r\nx\r\n"),
        ],
        ..super::copy(to)
    }
}

/// How it behaves.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Takes everything.
    Good,
    /// Says this instead of 220 and closes.
    Refuses(&'static str),
    /// Accepts the connection and says nothing.
    Silent,
    /// Closes without a word as soon as a transaction is over.
    Leaves,
    /// Says nothing any more after the final dot.
    Stalls,
    /// Agrees to STARTTLS and then speaks something else.
    BadTls,
    /// Answers these recipients (local parts) with a refusal of its own, the message of the others with 250.
    Picky(&'static [(&'static str, &'static str)]),
}

/// What it has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    pub(crate) open: usize,
    /// From where each of them came.
    pub(crate) from: Vec<std::net::IpAddr>,
    /// Every command line.
    pub(crate) lines: Vec<String>,
    /// Messages that it took to their end.
    pub(crate) messages: Vec<String>,
}

/// Listens until dropped.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) manner: Arc<Mutex<Manner>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, manner)
    }

    pub(crate) fn on(listener: TcpListener, manner: Manner) -> Self {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let manner = Arc::new(Mutex::new(manner));
        let (theirs, how) = (seen.clone(), manner.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                let manner = how.lock().unwrap().clone();
                {
                    let mut seen = theirs.lock().unwrap();
                    seen.connections += 1;
                    seen.open += 1;
                    seen.from.push(client.ip());
                }
                let seen = theirs.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, manner, &seen).await;
                    seen.lock().unwrap().open -= 1;
                });
            }
        });
        Self {
            address,
            seen,
            manner,
            task,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub(crate) fn messages(&self) -> usize {
        self.seen.lock().unwrap().messages.len()
    }

    /// Lines that begin so.
    pub(crate) fn said(&self, verb: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let lines = seen.lines.iter().filter(|line| line.starts_with(verb));
        lines.cloned().collect()
    }
}

async fn serve(stream: TcpStream, manner: Manner, seen: &Mutex<Seen>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    match &manner {
        Manner::Refuses(reply) => return stream.write_all(format!("{reply}\r\n").as_bytes()).await,
        Manner::Silent => return wait_for_end(&mut stream).await,
        _ => stream.write_all(b"220 peer.example ESMTP\r\n").await?,
    }
    let mut accepted = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        seen.lock().unwrap().lines.push(line.to_owned());
        let verb = line.split(' ').next().unwrap_or_default();
        let reply = match (verb, &manner) {
            ("EHLO", Manner::BadTls) => "250-peer.example\r\n250 STARTTLS",
            ("EHLO" | "LHLO", _) => {
                "250-peer.example\r\n250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"
            }
            ("STARTTLS", _) => {
                stream.write_all(b"220 go\r\n").await?;
                // It waits for the ClientHello: more words in the same breath would be taken for an injection.
                stream.fill_buf().await?;
                stream.write_all(b"this is no handshake\r\n").await?;
                return wait_for_end(&mut stream).await;
            }
            ("QUIT", _) => return stream.write_all(b"221 bye\r\n").await,
            ("DATA", _) if accepted == 0 => "554 5.5.1 nobody",
            ("DATA", _) => {
                stream.write_all(b"354 go\r\n").await?;
                let message = message(&mut stream).await?;
                if let Manner::Stalls = manner {
                    return wait_for_end(&mut stream).await;
                }
                seen.lock().unwrap().messages.push(message);
                stream.write_all(b"250 2.0.0 taken\r\n").await?;
                if let Manner::Leaves = manner {
                    return Ok(());
                }
                continue;
            }
            ("MAIL", _) => {
                accepted = 0;
                "250 2.1.0 ok"
            }
            ("RCPT", Manner::Picky(refused)) => {
                let refusal = refused
                    .iter()
                    .find(|(local, _)| line.contains(&format!("<{local}@")));
                accepted += usize::from(refusal.is_none());
                refusal.map_or("250 2.1.5 ok", |(_, reply)| reply)
            }
            ("RCPT", _) => {
                accepted += 1;
                "250 2.1.5 ok"
            }
            _ => "250 2.0.0 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
}

async fn message(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut message = String::new();
    loop {
        let before = message.len();
        if stream.read_line(&mut message).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if &message[before..] == ".\r\n" {
            message.truncate(before);
            return Ok(message);
        }
    }
}

async fn wait_for_end(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ())
}
