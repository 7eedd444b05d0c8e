//! The sink's side of SMTP and LMTP, for counting: it answers as fast as it can read, keeps nothing of a message, and believes
//! what a client says of addresses. Takes bytes and returns actions; never awaits.
//!
//! The product's own server is not used here: it is what is measured, and holds whole messages. Where messages are kept
//! (`--maildir`) it is (`strict`).

mod replies;
mod transaction;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smtp::Protocol;

use super::Shared;
use super::content::{Content, End};
use crate::rules::{Act, Stage};
pub use replies::BUSY;
use transaction::Transaction;

/// A longer command is no command (RFC 5321 4.5.3.1 allows 512 octets and extensions some more).
const COMMAND_BYTES_MAX: usize = 4096;
/// Commands that are none, before the connection is closed.
const ERRORS_MAX: u32 = 1000;

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write what stands, read more.
    Read,
    /// Write what stands, wait so long, call again.
    Wait(Duration),
    /// Write what stands, make the TLS handshake.
    StartTls,
    /// Write what stands, close.
    Close,
}

/// One session's side.
pub struct Dialogue {
    shared: Arc<Shared>,
    local: IpAddr,
    state: State,
    /// A command that has not come whole.
    line: Vec<u8>,
    transaction: Transaction,
    content: Content,
    /// What is to be done after a wait.
    pending: Option<(About, Act)>,
    messages: u64,
    errors: u32,
    secured: bool,
}

/// What comes next from the client.
enum State {
    /// Nothing was said yet.
    Fresh,
    Command,
    /// After 354.
    Data(End),
    /// Within a chunk.
    Chunk {
        left: u64,
        last: bool,
    },
}

/// What an act is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Connect,
    Mail,
    Rcpt,
    Message,
}

impl Dialogue {
    /// A connection to this address.
    pub fn new(shared: Arc<Shared>, local: IpAddr) -> Self {
        Self {
            shared,
            local,
            state: State::Fresh,
            line: Vec::new(),
            transaction: Transaction::default(),
            content: Content::default(),
            pending: None,
            messages: 0,
            errors: 0,
            secured: false,
        }
    }

    /// Takes what has come, appends what is to be said. Returns how much was taken: all of it, unless something is to be done before
    /// the rest.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Next) {
        if let Some((about, act)) = self.pending.take()
            && let Some(next) = self.act(about, act, out)
        {
            return (0, next);
        }
        let mut taken = 0;
        if matches!(self.state, State::Fresh) {
            self.state = State::Command;
            let local = self.local.to_string();
            if let Some(next) = self.decide(About::Connect, Stage::Connect, &local, out) {
                return (0, next);
            }
        }
        while taken < input.len() {
            let (more, next) = self.turn(&input[taken..], out);
            taken += more;
            if let Some(next) = next {
                return (taken, next);
            }
        }
        (taken, Next::Read)
    }

    /// TLS stands: what was said before does not count (RFC 3207 4.2).
    pub fn secured(&mut self) {
        self.secured = true;
        self.transaction.clear();
    }

    fn turn(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Next>) {
        match &mut self.state {
            State::Fresh | State::Command => match memchr::memchr(b'\n', input) {
                None if self.line.len() + input.len() > COMMAND_BYTES_MAX => {
                    out.extend_from_slice(replies::LINE_TOO_LONG);
                    (input.len(), Some(Next::Close))
                }
                None => {
                    self.line.extend_from_slice(input);
                    (input.len(), None)
                }
                Some(end) if self.line.is_empty() => (end + 1, self.command(&input[..end], out)),
                Some(end) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.extend_from_slice(&input[..end]);
                    let next = self.command(&line, out);
                    line.clear();
                    self.line = line;
                    (end + 1, next)
                }
            },
            State::Data(end) => match end.find(input) {
                Some(end) => {
                    // A dot that began in an earlier piece was counted with it: what is told is what came, not what it means.
                    self.content.push(&input[..end]);
                    self.state = State::Command;
                    (end, self.message(out))
                }
                None => {
                    self.content.push(input);
                    (input.len(), None)
                }
            },
            State::Chunk { left, last } => {
                let taken =
                    usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                self.content.push(&input[..taken]);
                *left -= taken as u64;
                let (over, last) = (*left == 0, *last);
                (
                    taken,
                    if over {
                        self.chunk_over(last, out)
                    } else {
                        None
                    },
                )
            }
        }
    }

    fn chunk_over(&mut self, last: bool, out: &mut Vec<u8>) -> Option<Next> {
        self.state = State::Command;
        if last {
            return self.message(out);
        }
        let lmtp = self.shared.protocol == Protocol::Lmtp;
        out.extend_from_slice(match self.transaction.count() {
            0 => replies::nobody(lmtp),
            _ => replies::OK,
        });
        None
    }

    fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let verb_end = memchr::memchr(b' ', line).unwrap_or(line.len());
        let (verb, rest) = line.split_at(verb_end);
        let is = |name: &[u8]| verb.eq_ignore_ascii_case(name);
        let lmtp = self.shared.protocol == Protocol::Lmtp;
        if is(b"MAIL") {
            return self.mail(rest, out);
        } else if is(b"RCPT") {
            return self.rcpt(rest, out);
        } else if is(b"DATA") {
            match self.transaction.count() {
                0 => out.extend_from_slice(replies::nobody(lmtp)),
                _ => {
                    out.extend_from_slice(replies::START_DATA);
                    self.content.clear();
                    self.state = State::Data(End::default());
                }
            }
        } else if is(b"BDAT") && self.shared.offers("CHUNKING") {
            return self.bdat(rest, out);
        } else if is(b"RSET") {
            self.transaction.clear();
            out.extend_from_slice(replies::OK);
        } else if is(b"EHLO") && !lmtp || is(b"LHLO") && lmtp {
            self.transaction.clear();
            self.shared.hello(self.secured, out);
        } else if is(b"HELO") && !lmtp {
            self.transaction.clear();
            out.extend_from_slice(replies::HELO);
        } else if is(b"STARTTLS") && self.shared.tls.is_some() && !self.secured {
            out.extend_from_slice(replies::START_TLS);
            return Some(Next::StartTls);
        } else if is(b"NOOP") {
            out.extend_from_slice(replies::OK);
        } else if is(b"QUIT") {
            out.extend_from_slice(replies::BYE);
            return Some(Next::Close);
        } else {
            return self.wrong(replies::UNKNOWN, out);
        }
        None
    }

    fn wrong(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        out.extend_from_slice(reply);
        self.errors += 1;
        (self.errors >= ERRORS_MAX).then_some(Next::Close)
    }

    fn mail(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        let Some(path) = path(rest, b"FROM:") else {
            return self.wrong(replies::SYNTAX, out);
        };
        if self.transaction.is_open() {
            return self.wrong(replies::SEQUENCE, out);
        }
        let most = self.shared.session_messages_max;
        if most > 0 && self.messages >= most {
            out.extend_from_slice(replies::ENOUGH);
            return Some(Next::Close);
        }
        if self.shared.has_rules() {
            let address = String::from_utf8_lossy(path).into_owned();
            return self.decide(About::Mail, Stage::Mail, &address, out);
        }
        self.act(About::Mail, Act::Go, out)
    }

    fn rcpt(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        let Some(path) = path(rest, b"TO:").filter(|path| !path.is_empty()) else {
            return self.wrong(replies::SYNTAX, out);
        };
        if !self.transaction.is_open() {
            return self.wrong(replies::SEQUENCE, out);
        }
        if !self.transaction.push(path) {
            out.extend_from_slice(replies::TOO_MANY);
            return None;
        }
        if self.shared.has_rules() {
            let address = String::from_utf8_lossy(path).into_owned();
            return self.decide(About::Rcpt, Stage::Rcpt, &address, out);
        }
        self.act(About::Rcpt, Act::Go, out)
    }

    /// A chunk that nobody is to get is read all the same: else its content would become commands.
    fn bdat(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        let mut words = rest
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty());
        let bytes = words.next().and_then(|word| std::str::from_utf8(word).ok());
        let last = words.next().map(|word| word.eq_ignore_ascii_case(b"LAST"));
        let (Some(left), None | Some(true)) = (bytes.and_then(|text| text.parse().ok()), last)
        else {
            return self.wrong(replies::SYNTAX, out);
        };
        let last = last.is_some();
        if !self.transaction.goes_on() {
            self.content.clear();
        }
        if left == 0 {
            return self.chunk_over(last, out);
        }
        self.state = State::Chunk { left, last };
        None
    }

    /// A message has come whole.
    fn message(&mut self, out: &mut Vec<u8>) -> Option<Next> {
        self.messages += 1;
        if !self.shared.has_rules() {
            return self.act(About::Message, Act::Go, out);
        }
        let wait = self.transaction.judge(&self.shared);
        if wait.is_zero() {
            return self.act(About::Message, Act::Go, out);
        }
        self.pending = Some((About::Message, Act::Go));
        Some(Next::Wait(wait))
    }

    fn decide(
        &mut self,
        about: About,
        stage: Stage,
        address: &str,
        out: &mut Vec<u8>,
    ) -> Option<Next> {
        let decision = self.shared.decide(stage, address);
        if decision.wait.is_zero() {
            return self.act(about, decision.act, out);
        }
        self.pending = Some((about, decision.act));
        Some(Next::Wait(decision.wait))
    }

    fn act(&mut self, about: About, act: Act, out: &mut Vec<u8>) -> Option<Next> {
        if let About::Message = about {
            return self
                .transaction
                .end(&self.shared, self.local, &self.content, out);
        }
        match act {
            Act::Go => match about {
                About::Connect => out.extend_from_slice(replies::GREETING),
                About::Mail => {
                    self.transaction.open();
                    out.extend_from_slice(replies::OK);
                }
                About::Rcpt | About::Message => out.extend_from_slice(replies::RECIPIENT_OK),
            },
            Act::Drop => {
                self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
                // Not even what was to be said before.
                out.clear();
                return Some(Next::Close);
            }
            Act::Reply(reply) => {
                self.shared.count(&reply);
                reply.write(out);
                if let About::Rcpt = about {
                    self.transaction.pop();
                }
                // A session that is not greeted is none; 421 ends one (RFC 5321 3.8).
                if matches!(about, About::Connect) || reply.code == 421 {
                    return Some(Next::Close);
                }
            }
        }
        None
    }
}

/// What stands in `FROM:<...>` or `TO:<...>`, in whatever case and with a blank before it as some write it.
fn path<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let rest = rest.trim_ascii_start();
    let (word, rest) = rest.split_at_checked(keyword.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b"<")?;
    word.eq_ignore_ascii_case(keyword)
        .then(|| memchr::memchr(b'>', rest).map(|end| &rest[..end]))?
}

#[cfg(test)]
mod tests;
