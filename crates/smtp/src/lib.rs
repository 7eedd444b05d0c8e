//! SMTP and LMTP as values: commands, sessions, the end of data, replies; and two thin async drivers, one a server, one a client.
//!
//! `command`, `data`, `proxy`, `session`, `xclient`, `xforward` take bytes and return values; they never await. Only `server` reads client sockets.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod command;
pub mod data;
pub mod facts;
pub mod objection;
pub mod proxy;
pub mod server;
pub mod session;
pub mod settings;
#[cfg(test)]
mod testing;
mod wire;
pub mod xclient;
pub mod xforward;
pub mod xtext;

/// Which of the two dialogues is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321: HELO/EHLO, one reply to the message.
    Smtp,
    /// RFC 2033: LHLO, one reply a recipient to the message.
    Lmtp,
}
