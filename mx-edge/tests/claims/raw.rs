//! A client that speaks SMTP by the line, from an address of its own on loopback.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::edge::Edge;
use crate::inside::PATIENCE;

pub const RCPT: &str = "RCPT TO:<dev@lists.example>";

/// A client that sends what it is told, from the loopback address it is told.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn from(client: &str, edge: &Edge) -> Self {
        Self::at(client, edge.address).await
    }

    /// The same at one of several addresses.
    pub async fn at(client: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(client.parse().unwrap(), 0))
            .unwrap();
        Self(socket.connect(address).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The last line of the next reply; "" when the connection is closed.
    pub async fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let reading = async {
            while let Ok(byte) = self.0.read_u8().await {
                line.push(byte);
                if byte == b'\n' {
                    if line.get(3) != Some(&b'-') {
                        break;
                    }
                    line.clear();
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8(line).unwrap()
    }

    pub async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.hear().await
    }

    /// Greets and begins a transaction.
    pub async fn begin(&mut self) -> String {
        self.say("EHLO client.elsewhere.example").await;
        self.say("MAIL FROM:<ann@elsewhere.example>").await
    }
}

pub fn starts(reply: &str, with: &str) {
    assert!(reply.starts_with(with), "{reply:?} is not {with:?}");
}

pub fn networks(texts: &[&str]) -> Vec<mx_edge::network::Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
