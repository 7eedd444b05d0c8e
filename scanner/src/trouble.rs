//! Why an answer of a daemon is missing: one enum behind the reply's text, the log's word and the metric's label.
//!
//! Trouble is never the message's fault; what is, is a finding. Trouble always defers (design, invariant 5).

use mail::Reply;

/// The daemons that are asked about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SpamAssassin.
    Spamd,
    /// ClamAV.
    Clamd,
}

impl Kind {
    /// The word in logs, metrics and replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spamd => "spamd",
            Self::Clamd => "clamd",
        }
    }
}

/// What went wrong between us and a daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Connected, but no whole answer before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// No free scan slot before the deadline.
    #[error("no free scan slot in time")]
    Busy,
    /// So many messages wait for a slot that no more may.
    #[error("too many messages wait for a scan slot")]
    Full,
    /// It closed the connection before it had answered.
    #[error("connection closed before an answer")]
    Closed,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(String),
    /// It answered that it cannot scan.
    #[error("answered with an error: {0}")]
    Refused(String),
    /// It answered something that is not its protocol.
    #[error("unreadable answer: {0}")]
    Protocol(String),
    /// The canary found it unfit, so it was not asked at all.
    #[error("out of service: {0}")]
    Unfit(String),
}

impl Cause {
    /// The metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::TimedOut => "timed_out",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::Refused(_) => "refused",
            Self::Protocol(_) => "protocol",
            Self::Unfit(_) => "unfit",
        }
    }

    /// All labels, so that every series exists from the start.
    pub const LABELS: [&'static str; 9] = [
        "connect",
        "timed_out",
        "busy",
        "full",
        "closed",
        "broken",
        "refused",
        "protocol",
        "unfit",
    ];

    /// Whether it speaks of the daemon's state rather than of a moment: a reason to look at it at once.
    pub fn suggests_down(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::TimedOut | Self::Closed | Self::Broken(_) | Self::Protocol(_)
        )
    }
}

/// A missing answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {cause}", daemon.as_str())]
pub struct Trouble {
    /// Whose answer is missing.
    pub daemon: Kind,
    /// Why.
    pub cause: Cause,
}

impl Trouble {
    /// The deferral the client reads. It names the daemon, not its address or its words: those are for the log.
    pub fn reply(&self) -> Reply {
        let daemon = self.daemon.as_str();
        match self.cause {
            Cause::Busy | Cause::Full => Reply::new(
                451,
                (4, 3, 2),
                format!("{daemon} has no free scan slot, try again later"),
            ),
            _ => Reply::new(
                451,
                (4, 3, 0),
                format!("message could not be scanned ({daemon}), try again later"),
            ),
        }
    }
}
