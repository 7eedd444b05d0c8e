//! `[records]`: how long is kept what is recorded of people and their mail.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{bytes, duration};

/// `[records]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Records {
    /// Of what `why` tells.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// All of that at most.
    #[serde(with = "bytes")]
    pub bytes_max: u64,
    /// Of the list of mail that was taken and not passed in.
    #[serde(with = "duration")]
    pub ended_retention: Duration,
}

impl Default for Records {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            retention: day * 14,
            bytes_max: 1 << 30,
            ended_retention: day * 90,
        }
    }
}
