//! Reads the PROXY header of a connection that must have one, and not an octet more.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::proxy::{Header, ProxyError, missing, parse};

/// Why a connection from a proxy is not served.
#[derive(Debug, thiserror::Error)]
pub enum NotProxied {
    /// It said something else.
    #[error(transparent)]
    Header(#[from] ProxyError),
    /// It said nothing for too long.
    #[error("no PROXY header came in time")]
    TimedOut,
    /// It left.
    #[error("the connection was closed before a PROXY header came")]
    Lost,
}

/// The header; `patience` is for all of it.
pub async fn proxy_header<S>(stream: &mut S, patience: Duration) -> Result<Header, NotProxied>
where
    S: AsyncRead + Unpin,
{
    let read = async {
        let mut bytes = Vec::new();
        loop {
            if let Some(header) = parse(&bytes)? {
                return Ok(header);
            }
            let seen = bytes.len();
            bytes.resize(seen + missing(&bytes), 0);
            let lost = |_| NotProxied::Lost;
            stream.read_exact(&mut bytes[seen..]).await.map_err(lost)?;
        }
    };
    match timeout(patience, read).await {
        Ok(read) => read,
        Err(_) => Err(NotProxied::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_header_in_pieces_is_waited_for_and_the_rest_is_left() {
        let (mut proxy, mut ours) = tokio::io::duplex(1024);
        let sending = async {
            for byte in HEADER {
                proxy.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            proxy.write_all(b"EHLO").await.unwrap();
        };
        let reading = proxy_header(&mut ours, Duration::from_secs(3));
        let ((), header) = tokio::join!(sending, reading);
        assert!(matches!(header, Ok(Header::Client { client, .. }) if client.port() == 4711));
        let mut rest = [0; 4];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"EHLO");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_other_words_are_told_apart() {
        let (mut proxy, mut ours) = tokio::io::duplex(1024);
        let patience = Duration::from_secs(3);
        let silent = proxy_header(&mut ours, patience).await;
        assert!(matches!(silent, Err(NotProxied::TimedOut)));
        proxy.write_all(b"EHLO client.example\r\n").await.unwrap();
        let other = proxy_header(&mut ours, patience).await;
        assert!(matches!(other, Err(NotProxied::Header(ProxyError::Absent))));
        drop(proxy);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        let gone = proxy_header(&mut ours, patience).await;
        assert!(matches!(gone, Err(NotProxied::Lost)));
    }
}
