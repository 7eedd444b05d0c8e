//! Connections to one site or route: opened when needed, reused as far as allowed, closed when idle.
//!
//! It owns every outbound connection of the engine. It knows hosts and transactions; never batches, sites' gates or retries.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mail::Reply;
use smtp::client::{Cause, Client, Options, Phase, TlsPolicy, Trouble};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::attempt::Copy;
use crate::site::{Exchangers, Site};

/// An idle connection is closed after this [Kumo's 5 s]: long enough for the next copy, too short to hold a peer's slot.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Addresses tried for one connection at most [Postfix's smtp_mx_address_limit].
const ADDRESSES_MAX: usize = 5;
/// An address that did not answer is tried last for so long.
const AVOID: Duration = Duration::from_secs(60);
/// Addresses remembered as not answering, at most.
const AVOIDED_MAX: usize = 256;

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
        Self {
            connections_max: route.connections_max.max(1),
            pool: Pool::new(
                Hosts::Route(route.hosts),
                route.options,
                route.transactions_max,
                route.connections_max,
            ),
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
        self.pool
            .pass(copy, deadline)
            .await
            .map_err(|stopped| stopped.trouble)
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

/// A transaction that was not answered.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) trouble: Trouble,
    /// The last host that was tried.
    pub(crate) remote: Option<Box<str>>,
}

/// See the module.
pub(crate) struct Pool {
    inner: Arc<Inner>,
    permits: Semaphore,
}

struct Inner {
    hosts: Hosts,
    options: Options,
    transactions_max: usize,
    idle_max: Duration,
    idle: Mutex<Vec<Open>>,
    /// A task that closes idle connections is running.
    sweeping: AtomicBool,
    memory: Mutex<Memory>,
}

/// What is remembered of addresses.
#[derive(Default)]
struct Memory {
    avoided: HashMap<SocketAddr, Instant>,
    last_good: Option<SocketAddr>,
}

/// A connection and what it has done.
struct Open {
    client: Client,
    remote: Box<str>,
    transactions: usize,
    idle_since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: Box<str>,
    address: SocketAddr,
}

impl Target {
    fn remote(&self) -> Box<str> {
        format!("{}[{}]", self.host, self.address.ip()).into()
    }
}

impl Pool {
    pub(crate) fn new(
        hosts: Hosts,
        options: Options,
        transactions_max: usize,
        connections_max: usize,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                hosts,
                options,
                transactions_max: transactions_max.max(1),
                idle_max: IDLE_MAX,
                idle: Mutex::default(),
                sweeping: AtomicBool::new(false),
                memory: Mutex::default(),
            }),
            permits: Semaphore::new(connections_max.max(1)),
        }
    }

    /// See [`Connections::pass`].
    pub(crate) async fn pass(
        &self,
        copy: &Copy,
        deadline: Instant,
    ) -> Result<(Vec<Reply>, Box<str>), Stopped> {
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
    async fn pass(
        self: &Arc<Self>,
        copy: &Copy,
        sending: &AtomicBool,
    ) -> Result<(Vec<Reply>, Box<str>), Stopped> {
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
    ) -> Result<(Vec<Reply>, Box<str>), Stopped> {
        sending.store(true, Ordering::Relaxed);
        let sent = async {
            if let Some(xforward) = &copy.xforward {
                // Whatever goes wrong here, the envelope has not been seen.
                open.client.xforward(xforward).await.map_err(|t| Trouble {
                    phase: Phase::Mail,
                    cause: t.cause,
                })?;
            }
            open.client.send(&copy.envelope, &copy.parts).await
        }
        .await;
        sending.store(false, Ordering::Relaxed);
        match sent {
            Ok(replies) => {
                let remote = open.remote.clone();
                self.put_back(open);
                Ok((replies, remote))
            }
            Err(trouble) => Err(Stopped {
                trouble,
                remote: Some(open.remote),
            }),
        }
    }

    /// A fresh connection to the first host that takes one.
    async fn open(&self) -> Result<Open, Stopped> {
        let targets = self.targets().await.map_err(|trouble| Stopped {
            trouble,
            remote: None,
        })?;
        let mut last = Stopped {
            trouble: Trouble {
                phase: Phase::Connect,
                cause: Cause::Closed,
            },
            remote: None,
        };
        for target in self.ordered(targets) {
            match self.connect(&target).await {
                Ok(client) => {
                    let mut memory = lock(&self.memory);
                    memory.avoided.remove(&target.address);
                    memory.last_good = Some(target.address);
                    return Ok(Open {
                        client,
                        remote: target.remote(),
                        transactions: 0,
                        idle_since: Instant::now(),
                    });
                }
                Err(trouble) => {
                    self.avoid(target.address);
                    last = Stopped {
                        trouble,
                        remote: Some(target.remote()),
                    };
                }
            }
        }
        Err(last)
    }

    async fn connect(&self, target: &Target) -> Result<Client, Trouble> {
        let mut options = self.options.clone();
        if let Hosts::Site(..) = self.hosts {
            options.tls = named(options.tls, target);
        }
        let refused = match Client::connect(target.address, &options).await {
            Err(trouble) if is_failed_handshake(&trouble, &options.tls) => trouble,
            ended => return ended,
        };
        // RFC 7435 3: opportunistic means that a handshake that fails is no reason to send nothing.
        tracing::debug!(remote = %target.remote(), %refused, "TLS failed, in the clear");
        options.tls = TlsPolicy::Never;
        Client::connect(target.address, &options).await
    }

    async fn targets(&self) -> Result<Vec<Target>, Trouble> {
        match &self.hosts {
            Hosts::Route(hosts) => resolve(hosts).await,
            Hosts::Site(exchangers, site) => look_up(exchangers, site).await,
        }
    }

    /// A route's last good address first; those that did not answer lately last; otherwise as they came.
    fn ordered(&self, mut targets: Vec<Target>) -> Vec<Target> {
        let mut memory = lock(&self.memory);
        let now = Instant::now();
        memory.avoided.retain(|_, until| *until > now);
        let last_good = match self.hosts {
            Hosts::Route(_) => memory.last_good,
            // Mail exchangers have an order that is not ours to change (RFC 5321 5.1).
            Hosts::Site(..) => None,
        };
        targets.sort_by_key(|t| {
            (
                memory.avoided.contains_key(&t.address),
                Some(t.address) != last_good,
            )
        });
        targets.truncate(ADDRESSES_MAX);
        targets
    }

    fn avoid(&self, address: SocketAddr) {
        let mut memory = lock(&self.memory);
        if memory.avoided.len() < AVOIDED_MAX {
            memory.avoided.insert(address, Instant::now() + AVOID);
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
        if open.transactions >= self.transactions_max {
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

/// With a stranger the name on the certificate is the exchanger's.
fn named(tls: TlsPolicy, target: &Target) -> TlsPolicy {
    let name = ServerName::try_from(target.host.to_string())
        .unwrap_or_else(|_| ServerName::IpAddress(target.address.ip().into()));
    match tls {
        TlsPolicy::Never => TlsPolicy::Never,
        TlsPolicy::Opportunistic(config, _) => TlsPolicy::Opportunistic(config, name),
        TlsPolicy::Required(config, _) => TlsPolicy::Required(config, name),
    }
}

/// Whether a connection broke where TLS starts and may be tried without: the handshake failed, or the peer hung up at
/// STARTTLS. A refusal in words is none; nor is silence, which a second try would double.
fn is_failed_handshake(trouble: &Trouble, tls: &TlsPolicy) -> bool {
    matches!(tls, TlsPolicy::Opportunistic(..))
        && trouble.phase == Phase::Helo
        && matches!(trouble.cause, Cause::Tls(_) | Cause::Io(_) | Cause::Closed)
}

async fn resolve(hosts: &[String]) -> Result<Vec<Target>, Trouble> {
    let mut targets = Vec::new();
    let mut unresolved = None;
    for host in hosts {
        let name = host
            .rsplit_once(':')
            .map_or(host.as_str(), |(name, _)| name);
        match tokio::net::lookup_host(host).await {
            Ok(addresses) => targets.extend(addresses.map(|address| Target {
                host: name.into(),
                address,
            })),
            Err(error) => unresolved = Some(error),
        }
    }
    match unresolved {
        Some(error) if targets.is_empty() => Err(Trouble {
            phase: Phase::Connect,
            cause: Cause::Io(error),
        }),
        _ => Ok(targets),
    }
}

/// The addresses of the exchangers, best first. Only when each of them is known to be nowhere it is a permanent refusal.
async fn look_up(exchangers: &Exchangers, site: &Site) -> Result<Vec<Target>, Trouble> {
    let mut targets: Vec<Target> = Vec::new();
    let mut refusal: Option<Reply> = None;
    for host in site.shuffled() {
        if targets.len() >= ADDRESSES_MAX {
            break;
        }
        match exchangers.addresses(host).await {
            Ok(addresses) => targets.extend(addresses.into_iter().map(|address| Target {
                host: host.into(),
                address,
            })),
            Err(reply) => {
                let unsure = refusal.as_ref().is_some_and(|r| r.code < 500);
                if !unsure {
                    refusal = Some(reply);
                }
            }
        }
    }
    match refusal {
        Some(reply) if targets.is_empty() => Err(Trouble {
            phase: Phase::Connect,
            cause: Cause::Refused(reply),
        }),
        _ => Ok(targets),
    }
}

/// What a panicking holder left is still whole: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
