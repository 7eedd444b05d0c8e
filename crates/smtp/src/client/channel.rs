//! Moves flights of commands out and replies in, each within its deadline. Knows nothing of their meaning.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use mail::Reply;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Cause;
use super::reply::ReplyReader;
use crate::wire::Wire;

/// Replies that are read ahead while a flight is being written, a KiB for each command of the largest; a server that says
/// more without reading is stopped by TCP.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;
/// Read at once.
const READ_BYTES: usize = 4 * 1024;

/// One connection's two directions.
pub struct Channel<S> {
    wire: Wire<S>,
    input: BytesMut,
    replies: ReplyReader,
}

/// A write that failed.
pub struct Unwritten {
    /// Why.
    pub cause: Cause,
    /// All bytes had been handed over; only their flushing failed.
    pub handed_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    pub fn new(stream: S) -> Self {
        Self {
            wire: Wire::Plain(stream),
            input: BytesMut::new(),
            replies: ReplyReader::default(),
        }
    }

    /// Writes a flight, reading meanwhile what the server has to say about its beginning: two peers that both only write
    /// would wait for each other for ever (RFC 2920 3.1).
    pub async fn write(&mut self, bytes: &[u8], patience: Duration) -> Result<(), Unwritten> {
        let mut written = 0;
        let writing = poll_fn(|context| self.poll_exchange(context, bytes, &mut written));
        let cause = match timeout(patience, writing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Cause::Io(error),
            Err(_) => Cause::TimedOut,
        };
        Err(Unwritten {
            cause,
            handed_over: written == bytes.len(),
        })
    }

    fn poll_exchange(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<std::io::Result<()>> {
        // An end of input is found again by the next read; until then the server may still take what we write.
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            match self.poll_fill(context) {
                Poll::Ready(Ok(1..)) => {}
                _ => break,
            }
        }
        while *written < bytes.len() {
            let wire = Pin::new(&mut self.wire);
            match ready!(wire.poll_write(context, &bytes[*written..])) {
                Ok(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Ok(more) => *written += more,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.wire).poll_read(context, &mut buffer))?;
        self.input.put_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// The next reply.
    pub async fn reply(&mut self, patience: Duration) -> Result<Reply, Cause> {
        timeout(patience, self.next_reply())
            .await
            .unwrap_or(Err(Cause::TimedOut))
    }

    async fn next_reply(&mut self) -> Result<Reply, Cause> {
        loop {
            if let Some(reply) = self
                .replies
                .next(&mut self.input)
                .map_err(Cause::Protocol)?
            {
                return Ok(reply);
            }
            self.input.reserve(READ_BYTES);
            if self.wire.read_buf(&mut self.input).await? == 0 {
                return Err(Cause::Closed);
            }
        }
    }

    /// Whether a connection that was at rest still is: nothing may have come, nor its end.
    pub async fn check_quiet(&mut self) -> Result<(), Cause> {
        let filled = poll_fn(|context| match self.poll_fill(context) {
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(filled) => Poll::Ready(Some(filled)),
        });
        match filled.await {
            Some(Ok(0)) if self.input.is_empty() => return Err(Cause::Closed),
            Some(Err(error)) if self.input.is_empty() => return Err(Cause::Io(error)),
            _ => {}
        }
        if self.input.is_empty() {
            return Ok(());
        }
        match self
            .replies
            .next(&mut self.input)
            .map_err(Cause::Protocol)?
        {
            Some(reply) if reply.code == 421 => Err(Cause::Refused(reply)),
            Some(reply) => Err(Cause::Protocol(format!("a reply to nothing: {reply}"))),
            None => Err(Cause::Protocol("a reply to nothing".to_owned())),
        }
    }

    /// Makes the TLS handshake.
    pub async fn secure(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        patience: Duration,
    ) -> Result<Self, Cause> {
        if !self.input.is_empty() {
            // Said in the clear, to be taken for what the server says in TLS: CVE-2011-0411 the other way round.
            return Err(Cause::Protocol(
                "replies behind that to STARTTLS".to_owned(),
            ));
        }
        let Wire::Plain(stream) = self.wire else {
            return Err(Cause::Protocol("TLS within TLS".to_owned()));
        };
        let handshake = TlsConnector::from(config).connect(name, stream);
        let stream = timeout(patience, handshake)
            .await
            .map_err(|_| Cause::TimedOut)?;
        let stream = stream.map_err(Cause::Tls)?;
        Ok(Self {
            wire: Wire::Tls(Box::new(stream.into())),
            input: BytesMut::new(),
            replies: ReplyReader::default(),
        })
    }

    /// Closes our direction.
    pub async fn shutdown(&mut self) {
        let _ = self.wire.shutdown().await;
    }
}
