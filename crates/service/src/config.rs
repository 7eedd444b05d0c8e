//! Reading configuration: TOML, unknown keys are errors, every complaint with its line; and holding the commented sample to it.

use std::path::Path;

use crate::program::{Complaint, Configuration};

/// Reads a file. The error is one `file:line: what, why, what to do` a line.
pub fn load<C: Configuration>(path: &Path) -> Result<C, String> {
    todo!("{path:?}")
}

/// `config show`: the configuration in force as TOML; with `non_default` only keys that differ from their default.
pub fn show<C: Configuration>(config: &C, non_default: bool) -> String {
    let _ = config;
    todo!("{non_default}")
}

/// Holds a sample (`deploy/etc/*.toml`) to the configuration: with every commented key taken in it must parse to the
/// default, and name every key there is. Returns what is wrong; for tests.
pub fn compare_sample<C: Configuration>(sample: &str) -> Vec<Complaint> {
    todo!("{sample}")
}

/// Durations in configuration: `"30s"`, `"5m"`, `"2h"`, `"60d"`, `"250ms"`. Use as `#[serde(with = "service::config::duration")]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Writes the largest unit that loses nothing.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = serializer;
        todo!("{value:?}")
    }

    /// Reads a number with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let _ = deserializer;
        todo!()
    }
}

/// Sizes in configuration: `"64MiB"`, `"10MB"`, `"512KiB"`, `1000`. Use as `#[serde(with = "service::config::bytes")]`.
pub mod bytes {
    use serde::{Deserializer, Serializer};

    /// Writes the largest binary unit that loses nothing.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = serializer;
        todo!("{value}")
    }

    /// Reads a number with its unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let _ = deserializer;
        todo!()
    }
}

/// A secret file's content without the last newline; refuses files that others may read, and says which mode to set.
pub fn secret(path: &Path) -> Result<Vec<u8>, String> {
    todo!("{path:?}")
}
