//! spamd and clamd as they speak, judging by plain words: `GTUBE`, `SPAMMY`, `EICAR`; `HOLD` waits until it is let go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::list_host::ListHost;
use super::{Scanner, Setup};

/// A stub daemon; dropped, it is gone, with its port.
pub struct Stub {
    pub address: SocketAddr,
    /// Messages scanned that were no canaries.
    pub scans: Arc<AtomicUsize>,
    /// Messages that wait.
    pub held: Arc<AtomicUsize>,
    go: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A scanner between stubs and a list host.
pub struct Stubbed {
    pub spamd: Stub,
    pub clamd: Stub,
    pub list_host: ListHost,
    pub scanner: Scanner,
}

impl Stubbed {
    /// With `more` in its configuration; ready.
    pub async fn with(more: &str) -> Self {
        Self::between(Stub::spamd().await, Stub::clamd().await, more).await
    }

    /// Between these, likewise.
    pub async fn between(spamd: Stub, clamd: Stub, more: &str) -> Self {
        let list_host = ListHost::start().await;
        let scanner = Scanner::ready(&Setup::of(&spamd, &clamd, &list_host, more)).await;
        Self {
            spamd,
            clamd,
            list_host,
            scanner,
        }
    }
}

#[derive(Clone)]
struct Shared {
    scans: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    go: watch::Receiver<bool>,
}

impl Shared {
    /// Counts a message, and holds it where it asks for that.
    async fn seen(&mut self, message: &[u8]) {
        if has(message, b"canary.invalid") || message.len() < 100 {
            return;
        }
        self.scans.fetch_add(1, Ordering::SeqCst);
        if has(message, b"HOLD") {
            self.held.fetch_add(1, Ordering::SeqCst);
            let _ = self.go.wait_for(|go| *go).await;
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

pub fn has(message: &[u8], word: &[u8]) -> bool {
    // Not window by window: messages of some megabytes come, too.
    let starts = message.iter().enumerate().filter(|(_, b)| **b == word[0]);
    let mut found = starts.map(|(at, _)| message[at..].starts_with(word));
    found.any(|found| found)
}

impl Stub {
    pub async fn spamd() -> Self {
        Self::start("127.0.0.1:0", |stream, shared| async move {
            let _ = spamd(stream, shared, true).await;
        })
        .await
    }

    /// One that has lost its rules: it answers, and everything is ham.
    pub async fn spamd_without_rules() -> Self {
        Self::start("127.0.0.1:0", |stream, shared| async move {
            let _ = spamd(stream, shared, false).await;
        })
        .await
    }

    pub async fn clamd() -> Self {
        Self::clamd_limited(usize::MAX, usize::MAX).await
    }

    /// One with a StreamMaxLength.
    pub async fn clamd_refusing(bytes: usize) -> Self {
        Self::clamd_limited(bytes, usize::MAX).await
    }

    /// One with a MaxFileSize: what is larger it calls clean.
    pub async fn clamd_blind(bytes: usize) -> Self {
        Self::clamd_limited(usize::MAX, bytes).await
    }

    /// One that tells this version.
    pub async fn clamd_of(version: &'static str) -> Self {
        Self::clamd_as(version, usize::MAX, usize::MAX).await
    }

    async fn clamd_limited(stream_max: usize, file_max: usize) -> Self {
        Self::clamd_as("ClamAV 1.4.6/1/stub", stream_max, file_max).await
    }

    async fn clamd_as(version: &'static str, stream_max: usize, file_max: usize) -> Self {
        Self::start("127.0.0.1:0", move |stream, shared| async move {
            let _ = clamd(stream, shared, version, stream_max, file_max).await;
        })
        .await
    }

    /// The same daemon, back on its port.
    pub async fn spamd_again(address: SocketAddr) -> Self {
        Self::start(&address.to_string(), |stream, shared| async move {
            let _ = spamd(stream, shared, true).await;
        })
        .await
    }

    async fn start<F, T>(address: &str, serve: F) -> Self
    where
        F: Fn(TcpStream, Shared) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (go, wait) = watch::channel(false);
        let shared = Shared {
            scans: Arc::default(),
            held: Arc::default(),
            go: wait,
        };
        let (scans, held) = (shared.scans.clone(), shared.held.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            address,
            scans,
            held,
            go,
            task,
        }
    }

    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::SeqCst)
    }

    /// Waits until so many messages are held.
    pub async fn holds(&self, count: usize) {
        super::until("the daemon holds messages", async || {
            (self.held.load(Ordering::SeqCst) == count).then_some(())
        })
        .await;
    }

    /// Lets all held messages go.
    pub fn let_go(&self) {
        self.go.send_replace(true);
    }

    /// Stops listening.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn spamd(stream: TcpStream, mut shared: Shared, has_rules: bool) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    assert_eq!(line, "SYMBOLS SPAMC/1.5\r\n");
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    shared.seen(&message).await;
    let (score, tests) = match () {
        () if has(&message, b"GTUBE") && has_rules => ("1000.0", "GTUBE"),
        () if has(&message, b"SPAMMY") => ("6.4", "SOME_RULE,OTHER_RULE"),
        () => ("-0.1", "GOOD_RULE"),
    };
    let answer = format!(
        "SPAMD/1.1 0 EX_OK\r\nContent-length: {}\r\nSpam: False ; {score} / 5.0\r\n\r\n{tests}",
        tests.len()
    );
    stream.write_all(answer.as_bytes()).await
}

async fn clamd(
    mut stream: TcpStream,
    mut shared: Shared,
    version: &str,
    stream_max: usize,
    file_max: usize,
) -> std::io::Result<()> {
    let mut command = Vec::new();
    while command.last() != Some(&0) {
        command.push(stream.read_u8().await?);
    }
    if command == b"zVERSION\0" {
        return stream.write_all(format!("{version}\0").as_bytes()).await;
    }
    assert_eq!(command, b"zINSTREAM\0");
    let mut message = Vec::new();
    loop {
        let length = stream.read_u32().await? as usize;
        if length == 0 {
            break;
        }
        let start = message.len();
        if start + length > stream_max {
            let refusal = b"INSTREAM size limit exceeded. ERROR\0";
            stream.write_all(refusal).await?;
            // Closed with bytes unread the refusal itself might be lost.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        message.resize(start + length, 0);
        stream.read_exact(&mut message[start..]).await?;
    }
    if !has(&message, b"SPAMD-ONLY") {
        shared.seen(&message).await;
    }
    match message.len() <= file_max && has(&message, b"EICAR") {
        true => stream.write_all(b"stream: Eicar-Test FOUND\0").await,
        false => stream.write_all(b"stream: OK\0").await,
    }
}
