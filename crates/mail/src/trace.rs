//! The trace header `X-Mailflow-Trace`: what the edge knows of a message, carried on the inner hops.
//!
//! The edge alone writes it, the scanner fills in its verdict token, listserv takes it off. Everybody else's copy is stripped.
//! It is believed only over mutual TLS or loopback. Custody, arrival and client are the edge's word, not the sender's.

use std::net::IpAddr;

use crate::id::Ident;
use crate::timestamp::Timestamp;

/// The field's name.
pub const NAME: &str = "X-Mailflow-Trace";

/// What the edge knows of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The message's name on the inner hops.
    pub ident: Ident,
    /// Does the client still wait, or did the edge say 250 and keep the message?
    pub custody: Custody,
    /// When the edge had the whole message.
    pub arrival: Timestamp,
    /// The client's address.
    pub client: IpAddr,
    /// What the client called itself, cleaned.
    pub helo: Box<str>,
    /// SPF of the reverse-path (of HELO when that is null).
    pub spf: Spf,
    /// Own network or authenticated: exempt from scanning by rule, counted.
    pub exempt: bool,
    /// A signed verdict (`verdict::Token`), when a scanner gave one.
    pub verdict: Option<Box<str>>,
}

/// Whose the message is while it travels inward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The client still waits: a refusal reaches the sender.
    Live,
    /// The edge owns it: a refusal would need a bounce, so bad mail is quarantined.
    Spooled,
}

/// The result of an SPF check (RFC 7208 2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spf {
    /// The domain authorises this client.
    Pass,
    /// It forbids it.
    Fail,
    /// It discourages it.
    SoftFail,
    /// It says nothing about it.
    Neutral,
    /// No policy published, or not checked.
    #[default]
    None,
    /// DNS did not answer.
    TempError,
    /// The published policy cannot be read.
    PermError,
}

impl Trace {
    /// The whole header field, folded, with its CRLF.
    pub fn header(&self) -> String {
        todo!()
    }

    /// Reads the field's value (as `header::Field::text` gives it). `None` when it is not ours or not whole.
    pub fn parse(value: &str) -> Option<Self> {
        todo!("{value}")
    }
}
