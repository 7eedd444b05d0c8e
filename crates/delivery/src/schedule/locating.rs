//! Domains whose site is being looked up: what waits for it stands aside until it is known.

use std::cmp::Reverse;
use std::sync::Arc;

use mail::Domain;
use tokio::time::Instant;

use super::{Hand, Wake};
use crate::domains::LOCATING_MAX;
use crate::seat::{Key, Work};
use crate::site::Site;

impl Hand {
    /// The site of a domain that was looked up just now.
    pub(crate) fn site_of(&self, domain: &Domain, now: Instant) -> Option<Arc<Key>> {
        self.domains.site_of(domain, now)
    }

    /// Remembers the site of a domain for a while.
    pub(crate) fn remember(&mut self, domain: Domain, site: Site, now: Instant) -> Arc<Key> {
        self.domains.remember(domain, site, now)
    }

    /// Puts a batch of a domain aside until its site is known; true when the lookup must be started.
    pub(crate) fn locate(&mut self, domain: &Domain, work: Work) -> bool {
        self.held += 1;
        let waiting = self.domains.locate(domain, work);
        if waiting == LOCATING_MAX {
            self.left_out.change_all();
        }
        waiting == 1
    }

    /// The lookup has ended: these batches waited for it.
    pub(crate) fn located(&mut self, domain: &Domain) -> Vec<Work> {
        let works = self.domains.located(domain);
        self.held -= works.len();
        if works.len() >= LOCATING_MAX {
            self.left_out.change_all();
            self.left_out.widen();
        }
        works
    }

    /// The lookup failed for now: the domain is left out of claims until then.
    pub(crate) fn unresolved(&mut self, domain: Domain, until: Instant) {
        let wake = Wake::Domain(domain.clone());
        if self.domains.fail(domain, until) {
            self.wakes.push(Reverse((until, wake)));
            self.left_out.change_all();
        }
    }
}
