//! Domains on their way to a site: looked up just now, being looked up, or not to be looked up again for a while.
//!
//! Holds the batches that wait for a lookup. It asks nobody itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::Domain;
use tokio::time::Instant;

use crate::seat::{Key, Work};
use crate::site::Site;

/// Domains whose site is remembered, and domains whose lookup failed, at most each.
const DOMAINS_MAX: usize = 20_000;
/// The site of a domain is asked for again after this; the resolver keeps answers for as long as they say.
pub(crate) const REMEMBER: Duration = Duration::from_secs(30);
/// Batches of one domain claimed while it is being looked up, before it is left out of claims.
pub(crate) const LOCATING_MAX: usize = 32;

/// See the module.
#[derive(Default)]
pub(crate) struct Domains {
    sites: HashMap<Domain, (Arc<Key>, Instant)>,
    locating: HashMap<Domain, Vec<Work>>,
    unresolved: HashMap<Domain, Instant>,
}

impl Domains {
    /// The site of a domain that was looked up just now.
    pub(crate) fn site_of(&self, domain: &Domain, now: Instant) -> Option<Arc<Key>> {
        let (key, until) = self.sites.get(domain)?;
        (*until > now).then(|| key.clone())
    }

    /// Remembers the site of a domain for a while.
    pub(crate) fn remember(&mut self, domain: Domain, site: Site, now: Instant) -> Arc<Key> {
        let key = Arc::new(Key::Site(site));
        if self.sites.len() >= DOMAINS_MAX {
            self.sites.clear();
        }
        self.sites.insert(domain, (key.clone(), now + REMEMBER));
        key
    }

    /// Puts a batch aside until the site is known; returns how many of the domain wait now. The first must start the lookup.
    pub(crate) fn locate(&mut self, domain: &Domain, work: Work) -> usize {
        let works = self.locating.entry(domain.clone()).or_default();
        works.push(work);
        works.len()
    }

    /// The lookup has ended: these batches waited for it.
    pub(crate) fn located(&mut self, domain: &Domain) -> Vec<Work> {
        self.locating.remove(domain).unwrap_or_default()
    }

    /// The lookup failed for now; false when there are too many of these to remember one more.
    pub(crate) fn fail(&mut self, domain: Domain, until: Instant) -> bool {
        if self.unresolved.len() >= DOMAINS_MAX {
            return false;
        }
        self.unresolved.insert(domain, until);
        true
    }

    /// Forgets a failure whose time is over; returns whether there was one.
    pub(crate) fn retry(&mut self, domain: &Domain, now: Instant) -> bool {
        let over = self.unresolved.get(domain).is_some_and(|at| *at <= now);
        if over {
            self.unresolved.remove(domain);
        }
        over
    }

    /// Forgets all failures; returns whether there were any.
    pub(crate) fn retry_all(&mut self) -> bool {
        !std::mem::take(&mut self.unresolved).is_empty()
    }

    /// Domains of which nothing more is wanted now.
    pub(crate) fn unwanted(&self) -> impl Iterator<Item = &Domain> {
        let full = self
            .locating
            .iter()
            .filter(|(_, works)| works.len() >= LOCATING_MAX);
        self.unresolved.keys().chain(full.map(|(domain, _)| domain))
    }

    /// Takes everything out that waits.
    pub(crate) fn empty(&mut self) -> impl Iterator<Item = Work> {
        self.locating.drain().flat_map(|(_, works)| works)
    }
}
