//! What a session refuses on its own account: one table for the words of its replies and for figures, and the refusal as the handler
//! is told of it.

use std::fmt;

use mail::{Domain, Envelope, Reply};

use crate::data::Fault;
use crate::facts::Facts;

/// What a session refused on its own account, before anybody was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objection {
    /// A command that is none, or whose arguments cannot be read.
    Syntax,
    /// A command where it may not come, or that is not offered.
    Sequence,
    /// MAIL that cannot be read: what it gives is no address, or a parameter is not known.
    Sender,
    /// MAIL that announces more than is taken (RFC 1870 6.1).
    Announced,
    /// RCPT that cannot be read, within a transaction.
    Recipient,
    /// RCPT beyond what one transaction may have (RFC 5321 4.5.3.1.10).
    Recipients,
    /// A message that came and is larger than is taken.
    TooLarge,
    /// A message with a bare CR or LF, where these are refused.
    BareNewline,
    /// A message for which there was no memory.
    NoMemory,
    /// One of too many commands that bring no message on; it was followed all the same, so that its reply is positive.
    Junk,
    /// Sent ahead what must not be sent ahead (RFC 2920 3.1).
    Pipelined,
    /// What speaks is no mail client.
    Foreign,
    /// The client was too slow.
    TimedOut,
    /// One error too many; said behind the reply to it.
    Errors,
    /// The server stops, between two transactions.
    Stopping,
}

struct Entry {
    label: &'static str,
    code: u16,
    enhanced: (u8, u16, u16),
    text: &'static str,
}

impl Objection {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Syntax,
        Self::Sequence,
        Self::Sender,
        Self::Announced,
        Self::Recipient,
        Self::Recipients,
        Self::TooLarge,
        Self::BareNewline,
        Self::NoMemory,
        Self::Junk,
        Self::Pipelined,
        Self::Foreign,
        Self::TimedOut,
        Self::Errors,
        Self::Stopping,
    ];

    #[rustfmt::skip]
    fn entry(self) -> Entry {
        let (label, code, enhanced, text) = match self {
            // The first four and RCPT's say more where they are said: what is wrong with it.
            Self::Syntax => ("syntax", 501, (5, 5, 4), "syntax error"),
            Self::Sequence => ("sequence", 503, (5, 5, 1), "Bad sequence of commands"),
            Self::Sender => ("sender_syntax", 501, (5, 1, 7), "bad sender address"),
            Self::Recipient => ("recipient_syntax", 501, (5, 1, 3), "bad recipient address"),
            Self::Announced => ("announced_too_large", 552, (5, 3, 4), "Message is larger than SIZE allows"),
            Self::Recipients => ("too_many_recipients", 452, (4, 5, 3), "Too many recipients, send the others in another transaction"),
            Self::TooLarge => ("too_large", 552, (5, 3, 4), "Message is larger than SIZE allows"),
            Self::BareNewline => ("bare_newline", 550, (5, 5, 2), "Message contains a bare CR or LF; lines end in CRLF"),
            Self::NoMemory => ("no_memory", 452, (4, 3, 1), "Insufficient memory, try again later"),
            Self::Junk => ("junk_commands", 250, (2, 0, 0), "Ok"),
            Self::Pipelined => ("pipelined", 554, (5, 5, 0), "Improper use of pipelining: wait for the reply"),
            Self::Foreign => ("foreign", 554, (5, 5, 1), "this is SMTP, and you speak something else"),
            Self::TimedOut => ("timed_out", 421, (4, 4, 2), "waited too long, closing connection"),
            Self::Errors => ("too_many_errors", 421, (4, 7, 0), "closing connection: too many errors"),
            Self::Stopping => ("stopping", 421, (4, 3, 2), "is shutting down, try again later"),
        };
        Entry { label, code, enhanced, text }
    }

    /// The word in logs and metric labels.
    pub fn label(self) -> &'static str {
        self.entry().label
    }

    /// Whether it is said for good, with a 5xx.
    pub fn is_permanent(self) -> bool {
        self.entry().code >= 500
    }

    /// Whether it is said of a whole message, which ends its transaction.
    pub fn is_of_message(self) -> bool {
        matches!(self, Self::TooLarge | Self::BareNewline | Self::NoMemory)
    }

    /// Code, enhanced status and text, where there is no more to be said.
    pub fn words(self) -> (u16, (u8, u16, u16), &'static str) {
        let entry = self.entry();
        (entry.code, entry.enhanced, entry.text)
    }

    /// The same as a reply.
    pub fn reply(self) -> Reply {
        let (code, enhanced, text) = self.words();
        Reply::new(code, enhanced, text)
    }

    /// The same where it is said in parting; a 421 then begins with this host's name (RFC 5321 4.2.2).
    pub(crate) fn parting(self, hostname: &Domain) -> Reply {
        let mut reply = self.reply();
        if reply.code == 421 {
            reply.lines[0].insert_str(0, &format!("{hostname} "));
        }
        reply
    }
}

impl From<Fault> for Objection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge => Self::TooLarge,
            Fault::BareNewline => Self::BareNewline,
            Fault::NoMemory => Self::NoMemory,
        }
    }
}

/// A refusal that the handler was not asked about, with what is known of the transaction. Text of a client, as a log can hold it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub objection: Objection,
    /// As the client was told.
    pub reply: Reply,
    /// The reverse-path; empty without one. What cannot be read is given as it came.
    pub from: Box<str>,
    /// Whom it was about: the forward-path of a RCPT, or all of a message that ended with it.
    pub to: Vec<Box<str>>,
    /// The refused command; empty where it was none.
    pub said: Box<str>,
}

/// Octets of a client's line that are kept of it.
const SAID_BYTES_MAX: usize = 100;

impl Refusal {
    pub(crate) fn new(objection: Objection, reply: Reply) -> Self {
        Self {
            objection,
            reply,
            from: Box::default(),
            to: Vec::new(),
            said: Box::default(),
        }
    }

    /// Within a transaction.
    pub(crate) fn within(mut self, envelope: &Envelope) -> Self {
        self.from = envelope.reverse_path.to_string().into();
        self
    }

    /// Of all that a transaction has.
    pub(crate) fn of(self, envelope: &Envelope) -> Self {
        let to = envelope.recipients.iter();
        let to = to.map(|one| one.address.to_string().into()).collect();
        Self { to, ..self }.within(envelope)
    }

    /// The command that was refused; a path in it that could not be read is taken as it came.
    pub(crate) fn answers(&mut self, line: &[u8]) {
        let cut = &line[..line.len().min(SAID_BYTES_MAX)];
        self.said = cut.escape_ascii().to_string().into();
        let path = || {
            let (_, path) = self.said.split_once(':')?;
            let path = path.split(['<', '>']).find(|part| !part.trim().is_empty());
            Some(path?.trim().into())
        };
        match self.objection {
            Objection::Sender => self.from = path().unwrap_or_default(),
            Objection::Recipient => self.to = path().into_iter().collect(),
            _ => {}
        }
    }
}

/// How refusals are worded: every reply with a 4xx or 5xx goes through it, the session's own and the handler's.
pub trait Wording: fmt::Debug + Send + Sync {
    /// The reply as it is said to this client.
    fn refusal(&self, facts: &Facts, reply: Reply) -> Reply;
}
