//! One large message goes to twenty sites at the same time: its body is in memory once, however many attempt it. Measured by the
//! process's peak of resident memory; LARGE_BODY_MIB says how large (`-- --nocapture` shows what was measured).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use delivery::attempt::{Connections, Route};
use delivery::engine::Settings;
use delivery::expiry::Expiry;
use delivery::{Attempted, Copy, Engine, Owner};
use mail::{Address, Envelope, Reply, ReversePath, Timestamp};
use service::shutdown::Shutdown;
use smtp::Protocol;
use smtp::client::{Options, Timeouts, TlsPolicy};
use spool::embedded::{self, Embedded};
use spool::{Batch, Class, Destination, Destinations, Head, Lease, NewBatch, NewMessage, Spool};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const SITES: usize = 20;
const LINE: &[u8] =
    b"a line of a message that has a great many of them, each as long as they mostly are\r\n";

/// Puts a field in front and sends slices of the body, as a list host does.
struct Splicer;

#[async_trait::async_trait]
impl Owner for Splicer {
    fn render(&self, head: &Head, batch: &Batch, body: &Bytes) -> Result<Vec<Copy>, Reply> {
        Ok(vec![Copy {
            envelope: Envelope {
                reverse_path: head.reverse_path.clone(),
                parameters: head.parameters.clone(),
                recipients: batch.recipients.clone(),
            },
            indices: (0..batch.recipients.len()).collect(),
            parts: vec![
                Bytes::from_static(b"List-Id: <dev.lists.example>\r\n"),
                body.slice(..LINE.len()),
                body.slice(LINE.len()..),
            ],
            xforward: None,
        }])
    }

    async fn conclude(&self, _: &Lease, _: &[Attempted]) -> Result<Bytes, spool::Error> {
        Ok(Bytes::new())
    }
}

/// Takes one message after the other and keeps none of it.
async fn serve(stream: TcpStream, taken: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    stream.write_all(b"220 sink\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "DATA" => b"354 go on\r\n",
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).await?;
        if verb == "DATA" {
            let bytes = drain(&mut stream).await?;
            taken.fetch_add(bytes, Ordering::SeqCst);
            stream.write_all(b"250 taken\r\n").await?;
        }
    }
}

/// Reads to the end of the message; the one sent here has that end nowhere else, and nothing follows it.
async fn drain(stream: &mut BufReader<TcpStream>) -> std::io::Result<u64> {
    let (mut bytes, mut last, mut buffer) = (0, Vec::new(), vec![0; 64 * 1024]);
    while !last.ends_with(b"\r\n.\r\n") {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes += read as u64;
        last.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
        last.drain(..last.len().saturating_sub(5));
    }
    Ok(bytes)
}

async fn sink(taken: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let taken = taken.clone();
            tokio::spawn(async move { serve(stream, &taken).await });
        }
    });
    address
}

fn options() -> Options {
    Options {
        protocol: Protocol::Smtp,
        helo: "lists.example".into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source: None,
        chunking: false,
    }
}

fn settings(routes: BTreeMap<Box<str>, Arc<Connections>>) -> Settings {
    Settings {
        host: "here".into(),
        serves: Destinations::Except(Vec::new().into()),
        routes,
        pinned: BTreeMap::new(),
        default_route: None,
        exchangers: None,
        options: options(),
        egresses: BTreeMap::new(),
        tls: None,
        sink: false,
        attempts_max: 500,
        bodies_bytes_max: delivery::engine::BODIES_BYTES_MAX,
        turn_target: delivery::engine::TURN_TARGET,
        site_connections_max: 20,
        schedule: Default::default(),
        expiry: Expiry::NEVER,
        rules: Default::default(),
        // Nobody pauses it.
        paused: tokio::sync::watch::channel(false).1,
    }
}

fn route(number: usize) -> Box<str> {
    format!("site-{number}").into()
}

fn spool_options(path: &Path) -> embedded::Options {
    embedded::Options {
        free_bytes_min: 0,
        free_inodes_min: 0,
        ..embedded::Options::new(path.join("spool"))
    }
}

/// Stores the message, and lets go of it.
async fn store(path: &Path, bytes: usize) {
    let spool = Embedded::open(spool_options(path)).unwrap();
    let now = Timestamp::now();
    let batches = (0..SITES).map(|number| NewBatch {
        destination: Destination::Route(route(number)),
        class: Class::Ordinary,
        due: now,
        recipients: vec![Address::parse("member@x.org").unwrap().into()],
        template: Bytes::new(),
        replies: Default::default(),
    });
    let accepted = spool.accept(
        NewMessage {
            arrival: now,
            reverse_path: ReversePath::Null,
            parameters: Default::default(),
            facts: Bytes::new(),
            body: vec![Bytes::from(LINE.repeat(bytes / LINE.len()))],
            batches: batches.collect(),
        },
        None,
    );
    accepted.await.unwrap();
    spool.close().await;
}

/// A line of /proc/self/status, bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim_start_matches(':').trim();
    kib.trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_in_memory_once() {
    let mib = std::env::var("LARGE_BODY_MIB").map_or(24, |mib| mib.parse().unwrap());
    let bytes = mib << 20;
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), bytes).await;
    let spool: Arc<dyn Spool> = Arc::new(Embedded::open(spool_options(folder.path())).unwrap());
    let taken = Arc::new(AtomicU64::new(0));
    let mut routes = BTreeMap::new();
    for number in 0..SITES {
        let next_hop = Route {
            hosts: vec![sink(taken.clone()).await],
            options: options(),
            transactions_max: 1,
            connections_max: 1,
        };
        routes.insert(route(number), Arc::new(Connections::new(next_hop)));
    }
    let registry = prometheus::Registry::new();
    let engine = Engine::new(
        settings(routes),
        spool.clone(),
        Arc::new(Splicer),
        &registry,
    );
    // The peak counts from here.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let shutdown = Shutdown::new();
    let running = tokio::spawn(engine.run(shutdown.clone()));
    let done = async {
        while !spool.tally().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), done)
        .await
        .expect("all is delivered");
    let peak = memory("VmHWM").saturating_sub(before);
    shutdown.begin();
    running.await.unwrap();
    let sent = taken.load(Ordering::SeqCst);
    assert!(sent >= (SITES * (bytes - LINE.len())) as u64, "{sent}");
    println!(
        "{mib} MiB to {SITES} sites: {:.1} MiB more at the peak than before, {:.2} of the body",
        peak as f64 / f64::from(1 << 20),
        peak as f64 / bytes as f64
    );
    // Once, and what connections, buffers and the allocator need.
    assert!(
        peak < bytes as u64 * 3 / 2 + (24 << 20),
        "{peak} bytes at the peak for a body of {bytes}"
    );
}
