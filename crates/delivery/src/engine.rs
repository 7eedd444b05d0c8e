//! The loop: claim by lane, group by site, attempt within limits, conclude with the owner, settle in groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spool::{Batch, Destinations, Head, Lease, Spool};

use crate::attempt::{Attempted, Connections, Copy};
use crate::retry::Schedule;
use crate::site::Exchangers;

/// What the engine's user supplies.
#[async_trait::async_trait]
pub trait Owner: Send + Sync + 'static {
    /// The copies in which this batch leaves, together naming each of its recipients once (VERP: one a recipient). An `Err` is
    /// this batch's own fault: its recipients fail with that reply.
    fn render(
        &self,
        head: &Head,
        batch: &Batch,
        body: &Bytes,
    ) -> std::result::Result<Vec<Copy>, mail::Reply>;

    /// Called once for every attempt, before it is settled: log, count, and accept what must follow (a DSN) under an ident of
    /// its own, so that a crash in between repeats nothing. Returns the note to keep with the recipients that are deferred.
    /// An error means that the follow-up could not be accepted: the batch is deferred as a whole, nothing is lost.
    async fn conclude(
        &self,
        lease: &Lease,
        attempted: &[Attempted],
    ) -> std::result::Result<Bytes, spool::Error>;
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
    /// How to talk to mail exchangers.
    pub options: smtp::client::Options,
    /// Attempts under way at once [500].
    pub attempts_max: usize,
    /// Connections to one site at once [20].
    pub site_connections_max: usize,
    /// When to try again, and when to give up.
    pub schedule: Schedule,
    /// While true nothing is claimed; what is under way ends.
    pub paused: tokio::sync::watch::Receiver<bool>,
}

/// Works a spool off until shutdown; what is under way then ends within its deadlines and is settled.
pub struct Engine {
    _private: (),
}

impl Engine {
    /// Ready to run; registers `delivery_*` metrics.
    pub fn new(
        settings: Settings,
        spool: Arc<dyn Spool>,
        owner: Arc<dyn Owner>,
        metrics: &prometheus::Registry,
    ) -> Self {
        let _ = (settings, spool, owner, metrics);
        todo!()
    }

    /// Runs.
    pub async fn run(self, shutdown: service::shutdown::Shutdown) {
        let _ = shutdown;
        todo!()
    }

    /// Ends the waiting time of sites and lets every gate be probed at once.
    pub fn nudge(&self) {
        todo!()
    }
}

/// How long a probe of a shut site waits at most.
pub const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(60);
