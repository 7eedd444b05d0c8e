//! The source's side of SMTP and LMTP over one connection. As few allocations and writes as the dialogue allows: the product's own
//! client is part of what is measured, and what it is measured against must not move with it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smtp::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::stamp::push_number;

/// Read at once.
const READ_BYTES: usize = 4 * 1024;
/// A server that says more than this without an end is none.
const REPLY_BYTES_MAX: usize = 256 * 1024;
/// Of a refusal this much is kept.
const TEXT_BYTES_MAX: usize = 120;

/// How a transaction travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each command waits for the reply to the last one.
    Stepwise,
    /// MAIL, RCPT and DATA in one flight, the message in the next (RFC 2920).
    Pipelined,
    /// Everything in one flight, by BDAT (RFC 3030).
    Chunked,
}

/// How to open a connection.
pub struct Opening {
    pub protocol: Protocol,
    pub helo: String,
    pub way: Way,
    pub tls: Option<Arc<ClientConfig>>,
}

/// A connection that is ready for a transaction.
pub struct Wire {
    stream: Stream,
    protocol: Protocol,
    /// What of the way wanted the server offers.
    way: Way,
    /// The server may hold a transaction open: RSET goes first.
    open: bool,
    input: Vec<u8>,
    /// Read up to here.
    read: usize,
    out: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// Its first line without what is too much; empty where it is a yes.
    pub text: String,
}

/// A connection that is of no more use.
#[derive(Debug)]
pub struct Broken {
    pub why: String,
    /// The message may have been taken.
    pub at_end: bool,
    /// Nothing was answered to this transaction.
    pub at_start: bool,
}

impl Reply {
    pub fn is_yes(&self) -> bool {
        self.code / 100 == 2
    }
}

impl Stream {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.reserve(READ_BYTES);
        match self {
            Self::Plain(stream) => stream.read_buf(into).await,
            Self::Tls(stream) => stream.read_buf(into).await,
        }
    }
}

impl Wire {
    /// Connects, is greeted, greets, and starts TLS where that is wanted. An error says what was heard instead.
    pub async fn open(
        to: SocketAddr,
        from: Option<IpAddr>,
        opening: &Opening,
    ) -> Result<Self, String> {
        let stream = dial(to, from)
            .await
            .map_err(|error| format!("connect: {error}"))?;
        let mut wire = Self {
            stream: Stream::Plain(stream),
            protocol: opening.protocol,
            way: opening.way,
            open: false,
            input: Vec::new(),
            read: 0,
            out: Vec::new(),
        };
        wire.expect(220).await?;
        wire.hello(opening).await?;
        let Some(config) = &opening.tls else {
            return Ok(wire);
        };
        wire.out.extend_from_slice(b"STARTTLS\r\n");
        wire.flush().await.map_err(|error| error.to_string())?;
        wire.expect(220).await?;
        let name = ServerName::IpAddress(to.ip().into());
        let Stream::Plain(stream) = wire.stream else {
            return Err("TLS within TLS".into());
        };
        let connector = TlsConnector::from(config.clone());
        let secured = connector.connect(name, stream).await;
        let secured = secured.map_err(|error| format!("TLS: {error}"))?;
        wire.stream = Stream::Tls(Box::new(secured));
        wire.hello(opening).await?;
        Ok(wire)
    }

    async fn expect(&mut self, code: u16) -> Result<(), String> {
        match self.reply().await.map_err(|error| error.to_string())? {
            reply if reply.code == code => Ok(()),
            reply => Err(reply.text),
        }
    }

    async fn hello(&mut self, opening: &Opening) -> Result<(), String> {
        let verb = match self.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        let line = format!("{verb} {}\r\n", opening.helo);
        self.out.extend_from_slice(line.as_bytes());
        self.flush().await.map_err(|error| error.to_string())?;
        let from = self.read;
        self.expect(250).await?;
        let said = String::from_utf8_lossy(&self.input[from..self.read]).to_uppercase();
        let offers = |keyword: &str| {
            let mut lines = said.lines().map(|line| line.get(4..).unwrap_or_default());
            lines.any(|line| line == keyword)
        };
        self.way = match (opening.way, offers("PIPELINING"), offers("CHUNKING")) {
            (Way::Chunked, true, true) => Way::Chunked,
            (Way::Chunked | Way::Pipelined, true, _) => Way::Pipelined,
            _ => Way::Stepwise,
        };
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let written = self.stream.write(&self.out).await;
        self.out.clear();
        written
    }

    /// One transaction; the message is canonical and needs no stuffing. A reply for each recipient; 354 stands for one that was
    /// never given.
    pub async fn send(
        &mut self,
        reverse_path: &[u8],
        recipients: &[Vec<u8>],
        message: &[u8],
    ) -> Result<Vec<Reply>, Broken> {
        if self.read == self.input.len() {
            self.input.clear();
            self.read = 0;
        }
        let (mut at_end, mut answered) = (false, false);
        let sent = self
            .try_send(
                reverse_path,
                recipients,
                message,
                &mut at_end,
                &mut answered,
            )
            .await;
        sent.map_err(|error| Broken {
            why: error.to_string(),
            at_end,
            at_start: !answered,
        })
    }

    async fn try_send(
        &mut self,
        reverse_path: &[u8],
        recipients: &[Vec<u8>],
        message: &[u8],
        at_end: &mut bool,
        answered: &mut bool,
    ) -> io::Result<Vec<Reply>> {
        let steps = self.way == Way::Stepwise;
        let resets = std::mem::take(&mut self.open);
        if resets {
            self.out.extend_from_slice(b"RSET\r\n");
        }
        self.push(&[b"MAIL FROM:<", reverse_path, b">\r\n"]);
        let mut mail = None;
        if steps {
            self.flush().await?;
            if resets {
                self.reply().await?;
            }
            mail = Some(self.reply().await?);
            *answered = true;
        }
        let mut replies = Vec::with_capacity(recipients.len());
        if mail.as_ref().is_none_or(Reply::is_yes) {
            for recipient in recipients {
                self.push(&[b"RCPT TO:<", recipient, b">\r\n"]);
                if steps {
                    self.flush().await?;
                    replies.push(self.reply().await?);
                }
            }
            if !steps {
                self.push_message_start(message);
                *at_end = self.way == Way::Chunked;
                self.flush().await?;
                if resets {
                    self.reply().await?;
                }
                mail = Some(self.reply().await?);
                *answered = true;
                for _ in recipients {
                    replies.push(self.reply().await?);
                }
            }
        }
        if let Some(refused) = mail.filter(|mail| !mail.is_yes()) {
            self.after_refusal().await?;
            return Ok(vec![refused; recipients.len()]);
        }
        self.send_message(message, replies, at_end).await
    }

    /// What follows the envelope in the same flight.
    fn push_message_start(&mut self, message: &[u8]) {
        match self.way {
            Way::Chunked => {
                self.out.extend_from_slice(b"BDAT ");
                push_number(message.len() as u64, &mut self.out);
                self.push(&[b" LAST\r\n", message]);
            }
            Way::Pipelined | Way::Stepwise => self.out.extend_from_slice(b"DATA\r\n"),
        }
    }

    /// MAIL was refused: what was sent behind it is answered too, and means nothing.
    async fn after_refusal(&mut self) -> io::Result<()> {
        match self.way {
            Way::Stepwise => Ok(()),
            Way::Chunked => self.reply().await.map(drop),
            Way::Pipelined => match self.reply().await?.code {
                354 => {
                    self.out.extend_from_slice(b".\r\n");
                    self.flush().await?;
                    self.reply().await.map(drop)
                }
                _ => Ok(()),
            },
        }
    }

    /// The message, or what is left to do of it, and the replies to it.
    async fn send_message(
        &mut self,
        message: &[u8],
        mut replies: Vec<Reply>,
        at_end: &mut bool,
    ) -> io::Result<Vec<Reply>> {
        let accepted = replies.iter().filter(|reply| reply.is_yes()).count();
        if self.way == Way::Stepwise && accepted == 0 {
            self.open = true;
            return Ok(replies);
        }
        if self.way != Way::Chunked {
            if self.way == Way::Stepwise {
                self.push_message_start(message);
                self.flush().await?;
            }
            let data = self.reply().await?;
            if data.code != 354 {
                self.open = true;
                replies
                    .iter_mut()
                    .filter(|reply| reply.is_yes())
                    .for_each(|r| *r = data.clone());
                return Ok(replies);
            }
            if accepted > 0 {
                self.out.extend_from_slice(message);
            }
            self.out.extend_from_slice(b".\r\n");
            *at_end = true;
            self.flush().await?;
        }
        let for_each = self.protocol == Protocol::Lmtp && accepted > 0;
        if for_each {
            for reply in replies.iter_mut().filter(|reply| reply.is_yes()) {
                *reply = self.reply().await?;
            }
        } else {
            let reply = self.reply().await?;
            // After a refused chunk the state is not defined (RFC 3030 4.1).
            self.open = self.way == Way::Chunked && !reply.is_yes();
            replies
                .iter_mut()
                .filter(|r| r.is_yes())
                .for_each(|r| *r = reply.clone());
        }
        Ok(replies)
    }

    fn push(&mut self, pieces: &[&[u8]]) {
        pieces
            .iter()
            .for_each(|piece| self.out.extend_from_slice(piece));
    }

    /// The next reply.
    async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some((reply, bytes)) = parse(&self.input[self.read..])? {
                self.read += bytes;
                return Ok(reply);
            }
            if self.input.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("a reply without an end"));
            }
            if self.stream.read(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Says QUIT and does not wait for more than the reply to it.
    pub async fn quit(mut self) {
        self.out.extend_from_slice(b"QUIT\r\n");
        if self.flush().await.is_ok() {
            let _ = self.reply().await;
        }
    }
}

async fn dial(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    // Every write is a whole flight.
    socket.set_nodelay(true)?;
    socket.connect(to).await
}

/// The first reply in what has come and its length; none when its end has not come.
fn parse(input: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let mut start = 0;
    loop {
        let Some(end) = memchr::memchr(b'\n', &input[start..]) else {
            return Ok(None);
        };
        let line = &input[start..start + end];
        start += end + 1;
        let digits = line
            .get(..3)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let Some(digits) = digits else {
            let line = String::from_utf8_lossy(&line[..line.len().min(TEXT_BYTES_MAX)]);
            return Err(io::Error::other(format!("not SMTP: {line:?}")));
        };
        if line.get(3) == Some(&b'-') {
            continue;
        }
        let number = |number, digit: &u8| number * 10 + u16::from(digit - b'0');
        let code = digits.iter().fold(0, number);
        let text = match code {
            ..400 => String::new(),
            _ => {
                let line = line.trim_ascii_end();
                String::from_utf8_lossy(&line[..line.len().min(TEXT_BYTES_MAX)]).into_owned()
            }
        };
        return Ok(Some((Reply { code, text }, start)));
    }
}

#[cfg(test)]
mod tests;
