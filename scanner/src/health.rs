//! Whether the daemons can be relied on: canaries through the real ones, again and again.
//!
//! A daemon that connects, or answers PING, may still have no rules, no signatures, or no free child. Only a right verdict is
//! health. Owns the `scan` gate; never looks at real mail, save for who answered lately.

use std::sync::Arc;

use mail::Timestamp;
use prometheus::IntGauge;
use tokio::time::Instant;

use crate::canary::{eicar, gtube, ham};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::endpoint::Endpoint;
use crate::metrics::Metrics;
use crate::pool::{Limits, Pool};
use crate::trouble::{Cause, Kind, Trouble};
use crate::{clamd, spamd};

/// A canary round that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A wrong verdict.
    #[error("{0}")]
    Wrong(String),
    /// None.
    #[error("{}", .0.cause)]
    Unanswered(Trouble),
}

/// Both kinds of daemons.
#[derive(Clone)]
pub struct Health {
    /// SpamAssassin's.
    pub spamd: Arc<Pool>,
    /// ClamAV's.
    pub clamd: Arc<Pool>,
    metrics: Metrics,
}

impl Health {
    /// Nothing is fit before its first canary has come back.
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        let (spamd, clamd) = (&config.spamd, &config.clamd);
        let pool = |kind, addresses: &[Endpoint], version, scans_max| {
            let daemons = addresses.iter();
            let daemons = daemons.map(|endpoint| Arc::new(Daemon::new(endpoint.clone(), version)));
            let waiting_max = config.scan.waiting_max;
            let limits = Limits {
                scans_max,
                waiting_max,
            };
            Pool::new(kind, daemons.collect(), limits, metrics.clone())
        };
        Self {
            spamd: pool(
                Kind::Spamd,
                &spamd.addresses,
                "SpamAssassin",
                spamd.scans_max,
            ),
            clamd: pool(Kind::Clamd, &clamd.addresses, "ClamAV", clamd.scans_max),
            metrics,
        }
    }

    /// Whether mail can be scanned: a daemon of each kind may be asked; the reason why not.
    pub fn fit(&self) -> Result<(), String> {
        for pool in [&self.spamd, &self.clamd] {
            pool.fit().map_err(|trouble| trouble.to_string())?;
        }
        Ok(())
    }

    /// Messages that can be scanned at once: every one needs a daemon of each kind.
    pub fn slots(&self) -> usize {
        self.spamd.slots().min(self.clamd.slots())
    }

    /// The share of all slots that is in service, percent.
    pub fn percent(&self) -> usize {
        let all = self.spamd.slots_max().min(self.clamd.slots_max());
        self.slots() * 100 / all.max(1)
    }

    /// What tells the largest message that the clamd at `address` looks at.
    pub fn clamd_bytes_max(&self, address: &str) -> IntGauge {
        self.metrics.clamd_bytes_max.with_label_values(&[address])
    }

    /// Sends canaries to one daemon for ever; `config` gives the configuration in force, `changed` is called after each round.
    pub async fn watch(
        self,
        pool: Arc<Pool>,
        at: usize,
        config: impl Fn() -> Config,
        changed: impl Fn(&Self),
    ) {
        let daemon = &pool.daemons[at];
        loop {
            let config = config();
            let result = match pool.kind {
                Kind::Spamd => spamd_canary(&config, &daemon.endpoint).await,
                Kind::Clamd => self.clamd_canary(&config, daemon).await,
            };
            let is_right = self.judge(pool.kind, daemon, result, &config);
            pool.serve();
            let open = i64::from(self.fit().is_ok());
            self.metrics.gates.with_label_values(&["scan"]).set(open);
            changed(&self);
            let (interval, retry) = (config.scan.canary_interval, config.scan.canary_retry);
            // The retry interval bounds how often doubts make us look.
            tokio::time::sleep(retry.min(interval)).await;
            if is_right {
                let rest = interval.saturating_sub(retry);
                let _ = tokio::time::timeout(rest, daemon.doubted()).await;
            }
        }
    }

    /// Opens or shuts a daemon's gate by what its canary brought back; whether it was right.
    fn judge(
        &self,
        kind: Kind,
        daemon: &Daemon,
        result: Result<(), Failure>,
        config: &Config,
    ) -> bool {
        let (name, address) = (kind.as_str(), daemon.endpoint.to_string());
        let outcome = match &result {
            Ok(()) => "right",
            Err(Failure::Wrong(_)) => "wrong",
            Err(Failure::Unanswered(_)) => "unanswered",
        };
        self.metrics.canaries.with_label_values(&[outcome]).inc();
        let is_right = match &result {
            Ok(()) => {
                if daemon.judged(Ok(())) {
                    tracing::info!(
                        event = "gate",
                        gate = "scan",
                        daemon = name,
                        address,
                        state = "open"
                    );
                }
                true
            }
            Err(failure)
                if excused(failure, daemon.answered_within(config.scan.canary_interval)) =>
            {
                false
            }
            Err(failure) => {
                let reason = failure.to_string();
                if daemon.judged(Err(&reason)) {
                    tracing::error!(
                        event = "gate",
                        gate = "scan",
                        daemon = name,
                        address,
                        state = "shut",
                        reason
                    );
                }
                false
            }
        };
        let in_service = &self.metrics.daemons_in_service;
        let labels = [name, address.as_str()];
        in_service
            .with_label_values(&labels)
            .set(i64::from(daemon.fit().is_ok()));
        is_right
    }

    async fn clamd_canary(&self, config: &Config, daemon: &Daemon) -> Result<(), Failure> {
        let deadline = || Instant::now() + config.scan.canary_deadline;
        let endpoint = &daemon.endpoint;
        let version = clamd::version(endpoint, deadline()).await;
        let version = version.map_err(Failure::Unanswered)?;
        daemon.told(&version);
        let ask = async |message: &[u8]| {
            let answer = clamd::ask(endpoint, message, u64::MAX, deadline()).await;
            answer.map_err(Failure::Unanswered)
        };
        if !matches!(ask(&eicar()).await?, clamd::Finding::Infected(_)) {
            let what = "does not find the test file: its signatures are not loaded";
            return Err(Failure::Wrong(what.into()));
        }
        match ask(&ham()).await? {
            clamd::Finding::Clean => {}
            other => {
                let what = format!("does not call a plain letter clean: {other:?}");
                return Err(Failure::Wrong(what));
            }
        }
        let address = endpoint.to_string();
        let age = clamd::signatures_made(&version).map(|made| Timestamp::now().since(made));
        let seconds = age.map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let ages = &self.metrics.signatures_age_seconds;
        ages.with_label_values(&[address.as_str()]).set(seconds);
        let age_max = config.clamd.signatures_age_max;
        match age {
            Some(age) if !age_max.is_zero() && age > age_max => Err(Failure::Wrong(format!(
                "its signatures are {} days old",
                age.as_secs() / 86_400
            ))),
            _ => Ok(()),
        }
    }
}

/// A canary that waits behind real mail which is being answered says that the daemon is busy, not that it is broken: taking
/// the node out would push its load on to the next one.
fn excused(failure: &Failure, was_answered: bool) -> bool {
    let is_silence =
        matches!(failure, Failure::Unanswered(trouble) if trouble.cause == Cause::TimedOut);
    is_silence && was_answered
}

async fn spamd_canary(config: &Config, endpoint: &Endpoint) -> Result<(), Failure> {
    let levels = config.levels.levels();
    let score = async |message: &[u8]| {
        let deadline = Instant::now() + config.scan.canary_deadline;
        let question = spamd::Question {
            preamble: b"",
            message,
            bytes_max: usize::MAX,
            user: &config.spamd.user,
            compress: config.spamd.compress,
        };
        let finding = spamd::ask(endpoint, &question, deadline).await;
        finding
            .map(|finding| finding.score_hundredths)
            .map_err(Failure::Unanswered)
    };
    if score(&gtube()).await? < levels.kill {
        let what = "lets its own test pattern pass: its rules are not loaded";
        return Err(Failure::Wrong(what.into()));
    }
    let ham = score(&ham()).await?;
    if ham >= levels.tag2 {
        let what = format!(
            "calls a plain letter spam (score {}.{:02})",
            ham / 100,
            ham % 100
        );
        return Err(Failure::Wrong(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_under_load_is_excused() {
        let unanswered = |cause| {
            let daemon = Kind::Spamd;
            Failure::Unanswered(Trouble { daemon, cause })
        };
        let refused = || Cause::Connect("refused".into());
        let wrong = Failure::Wrong("passes its own test pattern".into());
        for (failure, was_answered, expected) in [
            (unanswered(Cause::TimedOut), true, true),
            (unanswered(Cause::TimedOut), false, false),
            (unanswered(refused()), true, false),
            (wrong, true, false),
        ] {
            assert_eq!(excused(&failure, was_answered), expected, "{failure}");
        }
    }
}
