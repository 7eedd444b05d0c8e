//! The loop: claim by lane, group by site, attempt within limits, settle in groups.
//!
//! One task owns the hand and decides; jobs, lookups and settlements run beside it. It never waits for any one of them.

mod claim;
mod end;

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use mail::{Domain, Reply};
use service::shutdown::Shutdown;
use spool::{Seen, Wanted};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use self::claim::Claimed;
use crate::allowance::Allowance;
use crate::board::Showing;
use crate::bodies::Bodies;
use crate::claims::Claims;
use crate::engine::Parts;
use crate::lane::Age;
use crate::schedule::Hand;
use crate::seat::{Key, Work};
use crate::settle::Settler;
use crate::site::Site;
use crate::turns::Turns;
use crate::work::{Done, Job, Worker};

/// What is under way at shutdown may go on for so long, well within the 90 s that service managers wait by default.
const GRACE: Duration = Duration::from_secs(60);
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
    /// Of these, on backlog and retries.
    attempts_old: usize,
    allowance: Allowance,
    turns: Turns,
    lookups: JoinSet<std::result::Result<Site, Reply>>,
    /// What each lookup is about.
    looked_up: HashMap<Id, Domain>,
    /// What is claimed of the fresh, of the old; none while everything is busy or shut.
    wanted: [Option<Wanted>; 2],
    /// It is not made anew before.
    renew_at: [Instant; 2],
    claims: Claims,
    /// A claim of what is old, at most one: it may have to read the disk, and what is fresh does not wait for that.
    claiming: JoinSet<Claimed>,
    showing: Showing,
}

impl Run {
    fn new(parts: Parts, settler: Settler, shutdown: Shutdown, cut: watch::Receiver<bool>) -> Self {
        let worker = Worker {
            bodies: Bodies::new(parts.spool.clone(), parts.settings.bodies_bytes_max),
            owner: parts.owner.clone(),
            transport: parts.transport.clone(),
            expiry: parts.settings.expiry,
            rules: parts.settings.rules.clone(),
            drain: parts.drain.clone(),
            ends: parts.ends.clone(),
            metrics: parts.metrics.clone(),
            clock: parts.clock.clone(),
            shutdown: shutdown.clone(),
            cut,
        };
        let wanted = Wanted {
            destinations: parts.settings.serves.clone(),
            lanes: [0; 4],
        };
        let most = parts.settings.attempts_max.max(1);
        let stock = (most / 2).clamp(8, 256);
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        // What is old leaves a quarter, so that what is fresh does not have to wait for an end.
        let allowance = Allowance::new(parts.settings.turn_target, processors, most - most / 4);
        Self {
            worker: Arc::new(worker),
            settler,
            shutdown,
            hand: Hand::new(parts.limits, stock, parts.drain.clone()),
            jobs: JoinSet::new(),
            under_way: HashMap::new(),
            attempts: 0,
            attempts_old: 0,
            allowance,
            turns: Turns::start(),
            lookups: JoinSet::new(),
            looked_up: HashMap::new(),
            wanted: [Some(wanted.clone()), Some(wanted)],
            renew_at: [Instant::now(); 2],
            claims: Claims::default(),
            claiming: JoinSet::new(),
            showing: Showing::new(Instant::now()),
            parts,
        }
    }

    async fn work(&mut self) {
        let shutdown = self.shutdown.clone();
        let spool = self.parts.spool.clone();
        let nudged = self.parts.nudged.clone();
        let rated = self.parts.rated.clone();
        let settler = self.settler.clone();
        let mut paused = self.parts.settings.paused.clone();
        let mut copy = spool.copy();
        let mut seen = Seen::default();
        while !shutdown.begun() {
            let is_paused = *paused.borrow_and_update()
                || *copy.borrow_and_update()
                || self.parts.settings.sink;
            self.hand.wake(Instant::now());
            if !is_paused && !self.settler.is_busy() {
                self.dispatch();
                self.claim().await;
                self.dispatch();
            }
            self.turns.want(self.attempts_old > 0);
            self.gauge();
            let (wake_at, listens) = self.idle_until(is_paused);
            tokio::select! {
                () = shutdown.wait() => {}
                Some(joined) = self.jobs.join_next_with_id() => self.joined(joined),
                Some(joined) = self.lookups.join_next_with_id() => self.looked_up(joined),
                Some(joined) = self.claiming.join_next() => self.came(joined),
                wait = self.turns.measured() => self.measured(wait),
                () = spool.ready(&mut seen), if listens => self.claims.more = [true; 4],
                () = tokio::time::sleep_until(wake_at) => {}
                () = nudged.notified() => self.nudge(),
                () = rated.notified() => {}
                () = settler.changed() => {}
                () = changed(&mut paused) => {}
                () = changed(&mut copy) => {}
            }
            while let Some(joined) = self.jobs.try_join_next_with_id() {
                self.joined(joined);
            }
        }
    }

    /// When something is to be done though nothing happens, and whether news from the spool are of use before.
    fn idle_until(&self, is_paused: bool) -> (Instant, bool) {
        let now = Instant::now();
        let claims = !is_paused && !self.settler.is_busy();
        let mut listens = false;
        let mut resting = None;
        for age in Age::ALL
            .into_iter()
            .filter(|age| claims && self.has_room(*age))
        {
            match self.claims.rests(age, now) {
                Some(until) => resting = Some(resting.map_or(until, |at: Instant| at.min(until))),
                None => listens = true,
            }
        }
        let wake_at = [resting, self.hand.wake_at(now), self.showing.at()]
            .into_iter()
            .flatten()
            .min();
        // An hour: nothing is known to be due by time.
        let wake_at = wake_at.unwrap_or(now + Duration::from_secs(3600));
        (wake_at, listens)
    }

    /// Starts what can go.
    fn dispatch(&mut self) {
        let now = Instant::now();
        while self.attempts < self.parts.settings.attempts_max.max(1) {
            let old = self.attempts_old < self.allowance.allowed();
            let Some((key, pace, work)) = self.hand.next(now, old) else {
                break;
            };
            self.attempts += 1;
            self.attempts_old += usize::from(work.age() == Age::Old);
            self.start(work, Job::Attempt(key, pace));
        }
    }

    fn start(&mut self, work: Work, job: Job) {
        let key = match &job {
            Job::Attempt(key, _) => Some(key.clone()),
            Job::Told(..) => None,
        };
        let worker = self.worker.clone();
        let work = Arc::new(work);
        let kept = work.clone();
        let handle = self.jobs.spawn(async move { worker.run(work, job).await });
        self.under_way.insert(handle.id(), (key, kept));
    }

    fn nudge(&mut self) {
        self.hand.nudge(Instant::now());
        self.claims.more = [true; 4];
        self.claims.rest_no_more();
    }

    /// So long turns waited just now.
    fn measured(&mut self, wait: Duration) {
        self.parts.metrics.turn_seconds.observe(wait.as_secs_f64());
        self.allowance.measured(wait, self.attempts_old);
    }

    fn gauge(&mut self) {
        let metrics = &self.parts.metrics;
        metrics.in_flight.set(self.attempts as i64);
        metrics.old_allowed.set(self.allowance.allowed() as i64);
        metrics.in_hand.set(self.hand.held() as i64);
        metrics.sites_shut.set(self.hand.shut() as i64);
        let now = Instant::now();
        if self.showing.changed(now) {
            let wall = (self.parts.clock)();
            let sites = self.hand.sites(now, wall);
            self.parts.board.show(sites);
        }
    }

    /// Nothing is begun any more: what waits is given back, what is under way ends or is cut.
    async fn wind_up(&mut self, cut: &watch::Sender<bool>) {
        self.lookups.abort_all();
        while let Some(joined) = self.claiming.join_next().await {
            self.came(joined);
        }
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
async fn changed(watched: &mut watch::Receiver<bool>) {
    if watched.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
