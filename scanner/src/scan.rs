//! Asking a daemon of each kind about a message, in parallel, under one deadline.
//!
//! A scan that has begun runs to its end even when nobody waits any more: a spamd child goes on working after its client has left, and
//! a slot given back too early would overbook it.

use std::sync::Arc;

use bytes::Bytes;
use mail::structure::Objection;
use mail::trace::Custody;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::authenticate::{Authenticator, Evidence, Sender};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::decide::Findings;
use crate::health::Health;
use crate::pool::{Demand, UNMEASURED_BYTES_MAX};
use crate::structure::budget::Limits;
use crate::structure::{self, Inspection};
use crate::trouble::Trouble;
use crate::{clamd, spamd};

/// A task that was lost: should not be, and then nobody has looked.
const LOST: Objection = Objection::Ambiguous("looking at it failed");

/// What is already known from a presented verdict and need not be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// clamd's finding, and the version that found it.
    pub virus: Option<(clamd::Finding, Arc<str>)>,
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

/// What was found out about a message.
pub struct Scanned {
    /// For the decision.
    pub findings: Findings,
    /// About the sender, where that was looked at.
    pub evidence: Option<Evidence>,
    /// The version of clamd and its signatures that looked, or would have.
    pub signatures: Arc<str>,
}

/// All that look at a message.
pub struct Scan {
    archives: Semaphore,
    authenticator: Option<Authenticator>,
    health: Health,
}

impl Scan {
    /// With the resolver of the configuration at start.
    pub fn new(config: &Config, health: Health) -> Result<Self, String> {
        let authenticator = match config.authenticate.enabled {
            true => Some(Authenticator::new(&config.authenticate)?),
            false => None,
        };
        Ok(Self {
            authenticator,
            archives: Semaphore::new(config.archives.messages_max),
            health,
        })
    }

    /// Looks at the structure, and then asks what is not known yet.
    pub async fn find(&self, config: &Config, item: Item<'_>) -> Scanned {
        match self.inspect(config, item.message, item.utf8).await {
            Ok(inspection) => self.ask(config, item, inspection).await,
            Err(objection) => Scanned {
                findings: Findings::Objection(objection),
                evidence: None,
                signatures: self.health.clamd.version(),
            },
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

    async fn ask(&self, config: &Config, item: Item<'_>, inspection: Inspection) -> Scanned {
        let deadline = Instant::now() + config.scan.deadline;
        let virus = async {
            match &item.known.virus {
                Some(known) => Ok(known.clone()),
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
        let (virus, signatures) = match virus {
            Ok((finding, version)) => (Ok(finding), version),
            Err(trouble) => (Err(trouble), self.health.clamd.version()),
        };
        Scanned {
            findings: Findings::Asked {
                inspection,
                virus,
                spam,
            },
            evidence,
            signatures,
        }
    }

    async fn virus(
        &self,
        config: &Config,
        item: &Item<'_>,
        deadline: Instant,
    ) -> Result<(clamd::Finding, Arc<str>), Trouble> {
        let pool = &self.health.clamd;
        let bytes = item.message.len() as u64;
        // A daemon would call clean what it does not look at.
        if let Some(bytes_max) = pool.bytes_max()
            && bytes > bytes_max
        {
            return Ok((clamd::Finding::oversized(bytes, bytes_max), pool.version()));
        }
        let demand = demand(config, item.custody, bytes, deadline);
        let scan = |daemon: Arc<Daemon>, deadline| async move {
            let bytes_max = daemon.bytes_max().unwrap_or(UNMEASURED_BYTES_MAX);
            clamd::ask(&daemon.endpoint, item.message, bytes_max, deadline).await
        };
        pool.ask(demand, scan).await
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
        let question = spamd::Question {
            preamble: preamble.as_bytes(),
            message: item.message,
            bytes_max: usize::try_from(settings.bytes_max).unwrap_or(usize::MAX),
            user: &settings.user,
            compress: settings.compress,
        };
        let demand = demand(config, item.custody, 0, deadline);
        let question = &question;
        let scan = |daemon: Arc<Daemon>, deadline| async move {
            spamd::ask(&daemon.endpoint, question, deadline).await
        };
        let (mut finding, _) = self.health.spamd.ask(demand, scan).await?;
        if let Some(evidence) = evidence {
            let (points, tests) = evidence.points(&config.authenticate);
            finding.score_hundredths = finding.score_hundredths.saturating_add(points);
            finding.tests.extend(tests.into_iter().map(Into::into));
        }
        Ok(finding)
    }
}

fn demand(config: &Config, custody: Custody, bytes: u64, deadline: Instant) -> Demand {
    Demand {
        custody,
        bytes,
        deadline,
        attempt: config.scan.attempt,
    }
}
