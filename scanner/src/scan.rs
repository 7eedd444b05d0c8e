//! Asking both daemons about a message, in parallel, under one deadline, each within its slots.
//!
//! Owns the slots. A scan that has begun runs to its end even when nobody waits any more: a spamd child goes on working after
//! its client has left, and a slot given back too early would overbook it.

use std::sync::Arc;

use bytes::Bytes;
use mail::structure::Objection;
use mail::trace::Custody;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::decide::Findings;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::slots::Slots;
use crate::structure::budget::Limits;
use crate::structure::{self, Inspection};
use crate::trouble::{Cause, Kind, Trouble};
use crate::{clamd, size, spamd};

/// A task that was lost: should not be, and then nobody has looked.
const LOST: Objection = Objection::Ambiguous("looking at it failed");

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
    /// It came with SMTPUTF8.
    pub utf8: bool,
}

/// Messages larger than this are looked at beside the sessions, not between them: the time is some milliseconds a MiB.
const ASIDE_BYTES: usize = 262_144;

/// Both daemons and their slots.
pub struct Scan {
    spamd: Slots,
    clamd: Slots,
    archives: Semaphore,
    health: Arc<Health>,
    metrics: Metrics,
}

impl Scan {
    /// With the slots of the configuration at start.
    pub fn new(config: &Config, health: Arc<Health>, metrics: Metrics) -> Self {
        Self {
            spamd: Slots::new(config.spamd.scans_max),
            clamd: Slots::new(config.clamd.scans_max),
            archives: Semaphore::new(config.archives.messages_max),
            health,
            metrics,
        }
    }

    /// Looks at the structure, and then asks what is not known yet.
    pub async fn find(&self, config: &Config, item: Item<'_>) -> Findings {
        match self.inspect(config, item.message, item.utf8).await {
            Ok(inspection) => self.ask(config, item, inspection).await,
            Err(objection) => Findings::Objection(objection),
        }
    }

    /// Archives are opened by a bounded number at once, so that their cost in memory is bounded; mail without any does not wait.
    async fn inspect(
        &self,
        config: &Config,
        message: &Bytes,
        utf8: bool,
    ) -> Result<Inspection, Objection> {
        let aside = |limits: Option<Limits>| {
            let message = message.clone();
            tokio::task::spawn_blocking(move || structure::inspect(&message, utf8, limits.as_ref()))
        };
        let closed = match message.len() > ASIDE_BYTES {
            true => aside(None).await.unwrap_or(Err(LOST)),
            false => structure::inspect(message, utf8, None),
        }?;
        if !closed.unopened {
            return Ok(closed);
        }
        let _permit = self.archives.acquire().await;
        aside(Some(config.archives.clone()))
            .await
            .unwrap_or(Err(LOST))
    }

    async fn ask(&self, config: &Config, item: Item<'_>, inspection: Inspection) -> Findings {
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
        Findings::Asked {
            inspection,
            virus,
            spam,
        }
    }

    async fn virus(
        &self,
        config: &Config,
        item: &Item<'_>,
        deadline: Instant,
    ) -> Result<clamd::Finding, Trouble> {
        let size = item.message.len() as u64;
        let bytes_max = match self.health.clamd_bytes() {
            Some(bytes) => bytes,
            // It would call clean what it does not look at.
            None if size > size::UNMEASURED_BYTES_MAX => {
                let cause = Cause::Unfit("its limits are not known yet".into());
                let daemon = Kind::Clamd;
                return Err(Trouble { daemon, cause });
            }
            None => size::UNMEASURED_BYTES_MAX,
        };
        let scan = clamd::ask(&config.clamd.address, item.message, bytes_max, deadline);
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
