//! Delivery status notifications: making them (RFC 3464, RFC 3461, RFC 6533).

use crate::address::{Address, Domain};
use crate::envelope::{MailParameters, Recipient, Ret};
use crate::reply::{EnhancedStatus, Reply, Severity};
use crate::timestamp::Timestamp;
use crate::{header, trace};

/// Bytes of a message that is returned whole; of a longer one only the header is.
const FULL_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a header that is returned.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Recipients in one report: several times what one batch carries. The rest is counted in the text.
const RECIPIENTS_MAX: usize = 1000;

/// What happened to the recipients of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Still trying.
    Delayed,
    /// Handed on, as NOTIFY=SUCCESS asked, to something that does not speak DSN.
    Relayed,
    /// Delivered, as NOTIFY=SUCCESS asked: to a list, which is where it was sent to.
    Delivered,
    /// Delivered to an address that leads to several others (RFC 3461 5.2.7.2).
    Expanded,
}

impl Action {
    /// The word of RFC 3464 2.3.3.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
            Self::Expanded => "expanded",
        }
    }
}

/// What of a message a report needs that is written later: all of it or its header, and how much the report then returns.
pub fn needed<'m>(
    action: Action,
    parameters: &MailParameters,
    message: &'m [u8],
) -> (&'m [u8], Ret) {
    match is_returned_whole(action, parameters.ret, message) {
        true => (message, Ret::Full),
        false => {
            let header = header::body_offset(message).min(message.len());
            // More than is returned, so that the report sees that it has to cut.
            (&message[..header.min(2 * HEADER_BYTES_MAX)], Ret::Headers)
        }
    }
}

fn is_returned_whole(action: Action, ret: Option<Ret>, message: &[u8]) -> bool {
    action == Action::Failed && ret == Some(Ret::Full) && message.len() <= FULL_BYTES_MAX
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
    /// Where in the dialogue it was given, for a person.
    pub phase: Option<&'a str>,
    /// When.
    pub at: Option<Timestamp>,
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
    ///
    /// It needs SMTPUTF8 when the message did or an address in it does, and 8BITMIME when it is not ASCII.
    pub fn write(&self) -> Vec<u8> {
        let returned = self.returned();
        let boundary = self.boundary(&returned.bytes);
        let mut out = self.header(&boundary).into_bytes();
        let mut part = |content: &str, body: &[u8]| {
            let encoding = if body.is_ascii() { "7bit" } else { "8bit" };
            out.extend_from_slice(
                format!(
                    "--{boundary}\r\nContent-Type: {content}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
                )
                .as_bytes(),
            );
            out.extend_from_slice(body);
            // This line break belongs to the delimiter (RFC 2046 5.1.1).
            out.extend_from_slice(b"\r\n");
        };
        let text = self.explanation();
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        part(&format!("text/plain; charset={charset}"), text.as_bytes());
        let status = match self.international() {
            true => "message/global-delivery-status",
            false => "message/delivery-status",
        };
        part(status, self.delivery_status().as_bytes());
        part(returned.content, &returned.bytes);
        out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        out
    }

    /// Whether the report is one of RFC 6533.
    fn international(&self) -> bool {
        self.parameters.smtputf8
            || self.to.needs_smtputf8()
            || (self.listed().iter()).any(|status| status.recipient.address.needs_smtputf8())
    }

    fn listed(&self) -> &[Status<'_>] {
        &self.statuses[..self.statuses.len().min(RECIPIENTS_MAX)]
    }

    fn header(&self, boundary: &str) -> String {
        let host = self.reporting_host;
        let subject = match self.action {
            Action::Failed => "Undelivered mail returned to sender",
            Action::Delayed => "Mail delayed, still trying",
            Action::Relayed => "Mail relayed",
            Action::Delivered | Action::Expanded => "Mail delivered",
        };
        let mut out = header::fold(
            "From",
            &format!("Mail Delivery System <MAILER-DAEMON@{host}>"),
        );
        out += &header::fold("To", &format!("<{}>", self.to));
        out += &header::fold("Subject", subject);
        out += &header::fold("Date", &self.now.rfc5322());
        out += &header::fold("Message-ID", &format!("<{}@{}>", self.unique(), host));
        out += "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n";
        out += "Content-Type: multipart/report; report-type=delivery-status;\r\n";
        out += &format!(" boundary=\"{boundary}\"\r\n\r\n");
        out
    }

    /// [`Report::unique`] as a Message-ID and a boundary take it.
    fn unique(&self) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let unique: String = self
            .unique
            .chars()
            .take(40)
            .map(|c| if fits(c) { c } else { '_' })
            .collect();
        if unique.is_empty() {
            self.now.0.to_string()
        } else {
            unique
        }
    }

    /// A boundary that the returned bytes do not hold.
    fn boundary(&self, returned: &[u8]) -> String {
        let base = format!("=_dsn_{}", self.unique());
        let occurs = |text: &str| {
            returned
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        // Whoever puts this name into a message needs a copy for each number; the bytes are bounded, and so are the turns.
        (0..)
            .map(|turn: u32| format!("{base}_{turn}_="))
            .find(|candidate| !occurs(candidate))
            .unwrap_or(base)
    }

    fn explanation(&self) -> String {
        let what = match self.action {
            Action::Failed => {
                "could not be delivered to the recipients below. It will not be tried again."
            }
            Action::Delayed => {
                "could not be delivered yet to the recipients below. You need not send it again."
            }
            Action::Relayed => {
                "was handed on for the recipients below, to systems that send no confirmation."
            }
            Action::Delivered => "was delivered to the lists below.",
            Action::Expanded => {
                "was delivered to the addresses below, each of which leads to several others."
            }
        };
        let host = self.reporting_host;
        let mut out = format!("This is the mail system at {host}.\r\n\r\nYour message {what}\r\n");
        if let (Action::Delayed, Some(until)) = (self.action, self.retry_until) {
            out += &format!("Delivery is tried until {}.\r\n", until.rfc5322());
        }
        for status in self.listed() {
            out += &format!("\r\n<{}>\r\n", status.recipient.address);
            if let Some(remote) = status.remote {
                let at = status
                    .phase
                    .map(|phase| format!(" at {}", clean(phase, 80)));
                let at = at.unwrap_or_default();
                out += &format!("    {} said{at}:\r\n", clean(remote, 255));
            }
            out += &format!("    {} {}\r\n", status.reply.code, self.status(status));
            for line in status.reply.lines.iter().filter(|line| !line.is_empty()) {
                out += &format!("    {}\r\n", clean(line, 480));
            }
        }
        if self.statuses.len() > RECIPIENTS_MAX {
            let more = self.statuses.len() - RECIPIENTS_MAX;
            out += &format!("\r\nand {more} more recipients.\r\n");
        }
        out
    }

    /// The machine's part (RFC 3464 2.1): one group for the message, one for each recipient.
    fn delivery_status(&self) -> String {
        let mut out = header::fold("Reporting-MTA", &format!("dns; {}", self.reporting_host));
        if let Some(envid) = &self.parameters.envid {
            out += &header::fold("Original-Envelope-Id", &clean(envid, 100));
        }
        out += &header::fold("Arrival-Date", &self.arrival.rfc5322());
        for status in self.listed() {
            out += "\r\n";
            self.recipient_fields(status, &mut out);
        }
        out
    }

    fn recipient_fields(&self, status: &Status<'_>, out: &mut String) {
        let recipient = status.recipient;
        if let Some(orcpt) = &recipient.parameters.orcpt {
            let address = self.spell(&orcpt.address);
            let kind = clean(&orcpt.kind, 40);
            *out += &header::fold("Original-Recipient", &format!("{kind}; {address}"));
        }
        let kind = match recipient.address.needs_smtputf8() {
            true => "utf-8",
            false => "rfc822",
        };
        *out += &header::fold("Final-Recipient", &format!("{kind}; {}", recipient.address));
        *out += &header::fold("Action", self.action.as_str());
        *out += &header::fold("Status", &self.status(status).to_string());
        if let Some(remote) = status.remote {
            *out += &header::fold("Remote-MTA", &format!("dns; {}", clean(remote, 255)));
        }
        // Our own words are no SMTP reply of anybody (RFC 3464 2.3.6).
        let kind = match status.remote {
            Some(_) => "smtp",
            None => "x-mailflow",
        };
        let reply = clean(&status.reply.to_string(), 2000);
        *out += &header::fold("Diagnostic-Code", &format!("{kind}; {reply}"));
        if let Some(at) = status.at {
            *out += &header::fold("Last-Attempt-Date", &at.rfc5322());
        }
        if let (Action::Delayed, Some(until)) = (self.action, self.retry_until) {
            *out += &header::fold("Will-Retry-Until", &until.rfc5322());
        }
    }

    /// The recipient's status: the reply's own, else what its first digit says (RFC 3463 3.1).
    fn status(&self, status: &Status<'_>) -> EnhancedStatus {
        let class = match (self.action, status.reply.severity()) {
            (Action::Relayed | Action::Delivered | Action::Expanded, _) => 2,
            (Action::Delayed, _) | (_, Severity::Transient) => 4,
            _ => 5,
        };
        match status.reply.enhanced {
            Some(enhanced) if enhanced.0 == class => enhanced,
            _ => EnhancedStatus(class, 0, 0),
        }
    }

    /// An original address: as it is in a report of RFC 6533, else with `\x{...}` for what is not ASCII (utf-8-addr-xtext).
    fn spell(&self, address: &str) -> String {
        let mut out = String::new();
        for c in address.chars().take(500) {
            if c.is_control() {
                out.push('?');
            } else if c.is_ascii() || self.international() {
                out.push(c);
            } else {
                out += &format!("\\x{{{:X}}}", u32::from(c));
            }
        }
        out
    }

    /// What of the message goes back: never our trace of it, nor an mbox line.
    fn returned(&self) -> Returned {
        let body = header::body_offset(self.message);
        let mut bytes = Vec::new();
        for field in header::fields(self.message).filter(|field| !field.is(trace::NAME)) {
            bytes.extend_from_slice(field.raw);
        }
        let full = is_returned_whole(self.action, self.parameters.ret, self.message);
        if full {
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&self.message[body..]);
        } else if bytes.len() > HEADER_BYTES_MAX {
            bytes.truncate(HEADER_BYTES_MAX);
            let whole = bytes
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |lf| lf + 1);
            bytes.truncate(whole);
        }
        let global = self.international() && std::str::from_utf8(&bytes).is_ok();
        let content = match (full, global) {
            (true, false) => "message/rfc822",
            (true, true) => "message/global",
            (false, false) => "text/rfc822-headers",
            (false, true) => "message/global-headers",
        };
        Returned { content, bytes }
    }
}

/// The third part.
struct Returned {
    content: &'static str,
    bytes: Vec<u8>,
}

/// Foreign text in a report: printable ASCII, bounded.
fn clean(text: &str, chars: usize) -> String {
    text.chars()
        .take(chars)
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect()
}
