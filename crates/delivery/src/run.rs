//! The loop: claim by lane, group by site, attempt within limits, settle in groups.
//!
//! One task owns the hand and decides; jobs, lookups and settlements run beside it. It never waits for any one of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::{Domain, Reply, Timestamp};
use service::shutdown::Shutdown;
use spool::{Destination, Destinations, Lease, Outcome, Settlement, Wanted};
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::attempt::Result;
use crate::bodies::Bodies;
use crate::breaker::Crossing;
use crate::claims::Claims;
use crate::engine::Parts;
use crate::lane;
use crate::outcome::{self, Again};
use crate::retry::random;
use crate::schedule::{Hand, Key, Placed, Unwanted, Work};
use crate::settle::Settler;
use crate::site::Site;
use crate::work::{Because, Done, End, Job, Worker};

/// Batches claimed from one lane at once at most: a site whose gate turns out to be full has no more than this in excess.
const CLAIM_MAX: usize = 64;
/// What is under way at shutdown may go on for so long, well within the 90 s that service managers wait by default.
const GRACE: Duration = Duration::from_secs(60);
/// A batch that met a site's trouble before its gate was shut tries again after about this.
const SOON: Duration = Duration::from_secs(5);
/// Works a spool off until shutdown.
pub(crate) async fn run(parts: Parts, shutdown: Shutdown) {
    let _activity = shutdown.activity("delivery");
    let (cut, was_cut) = watch::channel(false);
    let (settler, settling) =
        Settler::new(parts.spool.clone(), parts.metrics.clone(), shutdown.clone());
    let settling = tokio::spawn(settling);
    let mut run = Run::new(parts, settler, shutdown, was_cut);
    run.work().await;
    run.wind_up(&cut).await;
    // The last settler goes with it; the task then ends when everything is settled.
    drop(run);
    if let Err(error) = settling.await {
        tracing::error!(event = "fault", %error, "settling ended early; these batches will be attempted again");
    }
}

struct Run {
    parts: Parts,
    worker: Arc<Worker>,
    settler: Settler,
    shutdown: Shutdown,
    hand: Hand,
    jobs: JoinSet<Done>,
    /// What each job works on, for the case that it panics.
    under_way: HashMap<Id, (Option<Arc<Key>>, Arc<Work>)>,
    attempts: usize,
    lookups: JoinSet<std::result::Result<Site, Reply>>,
    /// What each lookup is about.
    looked_up: HashMap<Id, Domain>,
    unwanted: Unwanted,
    claims: Claims,
}

impl Run {
    fn new(parts: Parts, settler: Settler, shutdown: Shutdown, cut: watch::Receiver<bool>) -> Self {
        let worker = Worker {
            bodies: Bodies::new(parts.spool.clone()),
            owner: parts.owner.clone(),
            transport: parts.transport.clone(),
            schedule: parts.settings.schedule,
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
            shutdown: shutdown.clone(),
            cut,
        };
        let stock = (parts.settings.attempts_max / 2).clamp(8, 256);
        Self {
            worker: Arc::new(worker),
            settler,
            shutdown,
            hand: Hand::new(parts.limits, stock),
            jobs: JoinSet::new(),
            under_way: HashMap::new(),
            attempts: 0,
            lookups: JoinSet::new(),
            looked_up: HashMap::new(),
            unwanted: Unwanted::default(),
            claims: Claims::default(),
            parts,
        }
    }

    async fn work(&mut self) {
        let shutdown = self.shutdown.clone();
        let spool = self.parts.spool.clone();
        let nudged = self.parts.nudged.clone();
        let settler = self.settler.clone();
        let mut paused = self.parts.settings.paused.clone();
        while !shutdown.begun() {
            let is_paused = *paused.borrow_and_update();
            self.hand.wake(Instant::now());
            if !is_paused && !self.settler.is_busy() {
                self.dispatch();
                self.claim().await;
                self.dispatch();
            }
            self.gauge();
            let (wake_at, listens) = self.idle_until(is_paused);
            tokio::select! {
                () = shutdown.wait() => {}
                Some(joined) = self.jobs.join_next_with_id() => self.joined(joined),
                Some(joined) = self.lookups.join_next_with_id() => self.looked_up(joined),
                () = spool.ready(), if listens => self.claims.more = [true; 4],
                () = tokio::time::sleep_until(wake_at) => {}
                () = nudged.notified() => self.nudge(),
                () = settler.changed() => {}
                () = changed(&mut paused) => {}
            }
            while let Some(joined) = self.jobs.try_join_next_with_id() {
                self.joined(joined);
            }
        }
    }

    /// When something is to be done though nothing happens, and whether news from the spool are of use before.
    fn idle_until(&self, is_paused: bool) -> (Instant, bool) {
        let now = Instant::now();
        let resting = self.claims.not_before.filter(|at| *at > now);
        let useful = !is_paused && !self.settler.is_busy() && self.hand.room() != [0; 4];
        let listens = useful && resting.is_none();
        // An hour: nothing is known to be due by time.
        let wake_at = [resting.filter(|_| useful), self.hand.wake_at()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now + Duration::from_secs(3600));
        (wake_at, listens)
    }

    /// Starts what can go.
    fn dispatch(&mut self) {
        let now = Instant::now();
        while self.attempts < self.parts.settings.attempts_max.max(1) {
            let Some((key, work)) = self.hand.next(now) else {
                break;
            };
            self.attempts += 1;
            self.start(work, Job::Attempt(key));
        }
    }

    fn start(&mut self, work: Work, job: Job) {
        let key = match &job {
            Job::Attempt(key) => Some(key.clone()),
            Job::Told(_) => None,
        };
        let worker = self.worker.clone();
        let work = Arc::new(work);
        let kept = work.clone();
        let handle = self.jobs.spawn(async move { worker.run(work, job).await });
        self.under_way.insert(handle.id(), (key, kept));
    }

    /// Fills the hand, if it has room and there may be something.
    async fn claim(&mut self) {
        if self.hand.widened() {
            self.claims.more = [true; 4];
        }
        let now = Instant::now();
        let lanes = self.hand.room().map(|room| room.min(CLAIM_MAX));
        let of_use = (0..4).any(|lane| self.claims.more[lane] && lanes[lane] > 0);
        if !of_use || self.claims.not_before.is_some_and(|at| at > now) {
            return;
        }
        let Some(destinations) = self.destinations() else {
            // Everything is busy or shut. When that changes the hand says so.
            self.claims.more = [false; 4];
            self.claims.pace(0);
            return;
        };
        let wanted = Wanted {
            destinations,
            lanes,
        };
        let claimed = match self.parts.spool.unhealthy() {
            Some(why) => Err(spool::Error::Poisoned(why.into())),
            None => {
                let host = &self.parts.settings.host;
                self.parts.spool.claim(host, &wanted).await
            }
        };
        match claimed {
            Ok(leases) => self.claimed(lanes, leases),
            Err(error) => self.claims.refused(&error),
        }
    }

    fn claimed(&mut self, asked: [usize; 4], leases: Vec<Lease>) {
        self.claims.succeeded(leases.len());
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
            if asked[lane] > 0 {
                self.claims.more[lane] = got[lane] >= asked[lane];
            }
        }
    }

    fn destinations(&mut self) -> Option<Destinations> {
        if let Some(unwanted) = self.hand.changed() {
            self.unwanted = unwanted;
        }
        let serves = &self.parts.settings.serves;
        self.parts.ways.wanted(serves, &self.unwanted)
    }

    /// Finds where a claimed batch goes.
    fn take(&mut self, work: Work) {
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
    fn take_for(&mut self, domain: &Domain, work: Work) {
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
    fn place(&mut self, key: &Arc<Key>, work: Work) {
        let ceiling = match self.parts.transport.ceiling(key) {
            Ok(ceiling) => ceiling,
            Err(reply) => return self.start(work, Job::Told(Result::Deferred(reply))),
        };
        let now = Instant::now();
        // Mail that is too old is not kept waiting for a site that is not there; with an open gate it gets a last attempt.
        let accepted = work.lease.head.accepted;
        let over = self
            .parts
            .settings
            .schedule
            .over(accepted, (self.parts.clock)());
        if over && self.hand.shut_until(key).is_some_and(|until| until > now) {
            let trouble = self.hand.trouble(key);
            let reply = Reply::new(
                451,
                (4, 4, 1),
                format!("the site is not reached: {trouble}"),
            );
            return self.start(work, Job::Told(Result::Deferred(reply)));
        }
        match self.hand.put(key, ceiling, work, now) {
            Placed::Waits => {}
            Placed::Back(work, until) => {
                let trouble: Box<str> = self.hand.trouble(key).into();
                self.give_back(*work, self.timestamp(until), &trouble);
            }
        }
    }

    fn looked_up(
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

    fn located(&mut self, domain: Domain, site: std::result::Result<Site, Reply>) {
        let works = self.hand.located(&domain);
        match site {
            Ok(site) => {
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
                    self.start(work, Job::Told(result.clone()));
                }
            }
        }
    }

    fn joined(&mut self, joined: std::result::Result<(Id, Done), JoinError>) {
        match joined {
            Ok((id, done)) => {
                self.under_way.remove(&id);
                self.done(done);
            }
            Err(error) => {
                let Some((key, work)) = self.under_way.remove(&error.id()) else {
                    return;
                };
                let message = work.lease.head.id;
                tracing::error!(event = "fault", %message, %error, "an attempt ended early; tried again later");
                self.parts
                    .metrics
                    .faults
                    .with_label_values(&["panic"])
                    .inc();
                self.done(Done::panicked(key, work));
            }
        }
    }

    /// A job has ended: its site learns, its batch is settled or kept as the next probe.
    fn done(&mut self, done: Done) {
        let now = Instant::now();
        if let Some(key) = &done.key {
            self.attempts -= 1;
            let (crossing, back) = self.hand.ended(key, done.signal, done.trouble.clone(), now);
            if let Some(crossing) = crossing {
                self.crossed(key, crossing);
            }
            self.back(key, back);
        }
        match done.end {
            End::Finished => self.settle(&done.work.lease, Outcome::Finished),
            End::Left {
                left,
                note,
                because,
            } => {
                if because == Because::Site
                    && !self.shutdown.begun()
                    && let Some(key) = &done.key
                    && self.hand.lacks_probe(key)
                {
                    let mut work = Arc::unwrap_or_clone(done.work);
                    work.lease.batch.recipients = left.recipients;
                    work.lease.batch.reply = left.reply;
                    work.lease.batch.note = note;
                    return self.place(key, work);
                }
                let again = self.again(done.key.as_deref(), because, now);
                let schedule = &self.parts.settings.schedule;
                let wall = (self.parts.clock)();
                let outcome = outcome::settled(
                    &done.work.lease,
                    left,
                    note,
                    again,
                    schedule,
                    wall,
                    random(),
                );
                self.settle(&done.work.lease, outcome);
            }
        }
    }

    /// When what is left of a batch is tried again.
    fn again(&self, key: Option<&Key>, because: Because, now: Instant) -> Again {
        let soon = SOON.min(self.parts.limits.probe_interval);
        match because {
            Because::Replies | Because::Fault => Again::Scheduled,
            Because::Stopping => Again::At((self.parts.clock)()),
            Because::Site => {
                let until = match key {
                    Some(key) => self.hand.shut_until(key),
                    // A lookup that failed.
                    None => Some(now + self.parts.limits.probe_interval),
                };
                let until = until.unwrap_or(now + soon.mul_f64(1.0 - 0.5 * random()));
                Again::At(self.timestamp(until))
            }
        }
    }

    fn back(&mut self, key: &Arc<Key>, works: Vec<Work>) {
        let Some(until) = self.hand.shut_until(key) else {
            return;
        };
        let until = self.timestamp(until);
        let trouble: Box<str> = self.hand.trouble(key).into();
        for work in works {
            self.give_back(work, until, &trouble);
        }
    }

    /// Not attempted, due again then.
    fn give_back(&self, work: Work, until: Timestamp, trouble: &str) {
        let Work { lease, .. } = work;
        let reply = match trouble {
            "" => lease.batch.reply.clone(),
            trouble => trouble.into(),
        };
        let outcome = Outcome::Deferred {
            until,
            reply,
            note: lease.batch.note.clone(),
            recipients: lease.batch.recipients.clone(),
            attempted: false,
        };
        self.settle(&lease, outcome);
    }

    fn settle(&self, lease: &Lease, outcome: Outcome) {
        self.settler.settle(Settlement {
            batch: lease.batch.id,
            token: lease.token,
            outcome,
        });
    }

    fn nudge(&mut self) {
        self.hand.nudge(Instant::now());
        self.claims.more = [true; 4];
        self.claims.not_before = None;
    }

    fn crossed(&self, key: &Key, crossing: Crossing) {
        let trouble = self.hand.trouble(key);
        let crossings = &self.parts.metrics.crossings;
        match crossing {
            Crossing::Shut => {
                crossings.with_label_values(&["shut"]).inc();
                tracing::warn!(event = "site", site = %key, gate = "shut", reply = trouble, "not reached; probed from now on");
            }
            Crossing::Opened => {
                crossings.with_label_values(&["open"]).inc();
                tracing::info!(event = "site", site = %key, gate = "open", "reached again");
            }
            Crossing::Limited(window) => {
                crossings.with_label_values(&["limited"]).inc();
                tracing::info!(event = "site", site = %key, gate = "limited", window, reply = trouble, "asked for less");
            }
        }
    }

    fn gauge(&self) {
        let metrics = &self.parts.metrics;
        metrics.in_flight.set(self.attempts as i64);
        metrics.in_hand.set(self.hand.held() as i64);
        metrics.sites_shut.set(self.hand.shut() as i64);
    }

    /// A moment of the monotonic clock on the wall clock.
    fn timestamp(&self, at: Instant) -> Timestamp {
        (self.parts.clock)().after(at.saturating_duration_since(Instant::now()))
    }

    /// Nothing is begun any more: what waits is given back, what is under way ends or is cut.
    async fn wind_up(&mut self, cut: &watch::Sender<bool>) {
        self.lookups.abort_all();
        for work in self.hand.empty() {
            let due = work.lease.batch.due;
            self.give_back(work, due, "");
        }
        let end = Instant::now() + GRACE;
        while !self.jobs.is_empty() {
            tokio::select! {
                Some(joined) = self.jobs.join_next_with_id() => self.joined(joined),
                () = tokio::time::sleep_until(end), if !*cut.borrow() => {
                    tracing::warn!(event = "cut", batches = self.jobs.len(), "still under way after the grace; tried again at the next start");
                    cut.send_replace(true);
                }
            }
        }
        self.gauge();
    }
}

/// Resolves when it changes; never when nobody can change it any more.
async fn changed(paused: &mut watch::Receiver<bool>) {
    if paused.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
