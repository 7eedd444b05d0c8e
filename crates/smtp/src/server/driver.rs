//! Moves bytes between one stream and one session. Knows time, memory and TLS; knows nothing of SMTP.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::ask::{Arrived, ask, ask_message};
use super::flow::Flow;
use super::secure::secure;
use mail::Reply;

use super::{Ending, Facts, Handler, Settings};
use crate::command::COMMAND_BYTES_MAX;
use crate::session::{Question, Session, Step, Wait};
use crate::wire::Wire;

/// Read at once while commands come.
const COMMAND_READ_BYTES: usize = 4 * 1024;
/// Read at once while a message comes.
const MESSAGE_READ_BYTES: usize = 32 * 1024;
/// Errors that come in a group do not add up to more than this.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// What a client that waits when stress begins still has.
const HURRY_MIN: Duration = Duration::from_secs(1);
/// For the client to read our last reply before the connection is torn down.
const LINGER: Duration = Duration::from_secs(1);
/// Read and dropped while lingering.
const LINGER_BYTES_MAX: u64 = 256 * 1024;

/// Serves a session on any stream.
pub async fn serve_on<S, H>(
    stream: S,
    client: SocketAddr,
    local: SocketAddr,
    settings: Arc<Settings>,
    handler: &mut H,
    stop: watch::Receiver<bool>,
) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    let facts = Facts {
        session: session_id(client),
        client: SocketAddr::new(client.ip().to_canonical(), client.port()),
        local: SocketAddr::new(local.ip().to_canonical(), local.port()),
        helo: Box::default(),
        extended: false,
        tls: None,
        xforward: Default::default(),
        bare_newline: false,
    };
    let mut driver = Driver {
        session: Session::new(settings.clone(), facts),
        input: BytesMut::new(),
        out: Vec::new(),
        memory: None,
        flow: None,
        deadline: Instant::now() + settings.timeouts.session,
        settings,
        stop,
    };
    driver.run(Wire::Plain(stream), handler).await
}

/// 64 random bits: unique in a process, and practically across them.
fn session_id(client: SocketAddr) -> Box<str> {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u16(client.port());
    format!("{:016x}", hasher.finish()).into()
}

struct Driver {
    settings: Arc<Settings>,
    session: Session,
    /// Arrived, not yet read by the session.
    input: BytesMut,
    /// Replies, not yet written.
    out: Vec<u8>,
    /// Held for the message that is being received or answered.
    memory: Option<OwnedSemaphorePermit>,
    /// How a message comes in that is being read.
    flow: Option<Flow>,
    /// The session's end.
    deadline: Instant,
    stop: watch::Receiver<bool>,
}

/// Why waiting for the client came to nothing.
enum NoInput {
    TimedOut,
    Stop,
    Lost,
}

impl NoInput {
    fn ending(self) -> Ending {
        match self {
            Self::TimedOut => Ending::TimedOut,
            Self::Stop => Ending::Shutdown,
            Self::Lost => Ending::Lost,
        }
    }
}

impl Driver {
    async fn run<S, H>(&mut self, mut wire: Wire<S>, handler: &mut H) -> Ending
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Handler,
    {
        loop {
            if *self.stop.borrow() {
                self.session.stop(&mut self.out);
            }
            match self.session.step(&mut self.input, &mut self.out) {
                Step::Read(wait) => {
                    if let Err(ending) = self.bring(&mut wire, wait).await {
                        return ending;
                    }
                }
                Step::Ask(Question::Message {
                    facts,
                    envelope,
                    message,
                }) => {
                    if let Err(trouble) = flush(&mut wire, &mut self.out, &self.settings).await {
                        return trouble.ending();
                    }
                    let arrived = Arrived {
                        facts,
                        envelope,
                        message,
                    };
                    let replies = ask_message(arrived, handler, &mut wire, &mut self.input).await;
                    self.session.answer_message(replies, &mut self.out);
                }
                Step::Ask(question) => {
                    let connected = matches!(question, Question::Connect { .. });
                    let mut answer = ask(question, handler).await;
                    if connected && answer.is_ok() {
                        self.session.set_exempt(handler.is_exempt());
                        answer = match self.screen(&mut wire, handler).await {
                            Ok(answer) => answer,
                            Err(ending) => return ending,
                        };
                    }
                    self.session.answer(answer, &mut self.out);
                }
                Step::Objected(refusal) => handler.objected(self.session.facts(), *refusal),
                Step::Reset => {
                    self.memory = None;
                    handler.reset();
                }
                Step::Room(bytes) => self.make_room(bytes),
                Step::StartTls => {
                    if let Err(trouble) = flush(&mut wire, &mut self.out, &self.settings).await {
                        return trouble.ending();
                    }
                    wire = match secure(wire, &self.settings).await {
                        Some((secured, tls)) => {
                            self.session.secured(tls);
                            secured
                        }
                        None => return Ending::Tls,
                    };
                }
                Step::Close(ending) => {
                    let _ = flush(&mut wire, &mut self.out, &self.settings).await;
                    close(wire, ending).await;
                    return ending;
                }
            }
        }
    }

    /// Lets the client wait for its greeting, and watches whether it can.
    async fn screen<S, H>(
        &mut self,
        wire: &mut Wire<S>,
        handler: &mut H,
    ) -> Result<Result<(), Reply>, Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Handler,
    {
        let Some(screening) = handler.screen(self.session.facts()).await else {
            return Ok(Ok(()));
        };
        if let Some(teaser) = screening.teaser {
            self.out
                .extend_from_slice(format!("220-{teaser}\r\n").as_bytes());
            flush(wire, &mut self.out, &self.settings)
                .await
                .map_err(NoInput::ending)?;
        }
        let read = tokio::select! {
            biased;
            read = read_some(wire, &mut self.input) => read,
            () = screening.over => return Ok(handler.waited(self.session.facts()).await),
            _ = timeout_at(self.deadline, std::future::pending::<()>()) => return Err(Ending::TimedOut),
        };
        match read {
            Ok(0) | Err(_) => Err(Ending::Lost),
            Ok(_) => Ok(handler.spoke_first(self.session.facts(), &self.input).await),
        }
    }

    /// Writes what stands and reads what comes.
    async fn bring<S>(&mut self, wire: &mut Wire<S>, wait: Wait) -> Result<(), Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.delay().await;
        flush(wire, &mut self.out, &self.settings)
            .await
            .map_err(NoInput::ending)?;
        let read = match wait {
            Wait::Command => self.read_command(wire).await,
            Wait::Message => self.read_message(wire).await,
        };
        match read {
            Ok(()) => Ok(()),
            Err(NoInput::Lost) => Err(Ending::Lost),
            Err(NoInput::Stop) => Ok(()),
            Err(NoInput::TimedOut) => {
                self.session.timed_out(&mut self.out);
                Ok(())
            }
        }
    }

    /// Reads until a command is whole; a client that sends it drop by drop has no more time for that.
    async fn read_command<S>(&mut self, wire: &mut Wire<S>) -> Result<(), NoInput>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.flow = None;
        let began = Instant::now();
        let mut deadline = (began + self.settings.timeouts.command).min(self.deadline);
        let settings = Arc::clone(&self.settings);
        let hurry = deadline.min(match &settings.guard.stress {
            Some(stress) => began + stress.command,
            None => deadline,
        });
        let stressed = settings.stress_begins();
        tokio::pin!(stressed);
        let mut hurried = deadline <= hurry;
        let idle = self.session.idle();
        let Self { input, stop, .. } = self;
        if input.is_empty() {
            // What a message has left behind is not held by a session that waits.
            *input = BytesMut::new();
        }
        let stopped = async {
            if !idle || stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(stopped);
        loop {
            let seen = input.len();
            let read = tokio::select! {
                read = timeout_at(deadline, read_some(wire, input)) => read,
                () = &mut stopped => return Err(NoInput::Stop),
                () = &mut stressed, if !hurried => {
                    hurried = true;
                    // At least a moment, for who has waited longer than that when stress begins.
                    deadline = hurry.max(Instant::now() + HURRY_MIN).min(deadline);
                    continue;
                }
            };
            match read {
                Err(_) => return Err(NoInput::TimedOut),
                Ok(Err(_) | Ok(0)) => return Err(NoInput::Lost),
                Ok(Ok(_)) => {}
            }
            if input.len() >= COMMAND_BYTES_MAX || memchr::memchr(b'\n', &input[seen..]).is_some() {
                return Ok(());
            }
        }
    }

    /// Reads a piece of a message.
    async fn read_message<S>(&mut self, wire: &mut Wire<S>) -> Result<(), NoInput>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let now = Instant::now();
        let flow = self.flow.get_or_insert_with(|| Flow::new(now));
        let settings = &self.settings;
        let mut deadline = flow.deadline(settings).min(self.deadline);
        let mut hurried = settings.stressed().is_some();
        self.input.reserve(MESSAGE_READ_BYTES);
        loop {
            let read = tokio::select! {
                biased;
                read = timeout_at(deadline, wire.read_buf(&mut self.input)) => read,
                () = settings.stress_begins(), if !hurried => {
                    hurried = true;
                    let hurry = flow.deadline(settings).max(Instant::now() + HURRY_MIN);
                    deadline = hurry.min(deadline);
                    continue;
                }
            };
            return match read {
                Err(_) => Err(NoInput::TimedOut),
                Ok(Err(_) | Ok(0)) => Err(NoInput::Lost),
                Ok(Ok(read)) => {
                    flow.read(read, Instant::now());
                    Ok(())
                }
            };
        }
    }

    /// Lets a client that makes many errors wait for its replies.
    async fn delay(&mut self) {
        let penalty = self.session.penalty();
        if penalty > 0 && self.settings.stressed().is_none() {
            let delay = self.settings.guard.error_delay.saturating_mul(penalty);
            let wait = tokio::time::sleep(delay.min(DELAY_MAX));
            // A shutdown need not wait for it.
            tokio::select! {
                () = wait => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    fn make_room(&mut self, bytes: usize) {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match self.settings.memory_kib.clone().try_acquire_many_owned(kib) {
            Ok(more) => {
                match &mut self.memory {
                    Some(memory) => memory.merge(more),
                    None => self.memory = Some(more),
                }
                self.session.grant(bytes);
            }
            Err(_) => {
                self.session.shed();
                self.memory = None;
            }
        }
    }
}

/// Reads what has come, by way of the stack: a session that waits holds no buffer, and most sessions wait.
async fn read_some<S>(wire: &mut Wire<S>, input: &mut BytesMut) -> io::Result<usize>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|context| {
        let mut bytes = [MaybeUninit::uninit(); COMMAND_READ_BYTES];
        let mut bytes = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *wire).poll_read(context, &mut bytes))?;
        input.extend_from_slice(bytes.filled());
        Poll::Ready(Ok(bytes.filled().len()))
    })
    .await
}

/// Writes what stands. A client that does not read it has as long for that as for a command.
async fn flush<S>(wire: &mut Wire<S>, out: &mut Vec<u8>, settings: &Settings) -> Result<(), NoInput>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if out.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let mut deadline = began + settings.command_now();
    let mut hurried = settings.stressed().is_some();
    let written = {
        let writing = async {
            wire.write_all(out).await?;
            wire.flush().await
        };
        tokio::pin!(writing);
        loop {
            tokio::select! {
                biased;
                written = timeout_at(deadline, &mut writing) => break written,
                () = settings.stress_begins(), if !hurried => {
                    hurried = true;
                    let hurry = (began + settings.command_now()).max(Instant::now() + HURRY_MIN);
                    deadline = hurry.min(deadline);
                }
            }
        }
    };
    match written {
        Ok(Ok(())) => {
            out.clear();
            Ok(())
        }
        Ok(Err(_)) => Err(NoInput::Lost),
        Err(_) => Err(NoInput::TimedOut),
    }
}

/// Closes so that the client can read our last reply: a socket closed over unread input is reset, and takes the reply with it.
async fn close<S>(mut wire: Wire<S>, ending: Ending)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _ = timeout(LINGER, async {
        wire.shutdown().await?;
        if ending != Ending::Quit {
            let unread = &mut (&mut wire).take(LINGER_BYTES_MAX);
            tokio::io::copy(unread, &mut tokio::io::sink()).await?;
        }
        io::Result::Ok(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_that_waits_holds_no_buffer() {
        let (mut client, server) = tokio::io::duplex(2 * COMMAND_READ_BYTES);
        let (mut wire, mut input) = (Wire::Plain(server), BytesMut::new());
        let waiting = timeout(Duration::from_millis(1), read_some(&mut wire, &mut input));
        assert!(waiting.await.is_err());
        assert_eq!(input.capacity(), 0);

        let said = vec![b'x'; COMMAND_READ_BYTES + 5];
        client.write_all(&said).await.unwrap();
        for expected in [COMMAND_READ_BYTES, 5] {
            let read = read_some(&mut wire, &mut input).await.unwrap();
            assert_eq!(read, expected);
        }
        assert_eq!(input, said);
        drop(client);
        assert_eq!(read_some(&mut wire, &mut input).await.unwrap(), 0);
    }
}
