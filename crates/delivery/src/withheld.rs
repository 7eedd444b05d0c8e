//! Why nothing leaves, beside a pause, and what an operator is told of it.

use std::fmt;

/// Nothing that waits is claimed, leaves or expires, and no command of the queue changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// The configuration says so.
    Sink,
    /// The spool is a copy that no operator has adopted.
    Copy,
}

impl Withheld {
    /// In one word, for `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sink => "sink",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sink => {
                "deliver = \"sink\": mail is taken and kept, nothing leaves; set deliver = \"smtp\" and start again"
            }
            Self::Copy => {
                "the spool is a restored copy: mail is taken, nothing leaves of what waits; look at `queue tally`, then `spool adopt`"
            }
        })
    }
}
