//! The server's side of a session as values: states that own exactly their data, transitions that consume them.
//!
//! Bytes go in, replies and questions come out. Nothing here reads a socket, waits or knows the time; memory for a message is asked
//! for before it is used.

mod dialogue;
mod receive;
mod replies;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mail::{Envelope, MailParameters, Recipient, Reply, ReversePath};

use crate::Protocol;
use crate::command::{Extensions, LineReader};
use crate::data::Fault;
use crate::facts::{Ending, Facts, Tls};
use crate::objection::{Objection, Refusal};
use crate::settings::Settings;
use state::{Asked, State};

/// What the driver has to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Write the replies that stand, then bring more input.
    Read(Wait),
    /// Ask the handler, then call [`Session::answer`] or, for a message, [`Session::answer_message`].
    Ask(Question<'a>),
    /// Tell the handler what was refused without asking it.
    Objected(Box<Refusal>),
    /// Tell the handler that the transaction, if there was one, is over.
    Reset,
    /// Grant this much memory, in bytes, by [`Session::grant`], or call [`Session::shed`].
    Room(usize),
    /// Write the replies that stand, make the TLS handshake, then call [`Session::secured`].
    StartTls,
    /// Write the replies that stand and close.
    Close(Ending),
}

/// What is waited for, for the choice of the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A command.
    Command,
    /// More of a message.
    Message,
}

/// What only the program can answer.
#[derive(Debug)]
pub enum Question<'a> {
    /// A connection stands.
    Connect {
        /// What is known of the client.
        facts: &'a Facts,
    },
    /// HELO, EHLO or LHLO.
    Helo {
        /// What is known of the client, its name included.
        facts: &'a Facts,
    },
    /// MAIL.
    Mail {
        /// What is known of the client.
        facts: &'a Facts,
        /// FROM.
        reverse_path: &'a ReversePath,
        /// Its parameters.
        parameters: &'a MailParameters,
        /// SIZE.
        size: Option<u64>,
    },
    /// RCPT.
    Rcpt {
        /// What is known of the client.
        facts: &'a Facts,
        /// The transaction so far.
        envelope: &'a Envelope,
        /// TO.
        recipient: &'a Recipient,
    },
    /// STARTTLS, where it is offered.
    StartTls {
        /// What is known of the client.
        facts: &'a Facts,
    },
    /// The whole message.
    Message {
        /// What is known of the client.
        facts: &'a Facts,
        /// The transaction.
        envelope: &'a Envelope,
        /// The message, CRLF lines, dots unstuffed.
        message: Bytes,
    },
}

/// One session.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    facts: Facts,
    state: State,
    lines: LineReader,
    errors: usize,
    /// Of them those whose replies have waited already.
    paid: usize,
    /// Commands since the last message that bring none on.
    junk: usize,
    /// Neither errors nor junk are counted.
    exempt: bool,
    /// A transaction ended, and the handler has not been told.
    over: bool,
    /// What was refused, and the handler has not been told of.
    objected: VecDeque<Box<Refusal>>,
}

impl Session {
    /// A session on a connection that stands; nothing has been said.
    pub fn new(settings: Arc<Settings>, facts: Facts) -> Self {
        Self {
            settings,
            facts,
            state: State::Asked(Asked::Connect),
            lines: LineReader::default(),
            errors: 0,
            paid: 0,
            junk: 0,
            exempt: false,
            over: false,
            objected: VecDeque::new(),
        }
    }

    /// What is known of the client.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// From here on a client's errors and junk end nothing, or do again: for hosts that no limit may hit.
    pub fn set_exempt(&mut self, exempt: bool) {
        self.exempt = exempt;
    }

    /// Reads on in `input`, appends replies to `out`, and says what must happen before it can go further.
    pub fn step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Step<'_> {
        loop {
            if let Some(refusal) = self.objected.pop_front() {
                return Step::Objected(refusal);
            }
            if std::mem::take(&mut self.over) {
                return Step::Reset;
            }
            if !self.advance(input, out) {
                break;
            }
        }
        if matches!(self.state, State::Securing) {
            // What was sent in the clear behind STARTTLS was perhaps not sent by the client (CVE-2011-0411).
            input.clear();
        }
        self.waits_for(input)
    }

    /// The handler's answer to every question but [`Question::Message`]. 421 and 521 are said for the whole connection, and end it (RFC
    /// 5321 3.8, RFC 7504 3).
    pub fn answer(&mut self, answer: Result<(), Reply>, out: &mut Vec<u8>) {
        let closes = matches!(&answer, Err(reply) if matches!(reply.code, 421 | 521));
        match (self.state.take(), answer) {
            (State::Asked(asked), Ok(())) => self.agreed(asked, out),
            (State::Asked(asked), Err(reply)) => self.refused(asked, reply, out),
            (state, _) => self.state = state,
        }
        if closes {
            self.state = State::Closed(Ending::Refused);
        }
    }

    /// The handler's answer to [`Question::Message`].
    pub fn answer_message(&mut self, replies: Vec<Reply>, out: &mut Vec<u8>) {
        let State::Asked(Asked::Message { envelope, .. }) = self.state.take() else {
            debug_assert!(false, "no message was asked about");
            return;
        };
        let closes = replies.iter().any(|reply| reply.code == 421);
        if replies.iter().any(Reply::is_positive) {
            self.junk = 0;
        }
        let expected = self.replies_to_message(&envelope);
        let mut replies = replies.into_iter();
        for _ in 0..expected {
            // A handler that owes a reply has not said that it owns the message.
            let reply = replies.next().unwrap_or_else(replies::no_reply);
            self.say(reply, out);
        }
        debug_assert!(replies.next().is_none(), "more replies than recipients");
        self.end_transaction();
        if closes {
            self.state = State::Closed(Ending::Refused);
        }
    }

    /// Memory was granted as [`Step::Room`] asked.
    pub fn grant(&mut self, bytes: usize) {
        if let Some(content) = self.state.content() {
            content.grant(bytes);
        }
    }

    /// No memory is left: the message is read to its end and answered 452 4.3.1.
    pub fn shed(&mut self) {
        if let Some(content) = self.state.content() {
            content.spoil(Fault::NoMemory);
        }
    }

    /// The TLS handshake is done: everything that was said before is forgotten (RFC 3207 4.2).
    pub fn secured(&mut self, tls: Tls) {
        debug_assert!(
            matches!(self.state, State::Securing),
            "no STARTTLS was said"
        );
        self.facts.tls = Some(tls);
        self.state = State::Fresh;
    }

    /// Whether the session is between two transactions, where shutting down harms nobody.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Fresh | State::Ready)
    }

    /// Ends an idle session because the server shuts down.
    pub fn stop(&mut self, out: &mut Vec<u8>) {
        if self.idle() {
            self.end(Objection::Stopping, Ending::Shutdown, out);
        }
    }

    /// Errors beyond `errors_soft` since the last time this was asked: the replies that stand should wait for each.
    pub fn penalty(&mut self) -> u32 {
        if self.exempt {
            return 0;
        }
        let errors = self.errors.saturating_sub(self.settings.guard.errors_soft);
        let penalty = errors.saturating_sub(self.paid);
        self.paid = errors;
        u32::try_from(penalty).unwrap_or(u32::MAX)
    }

    /// Ends the session because the client was too slow.
    pub fn timed_out(&mut self, out: &mut Vec<u8>) {
        self.end(Objection::TimedOut, Ending::TimedOut, out);
    }

    fn waits_for(&self, input: &BytesMut) -> Step<'_> {
        let facts = &self.facts;
        match &self.state {
            State::Asked(Asked::Connect) => Step::Ask(Question::Connect { facts }),
            State::Asked(Asked::Helo { .. }) => Step::Ask(Question::Helo { facts }),
            State::Asked(Asked::Mail(mail)) => Step::Ask(Question::Mail {
                facts,
                reverse_path: &mail.reverse_path,
                parameters: &mail.parameters,
                size: mail.size,
            }),
            State::Asked(Asked::Rcpt {
                envelope,
                recipient,
            }) => Step::Ask(Question::Rcpt {
                facts,
                envelope,
                recipient,
            }),
            State::Asked(Asked::StartTls { .. }) => Step::Ask(Question::StartTls { facts }),
            State::Asked(Asked::Message { envelope, message }) => Step::Ask(Question::Message {
                facts,
                envelope,
                message: message.clone(),
            }),
            State::Fresh | State::Ready | State::Transaction(_) | State::Chunks(_) => {
                Step::Read(Wait::Command)
            }
            State::Data { incoming, .. } | State::Chunk { incoming, .. } => {
                match incoming.content.wants(input.len()) {
                    bytes if bytes > 0 && !input.is_empty() => Step::Room(bytes),
                    _ => Step::Read(Wait::Message),
                }
            }
            State::Discard { .. } => Step::Read(Wait::Message),
            State::Securing => Step::StartTls,
            State::Closed(ending) => Step::Close(*ending),
        }
    }

    /// What is offered at this moment.
    fn extensions(&self) -> Extensions {
        let settings = &self.settings;
        let on = |keyword: &str| {
            !settings
                .keywords_off
                .iter()
                .any(|off| off.eq_ignore_ascii_case(keyword))
        };
        Extensions {
            pipelining: on("PIPELINING"),
            size: on("SIZE"),
            eight_bit_mime: on("8BITMIME"),
            smtputf8: on("SMTPUTF8"),
            enhanced_status_codes: on("ENHANCEDSTATUSCODES"),
            chunking: on("CHUNKING"),
            dsn: on("DSN"),
            starttls: settings.tls.is_some() && self.facts.tls.is_none() && on("STARTTLS"),
            xforward: settings.xforward && on("XFORWARD"),
            xclient: settings.guard.xclient && on("XCLIENT"),
        }
    }

    /// How many replies a message is owed.
    fn replies_to_message(&self, envelope: &Envelope) -> usize {
        match self.settings.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => envelope.recipients.len(),
        }
    }

    /// Back to where MAIL may come. XFORWARD told about one message only.
    fn end_transaction(&mut self) {
        self.facts.xforward = Default::default();
        self.over = true;
        self.state = State::Ready;
    }
}
