//! The engine as its users see it: what they supply, what they set, and how they start and nudge it. The loop is in `run`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mail::{Domain, Recipient, Timestamp};
use service::control::Readiness;
use spool::{Batch, Destination, Destinations, Head, Lease, NewBatch, Spool};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::attempt::{Attempted, Connections, Copy};
use crate::board::{Board, SiteState};
pub use crate::bodies::BODIES_BYTES_MAX;
use crate::breaker::Limits;
use crate::egress::Egresses;
use crate::ends::{Ended, Ends};
use crate::expiry::Expiry;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::retry::Schedule;
use crate::rules::Rules;
use crate::run;
use crate::site::Exchangers;
use crate::tls::Levels;
use crate::transport::{Transport, Wire};
use crate::wanted::Ways;
use crate::withheld::Withheld;

/// Lookups of domains at once for one command: what a resolver on the same host answers in a moment.
const LOOKUPS_MAX: usize = 64;

/// What the engine's user supplies.
#[async_trait::async_trait]
pub trait Owner: Send + Sync + 'static {
    /// The copies in which this batch leaves, together naming each of its recipients once (VERP: one a recipient). They are
    /// sent in this order. An `Err` is this batch's own fault: its recipients fail with that reply.
    fn render(
        &self,
        head: &Head,
        batch: &Batch,
        body: &Bytes,
    ) -> std::result::Result<Vec<Copy>, mail::Reply>;

    /// The name of the egress by which this batch leaves; none: no particular one.
    fn egress(&self, head: &Head, batch: &Batch) -> Option<Arc<str>> {
        let _ = (head, batch);
        None
    }

    /// Whether somebody is to hear that this batch still waits: asked before it is put back untried because its site is not reached.
    /// If so it is concluded as deferred, without an attempt.
    fn is_overdue(&self, head: &Head, batch: &Batch, now: Timestamp) -> bool {
        let _ = (head, batch, now);
        false
    }

    /// Called once for every attempt, before it is settled: count, and accept what must follow (a DSN) under an ident of
    /// its own, so that a crash in between repeats nothing. Returns the note to keep with the recipients that are deferred.
    /// Recipients that were not attempted (shutdown) are not named.
    /// An error means that the follow-up could not be accepted: nothing is lost, who was not delivered to stays in the batch,
    /// also those who failed, and fails again; who was delivered to gets no second copy.
    async fn conclude(
        &self,
        lease: &Lease,
        attempted: &[Attempted],
    ) -> std::result::Result<Bytes, spool::Error>;

    /// Where those wait for an operator whom a next hop refuses for good, and the template of their batch; none: they have ended.
    /// They go there in the settlement that ends the attempt, with what they were told.
    fn keeps_refused(&self, batch: &Batch) -> Option<(Destination, Bytes)> {
        let _ = batch;
        None
    }

    /// The message's ident, for events.
    fn ident(&self, head: &Head) -> Option<String> {
        let _ = head;
        None
    }

    /// The mailing list that a batch is of, for events.
    fn list(&self, head: &Head, batch: &Batch) -> Option<String> {
        let _ = (head, batch);
        None
    }

    /// Whether what is left goes on elsewhere: asked when replies have left all recipients of a batch, after [`Self::conclude`] has
    /// returned this note. What is returned takes the batch's place, due when the batch would have been, or at once if these
    /// replies mean there that the site is away: its gate then says when; none leaves it where it is.
    fn moves(&self, lease: &Lease, recipients: &[Recipient], note: &Bytes) -> Option<NewBatch> {
        let _ = (lease, recipients, note);
        None
    }
}

/// How the engine works. Defaults in brackets.
#[derive(Clone)]
pub struct Settings {
    /// Who claims: this host's name.
    pub host: String,
    /// Which destinations are its.
    pub serves: Destinations,
    /// Named routes, and `""` for [`spool::Destination::Inside`].
    pub routes: BTreeMap<Box<str>, Arc<Connections>>,
    /// Domains that go to a route instead of their mail exchangers.
    pub pinned: BTreeMap<mail::Domain, Box<str>>,
    /// The route for all other domains; none means their mail exchangers.
    pub default_route: Option<Box<str>>,
    /// Finds mail exchangers.
    pub exchangers: Option<Arc<Exchangers>>,
    /// How to talk to mail exchangers. The server name of its TLS policy is replaced by each exchanger's.
    pub options: smtp::client::Options,
    /// Where mail leaves from towards mail exchangers, by name; see [`Owner::egress`].
    pub egresses: Egresses,
    /// How the way to mail exchangers is protected, in place of the TLS policy of `options`.
    pub tls: Option<Levels>,
    /// Nothing is claimed, nothing leaves, nothing expires, and no command changes it. A spool that is a copy is treated so whatever
    /// this says, until it is adopted.
    pub sink: bool,
    /// Attempts under way at once [500].
    pub attempts_max: usize,
    /// Bytes of bodies in memory for attempts under way, each once however many batches of its message are attempted; more wait, and a
    /// larger one goes alone [[`BODIES_BYTES_MAX`]].
    pub bodies_bytes_max: u64,
    /// How long a task that is ready to run may wait for a processor before fewer attempts on backlog and retries are under way at
    /// once [[`TURN_TARGET`]]; zero: however long.
    pub turn_target: Duration,
    /// Connections to one site at once [20].
    pub site_connections_max: usize,
    /// When to try again.
    pub schedule: Schedule,
    /// When to give up.
    pub expiry: Expiry,
    /// What replies mean for a whole site, and what sites allow.
    pub rules: Arc<Rules>,
    /// While true nothing is claimed; what is under way ends.
    pub paused: tokio::sync::watch::Receiver<bool>,
}

/// The wall clock; another one in tests.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Works a spool off until shutdown; what is under way then ends within its deadlines and is settled. Cheap to clone: keep
/// one to [`Self::nudge`], [`Self::run`] the other.
#[derive(Clone)]
pub struct Engine {
    parts: Parts,
}

/// What [`run`] works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) ways: Arc<Ways>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) nudged: Arc<Notify>,
    pub(crate) board: Arc<Board>,
    pub(crate) ends: Arc<Ends>,
    /// Recipients a second of backlog and retries.
    pub(crate) drain: Arc<Pace>,
    /// Told when that rate changes.
    pub(crate) rated: Arc<Notify>,
}

impl Engine {
    /// Ready to run; registers `delivery_*` metrics.
    pub fn new(
        settings: Settings,
        spool: Arc<dyn Spool>,
        owner: Arc<dyn Owner>,
        metrics: &prometheus::Registry,
    ) -> Self {
        let transport = Wire {
            routes: settings.routes.clone(),
            exchangers: settings.exchangers.clone(),
            options: settings.options.clone(),
            egresses: settings.egresses.clone(),
            tls: settings.tls.clone(),
            site_connections_max: settings.site_connections_max,
            rules: settings.rules.clone(),
            pools: Mutex::default(),
        };
        let clock: Clock = Arc::new(Timestamp::now);
        Self::with_transport(settings, spool, owner, metrics, Arc::new(transport), clock)
    }

    pub(crate) fn with_transport(
        settings: Settings,
        spool: Arc<dyn Spool>,
        owner: Arc<dyn Owner>,
        metrics: &prometheus::Registry,
        transport: Arc<dyn Transport>,
        clock: Clock,
    ) -> Self {
        let ways = Ways {
            routes: settings.routes.keys().cloned().collect(),
            pinned: settings.pinned.clone(),
            default_route: settings.default_route.clone(),
        };
        Self {
            parts: Parts {
                settings,
                limits: Limits::default(),
                ways: Arc::new(ways),
                spool,
                owner,
                transport,
                metrics: Metrics::new(metrics),
                clock,
                nudged: Arc::default(),
                board: Arc::default(),
                ends: Arc::default(),
                drain: Arc::new(Pace::new(None, Instant::now())),
                rated: Arc::default(),
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn settings(&self) -> Settings {
        self.parts.settings.clone()
    }

    #[cfg(test)]
    pub(crate) fn with_settings(mut self, settings: Settings) -> Self {
        self.parts.settings = settings;
        self
    }

    /// With gates that behave otherwise than by default; the probe interval is at most [`PROBE_INTERVAL_MAX`].
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.parts.limits = Limits {
            probe_interval: limits.probe_interval.min(PROBE_INTERVAL_MAX),
            ..limits
        };
        self
    }

    /// Runs.
    pub async fn run(self, shutdown: service::shutdown::Shutdown) {
        run::run(self.parts, shutdown).await;
    }

    /// Limits what is old (backlog and retries) to so many recipients a second, evenly; none: no limit. What people wait for
    /// (urgent and live mail) is never held back by it. Takes effect at once.
    pub fn set_rate(&self, recipients_per_second: Option<f64>) {
        let rate = recipients_per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
        self.parts.drain.set(rate, Instant::now());
        self.parts.rated.notify_one();
    }

    /// The limit of [`Self::set_rate`] in force.
    pub fn rate(&self) -> Option<f64> {
        self.parts.drain.rate(Instant::now())
    }

    /// The sites that it knows, at most a second old and at most [`crate::SITES_SHOWN_MAX`]: shut ones first, then those with most
    /// to do.
    pub fn sites(&self) -> Arc<Vec<SiteState>> {
        self.parts.board.sites()
    }

    /// The site that a destination leads to, as [`SiteState::site`] names it; none for a domain whose exchangers were not looked
    /// up since the start.
    pub fn site_of(&self, destination: &Destination) -> Option<Arc<str>> {
        self.parts.board.site_of(&self.parts.ways, destination)
    }

    /// Asks the DNS where mail to these domains leads, some at once; for each its site, none where it leads nowhere. What is missing was not
    /// answered within `patience`.
    pub async fn look_up(
        &self,
        domains: Vec<Domain>,
        patience: Duration,
    ) -> HashMap<Domain, Option<Arc<str>>> {
        let deadline = Instant::now() + patience;
        let (mut domains, mut lookups) = (domains.into_iter(), JoinSet::new());
        let mut found = HashMap::new();
        loop {
            for domain in domains.by_ref().take(LOOKUPS_MAX - lookups.len()) {
                let transport = self.parts.transport.clone();
                lookups.spawn(async move {
                    let site = transport.site(&domain).await;
                    (domain, site)
                });
            }
            let Ok(Some(looked_up)) = timeout_at(deadline, lookups.join_next()).await else {
                return found;
            };
            match looked_up {
                Ok((domain, Ok(site))) => {
                    let name = site.to_string();
                    self.parts.board.leads(&domain, &name);
                    found.insert(domain, Some(name.into()));
                }
                Ok((domain, Err(reply))) if reply.code >= 500 => {
                    found.insert(domain, None);
                }
                Ok((_, Err(_))) | Err(_) => {}
            }
        }
    }

    /// Why nothing leaves, if so.
    pub fn withheld(&self) -> Option<Withheld> {
        match (self.parts.settings.sink, *self.parts.spool.copy().borrow()) {
            (true, _) => Some(Withheld::Sink),
            (false, true) => Some(Withheld::Copy),
            (false, false) => None,
        }
    }

    /// Tells whether mail leaves.
    pub fn tell(&self, readiness: &Readiness) {
        let withheld = self.withheld().map(|why| why.to_string());
        readiness.set("delivery", withheld.map_or(Ok(()), Err));
    }

    /// How recipients of a message, by its id or ident, or all mail to a recipient, ended lately: the newest `limit`. It knows some
    /// ten thousand ends of this process; the log knows all.
    pub fn ended(&self, what: &str, limit: usize) -> Vec<Ended> {
        self.parts.ends.of(what, limit)
    }

    /// Ends the waiting time of sites and lets every gate be probed at once.
    pub fn nudge(&self) {
        self.parts.nudged.notify_one();
    }
}

/// How long a task that is ready to run may wait for a processor, by default. Live mail takes some thirty turns until it is
/// delivered; shorter than this, the allowance would follow chance.
pub const TURN_TARGET: Duration = Duration::from_millis(1);
/// How long a probe of a shut site waits at most.
pub const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(60);
