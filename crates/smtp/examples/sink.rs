//! Accepts everything on a loopback port and drops it: something to try other people's clients on.
//!
//!     cargo run -p smtp --example sink -- 127.0.0.1:2525 [lmtp]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Handler, Presence, Settings, Timeouts, serve};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

struct Sink(Protocol);

#[async_trait::async_trait]
impl Handler for Sink {
    async fn mail(
        &mut self,
        _: &Facts,
        _: &ReversePath,
        _: &MailParameters,
        _: Option<u64>,
    ) -> Result<(), Reply> {
        Ok(())
    }

    async fn rcpt(&mut self, _: &Facts, _: &Envelope, _: &Recipient) -> Result<(), Reply> {
        Ok(())
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        _: &Presence,
    ) -> Vec<Reply> {
        let count = envelope.recipients.len();
        println!(
            "{} <{}> {count} {}",
            facts.session,
            envelope.reverse_path,
            message.len()
        );
        let replies = if self.0 == Protocol::Lmtp { count } else { 1 };
        vec![Reply::new(250, (2, 0, 0), "Dropped"); replies]
    }
}

fn settings(protocol: Protocol) -> Result<Settings, mail::address::AddressError> {
    Ok(Settings {
        protocol,
        hostname: Domain::parse("sink.example")?,
        message_bytes_max: 50 << 20,
        recipients_max: 1000,
        errors_max: 20,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: true,
        keywords_off: Vec::new(),
        timeouts: Timeouts::default(),
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(Semaphore::new(512 << 10)),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments
        .next()
        .unwrap_or("127.0.0.1:0".to_owned())
        .parse()?;
    let protocol = match arguments.next().as_deref() {
        Some("lmtp") => Protocol::Lmtp,
        _ => Protocol::Smtp,
    };
    let settings = Arc::new(settings(protocol)?);
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let (_running, stop) = watch::channel(false);
    loop {
        let (stream, client) = listener.accept().await?;
        let (settings, stop) = (settings.clone(), stop.clone());
        tokio::spawn(async move {
            serve(stream, client, settings, &mut Sink(protocol), stop).await;
        });
    }
}
