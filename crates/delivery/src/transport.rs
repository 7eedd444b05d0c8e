//! How the engine reaches others: lookups and connections. A trait, so that a day of a dead site can be tried in a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use mail::{Domain, Reply};
use smtp::client::{Cause, Options, Phase, Trouble};
use tokio::time::Instant;

use crate::attempt::Copy;
use crate::pool::{Connections, Hosts, Pool, Stopped};
use crate::rules::Rules;
use crate::schedule::SITES_MAX;
use crate::seat::{Ceiling, Key};
use crate::site::{Exchangers, Site};

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
    async fn pass(&self, key: &Key, copy: &Copy) -> Result<(Vec<Reply>, Box<str>), Stopped>;
}

/// The real one.
pub(crate) struct Wire {
    pub(crate) routes: BTreeMap<Box<str>, Arc<Connections>>,
    pub(crate) exchangers: Option<Arc<Exchangers>>,
    pub(crate) options: Options,
    pub(crate) site_connections_max: usize,
    pub(crate) rules: Arc<Rules>,
    pub(crate) pools: Mutex<HashMap<Site, Arc<Pool>>>,
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

    async fn pass(&self, key: &Key, copy: &Copy) -> Result<(Vec<Reply>, Box<str>), Stopped> {
        match key {
            Key::Route(name) => match self.routes.get(name) {
                Some(connections) => pass(connections.pool(), copy).await,
                None => Err(no_way(not_configured(&format!("route {name:?}")))),
            },
            Key::Site(site) => match self.pool(site) {
                Some(pool) => pass(&pool, copy).await,
                None => Err(no_way(not_configured("mail exchangers"))),
            },
        }
    }
}

impl Wire {
    fn pool(&self, site: &Site) -> Option<Arc<Pool>> {
        let exchangers = self.exchangers.as_ref()?;
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(site) {
            return Some(pool.clone());
        }
        if pools.len() >= SITES_MAX {
            // Those in use are held by their attempts; what the others remember is cheap to learn again.
            pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        }
        let pool = Arc::new(Pool::new(
            Hosts::Site(exchangers.clone(), site.clone()),
            self.options.clone(),
            SITE_TRANSACTIONS_MAX,
            self.site_connections_max,
        ));
        pools.insert(site.clone(), pool.clone());
        Some(pool)
    }
}

async fn pass(pool: &Pool, copy: &Copy) -> Result<(Vec<Reply>, Box<str>), Stopped> {
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
