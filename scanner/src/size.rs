//! The one size number, `receive.message_bytes_max`, held against what clamd really looks at.
//!
//! clamd cannot be asked for its limits. What exceeds StreamMaxLength it refuses; what exceeds MaxFileSize or MaxScanSize it calls clean
//! without having looked. So it is shown known malware behind as much text as mail may have: found, or its limit is searched for, told,
//! and larger mail has the class oversized. spamd has no limit of its own: `spamd.bytes_max` is what it is shown.

use std::time::Duration;

use tokio::time::Instant;

use crate::canary;
use crate::clamd::{self, Finding};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::endpoint::Endpoint;
use crate::health::Health;
use crate::trouble::Trouble;

/// How exactly a limit is searched for.
const STEP_BYTES: u64 = 64 << 10;
/// For one probe: clamd's own MaxScanTime.
const PROBE_MAX: Duration = Duration::from_secs(120);
/// An announced stream to which clamd says nothing for so long is one that it takes.
const SILENCE: Duration = Duration::from_millis(300);
/// A clamd with another configuration is noticed when it was away, or at least after so long.
const AGAIN: Duration = Duration::from_secs(3600);

/// Measures one clamd whenever it has come (back), for ever. `config` gives the configuration in force.
pub async fn watch(config: impl Fn() -> Config, health: Health, at: usize) {
    let daemon = &health.clamd.daemons[at];
    let address = daemon.endpoint.to_string();
    let gauge = health.clamd_bytes_max(&address);
    let measured = |bytes: Option<u64>| {
        gauge.set(
            bytes
                .and_then(|bytes| i64::try_from(bytes).ok())
                .unwrap_or(0),
        );
        daemon.measured(bytes);
    };
    loop {
        let now = config();
        let (wanted, pause) = (now.receive.message_bytes_max, now.scan.canary_retry);
        if daemon.fit().is_err() {
            measured(None);
        } else {
            match measure(&daemon.endpoint, wanted).await {
                Ok(bytes) => {
                    told(&address, bytes, wanted);
                    measured(Some(bytes));
                    health.clamd.serve();
                    stays(daemon, pause, || {
                        config().receive.message_bytes_max == wanted
                    })
                    .await;
                    continue;
                }
                Err(trouble) => tracing::warn!(event = "size", address, trouble = %trouble),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// While nothing suggests that its limit is another one.
async fn stays(daemon: &Daemon, pause: Duration, is_wanted: impl Fn() -> bool) {
    let until = Instant::now() + AGAIN;
    while Instant::now() < until && daemon.fit().is_ok() && is_wanted() {
        tokio::time::sleep(pause).await;
    }
}

fn told(address: &str, bytes: u64, wanted: u64) {
    if bytes >= wanted {
        tracing::info!(
            event = "size",
            address,
            clamd_bytes_max = bytes,
            outcome = "enough"
        );
        return;
    }
    tracing::error!(
        event = "size",
        address,
        clamd_bytes_max = bytes,
        message_bytes_max = wanted,
        outcome = "too small",
        "clamd looks at less than receive.message_bytes_max: larger mail goes to another, or has the class oversized. Raise clamd's \
         StreamMaxLength, MaxFileSize and MaxScanSize, or lower receive.message_bytes_max here and the edges' limit"
    );
}

/// How large a message clamd looks at, at most `wanted`.
pub async fn measure(address: &Endpoint, wanted: u64) -> Result<u64, Trouble> {
    let mut most = wanted;
    match probe(address, wanted).await? {
        Finding::Infected(_) | Finding::Unscanned(_) => return Ok(wanted),
        Finding::Clean => {}
        Finding::Oversized(_) => {
            let mut search = Search::below(wanted);
            while let Some(bytes) = search.next() {
                search.answered(clamd::takes(address, bytes, SILENCE).await?);
            }
            most = search.found();
            if is_seen(&probe(address, most).await?) {
                return Ok(most);
            }
        }
    }
    // It calls clean what it has not looked at.
    let mut search = Search::below(most);
    while let Some(bytes) = search.next() {
        search.answered(is_seen(&probe(address, bytes).await?));
    }
    Ok(search.found())
}

/// Whether clamd looked, or said that it did not.
fn is_seen(finding: &Finding) -> bool {
    matches!(finding, Finding::Infected(_) | Finding::Unscanned(_))
}

/// Malware behind text, together this large.
async fn probe(address: &Endpoint, bytes: u64) -> Result<Finding, Trouble> {
    let (head, tail) = canary::behind_text();
    let text = bytes.saturating_sub((head.len() + tail.len()) as u64);
    let deadline = Instant::now() + PROBE_MAX;
    clamd::ask_padded(address, &head, text, &tail, deadline).await
}

/// For the largest size that passes, below one that does not, in steps.
struct Search {
    low: u64,
    high: u64,
}

impl Search {
    fn below(bytes: u64) -> Self {
        Self {
            low: 0,
            high: bytes.div_ceil(STEP_BYTES),
        }
    }

    fn middle(&self) -> u64 {
        self.low + (self.high - self.low) / 2
    }

    /// The size to try next.
    fn next(&self) -> Option<u64> {
        (self.high - self.low > 1).then(|| self.middle() * STEP_BYTES)
    }

    fn answered(&mut self, passes: bool) {
        match passes {
            true => self.low = self.middle(),
            false => self.high = self.middle(),
        }
    }

    fn found(&self) -> u64 {
        self.low * STEP_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_from_below() {
        for (limit, above, expected) in [
            (25 << 20, 50 << 20, 25 << 20),
            ((25 << 20) + 1, 50 << 20, 25 << 20),
            ((25 << 20) - 1, 50 << 20, (25 << 20) - STEP_BYTES),
            (0, 50 << 20, 0),
            (100 << 20, 50 << 20, (50 << 20) - STEP_BYTES),
        ] {
            let mut search = Search::below(above);
            let mut asked = 0;
            while let Some(bytes) = search.next() {
                asked += 1;
                search.answered(bytes <= limit);
            }
            assert_eq!(search.found(), expected, "{limit}");
            assert!(asked < 12, "{asked}");
        }
    }
}
