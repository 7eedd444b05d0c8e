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

use crate::authenticate::{Authenticator, Evidence, Sender};
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
    /// Whom SPF spoke of; `None`: nobody is authenticated.
    pub sender: Option<Sender<'a>>,
}

/// Messages larger than this are looked at beside the sessions, not between them: the time is some milliseconds a MiB.
const ASIDE_BYTES: usize = 262_144;

/// Both daemons and their slots.
pub struct Scan {
    spamd: Slots,
    clamd: Slots,
    archives: Semaphore,
    authenticator: Option<Authenticator>,
    health: Arc<Health>,
    metrics: Metrics,
}

impl Scan {
    /// With the slots and the resolver of the configuration at start.
    pub fn new(config: &Config, health: Arc<Health>, metrics: Metrics) -> Result<Self, String> {
        let authenticator = match config.authenticate.enabled {
            true => Some(Authenticator::new(&config.authenticate)?),
            false => None,
        };
        Ok(Self {
            authenticator,
            spamd: Slots::new(config.spamd.scans_max),
            clamd: Slots::new(config.clamd.scans_max),
            archives: Semaphore::new(config.archives.messages_max),
            health,
            metrics,
        })
    }

    /// Looks at the structure, and then asks what is not known yet; with what was found out about the sender.
    pub async fn find(&self, config: &Config, item: Item<'_>) -> (Findings, Option<Evidence>) {
        match self.inspect(config, item.message, item.utf8).await {
            Ok(inspection) => self.ask(config, item, inspection).await,
            Err(objection) => (Findings::Objection(objection), None),
        }
    }

    async fn evidence(&self, config: &Config, item: &Item<'_>) -> Option<Evidence> {
        let (authenticator, sender) = (self.authenticator.as_ref()?, item.sender.as_ref()?);
        let settings = &config.authenticate;
        Some(authenticator.verify(settings, item.message, sender).await)
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

    async fn ask(
        &self,
        config: &Config,
        item: Item<'_>,
        inspection: Inspection,
    ) -> (Findings, Option<Evidence>) {
        let deadline = Instant::now() + config.scan.deadline;
        let virus = async {
            match &item.known.virus {
                Some(finding) => Ok(finding.clone()),
                None => self.virus(config, &item, deadline).await,
            }
        };
        // spamd sees the results, so that its rules can use them; our own points are added to what it says.
        let spam = async {
            let evidence = self.evidence(config, &item).await;
            let found = match &item.known.spam {
                Some(finding) => Ok(finding.clone()),
                None => self.spam(config, &item, evidence.as_ref(), deadline).await,
            };
            (found, evidence)
        };
        let (virus, (spam, evidence)) = tokio::join!(virus, spam);
        let findings = Findings::Asked {
            inspection,
            virus,
            spam,
        };
        (findings, evidence)
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
        evidence: Option<&Evidence>,
        deadline: Instant,
    ) -> Result<spamd::Finding, Trouble> {
        let settings = &config.spamd;
        let results = evidence.map(|evidence| evidence.field(config.authserv_id()));
        let preamble = format!("{}{}", item.preamble, results.unwrap_or_default());
        let bytes_max = usize::try_from(settings.bytes_max).unwrap_or(usize::MAX);
        let preamble = preamble.as_bytes();
        let scan = spamd::ask(
            &settings.address,
            preamble,
            item.message,
            bytes_max,
            deadline,
        );
        let scan = self.within(Kind::Spamd, &self.spamd, item.custody, deadline, scan);
        let mut finding = scan.await?;
        if let Some(evidence) = evidence {
            let (points, tests) = evidence.points(&config.authenticate);
            finding.score_hundredths = finding.score_hundredths.saturating_add(points);
            finding.tests.extend(tests.into_iter().map(Into::into));
        }
        Ok(finding)
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
