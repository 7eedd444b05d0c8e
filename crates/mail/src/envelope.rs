//! The envelope: reverse-path, forward-paths and their ESMTP parameters (RFC 5321 2.3.1, RFC 3461, RFC 6152, RFC 6531).

use crate::address::{Address, ReversePath};

/// One transaction's addressing: who gets the reports, and who gets the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// The parameters of MAIL.
    pub parameters: MailParameters,
    /// Every accepted RCPT TO, in the order given; a repeated address stays repeated.
    pub recipients: Vec<Recipient>,
}

/// Parameters of MAIL that travel on with the message. SIZE does not: it is a claim of the client about this hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// BODY= (RFC 6152).
    pub body: Body,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// ENVID=, decoded from xtext, at most 100 characters (RFC 3461 4.4).
    pub envid: Option<Box<str>>,
}

/// BODY= of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`, the default.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// RET= of MAIL: how much of the message a failure report returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header only.
    Headers,
}

/// One forward-path with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// The mailbox.
    pub address: Address,
    /// Its DSN parameters.
    pub parameters: RcptParameters,
}

impl From<Address> for Recipient {
    fn from(address: Address) -> Self {
        Self {
            address,
            parameters: RcptParameters::default(),
        }
    }
}

/// Parameters of RCPT (RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RcptParameters {
    /// NOTIFY=; `None` where the client said nothing, which means failure, and delay at the server's choice.
    pub notify: Option<Notify>,
    /// ORCPT=, decoded: address type and address.
    pub orcpt: Option<OriginalRecipient>,
}

/// NOTIFY= of RCPT; all three false is NEVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notify {
    /// Report a delivery.
    pub success: bool,
    /// Report a failure.
    pub failure: bool,
    /// Report a delay.
    pub delay: bool,
}

/// ORCPT= of RCPT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginalRecipient {
    /// `rfc822`, `utf-8` ..., lower case.
    pub kind: Box<str>,
    /// The address, decoded from xtext, without CR, LF or NUL.
    pub address: Box<str>,
}
