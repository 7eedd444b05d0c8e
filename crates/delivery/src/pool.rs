//! Connections to one site or route: opened when needed, reused as far as allowed, closed when idle.
//!
//! It owns every outbound connection of the engine. It knows hosts and transactions; never batches, sites' gates or retries.

mod dial;
mod targets;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mail::Reply;
use smtp::client::{Answer, Cause, Client, Options, Phase, TlsPolicy, Trouble};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::targets::{ADDRESSES_MAX, Memory};
use crate::attempt::Copy;
use crate::egress::Egress;
use crate::pace::Pace;
use crate::site::{Exchangers, Site};

/// An idle connection is closed after this [Kumo's 5 s]: long enough for the next copy, too short to hold a peer's slot.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// A connection is used for so long at most, whatever it still takes [Postfix's smtp_connection_reuse_time_limit]: exchangers move,
/// and a peer that balances its load would like to.
const AGE_MAX: Duration = Duration::from_secs(300);
/// An attempt waits about so long at most for its turn to connect, where a site allows only so many connections a second.
const CONNECT_AHEAD_MAX: Duration = Duration::from_secs(300);

/// A next hop that is configured, not looked up: tried in order, hosts resolved anew for each connection.
#[derive(Clone)]
pub struct Route {
    /// `host:port` each; tried in order, the last good one first.
    pub hosts: Vec<String>,
    /// How to talk to it.
    pub options: Options,
    /// Transactions over one connection at most. 1 where a balancer picks a node for each connection.
    pub transactions_max: usize,
    /// Connections at once at most.
    pub connections_max: usize,
}

/// Connections to one route, reused as far as it allows. Shared between the engine and those who pass mail through directly.
pub struct Connections {
    pool: Pool,
    connections_max: usize,
}

impl Connections {
    /// None yet.
    pub fn new(route: Route) -> Self {
        Self::leaving(route, Egress::default())
    }

    /// None yet; they will leave from there.
    pub fn leaving(route: Route, egress: Egress) -> Self {
        Self {
            connections_max: route.connections_max.max(1),
            pool: Pool::new(Reach {
                hosts: Hosts::Route(route.hosts),
                options: route.options,
                tls: HashMap::new(),
                egress,
                transactions_max: route.transactions_max,
                connections_max: route.connections_max,
                connects_per_second_max: None,
            }),
        }
    }

    /// Passes one copy on and waits for its replies, one a recipient of its envelope, and names the host that gave them.
    /// A connection that turns out to be dead before MAIL was answered is replaced once by a fresh one. The whole must end
    /// before `deadline`; dropping the future drops the connection.
    pub async fn pass(
        &self,
        copy: &Copy,
        deadline: Instant,
    ) -> Result<(Vec<Reply>, Box<str>), Trouble> {
        let passed = self.pool.pass(copy, deadline).await;
        let passed = passed.map_err(|stopped| stopped.trouble)?;
        let replies = passed.answers.into_iter().map(|answer| answer.reply);
        Ok((replies.collect(), passed.remote))
    }

    /// Connections at once at most.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// Who the connections lead to.
pub(crate) enum Hosts {
    /// `host:port` each.
    Route(Vec<String>),
    /// Mail exchangers.
    Site(Arc<Exchangers>, Site),
}

/// A transaction that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// One a recipient.
    pub(crate) answers: Vec<Answer>,
    /// Who gave them.
    pub(crate) remote: Box<str>,
    /// It takes over what the sender asked of reports (RFC 3461).
    pub(crate) dsn: bool,
}

/// A transaction that was not answered.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) trouble: Trouble,
    /// The last host that was tried.
    pub(crate) remote: Option<Box<str>>,
}

/// How connections are made, and how many.
pub(crate) struct Reach {
    pub(crate) hosts: Hosts,
    pub(crate) options: Options,
    /// For these hosts in place of what the options say.
    pub(crate) tls: HashMap<Box<str>, TlsPolicy>,
    pub(crate) egress: Egress,
    pub(crate) transactions_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) connects_per_second_max: Option<f64>,
}

/// See the module.
pub(crate) struct Pool {
    inner: Arc<Inner>,
    permits: Semaphore,
}

struct Inner {
    hosts: Hosts,
    options: Options,
    tls: HashMap<Box<str>, TlsPolicy>,
    egress: Egress,
    transactions_max: usize,
    idle_max: Duration,
    idle: Mutex<Vec<Open>>,
    /// A task that closes idle connections is running.
    sweeping: AtomicBool,
    memory: Mutex<Memory>,
    /// New connections a second.
    connects: Pace,
}

/// A connection and what it has done.
struct Open {
    client: Client,
    remote: Box<str>,
    transactions: usize,
    opened: Instant,
    idle_since: Instant,
}

impl Pool {
    pub(crate) fn new(reach: Reach) -> Self {
        Self {
            permits: Semaphore::new(reach.connections_max.max(1)),
            inner: Arc::new(Inner {
                options: reach.egress.options(&reach.options),
                hosts: reach.hosts,
                tls: reach.tls,
                egress: reach.egress,
                transactions_max: reach.transactions_max.max(1),
                idle_max: IDLE_MAX,
                idle: Mutex::default(),
                sweeping: AtomicBool::new(false),
                memory: Mutex::default(),
                connects: Pace::new(reach.connects_per_second_max, Instant::now()),
            }),
        }
    }

    /// See [`Connections::pass`].
    pub(crate) async fn pass(&self, copy: &Copy, deadline: Instant) -> Result<Passed, Stopped> {
        let sending = AtomicBool::new(false);
        let work = async {
            // Never closed, so it cannot fail.
            let _permit = self.permits.acquire().await;
            self.inner.pass(copy, &sending).await
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            // Once the transaction has begun the message may have been accepted.
            let phase = match sending.load(Ordering::Relaxed) {
                true => Phase::End,
                false => Phase::Connect,
            };
            Err(Stopped {
                trouble: Trouble {
                    phase,
                    cause: Cause::TimedOut,
                },
                remote: None,
            })
        })
    }

    /// How long one copy may take at most when nobody gives a deadline: every phase at its limit.
    pub(crate) fn longest(&self, copy: &Copy) -> Duration {
        let t = &self.inner.options.timeouts;
        let bytes: usize = copy.parts.iter().map(bytes::Bytes::len).sum();
        let blocks = u32::try_from(bytes / (1 << 20) + 1).unwrap_or(u32::MAX);
        (t.connect + t.greeting + t.helo * 2) * ADDRESSES_MAX as u32
            + t.mail
            + t.rcpt
            + t.data_start
            + t.data_block.saturating_mul(blocks)
            + t.data_end
    }
}

impl Inner {
    async fn pass(self: &Arc<Self>, copy: &Copy, sending: &AtomicBool) -> Result<Passed, Stopped> {
        if let Some(open) = self.take_idle() {
            match self.transact(open, copy, sending).await {
                // It was closed while it lay idle (or just now, 421): nothing was said about this message.
                Err(stopped) if crate::attempt::is_site_trouble(stopped.trouble.phase) => {}
                ended => return ended,
            }
        }
        let open = self.open().await?;
        self.transact(open, copy, sending).await
    }

    async fn transact(
        self: &Arc<Self>,
        mut open: Open,
        copy: &Copy,
        sending: &AtomicBool,
    ) -> Result<Passed, Stopped> {
        sending.store(true, Ordering::Relaxed);
        let sent = async {
            if let Some(xforward) = &copy.xforward {
                // Whatever goes wrong here, the envelope has not been seen.
                open.client.xforward(xforward).await.map_err(|t| Trouble {
                    phase: Phase::Mail,
                    cause: t.cause,
                })?;
            }
            open.client.answers(&copy.envelope, &copy.parts).await
        }
        .await;
        sending.store(false, Ordering::Relaxed);
        match sent {
            Ok(answers) => {
                let passed = Passed {
                    answers,
                    remote: open.remote.clone(),
                    dsn: open.client.offers("DSN"),
                };
                self.put_back(open);
                Ok(passed)
            }
            Err(trouble) => Err(Stopped {
                trouble,
                remote: Some(open.remote),
            }),
        }
    }

    fn take_idle(&self) -> Option<Open> {
        let mut idle = lock(&self.idle);
        let open = idle.pop()?;
        // The youngest was the last to be put back: when it is too old, all are.
        if open.idle_since.elapsed() >= self.idle_max {
            idle.clear();
            return None;
        }
        Some(open)
    }

    fn put_back(self: &Arc<Self>, mut open: Open) {
        open.transactions += 1;
        if open.transactions >= self.transactions_max || open.opened.elapsed() >= AGE_MAX {
            tokio::spawn(open.client.quit());
            return;
        }
        open.idle_since = Instant::now();
        lock(&self.idle).push(open);
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_max));
        }
    }

    /// Takes out what has been idle for too long; returns when to look again, none when nothing is left.
    fn expired(&self) -> (Vec<Open>, Option<Instant>) {
        let mut idle = lock(&self.idle);
        let now = Instant::now();
        let (old, young) = std::mem::take(&mut *idle)
            .into_iter()
            .partition(|open: &Open| open.idle_since + self.idle_max <= now);
        *idle = young;
        let next = idle
            .iter()
            .map(|open| open.idle_since + self.idle_max)
            .min();
        if next.is_none() {
            // Under the lock: whoever puts one back now starts a new sweep.
            self.sweeping.store(false, Ordering::Release);
        }
        (old, next)
    }
}

/// Says QUIT to idle connections until there are none, or nobody uses the pool any more.
async fn sweep(pool: Weak<Inner>, idle_max: Duration) {
    let mut at = Instant::now() + idle_max;
    loop {
        tokio::time::sleep_until(at).await;
        let Some(inner) = pool.upgrade() else { return };
        let (old, next) = inner.expired();
        drop(inner);
        for open in old {
            tokio::spawn(open.client.quit());
        }
        match next {
            Some(next) => at = next,
            None => return,
        }
    }
}

/// What a panicking holder left is still whole: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
