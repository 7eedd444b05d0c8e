//! What is done with a client that a test before the greeting, a list or the access list is against.

use serde::{Deserialize, Serialize};

use super::Action;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Its recipients are refused, so that the log says whom it wrote to.
    Enforce,
    /// It is shown out as soon as it is known, whomever it would have written to.
    Drop,
    /// It is logged and counted, and goes on.
    Warn,
    /// It is not looked at.
    Off,
}

impl Measure {
    /// What is left to be done at RCPT.
    pub fn at_rcpt(self) -> Action {
        match self {
            Self::Enforce | Self::Drop => Action::Enforce,
            Self::Warn => Action::Warn,
            Self::Off => Action::Off,
        }
    }
}
