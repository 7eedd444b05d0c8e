//! How a message's head and a batch are packed inside records. Each carries a version and its own checksum, since it is read
//! back alone, by its place. Recipients are packed: a domain that repeats costs nothing, parameters only where they are.

use bytes::Bytes;
use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{
    Address, Body, Domain, MailParameters, MessageId, RcptParameters, Recipient, ReversePath,
    Timestamp,
};

use super::codec::{Malformed, Put, Take, seal, unseal};
use super::orders::{put_hold, put_orders, take_hold, take_orders};
use crate::selection::Order;
use crate::{Batch, BatchId, Class, Destination, Head, Replies};

const HEAD_VERSION: u8 = 1;
/// The first one had neither hold nor orders, the second one reply for all recipients.
const BATCH_VERSION: u8 = 3;

/// A batch, with what is to become of it when its attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The batch.
    pub batch: Batch,
    /// None but while it is being attempted, or after a crash meanwhile.
    pub orders: Vec<Order>,
}

const SAME_DOMAIN: u8 = 1;
const HAS_NOTIFY: u8 = 2;
const HAS_ORCPT: u8 = 4;

/// Packs a head.
pub fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + head.facts.len());
    out.put_u8(HEAD_VERSION);
    out.put_u128(head.id.0);
    out.put_number(head.arrival.0);
    out.put_number(head.accepted.0);
    match &head.reverse_path {
        ReversePath::Null => out.put_u8(0),
        ReversePath::Address(address) => {
            out.put_u8(1);
            out.put_bytes(address.local().as_bytes());
            out.put_bytes(address.domain().as_str().as_bytes());
        }
    }
    let parameters = &head.parameters;
    out.put_u8(match parameters.body {
        Body::SevenBit => 0,
        Body::EightBitMime => 1,
    });
    out.put_u8(u8::from(parameters.smtputf8));
    out.put_u8(match parameters.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    });
    out.put_u8(u8::from(parameters.envid.is_some()));
    if let Some(envid) = &parameters.envid {
        out.put_bytes(envid.as_bytes());
    }
    out.put_bytes(&head.facts);
    out.put_number(head.body_bytes);
    seal(&mut out, 0);
    out
}

/// Unpacks a head.
pub fn decode_head(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut take = Take::new(unseal(bytes, "head")?);
    take.version("head", HEAD_VERSION)?;
    let id = MessageId(take.u128("message id")?);
    let arrival = Timestamp(take.number("arrival")?);
    let accepted = Timestamp(take.number("accepted")?);
    let reverse_path = match take.u8("reverse-path")? {
        0 => ReversePath::Null,
        1 => {
            let local = take.text("local part")?;
            let domain = domain(&mut take)?;
            ReversePath::Address(address(&take, local, domain)?)
        }
        _ => return Err(take.bad("reverse-path")),
    };
    let body = match take.u8("body kind")? {
        0 => Body::SevenBit,
        1 => Body::EightBitMime,
        _ => return Err(take.bad("body kind")),
    };
    let smtputf8 = flag(&mut take, "smtputf8")?;
    let ret = match take.u8("ret")? {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return Err(take.bad("ret")),
    };
    let envid = if flag(&mut take, "envid")? {
        Some(take.text("envid")?.into())
    } else {
        None
    };
    let facts = Bytes::copy_from_slice(take.bytes("facts")?);
    let body_bytes = take.number("body length")?;
    Ok(Head {
        id,
        arrival,
        accepted,
        reverse_path,
        parameters: MailParameters {
            body,
            smtputf8,
            ret,
            envid,
        },
        facts,
        body_bytes,
    })
}

/// Packs a batch.
pub fn encode_batch(batch: &Batch, orders: &[Order]) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + batch.template.len() + 40 * batch.recipients.len());
    out.put_u8(BATCH_VERSION);
    out.put_u128(batch.id.0);
    let (kind, name) = destination_parts(&batch.destination);
    out.put_u8(kind);
    out.put_bytes(name.as_bytes());
    out.put_u8(match batch.class {
        Class::Urgent => 0,
        Class::Ordinary => 1,
    });
    out.put_number(batch.due.0);
    out.put_number(u64::from(batch.attempts));
    out.put_bytes(&batch.template);
    out.put_bytes(&batch.note);
    put_replies(&mut out, &batch.replies);
    put_hold(&mut out, batch.held);
    put_orders(&mut out, orders);
    out.put_number(batch.recipients.len() as u64);
    // A batch for a domain starts with that domain in hand.
    let mut domain = match &batch.destination {
        Destination::Domain(domain) => Some(domain),
        _ => None,
    };
    for recipient in &batch.recipients {
        put_recipient(&mut out, recipient, domain);
        domain = Some(recipient.address.domain());
    }
    seal(&mut out, 0);
    out
}

fn put_recipient(out: &mut Vec<u8>, recipient: &Recipient, before: Option<&Domain>) {
    let domain = recipient.address.domain();
    let parameters = &recipient.parameters;
    let mut flags = 0;
    if before == Some(domain) {
        flags |= SAME_DOMAIN;
    }
    if parameters.notify.is_some() {
        flags |= HAS_NOTIFY;
    }
    if parameters.orcpt.is_some() {
        flags |= HAS_ORCPT;
    }
    out.put_u8(flags);
    out.put_bytes(recipient.address.local().as_bytes());
    if flags & SAME_DOMAIN == 0 {
        out.put_bytes(domain.as_str().as_bytes());
    }
    if let Some(notify) = parameters.notify {
        out.put_u8(
            u8::from(notify.success) | u8::from(notify.failure) << 1 | u8::from(notify.delay) << 2,
        );
    }
    if let Some(orcpt) = &parameters.orcpt {
        out.put_bytes(orcpt.kind.as_bytes());
        out.put_bytes(orcpt.address.as_bytes());
    }
}

/// Unpacks a batch.
pub fn decode_batch(bytes: &[u8]) -> Result<Stored, Malformed> {
    let mut take = Take::new(unseal(bytes, "batch")?);
    let version = take.version("batch", BATCH_VERSION)?;
    let id = BatchId(take.u128("batch id")?);
    let kind = take.u8("destination")?;
    let name = take.text("destination")?;
    let destination = destination_from(kind, name).ok_or_else(|| take.bad("destination"))?;
    let class = match take.u8("class")? {
        0 => Class::Urgent,
        1 => Class::Ordinary,
        _ => return Err(take.bad("class")),
    };
    let due = Timestamp(take.number("due")?);
    let attempts = take.number_u32("attempts")?;
    let template = Bytes::copy_from_slice(take.bytes("template")?);
    let note = Bytes::copy_from_slice(take.bytes("note")?);
    let replies = match version {
        1 | 2 => Replies::all(take.text("reply")?),
        _ => take_replies(&mut take)?,
    };
    let (held, orders) = match version {
        1 => (None, Vec::new()),
        _ => (take_hold(&mut take)?, take_orders(&mut take)?),
    };
    let count = take.number("recipients")?;
    let mut recipients = Vec::new();
    let mut domain = match &destination {
        Destination::Domain(domain) => Some(domain.clone()),
        _ => None,
    };
    for _ in 0..count {
        let recipient = take_recipient(&mut take, domain.as_ref())?;
        domain = Some(recipient.address.domain().clone());
        recipients.push(recipient);
    }
    let batch = Batch {
        id,
        destination,
        class,
        due,
        attempts,
        recipients,
        template,
        note,
        replies,
        held,
    };
    Ok(Stored { batch, orders })
}

/// One byte while there is none; each text once, and whose it is only where there are several.
fn put_replies(out: &mut Vec<u8>, replies: &Replies) {
    let (texts, whose) = replies.parts();
    out.put_number(texts.len() as u64);
    for text in texts {
        out.put_bytes(text.as_bytes());
    }
    if texts.len() > 1 {
        out.put_number(whose.len() as u64);
        whose.iter().for_each(|text| out.put_number((*text).into()));
    }
}

fn take_replies(take: &mut Take<'_>) -> Result<Replies, Malformed> {
    let mut texts: Vec<Box<str>> = Vec::new();
    for _ in 0..take.number("replies")? {
        texts.push(take.text("reply")?.into());
    }
    let mut whose = Vec::new();
    if texts.len() > 1 {
        for _ in 0..take.number("replies")? {
            let text = take.number("reply")?;
            whose.push(u16::try_from(text).map_err(|_| take.bad("reply"))?);
        }
    }
    Replies::from_parts(texts, whose).ok_or_else(|| take.bad("replies"))
}

fn take_recipient(take: &mut Take<'_>, before: Option<&Domain>) -> Result<Recipient, Malformed> {
    let flags = take.u8("recipient")?;
    let local = take.text("local part")?;
    let domain = if flags & SAME_DOMAIN != 0 {
        before.cloned().ok_or_else(|| take.bad("domain"))?
    } else {
        domain(take)?
    };
    let address = address(take, local, domain)?;
    let notify = if flags & HAS_NOTIFY != 0 {
        let bits = take.u8("notify")?;
        Some(Notify {
            success: bits & 1 != 0,
            failure: bits & 2 != 0,
            delay: bits & 4 != 0,
        })
    } else {
        None
    };
    let orcpt = if flags & HAS_ORCPT != 0 {
        Some(OriginalRecipient {
            kind: take.text("orcpt")?.into(),
            address: take.text("orcpt")?.into(),
        })
    } else {
        None
    };
    Ok(Recipient {
        address,
        parameters: RcptParameters { notify, orcpt },
    })
}

/// A destination as a kind and a name.
pub fn destination_parts(destination: &Destination) -> (u8, &str) {
    match destination {
        Destination::Expand => (0, ""),
        Destination::Inside => (1, ""),
        Destination::Route(name) => (2, name),
        Destination::Domain(domain) => (3, domain.as_str()),
    }
}

/// The reverse of [`destination_parts`].
pub fn destination_from(kind: u8, name: &str) -> Option<Destination> {
    match kind {
        0 => Some(Destination::Expand),
        1 => Some(Destination::Inside),
        2 => Some(Destination::Route(name.into())),
        3 => Domain::parse(name).ok().map(Destination::Domain),
        _ => None,
    }
}

fn flag(take: &mut Take<'_>, what: &'static str) -> Result<bool, Malformed> {
    match take.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(take.bad(what)),
    }
}

fn domain(take: &mut Take<'_>) -> Result<Domain, Malformed> {
    let text = take.text("domain")?;
    Domain::parse(text).map_err(|_| take.bad("domain"))
}

fn address(take: &Take<'_>, local: &str, domain: Domain) -> Result<Address, Malformed> {
    Address::new(local, domain).map_err(|_| take.bad("local part"))
}
