//! From a claim to the hand: what is asked of the spool, and where each batch goes.

use std::sync::Arc;
use std::time::Duration;

use mail::{Domain, Reply};
use spool::{Destination, Lease, Wanted};
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::Run;
use crate::attempt::Result;
use crate::lane::{self, Age};
use crate::schedule::Placed;
use crate::seat::{Key, Work};
use crate::site::Site;
use crate::work::Job;

/// Naming the destinations that are left out takes time for each of them, here and in the spool. It is done again no sooner
/// than this for each: with ten thousand dead domains 40 ms, which keeps it a small part of the work.
const RENEW_EACH: Duration = Duration::from_micros(4);
/// Batches claimed from one lane at once at most: a site whose gate turns out to be full has no more than this in excess.
const CLAIM_MAX: usize = 64;

/// A claim that has ended: of which age, what was asked of each lane, and what came.
pub(super) struct Claimed {
    age: Age,
    asked: [usize; 4],
    came: std::result::Result<Vec<Lease>, spool::Error>,
}

impl Run {
    /// Fills the hand, if it has room and there may be something: with what is fresh first, and apart from what is old, since a site
    /// with enough of a backlog in hand may have none of the live mail that has just come in for it. What is fresh has just come in
    /// and is in the spool's memory; what is old is claimed beside, since it may have to be read.
    pub(super) async fn claim(&mut self) {
        if self.hand.widened() {
            self.claims.more = [true; 4];
        }
        let now = Instant::now();
        for age in Age::ALL {
            if !self.has_room(age) || self.claims.rests(age, now).is_some() {
                continue;
            }
            let room = self.hand.room();
            let lanes: [usize; 4] = std::array::from_fn(|lane| match Age::of(lane) == age {
                true => room[lane].min(CLAIM_MAX),
                false => 0,
            });
            if !(0..4).any(|lane| self.claims.more[lane] && lanes[lane] > 0) {
                continue;
            }
            match self.renew(age, now) {
                Ok(()) => self.claim_of(age, lanes).await,
                Err(at) => self.claims.rest(age, at),
            }
        }
    }

    /// Whether more of an age is wanted, and is not being claimed.
    pub(super) fn has_room(&self, age: Age) -> bool {
        let room = self.hand.room();
        (age == Age::Fresh || self.claiming.is_empty())
            && (0..4).any(|lane| Age::of(lane) == age && room[lane] > 0)
    }

    /// Claims from these lanes of an age.
    async fn claim_of(&mut self, age: Age, asked: [usize; 4]) {
        // What is told from here on may be found only by the next one.
        for lane in (0..4).filter(|lane| Age::of(*lane) == age) {
            self.claims.more[lane] = false;
        }
        let Some(wanted) = &mut self.wanted[age as usize] else {
            // Everything is busy or shut. When that changes the hand says so.
            return;
        };
        wanted.lanes = asked;
        let (wanted, spool) = (wanted.clone(), self.parts.spool.clone());
        // Not asked whether it is healthy: a full spool takes no more, and must all the same be worked off to have room again.
        let host = self.parts.settings.host.clone();
        let claim = async move {
            let came = spool.claim(&host, &wanted).await;
            Claimed { age, asked, came }
        };
        match age {
            Age::Fresh => {
                let claimed = claim.await;
                self.claimed(claimed);
            }
            Age::Old => {
                self.claiming.spawn(claim);
            }
        }
    }

    /// A claim beside has ended.
    pub(super) fn came(&mut self, joined: std::result::Result<Claimed, JoinError>) {
        match joined {
            Ok(claimed) => self.claimed(claimed),
            Err(error) => {
                tracing::error!(event = "fault", %error, "a claim ended early");
                let faults = &self.parts.metrics.faults;
                faults.with_label_values(&["panic"]).inc();
                self.claims.failed(Instant::now());
            }
        }
    }

    fn claimed(&mut self, Claimed { age, asked, came }: Claimed) {
        let leases = match came {
            Ok(leases) => leases,
            Err(error) => return self.claims.refused(&error),
        };
        self.claims.answered();
        self.claims.pace(age, leases.len());
        let now = (self.parts.clock)();
        let mut got = [0; 4];
        for lease in leases {
            let work = Work::new(lease, now);
            got[lane::index(work.lane)] += 1;
            let label = lane::label(work.lane);
            self.parts.metrics.claims.with_label_values(&[label]).inc();
            self.take(work);
        }
        for lane in 0..4 {
            self.claims.more[lane] |= asked[lane] > 0 && got[lane] >= asked[lane];
        }
    }

    /// Makes the set of destinations wanted of an age anew when it has changed; or says when it may be made again.
    fn renew(&mut self, age: Age, now: Instant) -> std::result::Result<(), Instant> {
        if !self.hand.has_changed(age) {
            return Ok(());
        }
        let renew_at = &mut self.renew_at[age as usize];
        if now < *renew_at {
            return Err(*renew_at);
        }
        if let Some(unwanted) = self.hand.changed(age) {
            let count = u32::try_from(unwanted.destinations.len()).unwrap_or(u32::MAX);
            *renew_at = now + RENEW_EACH.saturating_mul(count);
            let serves = &self.parts.settings.serves;
            let destinations = self.parts.ways.wanted(serves, &unwanted);
            self.wanted[age as usize] = destinations.map(|destinations| Wanted {
                destinations,
                lanes: [0; 4],
            });
        }
        Ok(())
    }

    /// Finds where a claimed batch goes.
    pub(super) fn take(&mut self, work: Work) {
        let ways = self.parts.ways.clone();
        let destination = work.lease.batch.destination.clone();
        match (ways.route_of(&destination), &destination) {
            (None, Destination::Domain(domain)) => self.take_for(domain, work),
            (route, _) => {
                let name = route.unwrap_or_default();
                self.place(&Arc::new(Key::Route(name.into())), work);
            }
        }
    }

    /// Finds the site of a domain, by a lookup unless it was made just now.
    pub(super) fn take_for(&mut self, domain: &Domain, work: Work) {
        if let Some(key) = self.hand.site_of(domain, Instant::now()) {
            return self.place(&key, work);
        }
        if self.hand.locate(domain, work) {
            let transport = self.parts.transport.clone();
            let asked = domain.clone();
            let lookup = async move { transport.site(&asked).await };
            let handle = self.lookups.spawn(lookup);
            self.looked_up.insert(handle.id(), domain.clone());
        }
    }

    /// Puts a batch into the hand, unless it need not be tried.
    pub(super) fn place(&mut self, key: &Arc<Key>, work: Work) {
        let ceiling = match self.parts.transport.ceiling(key) {
            Ok(ceiling) => ceiling,
            Err(reply) => return self.start(work, Job::Told(Result::Deferred(reply), false)),
        };
        let now = Instant::now();
        let Some(work) = self.end_of_waiting(key, work, now) else {
            return;
        };
        match self.hand.put(key, ceiling, work, now) {
            Placed::Waits => {}
            Placed::Back(work, until) => {
                let trouble: Box<str> = self.hand.trouble(key).into();
                self.give_back(*work, self.timestamp(until), &trouble);
            }
        }
    }

    /// Mail that is too old is not kept waiting for a site that is not there: its end is told, and so is a delay. All other mail is given back,
    /// also old mail of a site with an open gate, which gets a last attempt.
    pub(super) fn end_of_waiting(
        &mut self,
        key: &Arc<Key>,
        work: Work,
        now: Instant,
    ) -> Option<Work> {
        let lease = &work.lease;
        let (expiry, wall) = (&self.parts.settings.expiry, (self.parts.clock)());
        let over = expiry.over(&lease.head, &lease.batch.destination, wall);
        if !self.hand.keeps_out(key, now)
            || over.is_none() && !self.parts.owner.is_overdue(&lease.head, &lease.batch, wall)
        {
            return Some(work);
        }
        let trouble = self.hand.trouble(key);
        let reply = Reply::new(
            451,
            (4, 4, 1),
            format!("the site is not reached: {trouble}"),
        );
        let policy = self.hand.is_policy(key);
        self.hand.look(key, now);
        self.start(work, Job::Told(Result::Deferred(reply), policy));
        None
    }

    pub(super) fn looked_up(
        &mut self,
        joined: std::result::Result<(Id, std::result::Result<Site, Reply>), JoinError>,
    ) {
        let (id, site) = joined.unwrap_or_else(|error| {
            tracing::error!(event = "fault", %error, "a lookup ended early");
            self.parts
                .metrics
                .faults
                .with_label_values(&["panic"])
                .inc();
            let reply = Reply::new(451, (4, 4, 3), "the lookup of mail exchangers ended early");
            (error.id(), Err(reply))
        });
        if let Some(domain) = self.looked_up.remove(&id) {
            self.located(domain, site);
        }
    }

    pub(super) fn located(&mut self, domain: Domain, site: std::result::Result<Site, Reply>) {
        let works = self.hand.located(&domain);
        match site {
            Ok(site) => {
                self.parts.board.leads(&domain, &site.to_string());
                let key = self.hand.remember(domain, site, Instant::now());
                for work in works {
                    self.place(&key, work);
                }
            }
            Err(reply) => {
                let result = Result::of(reply);
                if let Result::Deferred(_) = result {
                    let until = Instant::now() + self.parts.limits.probe_interval;
                    self.hand.unresolved(domain, until);
                }
                for work in works {
                    self.start(work, Job::Told(result.clone(), false));
                }
            }
        }
    }
}
