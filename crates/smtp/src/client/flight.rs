//! The commands of one transaction as they go on the wire, and what of an envelope this server can be given.

use bytes::Bytes;
use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{Body, Envelope, Recipient, Reply};

use super::Phase;
use crate::xtext;

/// A command and what its reply is about.
pub struct Command {
    pub about: About,
    pub bytes: Vec<u8>,
}

/// What a reply is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// RSET or XFORWARD, whose refusal changes nothing.
    Rest,
    /// MAIL.
    Mail,
    /// The RCPT of the envelope's recipient with this position.
    Rcpt(usize),
    /// DATA.
    Data,
}

impl About {
    pub fn phase(self) -> Phase {
        match self {
            Self::Rest => Phase::Rest,
            Self::Mail => Phase::Mail,
            Self::Rcpt(_) => Phase::Rcpt,
            Self::Data => Phase::Data,
        }
    }
}

/// The extensions that change what MAIL and RCPT say.
#[derive(Clone, Copy, Debug)]
pub struct Offered {
    pub size: bool,
    /// The largest message that it takes, if it says so.
    pub bytes_max: Option<u64>,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
}

/// A message in canonical form, with what MAIL must say of it.
pub struct Message {
    pub parts: Vec<Bytes>,
    pub bytes: usize,
    eight_bit: bool,
    header_eight_bit: bool,
}

impl Message {
    pub fn new(parts: Vec<Bytes>) -> Self {
        Self {
            bytes: parts.iter().map(Bytes::len).sum(),
            eight_bit: parts.iter().any(|part| !part.is_ascii()),
            header_eight_bit: header_eight_bit(&parts),
            parts,
        }
    }
}

/// Whether there is 8-bit text before the first empty line, wherever the parts are cut.
fn header_eight_bit(parts: &[Bytes]) -> bool {
    let mut newlines = 1;
    for &byte in parts.iter().flatten() {
        match byte {
            b'\n' if newlines == 1 => return false,
            b'\n' => newlines = 1,
            b'\r' => {}
            0x80.. => return true,
            _ => newlines = 0,
        }
    }
    false
}

/// Why a recipient cannot be given to this server at all: the message is too large for it (RFC 1870 6.2), or something of it needs
/// SMTPUTF8 (RFC 6531 3.2, RFC 3463 5.6.7). A domain never does: it is in A-labels always.
pub fn unsendable(
    envelope: &Envelope,
    recipient: &Recipient,
    message: &Message,
    offered: Offered,
) -> Option<Reply> {
    if let Some(max) = offered.bytes_max.filter(|max| message.bytes as u64 > *max) {
        return Some(Reply::new(
            552,
            (5, 3, 4),
            format!(
                "The message has {} bytes, the next hop takes {max}",
                message.bytes
            ),
        ));
    }
    if offered.smtputf8 {
        return None;
    }
    let sender = envelope.reverse_path.address();
    let needs = sender.is_some_and(mail::Address::needs_smtputf8)
        || recipient.address.needs_smtputf8()
        || envelope.parameters.smtputf8 && message.header_eight_bit;
    needs.then(|| {
        Reply::new(
            553,
            (5, 6, 7),
            "The message needs SMTPUTF8, which the next hop does not offer",
        )
    })
}

/// MAIL.
pub fn mail(envelope: &Envelope, message: &Message, offered: Offered) -> Vec<u8> {
    let parameters = &envelope.parameters;
    let mut line = format!("MAIL FROM:<{}>", envelope.reverse_path);
    if offered.size {
        line.push_str(&format!(" SIZE={}", message.bytes));
    }
    if offered.eight_bit_mime && (parameters.body == Body::EightBitMime || message.eight_bit) {
        line.push_str(" BODY=8BITMIME");
    }
    let sender = envelope.reverse_path.address();
    let mut addresses = envelope
        .recipients
        .iter()
        .map(|recipient| &recipient.address)
        .chain(sender);
    if offered.smtputf8 && (parameters.smtputf8 || addresses.any(mail::Address::needs_smtputf8)) {
        line.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match parameters.ret {
            Some(Ret::Full) => line.push_str(" RET=FULL"),
            Some(Ret::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = &parameters.envid {
            line.push_str(" ENVID=");
            xtext::encode(envid, &mut line);
        }
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// RCPT.
pub fn rcpt(recipient: &Recipient, offered: Offered) -> Vec<u8> {
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if offered.dsn {
        if let Some(Notify {
            success,
            failure,
            delay,
        }) = recipient.parameters.notify
        {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<&str> = words
                .into_iter()
                .filter_map(|(on, word)| on.then_some(word))
                .collect();
            line.push_str(" NOTIFY=");
            line.push_str(&if words.is_empty() {
                "NEVER".to_owned()
            } else {
                words.join(",")
            });
        }
        if let Some(orcpt) = &recipient.parameters.orcpt {
            original_recipient(orcpt, &mut line);
        }
    }
    line.push_str("\r\n");
    line.into_bytes()
}

fn original_recipient(orcpt: &OriginalRecipient, line: &mut String) {
    line.push_str(&format!(" ORCPT={};", orcpt.kind));
    if &*orcpt.kind != "utf-8" {
        return xtext::encode(&orcpt.address, line);
    }
    // utf-8-addr-xtext (RFC 6533 3) is ASCII, so that it passes whether SMTPUTF8 is spoken or not.
    for character in orcpt.address.chars() {
        match character {
            '!'..='~' if !matches!(character, '+' | '=' | '\\') => line.push(character),
            _ => line.push_str(&format!("\\x{{{:X}}}", u32::from(character))),
        }
    }
}
