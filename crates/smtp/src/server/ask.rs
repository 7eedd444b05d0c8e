//! Puts a session's questions to the handler, and watches the client while a message is being worked on.

use bytes::{Bytes, BytesMut};
use mail::{Envelope, Reply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use super::{Facts, Handler, Presence};
use crate::session::Question;
use crate::wire::Wire;

/// Kept of what a client pipelines while the handler works on its message; more stays in the kernel.
const PIPELINED_BYTES_MAX: usize = 64 * 1024;
/// Read at once.
const READ_BYTES: usize = 4 * 1024;

/// Asks anything but about a message.
pub async fn ask<H: Handler>(question: Question<'_>, handler: &mut H) -> Result<(), Reply> {
    match question {
        Question::Connect { facts } => handler.connect(facts).await,
        Question::Helo { facts } => handler.helo(facts).await,
        Question::Mail {
            facts,
            reverse_path,
            parameters,
            size,
        } => handler.mail(facts, reverse_path, parameters, size).await,
        Question::Rcpt {
            facts,
            envelope,
            recipient,
        } => handler.rcpt(facts, envelope, recipient).await,
        Question::StartTls { facts } => handler.start_tls(facts).await,
        Question::Message { .. } => unreachable!("asked by ask_message"),
    }
}

/// A message with what its question says.
pub struct Arrived<'a> {
    pub facts: &'a Facts,
    pub envelope: &'a Envelope,
    pub message: Bytes,
}

/// Asks about a message, and watches meanwhile whether the client still waits.
pub async fn ask_message<S, H>(
    arrived: Arrived<'_>,
    handler: &mut H,
    wire: &mut Wire<S>,
    input: &mut BytesMut,
) -> Vec<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let Arrived {
        facts,
        envelope,
        message,
    } = arrived;
    let (here, presence) = watch::channel(true);
    let presence = Presence(presence);
    let mut watching = true;
    let work = handler.message(facts, envelope, message, &presence);
    tokio::pin!(work);
    loop {
        let room = PIPELINED_BYTES_MAX.saturating_sub(input.len());
        input.reserve(room.min(READ_BYTES));
        tokio::select! {
            biased;
            replies = &mut work => return replies,
            read = wire.read_buf(input), if watching && room > 0 => {
                if !matches!(read, Ok(1..)) {
                    watching = false;
                    let _ = here.send(false);
                }
            }
        }
    }
}
