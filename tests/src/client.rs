//! Clients that are not the product's: a raw one that sends what it is told and shows every reply, python's smtplib, swaks.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// How long any reply may take before a test calls it unbounded.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it says first.
const HELLO: &str = "EHLO client.sender.example";

/// A raw SMTP client.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(server: SocketAddr) -> std::io::Result<(Self, String)> {
        let mut client = Self::on(TcpStream::connect(server)?)?;
        let greeting = client.reply()?;
        Ok((client, greeting))
    }

    /// Connects from this address, any of loopback, and does not wait for the greeting.
    pub fn from(source: Ipv4Addr, server: SocketAddr) -> std::io::Result<Self> {
        let ours = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&ours, &SocketAddr::new(source.into(), 0))?;
        connect(&ours, &server)?;
        Self::on(TcpStream::from(ours))
    }

    fn on(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Waits until the server has said something.
    pub fn is_spoken_to(&mut self) -> std::io::Result<bool> {
        Ok(!self.reader.fill_buf()?.is_empty())
    }

    /// Connects and says EHLO.
    pub fn hello(server: SocketAddr) -> std::io::Result<Self> {
        let (mut client, _) = Self::connect(server)?;
        client.say(HELLO)?;
        Ok(client)
    }

    /// Sends a line and returns the reply, its lines joined by newlines.
    pub fn say(&mut self, line: &str) -> std::io::Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> std::io::Result<String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_owned();
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !more {
                return Ok(lines.join("\n"));
            }
        }
    }

    /// A transaction; returns the reply that decided it. Each line of the message gets CRLF and dots are stuffed.
    pub fn submit(&mut self, from: &str, to: &[&str], message: &[u8]) -> std::io::Result<String> {
        if let Some(reply) = self.begin(from, to)? {
            return Ok(reply);
        }
        self.send(&stuffed(message))?;
        self.reply()
    }

    /// The same over LMTP (RFC 2033 4.2): a reply a recipient, or the one that ended it before.
    pub fn deliver(
        &mut self,
        from: &str,
        to: &[&str],
        message: &[u8],
    ) -> std::io::Result<Vec<String>> {
        if let Some(reply) = self.begin(from, to)? {
            return Ok(vec![reply]);
        }
        self.send(&stuffed(message))?;
        to.iter().map(|_| self.reply()).collect()
    }

    /// Up to DATA's 354; another reply ends the transaction.
    fn begin(&mut self, from: &str, to: &[&str]) -> std::io::Result<Option<String>> {
        let reply = self.say(&format!("MAIL FROM:<{from}>"))?;
        if !reply.starts_with("250") {
            return Ok(Some(reply));
        }
        for to in to {
            let reply = self.say(&format!("RCPT TO:<{to}>"))?;
            if !reply.starts_with("25") {
                self.say("RSET")?;
                return Ok(Some(reply));
            }
        }
        let reply = self.say("DATA")?;
        Ok((!reply.starts_with("354")).then_some(reply))
    }
}

/// The message as DATA carries it, with its end.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend(
            line.strip_suffix(b"\r\n")
                .or(line.strip_suffix(b"\n"))
                .unwrap_or(line),
        );
        out.extend(b"\r\n");
    }
    out.extend(b".\r\n");
    out
}

/// One message over a connection of its own; the reply that decided it, the greeting too, or why there was none.
pub fn submit(
    server: SocketAddr,
    from: &str,
    to: &[&str],
    message: &[u8],
) -> Result<String, String> {
    let submit = || {
        let (mut client, greeting) = Client::connect(server)?;
        if !greeting.starts_with("220") {
            return Ok(greeting);
        }
        client.say(HELLO)?;
        client.submit(from, to, message)
    };
    submit().map_err(|error: std::io::Error| error.to_string())
}

/// A small post with this Message-ID and subject.
pub fn post(id: &str, to: &str) -> Vec<u8> {
    format!(
        "From: Sender <author@sender.example>\r\nTo: {to}\r\nSubject: {id}\r\nMessage-ID: <{id}@sender.example>\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         A line about the release that was discussed this week, number {id}.\r\n"
    )
    .into_bytes()
}

/// Runs a python program with arguments; what it printed.
pub fn python(program: &str, arguments: &[&str]) -> String {
    run(Command::new("python3")
        .arg("-c")
        .arg(program)
        .args(arguments))
}

/// Runs a command to its end; what it printed, whatever its exit status.
pub fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; make test installs it"));
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    said
}
