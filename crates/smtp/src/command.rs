//! Command lines (RFC 5321 4.1, RFC 1870, RFC 3030, RFC 3207, RFC 3461, RFC 6531, XFORWARD_README).
//!
//! One line of bytes becomes one [`Command`] or one [`CommandError`]; whether it may come now is the session's business.

mod line;
mod parameters;
mod path;

use mail::address::AddressError;
use mail::{Address, MailParameters, RcptParameters, Reply, ReversePath};

pub use line::{COMMAND_BYTES_MAX, Line, LineReader};

/// Octets of a HELO name that are kept.
const HELO_BYTES_MAX: usize = 255;

/// What EHLO offers; what is not offered is not understood either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// XFORWARD.
    pub xforward: bool,
    /// XCLIENT.
    pub xclient: bool,
}

impl Extensions {
    /// Everything.
    pub const ALL: Self = Self {
        pipelining: true,
        size: true,
        eight_bit_mime: true,
        smtputf8: true,
        enhanced_status_codes: true,
        chunking: true,
        dsn: true,
        starttls: true,
        xforward: true,
        xclient: true,
    };
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with the client's name, cleaned.
    Helo(Box<str>),
    /// EHLO.
    Ehlo(Box<str>),
    /// LHLO.
    Lhlo(Box<str>),
    /// MAIL.
    Mail(Mail),
    /// RCPT.
    Rcpt(Rcpt),
    /// DATA.
    Data,
    /// BDAT with the chunk's size.
    Bdat {
        /// Octets that follow the command.
        bytes: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// XFORWARD with its arguments as sent.
    Xforward(String),
    /// XCLIENT with its arguments as sent.
    Xclient(String),
    /// AUTH.
    Auth,
}

/// The arguments of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// FROM.
    pub reverse_path: ReversePath,
    /// The parameters that travel on.
    pub parameters: MailParameters,
    /// SIZE.
    pub size: Option<u64>,
}

/// The arguments of RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// TO.
    pub forward_path: ForwardPath,
    /// The DSN parameters.
    pub parameters: RcptParameters,
    /// The line holds 8-bit text: allowed only in a transaction with SMTPUTF8.
    pub eight_bit: bool,
}

/// TO of RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>`, without a domain (RFC 5321 4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Address),
}

/// Why a line is no command that we follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not a verb we know.
    #[error("command not recognized")]
    Unrecognized,
    /// What speaks is no mail client; the session ends.
    #[error("this is SMTP, and you speak something else")]
    Foreign,
    /// Longer than [`COMMAND_BYTES_MAX`].
    #[error("line too long, at most {COMMAND_BYTES_MAX} octets")]
    TooLong,
    /// A NUL, CR, LF or another control character.
    #[error("control character in a command")]
    Control,
    /// Not the form that the verb demands.
    #[error("syntax: {0}")]
    Syntax(&'static str),
    /// The size of a chunk cannot be read; what follows is neither a chunk nor a command.
    #[error("syntax: BDAT size [LAST]")]
    ChunkSize,
    /// MAIL FROM is no address.
    #[error("bad sender address: {0}")]
    Sender(AddressError),
    /// RCPT TO is no address.
    #[error("bad recipient address: {0}")]
    Recipient(AddressError),
    /// 8-bit text without SMTPUTF8.
    #[error("address with 8-bit text needs SMTPUTF8")]
    EightBit,
    /// A parameter that we did not offer.
    #[error("parameter {0} not recognized")]
    UnknownParameter(String),
    /// A parameter's value, or the same parameter twice.
    #[error("bad value of parameter {0}")]
    Parameter(&'static str),
}

impl CommandError {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        let (code, enhanced) = match self {
            Self::Unrecognized => (500, (5, 5, 1)),
            Self::Foreign => (554, (5, 5, 1)),
            Self::TooLong | Self::Control => (500, (5, 5, 2)),
            Self::Syntax(_) | Self::ChunkSize | Self::Parameter(_) => (501, (5, 5, 4)),
            Self::Sender(_) => (501, (5, 1, 7)),
            Self::Recipient(_) => (501, (5, 1, 3)),
            Self::EightBit => (553, (5, 6, 7)),
            Self::UnknownParameter(_) => (555, (5, 5, 4)),
        };
        Reply::new(code, enhanced, self.to_string())
    }
}

impl Command {
    /// Parses a line without its CRLF.
    pub fn parse(line: &[u8], extensions: &Extensions) -> Result<Self, CommandError> {
        let end = line
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(line.len());
        let (verb, arguments) = line.split_at(end);
        let arguments = arguments.trim_ascii();
        let verb = verb.to_ascii_uppercase();
        // A chunk follows BDAT whatever else is wrong with its line; the other verbs are looked at only when the line is clean.
        if verb != b"BDAT" && line.iter().any(u8::is_ascii_control) {
            return Err(CommandError::Control);
        }
        match verb.as_slice() {
            b"HELO" => Ok(Self::Helo(helo(arguments, "HELO name")?)),
            b"EHLO" => Ok(Self::Ehlo(helo(arguments, "EHLO name")?)),
            b"LHLO" => Ok(Self::Lhlo(helo(arguments, "LHLO name")?)),
            b"MAIL" => mail(arguments, extensions).map(Self::Mail),
            b"RCPT" => rcpt(arguments, extensions).map(Self::Rcpt),
            b"DATA" => bare(Self::Data, arguments, "DATA"),
            b"BDAT" => bdat(arguments),
            b"RSET" => bare(Self::Rset, arguments, "RSET"),
            b"QUIT" => bare(Self::Quit, arguments, "QUIT"),
            b"NOOP" => Ok(Self::Noop),
            b"VRFY" => Ok(Self::Vrfy),
            b"EXPN" => Ok(Self::Expn),
            b"HELP" => Ok(Self::Help),
            b"STARTTLS" => bare(Self::StartTls, arguments, "STARTTLS"),
            b"AUTH" => Ok(Self::Auth),
            b"XFORWARD" => text(arguments, "XFORWARD attribute=value ...").map(Self::Xforward),
            b"XCLIENT" => text(arguments, "XCLIENT attribute=value ...").map(Self::Xclient),
            verb if is_foreign(verb) => Err(CommandError::Foreign),
            _ => Err(CommandError::Unrecognized),
        }
    }
}

/// What no mail client says: requests of the web (smuggled through a browser or a proxy), and header fields (whoever says them never
/// waited for a reply). postconf(5), smtpd_forbidden_commands.
fn is_foreign(verb: &[u8]) -> bool {
    let field = verb.strip_suffix(b":").is_some_and(|name| {
        name.first().is_some_and(u8::is_ascii_alphabetic)
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    });
    field
        || matches!(
            verb,
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT"
        )
}

fn text(arguments: &[u8], form: &'static str) -> Result<String, CommandError> {
    match std::str::from_utf8(arguments) {
        Ok(arguments) => Ok(arguments.to_owned()),
        Err(_) => Err(CommandError::Syntax(form)),
    }
}

fn bare(command: Command, arguments: &[u8], form: &'static str) -> Result<Command, CommandError> {
    if arguments.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax(form))
    }
}

/// The name as logs and headers can hold it. What it claims is judged by policy.
fn helo(arguments: &[u8], form: &'static str) -> Result<Box<str>, CommandError> {
    if arguments.is_empty() {
        return Err(CommandError::Syntax(form));
    }
    let clean = |&byte: &u8| {
        if byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            '?'
        }
    };
    let name: String = arguments.iter().take(HELO_BYTES_MAX).map(clean).collect();
    Ok(name.into())
}

fn bdat(arguments: &[u8]) -> Result<Command, CommandError> {
    let mut words = arguments
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let size = words.next().ok_or(CommandError::ChunkSize)?;
    let bytes = parameters::number(size).ok_or(CommandError::ChunkSize)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(CommandError::ChunkSize),
    };
    match words.next() {
        None => Ok(Command::Bdat { bytes, last }),
        Some(_) => Err(CommandError::ChunkSize),
    }
}

fn mail(arguments: &[u8], extensions: &Extensions) -> Result<Mail, CommandError> {
    const FORM: &str = "MAIL FROM:<address>";
    let (path, rest) = path::split(arguments, b"FROM:", FORM)?;
    let (parameters, size) = parameters::mail(rest, extensions)?;
    if !parameters.smtputf8 && !arguments.is_ascii() {
        return Err(CommandError::EightBit);
    }
    let path = path::text(path).map_err(CommandError::Sender)?;
    let reverse_path = ReversePath::parse(path).map_err(CommandError::Sender)?;
    Ok(Mail {
        reverse_path,
        parameters,
        size,
    })
}

fn rcpt(arguments: &[u8], extensions: &Extensions) -> Result<Rcpt, CommandError> {
    const FORM: &str = "RCPT TO:<address>";
    let (path, rest) = path::split(arguments, b"TO:", FORM)?;
    let eight_bit = !arguments.is_ascii();
    if eight_bit && !extensions.smtputf8 {
        return Err(CommandError::EightBit);
    }
    let parameters = parameters::rcpt(rest, extensions)?;
    let path = path::text(path).map_err(CommandError::Recipient)?;
    let forward_path = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(Address::parse(path).map_err(CommandError::Recipient)?)
    };
    Ok(Rcpt {
        forward_path,
        parameters,
        eight_bit,
    })
}

#[cfg(test)]
mod tests;
