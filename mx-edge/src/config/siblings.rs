//! `[handover]`: what is taken from siblings that are being taken out of service.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `[handover]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Handover {
    /// Where siblings hand their spool over; nowhere when it is empty.
    pub listen: Vec<SocketAddr>,
}
