//! A client on the internet.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use mail::{Address, Envelope, MailParameters, Reply, ReversePath};
use smtp::Protocol;
use smtp::client::{Client, Options, Timeouts, TlsPolicy};

pub const MESSAGE: &str =
    "From: ann@elsewhere.example\r\nSubject: a claim\r\n\r\nHello.\r\n.dot\r\n";

const HELO: &str = "client.elsewhere.example";

pub fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse(from).unwrap(),
        parameters: MailParameters::default(),
        recipients: to
            .iter()
            .map(|address| Address::parse(address).unwrap().into())
            .collect(),
    }
}

pub async fn connect(address: SocketAddr) -> Client {
    try_connect(address).await.unwrap()
}

/// With another HELO.
pub async fn connect_as(address: SocketAddr, helo: &str) -> Client {
    greet(address, helo, None).await.unwrap()
}

/// From another address, which is one of loopback.
pub async fn connect_from(address: SocketAddr, source: &str) -> Client {
    let source = Some(source.parse().unwrap());
    greet(address, HELO, source).await.unwrap()
}

pub async fn try_connect(address: SocketAddr) -> Result<Client, smtp::client::Trouble> {
    greet(address, HELO, None).await
}

async fn greet(
    address: SocketAddr,
    helo: &str,
    source: Option<IpAddr>,
) -> Result<Client, smtp::client::Trouble> {
    let options = Options {
        protocol: Protocol::Smtp,
        helo: helo.into(),
        tls: TlsPolicy::Never,
        timeouts: Timeouts::default(),
        source,
        chunking: false,
    };
    Client::connect(address, &options).await
}

/// Sends one message on a connection of its own; the replies, a recipient each.
pub async fn send_from(address: SocketAddr, from: &str, to: &[&str], message: &str) -> Vec<Reply> {
    let mut client = connect(address).await;
    let parts = [Bytes::copy_from_slice(message.as_bytes())];
    let replies = client.send(&envelope(from, to), &parts).await.unwrap();
    client.quit().await;
    replies
}

pub async fn send(address: SocketAddr, to: &[&str]) -> Vec<Reply> {
    send_from(address, "ann@elsewhere.example", to, MESSAGE).await
}

/// `250 2.0.0` each.
pub fn codes(replies: &[Reply]) -> Vec<String> {
    let code = |reply: &Reply| match reply.enhanced {
        Some(enhanced) => format!("{} {enhanced}", reply.code),
        None => reply.code.to_string(),
    };
    replies.iter().map(code).collect()
}
