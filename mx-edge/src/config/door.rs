//! `[access]`, `[rates]` and `[stress]`: who comes in, how often, and what changes when there are too many.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::config::{Complaints, duration};

use super::{Config, Measure, seconds};
use crate::admission::access;
use crate::admission::rates::Limit;
use crate::network::Network;

/// `[access]`: the access list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// What is done with whom a `reject` line has.
    pub action: Measure,
    /// Read as one list, in this order.
    pub files: Vec<PathBuf>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            action: Measure::Enforce,
            files: Vec::new(),
        }
    }
}

/// `[rates]`: how often clients come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Counts kept at once.
    pub entries_max: usize,
    /// Who meets no limit of these, and none on sessions of one client.
    pub skip_networks: Vec<Network>,
    /// What is limited.
    pub limits: Vec<Limit>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            skip_networks: Vec::new(),
            limits: Vec::new(),
        }
    }
}

/// `[stress]`: when there are too many, and what changes then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stress {
    /// From this share of the sessions in use on ...
    pub sessions_percent_high: u8,
    /// ... until below this one.
    pub sessions_percent_low: u8,
    /// In place of `limits.command_timeout`.
    #[serde(with = "duration")]
    pub command_timeout: Duration,
    /// In place of `limits.data_block_timeout`.
    #[serde(with = "duration")]
    pub data_block_timeout: Duration,
    /// In place of `limits.handshake_timeout`.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// In place of `limits.errors_max`.
    pub errors_max: usize,
    /// In place of `limits.junk_commands_max`.
    pub junk_commands_max: usize,
}

impl Default for Stress {
    fn default() -> Self {
        Self {
            sessions_percent_high: 80,
            sessions_percent_low: 60,
            command_timeout: seconds(10),
            data_block_timeout: seconds(10),
            handshake_timeout: seconds(10),
            errors_max: 1,
            junk_commands_max: 1,
        }
    }
}

impl Config {
    /// Sessions from which on there is stress, and below which there is none any more.
    pub fn stress_sessions(&self) -> (usize, usize) {
        let share = |percent: u8| (self.limits.sessions_max * usize::from(percent)).div_ceil(100);
        let stress = &self.stress;
        (
            share(stress.sessions_percent_high).max(1),
            share(stress.sessions_percent_low),
        )
    }

    /// Sessions that may wait for their greeting at once.
    pub fn screening_max(&self) -> usize {
        let percent = usize::from(self.screen.sessions_percent_max);
        (self.limits.sessions_max * percent).div_ceil(100)
    }

    pub(super) fn check_door(&self, complaints: &mut Complaints) {
        for path in &self.access.files {
            complaints.absolute("access.files", path);
        }
        if self.access.files.iter().all(|path| path.is_absolute()) {
            let read = access::Access::load(&self.access.files);
            complaints.unless(
                read.is_ok(),
                "access.files",
                read.err().unwrap_or_default(),
                "half an access list would let in whom the other half keeps out",
                "mend the line: NETWORK permit|reject|drop|warn|dunno [until=TIME] [note]",
            );
        }
        let positive = |value: usize| value > 0;
        complaints.unless(
            positive(self.rates.entries_max),
            "rates.entries_max",
            "0".into(),
            "nobody could be counted",
            "give at least 1; 100000 takes some 10 MiB",
        );
        for limit in &self.rates.limits {
            complaints.unless(
                limit.most > 0
                    && !limit.per.is_zero()
                    && limit.ipv4_prefix <= 32
                    && limit.ipv6_prefix <= 128,
                "rates.limits",
                format!(
                    "{limit} by /{} and /{}",
                    limit.ipv4_prefix, limit.ipv6_prefix
                ),
                "it would let nobody in, or count by no network",
                "give at least 1, some time, and prefixes up to 32 and 128",
            );
        }
        let stress = &self.stress;
        complaints.unless(
            stress.sessions_percent_low < stress.sessions_percent_high
                && stress.sessions_percent_high <= 100,
            "stress.sessions_percent_high",
            format!(
                "{} with sessions_percent_low {}",
                stress.sessions_percent_high, stress.sessions_percent_low
            ),
            "stress would begin and end again and again",
            "give at most 100, and less for sessions_percent_low",
        );
        complaints.unless(
            !stress.command_timeout.is_zero()
                && !stress.data_block_timeout.is_zero()
                && !stress.handshake_timeout.is_zero()
                && positive(stress.errors_max),
            "stress.command_timeout",
            "0, or 0 for data_block_timeout, handshake_timeout or errors_max".into(),
            "every session would end at once",
            "give more",
        );
    }
}
