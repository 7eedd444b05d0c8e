//! Asking both daemons about a message, in parallel, under one deadline, each within its slots.
//!
//! Owns the slots. A scan that has begun runs to its end even when nobody waits any more: a spamd child goes on working after
//! its client has left, and a slot given back too early would overbook it.

use std::sync::Arc;

use bytes::Bytes;
use mail::trace::Custody;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::decide::Findings;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::slots::Slots;
use crate::trouble::{Cause, Kind, Trouble};
use crate::{clamd, spamd};

/// What is already known from a presented verdict and need not be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// clamd's finding.
    pub virus: Option<clamd::Finding>,
    /// spamd's finding.
    pub spam: Option<spamd::Finding>,
}

/// A message to be scanned.
pub struct Item<'a> {
    /// Header and body, without our own fields.
    pub message: &'a Bytes,
    /// A `Return-Path` line for SpamAssassin, which finds the envelope nowhere else.
    pub preamble: &'a str,
    /// Who waits.
    pub custody: Custody,
    /// What need not be asked.
    pub known: Known,
}

/// Both daemons and their slots.
pub struct Scan {
    spamd: Slots,
    clamd: Slots,
    health: Arc<Health>,
    metrics: Metrics,
}

impl Scan {
    /// With the slots of the configuration at start.
    pub fn new(config: &Config, health: Arc<Health>, metrics: Metrics) -> Self {
        Self {
            spamd: Slots::new(config.spamd.scans_max),
            clamd: Slots::new(config.clamd.scans_max),
            health,
            metrics,
        }
    }

    /// Asks what is not known yet.
    pub async fn ask(&self, config: &Config, item: Item<'_>) -> Findings {
        let deadline = Instant::now() + config.scan.deadline;
        let virus = async {
            match &item.known.virus {
                Some(finding) => Ok(finding.clone()),
                None => self.virus(config, &item, deadline).await,
            }
        };
        let spam = async {
            match &item.known.spam {
                Some(finding) => Ok(finding.clone()),
                None => self.spam(config, &item, deadline).await,
            }
        };
        let (virus, spam) = tokio::join!(virus, spam);
        Findings::Asked { virus, spam }
    }

    async fn virus(
        &self,
        config: &Config,
        item: &Item<'_>,
        deadline: Instant,
    ) -> Result<clamd::Finding, Trouble> {
        let settings = &config.clamd;
        let scan = clamd::ask(
            &settings.address,
            item.message,
            settings.bytes_max,
            deadline,
        );
        self.within(Kind::Clamd, &self.clamd, item.custody, deadline, scan)
            .await
    }

    async fn spam(
        &self,
        config: &Config,
        item: &Item<'_>,
        deadline: Instant,
    ) -> Result<spamd::Finding, Trouble> {
        let settings = &config.spamd;
        let bytes_max = usize::try_from(settings.bytes_max).unwrap_or(usize::MAX);
        let preamble = item.preamble.as_bytes();
        let scan = spamd::ask(
            &settings.address,
            preamble,
            item.message,
            bytes_max,
            deadline,
        );
        self.within(Kind::Spamd, &self.spamd, item.custody, deadline, scan)
            .await
    }

    /// Waits for a slot, scans, and keeps the books.
    async fn within<T>(
        &self,
        daemon: Kind,
        slots: &Slots,
        custody: Custody,
        deadline: Instant,
        scan: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let name = daemon.as_str();
        let result = async {
            // An unfit daemon is not asked: each would cost the client the whole deadline.
            self.health.fit(daemon)?;
            let slot = timeout_at(deadline, slots.take(custody)).await;
            let _slot = slot.map_err(|_| Trouble {
                daemon,
                cause: Cause::Busy,
            })?;
            let scans = self.metrics.scans.with_label_values(&[name]);
            let _running = Running::new(&scans);
            let started = Instant::now();
            let result = scan.await;
            let seconds = started.elapsed().as_secs_f64();
            let histogram = self.metrics.scan_seconds.with_label_values(&[name]);
            histogram.observe(seconds);
            result
        }
        .await;
        match &result {
            Ok(_) => self.health.answered(daemon),
            Err(trouble) => {
                let labels = [name, trouble.cause.label()];
                self.metrics.trouble.with_label_values(&labels).inc();
                // That a daemon is out of service was told when its gate shut, once.
                if !matches!(trouble.cause, Cause::Unfit(_)) {
                    tracing::warn!(event = "trouble", daemon = name, cause = %trouble.cause);
                }
                if trouble.cause.suggests_down() {
                    self.health.doubt();
                }
            }
        }
        result
    }
}

/// A gauge that counts down however its scope is left.
pub struct Running<'a>(&'a prometheus::IntGauge);

impl<'a> Running<'a> {
    /// Counts up.
    pub fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
