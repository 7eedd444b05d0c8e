//! How the engine reaches others: lookups and connections. A trait, so that a day of a dead site can be tried in a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use mail::{Domain, Reply};
use smtp::client::{Cause, Options, Phase, TlsPolicy, Trouble};
use tokio::time::Instant;

use crate::attempt::Copy;
use crate::egress::{Egress, Egresses};
use crate::pool::{Connections, Hosts, Passed, Pool, Reach, Stopped};
use crate::rules::Rules;
use crate::schedule::SITES_MAX;
use crate::seat::{Ceiling, Key};
use crate::site::{Exchangers, Site};
use crate::tls::{Level, Levels};

/// Transactions over one connection to a mail exchanger at most; providers close it at about this many.
const SITE_TRANSACTIONS_MAX: usize = 100;

/// See the module.
#[async_trait::async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    /// The site of a domain that goes to mail exchangers.
    async fn site(&self, domain: &Domain) -> Result<Site, Reply>;

    /// What the way allows; an error when there is no such way.
    fn ceiling(&self, key: &Key) -> Result<Ceiling, Reply>;

    /// One copy, one transaction.
    async fn pass(&self, way: &Way, copy: &Copy) -> Result<Passed, Stopped>;
}

/// The way of a batch's copies.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) key: Arc<Key>,
    /// The egress by its name; none: no particular one. A route has its own.
    pub(crate) egress: Option<Arc<str>>,
    /// The recipients' domain, where the destination is one.
    pub(crate) domain: Option<Domain>,
}

/// The real one.
pub(crate) struct Wire {
    pub(crate) routes: BTreeMap<Box<str>, Arc<Connections>>,
    pub(crate) exchangers: Option<Arc<Exchangers>>,
    pub(crate) options: Options,
    pub(crate) egresses: Egresses,
    pub(crate) tls: Option<Levels>,
    pub(crate) site_connections_max: usize,
    pub(crate) rules: Arc<Rules>,
    pub(crate) pools: Mutex<Pools>,
}

/// The connections of each site, apart by where they leave from and how they are protected.
pub(crate) type Pools = HashMap<Site, Vec<(Manner, Arc<Pool>)>>;

/// What connections to one site differ in: what leaves in one manner never goes over a connection of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    egress: Option<Arc<str>>,
    /// That of a domain that is named; none: as each exchanger's name says.
    level: Option<Level>,
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn site(&self, domain: &Domain) -> Result<Site, Reply> {
        match &self.exchangers {
            Some(exchangers) => exchangers.site(domain).await,
            None => Err(not_configured(&format!("mail exchangers, for {domain}"))),
        }
    }

    fn ceiling(&self, key: &Key) -> Result<Ceiling, Reply> {
        let most = match key {
            Key::Site(_) => self.site_connections_max.max(1),
            Key::Route(name) => match self.routes.get(name) {
                Some(connections) => connections.connections_max(),
                None => return Err(not_configured(&format!("route {name:?}"))),
            },
        };
        let limits = self.rules.limits(key);
        Ok(Ceiling {
            attempts: most.min(limits.connections_max.unwrap_or(most)),
            rate: limits.messages_per_second_max,
        })
    }

    async fn pass(&self, way: &Way, copy: &Copy) -> Result<Passed, Stopped> {
        match &*way.key {
            Key::Route(name) => match self.routes.get(name) {
                Some(connections) => pass(connections.pool(), copy).await,
                None => Err(no_way(not_configured(&format!("route {name:?}")))),
            },
            Key::Site(site) => match self.pool(way, site) {
                Ok(pool) => pass(&pool, copy).await,
                Err(reply) => Err(no_way(reply)),
            },
        }
    }
}

impl Wire {
    fn pool(&self, way: &Way, site: &Site) -> Result<Arc<Pool>, Reply> {
        let manner = Manner {
            egress: way.egress.clone(),
            level: (self.tls.as_ref()).and_then(|tls| tls.of(way.domain.as_ref())),
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pools.get(site).into_iter().flatten();
        if let Some((_, pool)) = known.into_iter().find(|(other, _)| *other == manner) {
            return Ok(pool.clone());
        }
        let pool = Arc::new(Pool::new(self.reach(way, site, &manner)?));
        if pools.len() >= SITES_MAX {
            // Those in use are held by their attempts; what the others remember is cheap to learn again.
            pools.retain(|_, all| all.iter().any(|(_, pool)| Arc::strong_count(pool) > 1));
        }
        let all = pools.entry(site.clone()).or_default();
        all.push((manner, pool.clone()));
        Ok(pool)
    }

    fn reach(&self, way: &Way, site: &Site, manner: &Manner) -> Result<Reach, Reply> {
        let exchangers = self.exchangers.as_ref();
        let exchangers = exchangers.ok_or_else(|| not_configured("mail exchangers"))?;
        let egress = match &manner.egress {
            None => Egress::default(),
            Some(name) => match self.egresses.get(name) {
                Some(egress) => egress.clone(),
                None => return Err(not_configured(&format!("egress {name:?}"))),
            },
        };
        let limits = self.rules.limits(&way.key);
        Ok(Reach {
            hosts: Hosts::Site(exchangers.clone(), site.clone()),
            options: self.options.clone(),
            tls: self.policies(site, manner)?,
            egress,
            transactions_max: limits.transactions_max.unwrap_or(SITE_TRANSACTIONS_MAX),
            connections_max: self.site_connections_max,
            connects_per_second_max: limits.connects_per_second_max,
        })
    }
}

impl Wire {
    /// How each of a site's exchangers is talked to; those that are not there: as the options say.
    fn policies(
        &self,
        site: &Site,
        manner: &Manner,
    ) -> Result<HashMap<Box<str>, TlsPolicy>, Reply> {
        let Some(tls) = &self.tls else {
            return Ok(HashMap::new());
        };
        let policy = |host: &str| {
            let level = manner.level.unwrap_or_else(|| tls.at(host));
            let policy = tls.policy(level);
            let policy = policy.ok_or_else(|| not_configured("authorities for TLS"))?;
            Ok((host.into(), policy))
        };
        let hosts = site.exchangers.iter().map(|exchanger| &*exchanger.host);
        hosts.map(policy).collect()
    }
}

async fn pass(pool: &Pool, copy: &Copy) -> Result<Passed, Stopped> {
    pool.pass(copy, Instant::now() + pool.longest(copy)).await
}

/// The batch names a way that the configuration does not have (any more): an operator must act, the mail waits.
fn not_configured(what: &str) -> Reply {
    Reply::new(451, (4, 3, 5), format!("not configured here: {what}"))
}

fn no_way(reply: Reply) -> Stopped {
    Stopped {
        trouble: Trouble {
            phase: Phase::Connect,
            cause: Cause::Refused(reply),
        },
        remote: None,
    }
}

#[cfg(test)]
mod tests;
