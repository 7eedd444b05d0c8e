//! Spooled mail from one edge to another, when a host is to be taken out of service and the inside cannot take its mail. It goes over
//! LMTP with mutual TLS; in front of the message stand two fields that this hop alone knows: where it waits and under which name, and
//! the trace. The receiver takes both off, makes the message durable as if it had kept it itself, and takes a repeat of the same
//! hand-over once. Pure here; `give` sends, `take` receives.

pub mod give;
pub mod take;

use bytes::Bytes;
use mail::header;
use mail::trace::{self, Trace};
use spool::Destination;

use crate::forward;

/// The field's name. No other hop reads or writes it.
const NAME: &str = "X-Mailflow-Handover";

/// Where a batch waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To be scanned.
    Inside,
    /// Scanned, for a list host.
    Scanned,
    /// Refused inside: for an operator.
    Held,
}

impl Place {
    const ALL: [Self; 3] = [Self::Inside, Self::Scanned, Self::Held];

    fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Scanned => "scanned",
            Self::Held => "held",
        }
    }

    /// The spool's word for it.
    pub fn destination(self) -> Destination {
        match self {
            Self::Inside => Destination::Inside,
            Self::Scanned => forward::scanned(),
            Self::Held => forward::held(),
        }
    }

    /// From the spool's word.
    pub fn of(destination: &Destination) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|place| place.destination() == *destination)
    }
}

/// What the field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Names this batch of this spool, and no other: a repeat has the same. That the message may come back one day under another
    /// name is meant: then it must be taken again.
    pub key: String,
    /// Where it waits.
    pub place: Place,
    /// The session in which the client sent it.
    pub session: String,
    /// The rule that holds it.
    pub rule: Option<String>,
}

impl Label {
    /// The whole field.
    pub fn header(&self) -> String {
        let Self {
            key,
            place,
            session,
            rule,
        } = self;
        let rule = rule.as_ref().map(|rule| format!("; rule={rule}"));
        format!(
            "{NAME}: v=1; key={key}; place={}; session={session}{}\r\n",
            place.as_str(),
            rule.unwrap_or_default()
        )
    }

    fn parse(value: &str) -> Option<Self> {
        let mut items = value.split(';').map(|item| item.trim().split_once('='));
        let mut next = |name: &str| {
            let (is, value) = items.next()??;
            (is == name).then(|| value.to_owned())
        };
        (next("v")? == "1").then_some(())?;
        let key = next("key")?;
        let place = next("place")?;
        let session = next("session")?;
        let rule = next("rule");
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let short = (1..=200).contains(&key.len()) && session.len() <= 64;
        let all_plain = |text: &String| text.chars().all(plain);
        let texts = all_plain(&key) && all_plain(&session) && rule.iter().all(all_plain);
        (short && texts).then_some(())?;
        let place = Place::ALL
            .into_iter()
            .find(|known| known.as_str() == place)?;
        Some(Self {
            key,
            place,
            session,
            rule,
        })
    }
}

/// The two fields of a message that was handed over, and the message as its first edge kept it. The error says what is missing.
pub fn open(message: &Bytes) -> Result<(Label, Trace, Bytes), &'static str> {
    let mut walk = header::fields(message);
    let label = walk.next().filter(|field| field.is(NAME));
    let label = label.and_then(|field| Label::parse(&field.text()));
    let label = label.ok_or("the first field is not an edge's label of a hand-over")?;
    let trace = walk.next().filter(|field| field.is(trace::NAME));
    let trace = trace.and_then(|field| Trace::parse(&field.text()));
    let trace = trace.ok_or("the second field is no trace")?;
    Ok((label, trace, message.slice(walk.offset()..)))
}

#[cfg(test)]
mod tests {
    use mail::trace::{Custody, Spf};
    use mail::{Ident, Timestamp};

    use super::*;

    fn label(place: Place) -> Label {
        Label {
            key: "mx1.65.7.0a.00ff".into(),
            place,
            session: "0123456789abcdef".into(),
            rule: (place == Place::Held).then(|| "bulk-1.a_b".into()),
        }
    }

    fn trace() -> Trace {
        Trace {
            ident: Ident::new("mx1", 65, 7).unwrap(),
            custody: Custody::Spooled,
            arrival: Timestamp(1_795_000_000_123),
            client: "192.0.2.7".parse().unwrap(),
            helo: "client.example".into(),
            spf: Spf::Pass,
            exempt: false,
            verdict: Some("a-token".into()),
        }
    }

    #[test]
    fn what_was_closed_is_opened_again() {
        for place in Place::ALL {
            assert_eq!(Place::of(&place.destination()), Some(place));
            let (label, trace) = (label(place), trace());
            let body = "Received: from x\r\nSubject: y\r\n\r\nz\r\n";
            let message = label.header() + &trace.header() + body;
            let (opened, traced, rest) = open(&message.into()).unwrap();
            assert_eq!((opened, traced, &rest[..]), (label, trace, body.as_bytes()));
        }
        assert_eq!(Place::of(&Destination::Expand), None);
    }

    #[test]
    fn what_no_edge_has_labelled_is_refused() {
        let (good, trace) = (label(Place::Inside).header(), trace().header());
        for message in [
            String::new(),
            "Subject: x\r\n\r\ny\r\n".into(),
            trace.clone() + &good,
            good.clone() + "Subject: x\r\n\r\ny\r\n",
            good.replace("v=1", "v=2") + &trace,
            good.replace("inside", "expand") + &trace,
            good.replace("key=mx1", "key=<mx1>") + &trace,
            good.replace("key=mx1.65.7.0a.00ff", "key=") + &trace,
        ] {
            assert!(open(&message.clone().into()).is_err(), "{message}");
        }
    }
}
