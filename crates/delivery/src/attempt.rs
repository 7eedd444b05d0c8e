//! One attempt: a copy of a message over one connection, and what each recipient's reply means.

use bytes::Bytes;
use mail::{Envelope, Recipient, Reply, Severity};
use smtp::client::{Cause, Phase, Trouble};
use smtp::xforward::Xforward;

pub use crate::pool::{Connections, Route};

/// One transaction's worth of a batch: what the owner renders, what the wire carries.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The envelope; each recipient is one of the batch's, `recipients[i]` of it in the order of `indices`.
    pub envelope: Envelope,
    /// For each recipient of the envelope, its place in `batch.recipients`.
    pub indices: Vec<usize>,
    /// The whole message as parts: spliced header fields, then slices of the stored body (shared, not copied).
    pub parts: Vec<Bytes>,
    /// What is told by XFORWARD where the next hop takes it.
    pub xforward: Option<Xforward>,
}

/// What came of one recipient.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Who.
    pub recipient: Recipient,
    /// Its place in `batch.recipients`.
    pub index: usize,
    /// What came of it.
    pub result: Result,
    /// The host that said so, `mx.example.org[192.0.2.1]`; none when nobody was reached.
    pub remote: Option<Box<str>>,
    /// Where in the dialogue that was; none when it was not tried.
    pub phase: Option<Phase>,
    /// The host takes over what the sender asked of reports (RFC 3461 5.2.2).
    pub dsn: bool,
    /// A provider's rule says that this is about this host or the message: whatever came of it, nobody counts it against the
    /// recipient.
    pub policy: bool,
}

/// What a reply, or none, means for a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Result {
    /// 2xx: the next hop owns it.
    Delivered(Reply),
    /// 4xx, or no connection: try again.
    Deferred(Reply),
    /// 5xx: refused for good.
    Failed(Reply),
    /// Too old to be tried once more; the reply quotes the last one.
    Expired(Reply),
}

impl Result {
    /// What a next hop's reply to a recipient means.
    pub fn of(reply: Reply) -> Self {
        match reply.severity() {
            Severity::Positive => Self::Delivered(reply),
            Severity::Transient => Self::Deferred(reply),
            Severity::Permanent => Self::Failed(reply),
        }
    }

    /// The reply that decided.
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply)
            | Self::Deferred(reply)
            | Self::Failed(reply)
            | Self::Expired(reply) => reply,
        }
    }
}

/// The reply that stands for a connection that broke: 4.4.1 (no connection), 4.4.2 (lost, timed out), 4.7.5 (TLS), or the peer's own.
///
/// A 5xx that the peer said before it saw an envelope concerns us, not the recipients, and does not end their mail: it
/// becomes a 4xx that quotes it. The exception is 521, by which a host says that it never accepts mail (RFC 7504).
pub fn reply_of(trouble: &Trouble) -> Reply {
    let phase = trouble.phase;
    match &trouble.cause {
        // No peer has spoken yet: this is what the DNS said of it.
        Cause::Refused(reply) if phase == Phase::Connect => reply.clone(),
        Cause::Refused(reply) if reply.severity() != Severity::Permanent || reply.code == 521 => {
            reply.clone()
        }
        Cause::Refused(reply) => Reply::new(
            450,
            (4, 7, 1),
            format!("refused at {}: {reply}", name(phase)),
        ),
        // Nobody was asked: an operator must act, the mail waits.
        Cause::NoSource(..) => Reply::new(451, (4, 3, 5), trouble.cause.to_string()),
        Cause::NoTls => Reply::new(
            451,
            (4, 7, 5),
            "STARTTLS is required and the next hop does not offer it",
        ),
        Cause::Tls(error) => Reply::new(451, (4, 7, 5), format!("TLS handshake: {error}")),
        Cause::Protocol(said) => Reply::new(
            451,
            (4, 5, 0),
            format!("no SMTP reply at {}: {said}", name(phase)),
        ),
        cause if phase == Phase::Connect => {
            Reply::new(451, (4, 4, 1), format!("no connection: {cause}"))
        }
        cause => Reply::new(451, (4, 4, 2), format!("{cause} at {}", name(phase))),
    }
}

/// Whether a phase's trouble is the site's: it had seen nothing yet by which one message differs from another.
pub(crate) fn is_site_trouble(phase: Phase) -> bool {
    match phase {
        Phase::Connect | Phase::Greeting | Phase::Helo | Phase::Mail => true,
        Phase::Rcpt | Phase::Data | Phase::End | Phase::Rest => false,
    }
}

/// Where in a dialogue something was said, in words.
pub fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Connect => "connect",
        Phase::Greeting => "the greeting",
        Phase::Helo => "EHLO or STARTTLS",
        Phase::Mail => "MAIL",
        Phase::Rcpt => "RCPT",
        Phase::Data => "DATA",
        Phase::End => "the end of the message",
        Phase::Rest => "RSET or QUIT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phase: Phase, cause: Cause, code: u16, enhanced: &str, text: &str) {
        let reply = reply_of(&Trouble { phase, cause });
        assert_eq!(reply.code, code, "{reply}");
        assert_eq!(reply.enhanced.unwrap().to_string(), enhanced, "{reply}");
        assert!(reply.text().contains(text), "{reply}");
    }

    #[test]
    fn broken_connections_have_replies() {
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
        check(Phase::Connect, refused(), 451, "4.4.1", "refused");
        check(Phase::Connect, Cause::TimedOut, 451, "4.4.1", "in time");
        check(Phase::Greeting, Cause::TimedOut, 451, "4.4.2", "greeting");
        check(Phase::Helo, Cause::Closed, 451, "4.4.2", "EHLO");
        check(
            Phase::End,
            Cause::Closed,
            451,
            "4.4.2",
            "end of the message",
        );
        let handshake = Cause::Tls(std::io::Error::other("bad certificate"));
        check(Phase::Helo, handshake, 451, "4.7.5", "bad certificate");
        check(Phase::Helo, Cause::NoTls, 451, "4.7.5", "STARTTLS");
        check(
            Phase::Greeting,
            Cause::Protocol("SSH-2.0".into()),
            451,
            "4.5.0",
            "SSH-2.0",
        );
    }

    #[test]
    fn a_refusal_before_the_envelope_ends_no_mail_but_521_does() {
        let said = |code, enhanced, text| Cause::Refused(Reply::new(code, enhanced, text));
        check(
            Phase::Greeting,
            said(421, (4, 3, 2), "busy"),
            421,
            "4.3.2",
            "busy",
        );
        check(
            Phase::Greeting,
            said(554, (5, 7, 1), "listed"),
            450,
            "4.7.1",
            "554 5.7.1 listed",
        );
        check(
            Phase::Helo,
            said(550, (5, 7, 1), "bad name"),
            450,
            "4.7.1",
            "EHLO",
        );
        check(
            Phase::Greeting,
            said(521, (5, 3, 2), "no mail here"),
            521,
            "5.3.2",
            "no mail",
        );
        check(
            Phase::Connect,
            said(550, (5, 4, 4), "no address"),
            550,
            "5.4.4",
            "no address",
        );
    }
}
