//! Delivery status notifications: making them (RFC 3464, RFC 3461, RFC 6533).

use crate::address::{Address, Domain};
use crate::envelope::{MailParameters, Recipient};
use crate::reply::Reply;
use crate::timestamp::Timestamp;

/// What happened to the recipients of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Still trying.
    Delayed,
    /// Handed on, as NOTIFY=SUCCESS asked, to something that does not speak DSN.
    Relayed,
}

/// One recipient in a report.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// The reply that decided.
    pub reply: &'a Reply,
    /// Who gave it; `None` when we did.
    pub remote: Option<&'a str>,
}

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What happened.
    pub action: Action,
    /// The host that reports.
    pub reporting_host: &'a Domain,
    /// To whom: the message's reverse-path.
    pub to: &'a Address,
    /// The message's MAIL parameters (RET, ENVID, SMTPUTF8).
    pub parameters: &'a MailParameters,
    /// When it came.
    pub arrival: Timestamp,
    /// When we give up, for [`Action::Delayed`].
    pub retry_until: Option<Timestamp>,
    /// Who got no mail.
    pub statuses: &'a [Status<'a>],
    /// The message; its header alone is returned unless RET=FULL and it is below 64 KiB.
    pub message: &'a [u8],
    /// Now.
    pub now: Timestamp,
    /// Left part of the report's Message-ID.
    pub unique: &'a str,
}

impl Report<'_> {
    /// The whole report, a multipart/report with CRLF lines, from MAILER-DAEMON, Auto-Submitted: auto-replied.
    pub fn write(&self) -> Vec<u8> {
        todo!()
    }
}
