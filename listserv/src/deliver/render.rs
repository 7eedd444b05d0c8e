//! The copies in which a stored message leaves: header fields spliced on top, everything below untouched and shared.
//!
//! A post loses exactly the fields of [`REPLACED`] and `Return-Path`, and gets the list's own on top; DKIM-Signature, From,
//! Reply-To, Subject and the body stay octet for octet. A forward gets `Delivered-To` and `Received`; our own mail nothing.

use bytes::Bytes;
use mail::header::{self, Field};
use mail::{Address, Envelope, MailParameters, RcptParameters, Recipient, ReversePath, recipient};
use spool::Head;

use crate::facts::Facts;
use crate::posting::{list_id, list_mark};

/// Fields of a post that are taken out: two lists cannot both speak of themselves (RFC 2369 4), and Return-Path belongs to the
/// last host alone (RFC 5321 4.4).
pub const REPLACED: [&str; 11] = [
    "List-Id",
    "List-Post",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Owner",
    "List-Archive",
    "Precedence",
    "Sender",
    "Return-Path",
];

/// The parts of a post: the list's header, then slices of the stored message.
pub fn post_parts(list: &Address, received: &str, body: &Bytes) -> Vec<Bytes> {
    let mut top = list_header(list);
    top.push_str(received);
    splice(top, body, |field| {
        REPLACED.iter().any(|name| field.is(name))
    })
}

/// The parts of a forward.
pub fn forward_parts(by: &Address, received: &str, body: &Bytes) -> Vec<Bytes> {
    let mut top = header::fold("Delivered-To", &by.to_string());
    top.push_str(received);
    splice(top, body, |field| field.is("Return-Path"))
}

/// The envelope of a post's copy for one member: one transaction a member, since each has its own reverse-path.
pub fn post_envelope(head: &Head, list: &Address, number: u64, member: &Address) -> Envelope {
    Envelope {
        reverse_path: ReversePath::Address(recipient::verp(list, number, member)),
        // A list is the new sender: what the author asked of reports ends here (RFC 3461 5.2.7.3).
        parameters: MailParameters {
            ret: None,
            envid: None,
            ..head.parameters.clone()
        },
        recipients: vec![Recipient {
            address: member.clone(),
            parameters: RcptParameters::default(),
        }],
    }
}

/// Our `Received` (RFC 5321 4.4).
pub fn received(head: &Head, facts: &Facts, hostname: &str) -> String {
    let helo = if facts.helo.is_empty() {
        "unknown"
    } else {
        &facts.helo
    };
    let client = match facts.client {
        Some(client) => format!("from {helo} ([{client}]) "),
        None => String::new(),
    };
    let value = format!(
        "{client}by {hostname} with LMTP id {}; {}",
        head.id,
        head.arrival.rfc5322()
    );
    header::fold("Received", &value)
}

/// The list's own fields (RFC 2369, RFC 2919) and its loop mark.
fn list_header(list: &Address) -> String {
    let below = |extension: &str| {
        let local = format!("{}-{extension}", list.local());
        format!("{}@{}", percent(&local), list.domain())
    };
    let post = format!("{}@{}", percent(list.local()), list.domain());
    let sender = Address::new(&format!("{}-owner", list.local()), list.domain().clone())
        .map_or_else(|_| list.to_string(), |owner| owner.to_string());
    let fields = [
        ("Precedence", "list".to_owned()),
        ("List-Id", format!("<{}>", list_id(list))),
        ("List-Post", format!("<mailto:{post}>")),
        ("List-Help", format!("<mailto:{}>", below("help"))),
        ("List-Subscribe", format!("<mailto:{}>", below("subscribe"))),
        (
            "List-Unsubscribe",
            format!("<mailto:{}>", below("unsubscribe")),
        ),
        ("List-Owner", format!("<mailto:{}>", below("owner"))),
        ("Sender", sender),
        ("Delivered-To", list_mark(list)),
    ];
    fields
        .iter()
        .map(|(name, value)| header::fold(name, value))
        .collect()
}

/// A local part as it stands in a mailto URL (RFC 6068 2).
fn percent(local: &str) -> String {
    let mut out = String::new();
    for byte in local.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~+=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `top`, then the message without the fields that `drop` names, as slices of the same memory.
fn splice(top: String, body: &Bytes, drop: impl Fn(&Field<'_>) -> bool) -> Vec<Bytes> {
    let mut walk = header::fields(body);
    // An mbox "From " line would end the header that we put before it.
    let mut kept_from = walk.offset();
    let first = kept_from;
    let mut parts = vec![Bytes::from(top)];
    let mut start = first;
    while let Some(field) = walk.next() {
        let end = walk.offset();
        if drop(&field) {
            parts.push(body.slice(kept_from..start));
            kept_from = end;
        }
        start = end;
    }
    if start == first && !body[first..].starts_with(b"\r\n") {
        parts.push(Bytes::from_static(b"\r\n")); // no header at all: what follows is body
    }
    parts.push(body.slice(kept_from..));
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Address {
        Address::parse("dev@lists.example").unwrap()
    }

    /// What follows our own header.
    fn rest(message: &str) -> String {
        let parts = post_parts(
            &list(),
            "Received: by us\r\n",
            &Bytes::copy_from_slice(message.as_bytes()),
        );
        let whole = String::from_utf8(parts.concat()).unwrap();
        let end = whole.find("Received: by us\r\n").unwrap() + "Received: by us\r\n".len();
        whole[end..].to_owned()
    }

    #[test]
    fn all_but_the_documented_fields_stays_octet_for_octet() {
        let table = [
            ("Subject: a\r\n\r\nbody\r\n", "Subject: a\r\n\r\nbody\r\n"),
            (
                "DKIM-Signature: v=1;\r\n\tb=x\r\nlist-ID:\r\n <x>\r\nFROM : a\r\nSender: b\r\nX: \t y \r\n\r\nSender: in body\r\n",
                "DKIM-Signature: v=1;\r\n\tb=x\r\nFROM : a\r\nX: \t y \r\n\r\nSender: in body\r\n",
            ),
            (
                "Return-Path: <a>\r\nA: 1\r\nPrecedence: bulk\r\n\r\n",
                "A: 1\r\n\r\n",
            ),
            ("Precedence: bulk\r\n\r\nx", "\r\nx"),
            ("\r\nonly body", "\r\nonly body"),
            ("no header", "\r\nno header"),
            ("", "\r\n"),
            ("From me Thu Jan 1\r\nA: 1\r\n\r\nx", "A: 1\r\n\r\nx"),
            (
                "A: 1\r\nno field\r\nSender: kept\r\n",
                "A: 1\r\nno field\r\nSender: kept\r\n",
            ),
            (
                "Delivered-To: mailing list x@y\r\nReceived: z\r\n\r\n",
                "Delivered-To: mailing list x@y\r\nReceived: z\r\n\r\n",
            ),
        ];
        for (message, expected) in table {
            assert_eq!(rest(message), expected, "{message:?}");
        }
    }

    #[test]
    fn the_body_is_shared() {
        let body = Bytes::from_static(b"Sender: b\r\nSubject: a\r\n\r\nbody\r\n");
        let parts = post_parts(&list(), "", &body);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[1].as_ptr(), body[11..].as_ptr());
    }

    #[test]
    fn the_list_speaks_for_itself() {
        assert_eq!(
            list_header(&Address::parse("a/b@lists.example").unwrap()),
            "Precedence: list\r\n\
             List-Id: <a_b.lists.example>\r\n\
             List-Post: <mailto:a%2Fb@lists.example>\r\n\
             List-Help: <mailto:a%2Fb-help@lists.example>\r\n\
             List-Subscribe: <mailto:a%2Fb-subscribe@lists.example>\r\n\
             List-Unsubscribe: <mailto:a%2Fb-unsubscribe@lists.example>\r\n\
             List-Owner: <mailto:a%2Fb-owner@lists.example>\r\n\
             Sender: a/b-owner@lists.example\r\n\
             Delivered-To: mailing list a/b@lists.example\r\n"
        );
    }

    #[test]
    fn a_forward_is_marked() {
        let by = Address::parse("joe@lists.example").unwrap();
        let parts = forward_parts(
            &by,
            "Received: x\r\n",
            &Bytes::from_static(b"Sender: s\r\n\r\nb"),
        );
        assert_eq!(
            parts.concat(),
            b"Delivered-To: joe@lists.example\r\nReceived: x\r\nSender: s\r\n\r\nb"
        );
    }
}
