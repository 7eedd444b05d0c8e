//! Lists of domains in the DNS (RFC 5782 3): whether the sender's, HELO's or the client's domain is on one. Each is believed only
//! while its self-test passes and while it does not suddenly list far more than it used to, as with lists of clients.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::health::{Crossing, Health};
use super::lookup::Lookup;
use super::{Codes, ListMetrics, TEST_AGAIN, codes};
use crate::config::{self, About, CodeText};
use crate::dns::Bounds;

/// Listed by every list of domains, and by none (RFC 5782 5).
const TEST_LISTED: &str = "TEST";
const TEST_UNLISTED: &str = "INVALID";

/// The lists.
pub struct DomainLists {
    lists: Vec<List>,
    lookup: Lookup,
    timeout: Duration,
    test_interval: Duration,
    metrics: ListMetrics,
}

struct List {
    zone: Box<str>,
    name: Box<str>,
    codes: Codes,
    about: Vec<About>,
    texts: Vec<CodeText>,
    health: Mutex<Health>,
}

impl List {
    fn health(&self) -> MutexGuard<'_, Health> {
        // A panic elsewhere leaves counts at worst one short.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DomainLists {
    /// As configured; none without lists. Their self-tests run as long as they are held.
    pub fn new(
        policy: &config::Policy,
        clients: &config::Dnsbl,
        dns: &config::Dns,
        metrics: &ListMetrics,
    ) -> Result<Option<Arc<Self>>, String> {
        if policy.domain_lists.is_empty() || policy.domain_listed == config::Action::Off {
            return Ok(None);
        }
        let now = Instant::now();
        let lists = policy.domain_lists.iter().map(|list| List {
            zone: list.zone.as_str().into(),
            name: list.shown().into(),
            codes: list.codes.clone(),
            about: list.about.clone(),
            texts: list.texts.clone(),
            health: Mutex::new(Health::new(list.self_test, now)),
        });
        let bounds = Bounds {
            timeout: dns.timeout,
            ttl_min: clients.ttl_min,
            ttl_max: clients.ttl_max,
            answers_max: clients.answers_max,
        };
        let this = Arc::new(Self {
            lists: lists.collect(),
            lookup: Lookup::new(&dns.servers, bounds)?,
            timeout: policy.timeout,
            test_interval: clients.self_test_interval,
            metrics: metrics.clone(),
        });
        for (at, list) in policy.domain_lists.iter().enumerate() {
            let up = this.metrics.up.with_label_values(&[list.shown()]);
            up.set(i64::from(!list.self_test));
            if list.self_test {
                tokio::spawn(test(Arc::downgrade(&this), at));
            }
        }
        Ok(Some(this))
    }

    /// `sender.example is listed by NAME` for each that is; each list is asked once a domain. `good`: they are those of a client that
    /// has shown itself before, so a list that has them is more likely wrong.
    pub async fn ask(
        self: Arc<Self>,
        domains: Vec<(About, Box<str>)>,
        good: bool,
    ) -> Vec<Box<str>> {
        let mut asked = JoinSet::new();
        for (at, list) in self.lists.iter().enumerate() {
            if list.health().down(Instant::now()).is_some() {
                self.count(list, "skipped");
                continue;
            }
            let mut concerned: Vec<_> = domains
                .iter()
                .filter(|(about, _)| list.about.contains(about))
                .map(|(_, domain)| domain.clone())
                .collect();
            concerned.sort();
            concerned.dedup();
            for domain in concerned {
                let this = Arc::clone(&self);
                asked.spawn(async move {
                    let list = &this.lists[at];
                    let answer = this.lookup.ask_domain(&list.zone, &domain).await;
                    let code = this.answered(list, answer, good)?;
                    let told = CodeText::told(&list.texts, &list.name, code);
                    Some(format!("{domain} is listed by {told}").into())
                });
            }
        }
        let mut hits = Vec::new();
        let waiting = async {
            while let Some(answer) = asked.join_next().await {
                hits.extend(answer.ok().flatten());
            }
        };
        // Those that have not answered say nothing.
        let _ = timeout(self.timeout, waiting).await;
        hits.sort();
        hits
    }

    /// The answer for which it is listed, if it is.
    fn answered(
        &self,
        list: &List,
        answer: Result<Vec<Ipv4Addr>, Box<str>>,
        good: bool,
    ) -> Option<Ipv4Addr> {
        let Ok(answer) = answer else {
            self.count(list, "failed");
            return None;
        };
        if answer.iter().any(|code| codes::is_error(*code)) {
            self.count(list, "error");
            return None;
        }
        let code = answer.into_iter().find(|code| list.codes.count(*code));
        let listed = code.is_some();
        self.count(list, if listed { "listed" } else { "unlisted" });
        let crossing = list.health().answered(listed, good, Instant::now());
        self.told(list, crossing);
        code
    }

    fn count(&self, list: &List, what: &str) {
        let answers = &self.metrics.answers;
        answers.with_label_values(&[&list.name, what]).inc();
    }

    fn told(&self, list: &List, crossing: Option<Crossing>) {
        self.metrics.told(&list.name, crossing);
    }

    async fn test(&self, list: &List) -> Result<(), Box<str>> {
        let listed = self.lookup.ask_domain(&list.zone, TEST_LISTED).await?;
        if let Some(code) = listed.iter().find(|code| codes::is_error(**code)) {
            return Err(
                format!("answers {code}, which is an error; the list's page says which").into(),
            );
        }
        if listed.is_empty() {
            return Err(format!("{TEST_LISTED} is not listed: the list is empty or gone").into());
        }
        match self
            .lookup
            .ask_domain(&list.zone, TEST_UNLISTED)
            .await?
            .as_slice()
        {
            [] => Ok(()),
            [code, ..] => {
                Err(format!("{TEST_UNLISTED} is listed ({code}): it lists the world").into())
            }
        }
    }
}

/// Tests a list for as long as somebody uses it.
async fn test(lists: Weak<DomainLists>, at: usize) {
    while let Some(this) = lists.upgrade() {
        let list = &this.lists[at];
        let result = this.test(list).await;
        let pause = match &result {
            Ok(()) => this.test_interval,
            Err(_) => this.test_interval.min(TEST_AGAIN),
        };
        if let Err(why) = &result {
            warn!(event = "dnsbl", list = %list.name, outcome = "self_test_failed", why = %why);
        }
        let crossing = list.health().tested(result, Instant::now());
        this.told(list, crossing);
        drop(this);
        sleep(pause).await;
    }
}
