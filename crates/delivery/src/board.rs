//! What the loop shows of itself to others: its sites, and which domain leads where. A copy, at most [`SHOW_INTERVAL`] old, so that
//! nobody who looks ever holds the loop up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mail::{Domain, Timestamp};
use serde::{Serialize, Serializer};
use spool::Destination;
use tokio::time::Instant;

use crate::wanted::Ways;

/// The copy is made anew no sooner than this.
pub(crate) const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// Sites shown at most: those that are shut, then those with most under way and in hand.
pub const SITES_SHOWN_MAX: usize = 1000;
/// Domains whose site is remembered for those who ask, at most; beyond it all are forgotten and learnt again.
const DOMAINS_MAX: usize = 50_000;

/// A site as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteState {
    /// Its best exchanger and how many more, or its route; `inside`.
    pub site: Box<str>,
    /// How its gate stands.
    pub gate: GateState,
    /// Attempts at once at most, now.
    pub window: usize,
    /// Messages a second at most, now; none while nobody asked for less.
    pub rate: Option<f64>,
    /// Batches being attempted.
    pub in_flight: usize,
    /// Batches claimed that wait.
    pub in_hand: usize,
    /// The last trouble, in one line; empty when there was none since the gate was new.
    pub trouble: Box<str>,
    /// When the next probe of a shut site goes.
    #[serde(serialize_with = "rfc3339")]
    pub probe: Option<Timestamp>,
}

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// All that the engine may.
    Open,
    /// It asked for less, or is getting more step by step after it was shut.
    Limited,
    /// Nothing goes but probes.
    Shut,
}

impl GateState {
    /// The word in logs, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Limited => "limited",
            Self::Shut => "shut",
        }
    }
}

fn rfc3339<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.rfc3339()).serialize(serializer)
}

/// See the module.
#[derive(Default)]
pub(crate) struct Board {
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    sites: Arc<Vec<SiteState>>,
    domains: HashMap<Domain, Arc<str>>,
}

impl Board {
    /// The sites as last shown.
    pub(crate) fn sites(&self) -> Arc<Vec<SiteState>> {
        self.lock().sites.clone()
    }

    /// Shows these.
    pub(crate) fn show(&self, sites: Vec<SiteState>) {
        self.lock().sites = Arc::new(sites);
    }

    /// A domain was found to lead there.
    pub(crate) fn leads(&self, domain: &Domain, site: &str) {
        let mut shown = self.lock();
        if shown.domains.get(domain).is_some_and(|at| **at == *site) {
            return;
        }
        if shown.domains.len() >= DOMAINS_MAX {
            shown.domains.clear();
        }
        shown.domains.insert(domain.clone(), site.into());
    }

    /// The site that a destination leads to; none for a domain that was not looked up lately.
    pub(crate) fn site_of(&self, ways: &Ways, destination: &Destination) -> Option<Arc<str>> {
        match (ways.route_of(destination), destination) {
            (Some(""), _) => Some("inside".into()),
            (Some(route), _) => Some(route.into()),
            (None, Destination::Domain(domain)) => self.lock().domains.get(domain).cloned(),
            (None, _) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the copy is made anew.
pub(crate) struct Showing {
    stale: bool,
    not_before: Instant,
}

impl Showing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            stale: true,
            not_before: now,
        }
    }

    /// Something may have changed; returns whether to show it now.
    pub(crate) fn changed(&mut self, now: Instant) -> bool {
        self.stale = now < self.not_before;
        if !self.stale {
            self.not_before = now + SHOW_INTERVAL;
        }
        !self.stale
    }

    /// When to look again.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.stale.then_some(self.not_before)
    }
}
