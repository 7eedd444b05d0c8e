//! Bytes of one direction: copied while they are few, moved inside the kernel (splice(2)) once they are many.
//!
//! A pipe costs two descriptors and four system calls a round, which dialogue and small mail would not win back.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Buffer of one direction, bytes.
const BUFFER_BYTES: usize = 16_384;

/// What one round of the kernel moves at most, bytes: what a pipe holds.
const ROUND_BYTES: usize = 65_536;

/// Both ends of a pipe; what is in it belongs to one direction of one connection.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Moves bytes until the reader ends or either side breaks, then closes the writer. `moved` is called after each piece, once it is
/// written. Whether the reader ended as it should.
pub async fn run(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    kernel_from: u64,
    moved: impl Fn(),
) -> io::Result<()> {
    let flowed = flow(from, to, kernel_from, moved).await;
    let _ = to.shutdown().await;
    flowed
}

async fn flow(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    kernel_from: u64,
    moved: impl Fn(),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    while bytes < kernel_from {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        moved();
        bytes += read as u64;
    }
    // Without descriptors for a pipe it goes on as it began.
    let Ok((read, write)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) else {
        return Box::pin(flow(from, to, u64::MAX, moved)).await;
    };
    drop(buffer);
    let pipe = Pipe { read, write };
    loop {
        let filled = fill(from, &pipe).await?;
        if filled == 0 {
            return Ok(());
        }
        empty(&pipe, to, filled).await?;
        moved();
    }
}

/// From the socket into the empty pipe; 0 at the end.
async fn fill(from: &mut ReadHalf<'_>, pipe: &Pipe) -> io::Result<usize> {
    let stream: &tokio::net::TcpStream = from.as_ref();
    stream
        .async_io(Interest::READABLE, || {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            Ok(splice(stream, None, &pipe.write, None, ROUND_BYTES, flags)?)
        })
        .await
}

/// All of it from the pipe into the socket.
async fn empty(pipe: &Pipe, to: &mut WriteHalf<'_>, mut filled: usize) -> io::Result<()> {
    let stream: &tokio::net::TcpStream = to.as_ref();
    while filled > 0 {
        let written = stream
            .async_io(Interest::WRITABLE, || {
                let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
                Ok(splice(&pipe.read, None, stream, None, filled, flags)?)
            })
            .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        filled -= written;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// Sends so many bytes through, in pieces, and looks at each.
    async fn passes(total: usize, kernel_from: u64) {
        let ((mut source, mut inner), (mut outer, mut sink)) = tokio::join!(pair(), pair());
        let content: Vec<u8> = (0..total).map(|at| ((at * 31) >> 3) as u8).collect();
        let sent = content.clone();
        let sending = async move {
            for piece in sent.chunks(50_000) {
                source.write_all(piece).await.unwrap();
            }
            drop(source);
        };
        let rounds = AtomicUsize::new(0);
        let moving = async {
            let ((mut from, _), (_, mut to)) = (inner.split(), outer.split());
            let moved = || {
                rounds.fetch_add(1, Ordering::SeqCst);
            };
            run(&mut from, &mut to, kernel_from, moved).await.unwrap();
        };
        let receiving = async {
            let mut received = Vec::new();
            sink.read_to_end(&mut received).await.unwrap();
            received
        };
        let ((), (), received) = tokio::join!(sending, moving, receiving);
        assert!(
            received == content,
            "{total} {kernel_from} {}",
            received.len()
        );
        assert!(rounds.into_inner() >= total.div_ceil(ROUND_BYTES));
    }

    #[tokio::test]
    async fn every_byte_passes_by_either_way() {
        for total in [0, 1, 65_535, 65_536, 65_537, 3_000_001] {
            for kernel_from in [0, 1, 65_536, u64::MAX] {
                passes(total, kernel_from).await;
            }
        }
    }

    #[tokio::test]
    async fn a_reset_is_no_end() {
        let ((source, mut inner), (mut outer, _sink)) = tokio::join!(pair(), pair());
        source.set_zero_linger().unwrap();
        drop(source);
        let ((mut from, _), (_, mut to)) = (inner.split(), outer.split());
        assert!(run(&mut from, &mut to, 0, || {}).await.is_err());
    }
}
