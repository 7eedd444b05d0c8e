//! Clients that are to be refused: as many at once as wanted, each from an address of its own, each session to its end. What they hear is
//! checked; one answer that is not the expected one ends the measurement, since it would compare different work.

#![allow(dead_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// One session may take so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server that says nothing for so long has not seen the client.
const UNHEARD: Duration = Duration::from_secs(5);
/// The first ones come one after the other over so long, so that they stay apart: all at once would be more questions than a name server's socket holds.
const START: Duration = Duration::from_secs(2);

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Waits for its greeting, then one refused recipient, then QUIT.
    Patient,
    /// The same, but speaks at once.
    Hasty,
    /// So many recipients, all refused, each after the reply to the one before.
    Guesses(usize),
    /// So many recipients, all refused, in one flight with MAIL.
    Volley(usize),
}

/// Who calls.
#[derive(Clone)]
pub struct Callers {
    /// The server's name, for errors.
    pub server: &'static str,
    pub to: SocketAddr,
    pub manner: Manner,
    /// At once.
    pub sessions: usize,
    /// The forward-path of this number.
    pub recipient: fn(u64) -> String,
    /// The address that the caller of this number has.
    pub from: fn(u64) -> IpAddr,
}

impl Callers {
    /// Calls for so long, then lets those end that are under way. `next` numbers callers; returns how many recipients were refused.
    pub async fn run(&self, turn: Duration, next: &Arc<AtomicU64>) -> Result<u64, crate::Failure> {
        let until = Instant::now() + turn;
        let mut calling = JoinSet::new();
        for nth in 0..self.sessions {
            let (this, next) = (self.clone(), Arc::clone(next));
            let wait = START.mul_f64(nth as f64 / self.sessions as f64);
            calling.spawn(async move {
                tokio::time::sleep(wait).await;
                let mut refused = 0;
                while Instant::now() < until {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let called = timeout(PATIENCE, this.call(number)).await;
                    let ended = called.unwrap_or_else(|_| Err(io::Error::other("no end in time")));
                    refused += ended.map_err(|error| this.failure(number, &error))?;
                }
                io::Result::Ok(refused)
            });
        }
        let mut refused = 0;
        while let Some(ended) = calling.join_next().await {
            refused += ended??;
        }
        Ok(refused)
    }

    fn failure(&self, number: u64, error: &io::Error) -> io::Error {
        let Self { server, manner, .. } = self;
        io::Error::other(format!("{manner:?} caller {number} of {server}: {error}"))
    }

    async fn call(&self, number: u64) -> io::Result<u64> {
        let mut line = Line::dial(self.to, (self.from)(number)).await?;
        // Postfix's queue of connections is short: when it is full the system drops the last step of a handshake, and with SYN cookies
        // nobody tells the client. No server has had work with it.
        if timeout(UNHEARD, line.stream.readable()).await.is_err() {
            return Ok(0);
        }
        let mut hello = b"EHLO client.example\r\n".to_vec();
        if self.manner == Manner::Hasty {
            line.stream.write_all(&hello).await?;
            hello.clear();
        }
        // Who has spoken gets no more than the greeting's first line from postscreen.
        if self.manner != Manner::Hasty {
            line.expect(b"220").await?;
            line.stream.write_all(&hello).await?;
        }
        line.skip_to(b"250 ").await?;
        let count = match self.manner {
            Manner::Patient | Manner::Hasty => 1,
            Manner::Guesses(count) | Manner::Volley(count) => count as u64,
        };
        let mut out = b"MAIL FROM:<author@sender.example>\r\n".to_vec();
        let volley = matches!(self.manner, Manner::Volley(_));
        if !volley {
            line.say(&mut out).await?;
            line.expect(b"250").await?;
        }
        for nth in 0..count {
            let to = (self.recipient)(number * count + nth);
            out.extend_from_slice(format!("RCPT TO:<{to}>\r\n").as_bytes());
            if !volley {
                line.say(&mut out).await?;
                line.expect(b"55").await?;
            }
        }
        if volley {
            line.say(&mut out).await?;
            line.expect(b"250").await?;
            for _ in 0..count {
                line.expect(b"55").await?;
            }
        }
        out.extend_from_slice(b"QUIT\r\n");
        line.say(&mut out).await?;
        line.expect(b"221").await?;
        Ok(count)
    }
}

/// A connection.
pub struct Line {
    pub stream: TcpStream,
    input: Vec<u8>,
    read: usize,
}

impl Line {
    pub async fn dial(to: SocketAddr, from: IpAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        socket.set_nodelay(true)?;
        Ok(Self {
            stream: socket.connect(to).await?,
            input: Vec::new(),
            read: 0,
        })
    }

    pub async fn say(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let said = self.stream.write_all(out).await;
        out.clear();
        said
    }

    /// The next reply; an error unless each of its lines begins so.
    pub async fn expect(&mut self, begin: &[u8]) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            if !line.starts_with(begin) {
                let wanted = String::from_utf8_lossy(begin);
                let line = String::from_utf8_lossy(line);
                return Err(io::Error::other(format!("{line:?} instead of {wanted}")));
            }
            if line.get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }

    /// Reads on behind a line that begins so, over others that are no refusal.
    pub async fn skip_to(&mut self, begin: &[u8]) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            if line.starts_with(begin) {
                return Ok(());
            }
            if !line.starts_with(b"2") {
                let line = String::from_utf8_lossy(line);
                return Err(io::Error::other(format!("{line:?}")));
            }
        }
    }

    async fn line(&mut self) -> io::Result<&[u8]> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[self.read..]) {
                let start = self.read;
                self.read += end + 1;
                return Ok(&self.input[start..start + end]);
            }
            if self.read == self.input.len() {
                self.input.clear();
                self.read = 0;
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
