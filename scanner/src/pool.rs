//! The daemons of one kind: which is asked next, each within its slots, who waits for one, and who is asked when one fails.
//!
//! A daemon that is asked more than it has children for queues inside its kernel backlog, where nobody sees it; here it is seen,
//! and bounded. Spooled mail takes at most half of each daemon's slots (design, invariant 3). Owns no protocol.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mail::trace::Custody;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::daemon::Daemon;
use crate::metrics::{Metrics, Running};
use crate::trouble::{Cause, Kind, Trouble};

/// Mail of this size goes to a daemon whose limit is not known yet: the smallest sensible one is far above.
pub const UNMEASURED_BYTES_MAX: u64 = 1 << 20;

/// The limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Scans at once, each daemon.
    pub scans_max: usize,
    /// Messages that wait for a slot; at most half of them spooled.
    pub waiting_max: usize,
}

/// A message that needs a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Who waits.
    pub custody: Custody,
    /// How large it is, where daemons have a limit; else 0.
    pub bytes: u64,
    /// Of all attempts together, waiting included.
    pub deadline: Instant,
    /// So long one daemon may take while another could still be asked.
    pub attempt: Duration,
}

/// Daemons of one kind.
pub struct Pool {
    /// Which.
    pub kind: Kind,
    /// All of them, fit or not.
    pub daemons: Vec<Arc<Daemon>>,
    limits: Limits,
    desk: Mutex<Desk>,
    metrics: Metrics,
}

/// Who is being served, by daemon, and who waits.
struct Desk {
    running: Vec<Load>,
    waiting: VecDeque<Waiter>,
    /// Was seated last; among equals it is the next one's turn.
    last: usize,
}

#[derive(Clone, Copy, Default)]
struct Load {
    all: usize,
    spooled: usize,
}

struct Waiter {
    custody: Custody,
    bytes: u64,
    tried: Vec<usize>,
    seat: oneshot::Sender<Seat>,
}

/// A scan slot at one daemon, held while the scan runs.
struct Seat {
    pool: Arc<Pool>,
    at: usize,
    custody: Custody,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pool.leave(self.at, self.custody);
    }
}

impl Pool {
    /// None of the daemons is fit yet.
    pub fn new(
        kind: Kind,
        daemons: Vec<Arc<Daemon>>,
        limits: Limits,
        metrics: Metrics,
    ) -> Arc<Self> {
        let running = vec![Load::default(); daemons.len()];
        Arc::new(Self {
            kind,
            daemons,
            limits,
            desk: Mutex::new(Desk {
                running,
                waiting: VecDeque::new(),
                last: 0,
            }),
            metrics,
        })
    }

    /// Whether any daemon may be asked; the reason why the first may not.
    pub fn fit(&self) -> Result<(), Trouble> {
        let mut reasons = self.daemons.iter().map(|daemon| daemon.fit());
        let first = reasons
            .next()
            .unwrap_or_else(|| Err("there is none".into()));
        if first.is_ok() || reasons.any(|fit| fit.is_ok()) {
            return Ok(());
        }
        let reason = first.err().unwrap_or_default();
        Err(self.trouble(Cause::Unfit(reason.to_string())))
    }

    /// Whether `version` is that of a daemon in service.
    pub fn has_version(&self, version: &str) -> bool {
        let mut daemons = self.daemons.iter();
        daemons.any(|daemon| daemon.fit().is_ok() && *daemon.version() == *version)
    }

    /// The version of the first daemon in service, else of the first.
    pub fn version(&self) -> Arc<str> {
        let fit = self.daemons.iter().find(|daemon| daemon.fit().is_ok());
        let daemon = fit.or(self.daemons.first());
        daemon.map_or_else(|| "".into(), |daemon| daemon.version())
    }

    /// The largest message that any daemon in service looks at; `None` while one of them may take more than is known.
    pub fn bytes_max(&self) -> Option<u64> {
        let fit = self.daemons.iter().filter(|daemon| daemon.fit().is_ok());
        let limits: Option<Vec<u64>> = fit.map(|daemon| daemon.bytes_max()).collect();
        limits?.into_iter().max()
    }

    /// Scans at once, with all daemons in service.
    pub fn slots_max(&self) -> usize {
        self.daemons.len() * self.limits.scans_max
    }

    /// Scans at once, with those that are in service now.
    pub fn slots(&self) -> usize {
        let fit = self.daemons.iter().filter(|daemon| daemon.fit().is_ok());
        fit.count() * self.limits.scans_max
    }

    /// Scans that run at each daemon.
    pub fn running(&self) -> Vec<usize> {
        self.desk().running.iter().map(|load| load.all).collect()
    }

    /// Asks one daemon, and another when it fails for a reason of its own, until all have been asked or the time is over. With the answer
    /// comes the version of the daemon that gave it.
    pub async fn ask<T, F: Future<Output = Result<T, Trouble>>>(
        self: &Arc<Self>,
        demand: Demand,
        scan: impl Fn(Arc<Daemon>, Instant) -> F,
    ) -> Result<(T, Arc<str>), Trouble> {
        let mut tried = Vec::new();
        loop {
            let seat = match self.seat(&demand, &tried).await {
                Ok(seat) => seat,
                Err(trouble) => {
                    self.count(&trouble);
                    return Err(trouble);
                }
            };
            let (at, daemon) = (seat.at, &self.daemons[seat.at]);
            tried.push(at);
            let deadline = match self.is_other(&demand, &tried) {
                true => demand.deadline.min(Instant::now() + demand.attempt),
                false => demand.deadline,
            };
            let answer = self.timed(scan(daemon.clone(), deadline)).await;
            drop(seat);
            let trouble = match answer {
                Ok(finding) => {
                    daemon.answered();
                    return Ok((finding, daemon.version()));
                }
                Err(trouble) => trouble,
            };
            self.count(&trouble);
            let address = daemon.endpoint.to_string();
            tracing::warn!(event = "trouble", daemon = self.kind.as_str(), address, cause = %trouble.cause);
            if trouble.cause.suggests_down() {
                daemon.doubt();
            }
            if Instant::now() >= demand.deadline || !self.is_other(&demand, &tried) {
                return Err(trouble);
            }
            let retries = &self.metrics.retries;
            retries.with_label_values(&[self.kind.as_str()]).inc();
        }
    }

    async fn timed<T>(&self, scan: impl Future<Output = T>) -> T {
        let name = [self.kind.as_str()];
        let scans = self.metrics.scans.with_label_values(&name);
        let _running = Running::new(&scans);
        let started = Instant::now();
        let answer = scan.await;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics
            .scan_seconds
            .with_label_values(&name)
            .observe(seconds);
        answer
    }

    fn count(&self, trouble: &Trouble) {
        let labels = [self.kind.as_str(), trouble.cause.label()];
        self.metrics.trouble.with_label_values(&labels).inc();
    }

    /// Whether a daemon that was not tried may be asked.
    fn is_other(&self, demand: &Demand, tried: &[usize]) -> bool {
        let mut all = 0..self.daemons.len();
        all.any(|at| self.is_able(at, demand.bytes, tried))
    }

    fn is_able(&self, at: usize, bytes: u64, tried: &[usize]) -> bool {
        let daemon = &self.daemons[at];
        let is_large_enough = || daemon.bytes_max().unwrap_or(UNMEASURED_BYTES_MAX) >= bytes;
        !tried.contains(&at) && daemon.fit().is_ok() && is_large_enough()
    }

    /// A slot, at once or after others: first come, first served among equals.
    async fn seat(self: &Arc<Self>, demand: &Demand, tried: &[usize]) -> Result<Seat, Trouble> {
        let (custody, bytes) = (demand.custody, demand.bytes);
        // An unfit daemon is not asked: each would cost the client the whole deadline.
        if !self.is_other(demand, tried) {
            self.fit()?;
            let reason = "none that may be asked takes so large a message".into();
            return Err(self.trouble(Cause::Unfit(reason)));
        }
        let waits = {
            let mut desk = self.desk();
            desk.forget_gone();
            let alike = desk
                .waiting
                .iter()
                .filter(|waiter| waiter.custody == custody)
                .count();
            if alike == 0
                && let Some(at) = self.free(&desk, custody, bytes, tried)
            {
                desk.take(at, custody);
                drop(desk);
                return Ok(self.seat_at(at, custody));
            }
            let waiting_max = self.limits.waiting_max;
            let is_spooled_full = custody == Custody::Spooled && alike >= waiting_max / 2;
            if desk.waiting.len() >= waiting_max || is_spooled_full {
                return Err(self.trouble(Cause::Full));
            }
            let (seat, waits) = oneshot::channel();
            let tried = tried.to_vec();
            desk.waiting.push_back(Waiter {
                custody,
                bytes,
                tried,
                seat,
            });
            waits
        };
        let waiting = self
            .metrics
            .waiting
            .with_label_values(&[self.kind.as_str()]);
        let _waiting = Running::new(&waiting);
        match timeout_at(demand.deadline, waits).await {
            Ok(Ok(seat)) => Ok(seat),
            // Nobody is left who could be asked.
            Ok(Err(_)) => {
                self.fit()?;
                Err(self.trouble(Cause::Busy))
            }
            Err(_) => Err(self.trouble(Cause::Busy)),
        }
    }

    fn seat_at(self: &Arc<Self>, at: usize, custody: Custody) -> Seat {
        let pool = self.clone();
        Seat { pool, at, custody }
    }

    /// The daemon with a free slot that works on the least; among equals it is the next one's turn.
    fn free(&self, desk: &Desk, custody: Custody, bytes: u64, tried: &[usize]) -> Option<usize> {
        let count = self.daemons.len();
        let spooled_max = (self.limits.scans_max / 2).max(1);
        (1..=count)
            .map(|step| (desk.last + step) % count)
            .filter(|&at| {
                let load = desk.running[at];
                let is_spooled_full = custody == Custody::Spooled && load.spooled >= spooled_max;
                load.all < self.limits.scans_max
                    && !is_spooled_full
                    && self.is_able(at, bytes, tried)
            })
            .min_by_key(|&at| desk.running[at].all)
    }

    fn leave(self: &Arc<Self>, at: usize, custody: Custody) {
        self.desk().give_back(at, custody);
        self.serve();
    }

    /// Seats whoever waits and can be seated: a slot was given back, or a daemon is fit again. Those whom nobody is left to serve hear it.
    pub fn serve(self: &Arc<Self>) {
        loop {
            let (seat, waiter) = {
                let mut desk = self.desk();
                let mut seated = None;
                desk.forget_gone();
                for index in 0..desk.waiting.len() {
                    let Waiter {
                        custody,
                        bytes,
                        tried,
                        ..
                    } = &desk.waiting[index];
                    if let Some(at) = self.free(&desk, *custody, *bytes, tried) {
                        seated = Some((index, at, *custody));
                        break;
                    }
                }
                let Some((index, at, custody)) = seated else {
                    desk.waiting.retain(|waiter| {
                        let mut all = 0..self.daemons.len();
                        all.any(|at| self.is_able(at, waiter.bytes, &waiter.tried))
                    });
                    return;
                };
                desk.take(at, custody);
                let waiter = desk.waiting.remove(index).expect("found above");
                (self.seat_at(at, custody), waiter)
            };
            // One that has gone meanwhile drops the seat, and gives the slot back.
            let _ = waiter.seat.send(seat);
        }
    }

    fn trouble(&self, cause: Cause) -> Trouble {
        Trouble {
            daemon: self.kind,
            cause,
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Those whose time is over.
    fn forget_gone(&mut self) {
        self.waiting.retain(|waiter| !waiter.seat.is_closed());
    }

    fn take(&mut self, at: usize, custody: Custody) {
        self.running[at].all += 1;
        self.running[at].spooled += usize::from(custody == Custody::Spooled);
        self.last = at;
    }

    fn give_back(&mut self, at: usize, custody: Custody) {
        self.running[at].all -= 1;
        self.running[at].spooled -= usize::from(custody == Custody::Spooled);
    }
}

#[cfg(test)]
mod tests;
