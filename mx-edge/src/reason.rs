//! Why this edge itself says no: one table gives a refusal its SMTP reply, its word in the log and its metric label.
//! What the next hop refused is not here; its reply is passed on as it came.

use mail::{EnhancedStatus, Reply};
use smtp::server::Objection;

/// The group of those that say a limit was reached.
pub const LIMITS: &str = "limits";

/// Why a session, a recipient or a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not in the directory of a domain that is ours.
    UnknownRecipient,
    /// Not a domain of ours.
    RelayDenied,
    /// No directory has been loaded yet, so nobody can be called unknown.
    DirectoryNotLoaded,
    /// The client spoke before it was greeted.
    SpokeFirst,
    /// The client is on lists of bad ones.
    Listed,
    /// HELO names no host.
    HeloSyntax,
    /// HELO names another address than the client's.
    HeloLiteral,
    /// HELO names this host.
    HeloOurs,
    /// HELO names no full host name.
    HeloName,
    /// HELO names a host that does not exist.
    HeloUnknown,
    /// The client's address has no name.
    ClientName,
    /// The client's name does not have its address.
    ClientUnconfirmed,
    /// The sender's domain is no full name.
    SenderName,
    /// The sender's domain does not exist.
    SenderUnknown,
    /// The sender's domain takes no mail, so nobody there can have sent any.
    SenderNullMx,
    /// A domain of the sender or the client is on a list of bad ones.
    DomainListed,
    /// The sender's domain forbids it to this client.
    SpfFail,
    /// Not known yet, and to come again.
    Greylisted,
    /// In a table of the site's own.
    Table,
    /// A header field matches a rule.
    Header,
    /// The body matches a rule.
    Body,
    /// Nested too deep, too many parts or header fields, or too long ones.
    Structure,
    /// Scanned under another policy than the recipients before it.
    OtherPolicy,
    /// A notification for more recipients than one notification has.
    NullSenderRecipients,
    /// Rejected by the access list.
    Access,
    /// Shown out by the access list.
    AccessDropped,
    /// Too many sessions of one client.
    ClientSessions,
    /// Too many sessions of one client or network lately.
    ConnectionRate,
    /// Too many messages, likewise.
    MessageRate,
    /// Too many recipients, likewise.
    RecipientRate,
    /// Too many STARTTLS commands, likewise.
    TlsRate,
    /// As many sessions as there may be.
    Sessions,
    /// As many clients that wait for their greeting as there may be.
    Screening,
    /// Neither the spool nor the next hop takes mail.
    SpoolShort,
    /// Too little memory for more clients.
    Overloaded,
    /// A proxy that names no client wants to send mail.
    NoClient,
    /// The edge is being drained.
    Draining,
    /// Too many Received fields.
    Loop,
    /// The next hop did not take the message and the spool has no room.
    SpoolFull,
    /// The next hop did not take the message and the spool cannot keep it.
    SpoolFailed,
    /// The next hop did not take the message and the spool's disk does not keep up.
    SpoolSlow,
    /// The next hop did not take the message and the spool took longer than its deadline.
    SpoolLate,
    /// The client left before the message was taken.
    ClientGone,
    /// Refused by the session on its own account, in its own words.
    Session(Objection),
}

struct Entry {
    label: &'static str,
    code: u16,
    enhanced: (u8, u16, u16),
    text: &'static str,
}

impl Entry {
    fn of(objection: Objection) -> Self {
        let (code, enhanced, text) = objection.words();
        Self {
            label: objection.label(),
            code,
            enhanced,
            text,
        }
    }
}

impl Reason {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 58] = [
        Self::UnknownRecipient,
        Self::RelayDenied,
        Self::DirectoryNotLoaded,
        Self::SpokeFirst,
        Self::Listed,
        Self::HeloSyntax,
        Self::HeloLiteral,
        Self::HeloOurs,
        Self::HeloName,
        Self::HeloUnknown,
        Self::ClientName,
        Self::ClientUnconfirmed,
        Self::SenderName,
        Self::SenderUnknown,
        Self::SenderNullMx,
        Self::DomainListed,
        Self::SpfFail,
        Self::Greylisted,
        Self::Table,
        Self::Header,
        Self::Body,
        Self::Structure,
        Self::OtherPolicy,
        Self::NullSenderRecipients,
        Self::Access,
        Self::AccessDropped,
        Self::ClientSessions,
        Self::ConnectionRate,
        Self::MessageRate,
        Self::RecipientRate,
        Self::TlsRate,
        Self::Sessions,
        Self::Screening,
        Self::SpoolShort,
        Self::Overloaded,
        Self::NoClient,
        Self::Draining,
        Self::Loop,
        Self::SpoolFull,
        Self::SpoolFailed,
        Self::SpoolSlow,
        Self::SpoolLate,
        Self::ClientGone,
        Self::Session(Objection::Syntax),
        Self::Session(Objection::Sequence),
        Self::Session(Objection::Sender),
        Self::Session(Objection::Announced),
        Self::Session(Objection::Recipient),
        Self::Session(Objection::Recipients),
        Self::Session(Objection::TooLarge),
        Self::Session(Objection::BareNewline),
        Self::Session(Objection::NoMemory),
        Self::Session(Objection::Junk),
        Self::Session(Objection::Pipelined),
        Self::Session(Objection::Foreign),
        Self::Session(Objection::TimedOut),
        Self::Session(Objection::Errors),
        Self::Session(Objection::Stopping),
    ];

    /// Those for which a client is not even greeted.
    pub const BEFORE_GREETING: [Self; 10] = [
        Self::AccessDropped,
        Self::ClientSessions,
        Self::ConnectionRate,
        Self::Sessions,
        Self::Screening,
        Self::SpoolShort,
        Self::Overloaded,
        Self::Draining,
        Self::SpokeFirst,
        Self::Listed,
    ];

    /// Those for which a sender is refused.
    pub const AT_SENDER: [Self; 6] = [
        Self::Draining,
        Self::NoClient,
        Self::MessageRate,
        Self::SpoolFull,
        Self::SpoolFailed,
        Self::SpoolSlow,
    ];

    #[rustfmt::skip]
    fn entry(self) -> Entry {
        let (label, code, enhanced, text) = match self {
            // One table has the words of both: crates/smtp's.
            Self::Session(objection) => return Entry::of(objection),
            Self::UnknownRecipient => ("unknown_recipient", 550, (5, 1, 1), "no such recipient here"),
            Self::RelayDenied => ("relay_denied", 554, (5, 7, 1), "relay denied: not a domain of ours"),
            Self::DirectoryNotLoaded => ("directory_not_loaded", 451, (4, 3, 0), "recipients cannot be checked yet, try again later"),
            Self::SpokeFirst => ("spoke_first", 554, (5, 5, 1), "your host spoke before it was greeted"),
            Self::Listed => ("dnsbl", 554, (5, 7, 1), "your host is refused"),
            Self::HeloSyntax => ("helo_syntax", 550, (5, 5, 2), "HELO must name your host"),
            Self::HeloLiteral => ("helo_literal", 550, (5, 5, 2), "HELO must name your own address"),
            Self::HeloOurs => ("helo_ours", 550, (5, 5, 2), "HELO must name your host, not ours"),
            Self::HeloName => ("helo_name", 550, (5, 5, 2), "HELO must name your host in full"),
            Self::HeloUnknown => ("helo_unknown", 550, (5, 7, 1), "HELO must name a host that exists"),
            // RFC 7372 3.3.
            Self::ClientName => ("client_name", 550, (5, 7, 25), "your host has no name in the DNS"),
            Self::ClientUnconfirmed => ("client_unconfirmed", 550, (5, 7, 25), "your host's name is not confirmed by the DNS"),
            Self::SenderName => ("sender_name", 550, (5, 1, 8), "the sender's domain must be given in full"),
            Self::SenderUnknown => ("sender_unknown", 550, (5, 1, 8), "the sender's domain does not exist"),
            // RFC 7505 4.2.
            Self::SenderNullMx => ("sender_null_mx", 550, (5, 7, 27), "the sender's domain takes no mail"),
            Self::DomainListed => ("domain_listed", 554, (5, 7, 1), "your domain is refused"),
            // RFC 7372 3.2.
            Self::SpfFail => ("spf_fail", 550, (5, 7, 23), "the sender's SPF policy forbids your host"),
            Self::Greylisted => ("greylisted", 451, (4, 7, 1), "you are not known here yet"),
            Self::Table => ("table", 554, (5, 7, 1), "refused by this site"),
            Self::Header => ("header", 550, (5, 7, 1), "a header field is refused"),
            Self::Body => ("body", 550, (5, 7, 1), "the text of this message is refused"),
            Self::Structure => ("structure", 554, (5, 6, 0), "this message is built as no mail program should"),
            Self::OtherPolicy => ("other_policy", 452, (4, 5, 3), "send to this recipient in a transaction of its own"),
            Self::NullSenderRecipients => ("null_sender_recipients", 452, (4, 5, 3), "too many recipients for a notification"),
            Self::ClientSessions => ("client_sessions", 421, (4, 7, 0), "too many sessions from your network, try again later"),
            Self::Access => ("access", 554, (5, 7, 1), "your host is refused by this site"),
            // RFC 7504 3.
            Self::AccessDropped => ("access_dropped", 521, (5, 3, 2), "this host takes no mail from yours"),
            Self::ConnectionRate => ("connection_rate", 421, (4, 7, 0), "too many sessions from your network lately, try again later"),
            Self::MessageRate => ("message_rate", 450, (4, 7, 1), "too many messages from your network lately, try again later"),
            Self::RecipientRate => ("recipient_rate", 450, (4, 7, 1), "too many recipients from your network lately, try again later"),
            // RFC 3207 4: not available for a temporary reason.
            Self::TlsRate => ("tls_rate", 454, (4, 7, 0), "too many TLS sessions from your network lately, try again later"),
            Self::Sessions => ("sessions", 421, (4, 3, 2), "this host has as many sessions as it takes, try again later or another one"),
            Self::Screening => ("screening", 421, (4, 3, 2), "too many new clients wait here, try again later or another host"),
            Self::SpoolShort => ("spool_short", 421, (4, 3, 1), "no room for mail now, try again later or another host"),
            Self::Overloaded => ("overloaded", 421, (4, 3, 2), "this host has too much to do, try again later or another one"),
            Self::NoClient => ("no_client", 450, (4, 3, 0), "your proxy did not say whose mail this is"),
            Self::Draining => ("draining", 421, (4, 3, 2), "this host takes no mail at present, try another one"),
            Self::Loop => ("loop", 554, (5, 4, 6), "too many hops, this message is in a loop"),
            Self::SpoolFull => ("spool_full", 452, (4, 3, 1), "no room for this message now, try again later"),
            Self::SpoolFailed => ("spool_failed", 451, (4, 3, 0), "this message cannot be kept now, try again later"),
            Self::SpoolSlow => ("spool_slow", 451, (4, 3, 2), "too much waits to be kept at present, try again later"),
            Self::SpoolLate => ("spool_late", 451, (4, 3, 0), "this message could not be kept in time, try again later"),
            Self::ClientGone => ("client_gone", 451, (4, 4, 2), "you left before the message was taken"),
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

    /// Whether it can be said of one recipient at RCPT.
    pub fn is_of_recipient(self) -> bool {
        match self {
            Self::Session(objection) => {
                matches!(objection, Objection::Recipient | Objection::Recipients)
            }
            _ => true,
        }
    }

    /// Its line in the daily report.
    pub fn group(self) -> &'static str {
        match self {
            Self::UnknownRecipient => "unknown user",
            Self::RelayDenied => "relay denied",
            Self::Listed | Self::DomainListed => "RBL",
            Self::HeloSyntax
            | Self::HeloLiteral
            | Self::HeloOurs
            | Self::HeloName
            | Self::HeloUnknown => "HELO",
            Self::SenderName | Self::SenderUnknown | Self::SenderNullMx | Self::SpfFail => {
                "sender address"
            }
            Self::Table => "tables of this site",
            Self::Header | Self::Loop => "header",
            Self::Greylisted
            | Self::DirectoryNotLoaded
            | Self::OtherPolicy
            | Self::NullSenderRecipients
            | Self::Session(Objection::Recipient) => "recipient address",
            Self::Body => "body",
            Self::Session(Objection::BareNewline) | Self::Structure => "message form",
            Self::SpoolFull
            | Self::SpoolFailed
            | Self::SpoolSlow
            | Self::SpoolLate
            | Self::SpoolShort
            | Self::ClientGone => "spool",
            Self::Draining => "draining",
            Self::SpokeFirst
            | Self::ClientName
            | Self::ClientUnconfirmed
            | Self::Access
            | Self::AccessDropped
            | Self::NoClient => "client host",
            Self::ClientSessions
            | Self::ConnectionRate
            | Self::MessageRate
            | Self::RecipientRate
            | Self::TlsRate
            | Self::Sessions
            | Self::Screening
            | Self::Overloaded
            | Self::Session(
                Objection::Recipients
                | Objection::Announced
                | Objection::TooLarge
                | Objection::NoMemory
                | Objection::Junk,
            ) => LIMITS,
            // No forward-path is lost by these alone.
            Self::Session(_) => "dialogue",
        }
    }

    /// The reply, with what was found: whoever is refused wrongly must be able to see by what. The token and where to ask are put on
    /// where it is said, see `wording`.
    pub fn reply(self, evidence: &str) -> Reply {
        let Entry {
            code,
            enhanced,
            text,
            ..
        } = self.entry();
        match evidence {
            "" => Reply::new(code, enhanced, text),
            evidence => Reply::new(code, enhanced, format!("{text}: {evidence}")),
        }
    }

    /// The same for a client that is shown out, by a test at `drop` (RFC 7504 3).
    pub fn dismissal(self, evidence: &str) -> Reply {
        let mut reply = self.reply(evidence);
        (reply.code, reply.enhanced) = (521, Some(EnhancedStatus(5, 3, 2)));
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_of_their_own_and_codes_agree() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let entry = reason.entry();
            assert_eq!(
                entry.code / 100,
                u16::from(entry.enhanced.0),
                "{}: the codes disagree",
                entry.label
            );
        }
    }
}
