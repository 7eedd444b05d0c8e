//! Lists of clients in the DNS: which are asked, what their answers add up to, and whether they can be believed at present. Says what
//! is known of a client; what is done about it is the session's.

mod codes;
mod domains;
mod health;
mod lookup;
mod score;

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, IntGaugeVec};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config;
use crate::dns::Bounds;
use crate::network::{self, Network};
use crate::passes::Kept;

pub use codes::Codes;
pub use domains::DomainLists;
use health::{Crossing, Down, Health};
use lookup::Lookup;
use score::{Answer, Rule, Scoring};
pub use score::{Hit, Outcome};

/// A list whose self-test failed is tested again after this.
const TEST_AGAIN: Duration = Duration::from_secs(60);
/// Listed by every list (RFC 5782 5).
const TEST_LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Listed by none.
const TEST_UNLISTED: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What is counted.
#[derive(Clone)]
pub struct ListMetrics {
    /// Answers by list and what they were.
    pub answers: IntCounterVec,
    /// Whether a list counts.
    pub up: IntGaugeVec,
    /// Clients by what their listings added up to.
    pub clients: IntCounterVec,
}

impl ListMetrics {
    /// Tells that a list counts, or does not any more.
    fn told(&self, list: &str, crossing: Option<Crossing>) {
        let Some(crossing) = crossing else { return };
        self.up
            .with_label_values(&[list])
            .set(i64::from(crossing == Crossing::Up));
        match crossing {
            Crossing::Up => info!(event = "dnsbl", list = %list, outcome = "counts"),
            Crossing::Down(Down::Flood(why)) => error!(
                event = "dnsbl", list = %list, outcome = "ignored", reason = "flood", why = %why,
                "it does not count for ten minutes; look at the list's own page"
            ),
            Crossing::Down(Down::Test(why)) => error!(
                event = "dnsbl", list = %list, outcome = "ignored", reason = "self_test", why = %why,
                "it does not count until its self-test passes"
            ),
            Crossing::Down(Down::Untested) => {}
        }
    }

    /// Counters that nobody sees.
    pub fn unseen() -> Self {
        let options = || prometheus::Opts::new("unseen", "counts for nobody");
        let counters = |labels: &[&str]| {
            IntCounterVec::new(options(), labels).expect("a constant name is right")
        };
        Self {
            answers: counters(&["list", "answer"]),
            up: IntGaugeVec::new(options(), &["list"]).expect("a constant name is right"),
            clients: counters(&["outcome"]),
        }
    }
}

/// What is known of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What it adds up to.
    pub outcome: Outcome,
    /// The lists that counted.
    pub hits: Vec<Hit>,
}

impl Listing {
    /// Nothing.
    pub const NEUTRAL: Self = Self {
        outcome: Outcome::Neutral,
        hits: Vec::new(),
    };

    /// `listed by zen, other`: for the reply and the log. Names, never zones: these may hold a secret.
    pub fn evidence(&self) -> String {
        let names: Vec<&str> = self.hits.iter().map(|hit| &*hit.name).collect();
        format!("listed by {}", names.join(", "))
    }
}

/// The lists.
pub struct Dnsbl {
    zones: Vec<Zone>,
    scoring: Scoring,
    lookup: Lookup,
    timeout: Duration,
    skip: Vec<Network>,
    test_interval: Duration,
    metrics: ListMetrics,
    /// Whom no list had, as long as they say; none: nobody is remembered.
    passes: Option<Arc<Kept>>,
}

struct Zone {
    zone: Box<str>,
    /// The name of its first list.
    name: Box<str>,
    tested: bool,
    health: Mutex<Health>,
}

impl Zone {
    fn health(&self) -> MutexGuard<'_, Health> {
        // A panic elsewhere leaves counts at worst one short.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check under way; dropping it ends it.
pub struct Check {
    result: watch::Receiver<Option<Listing>>,
    _task: AbortOnDropHandle<()>,
}

impl Check {
    /// What came of it, at the latest after the time-out.
    pub fn settled(&self) -> impl Future<Output = Listing> + Send + use<> {
        let mut result = self.result.clone();
        async move {
            let found = result.wait_for(Option::is_some).await;
            let found = found.ok().and_then(|found| found.clone());
            found.unwrap_or(Listing::NEUTRAL)
        }
    }

    /// What has come of it, if anything has yet.
    pub fn found(&self) -> Option<Listing> {
        self.result.borrow().clone()
    }

    /// The outcome, if there is one yet.
    pub fn outcome(&self) -> Option<Outcome> {
        self.result.borrow().as_ref().map(|listing| listing.outcome)
    }

    /// Resolves when the lists are for or against the client; never when they are neither.
    pub fn decided(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut result = self.result.clone();
        async move {
            let decided = |found: &Option<Listing>| {
                found
                    .as_ref()
                    .is_some_and(|listing| listing.outcome != Outcome::Neutral)
            };
            if result.wait_for(decided).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Dnsbl {
    /// As configured; none without lists. Its self-tests run as long as it is held.
    pub fn new(
        lists: &config::Dnsbl,
        dns: &config::Dns,
        metrics: &ListMetrics,
        passes: Option<&Arc<Kept>>,
    ) -> Result<Option<Arc<Self>>, String> {
        if lists.lists.is_empty() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut zones: Vec<Zone> = Vec::new();
        let mut rules = Vec::new();
        for list in &lists.lists {
            let known = zones.iter().position(|zone| *zone.zone == *list.zone);
            let zone = known.unwrap_or_else(|| {
                zones.push(Zone {
                    zone: list.zone.as_str().into(),
                    name: list.shown().into(),
                    tested: list.self_test,
                    health: Mutex::new(Health::new(list.self_test, now)),
                });
                zones.len() - 1
            });
            rules.push(Rule {
                zone,
                codes: list.codes.clone(),
                weight: list.weight,
                name: list.shown().into(),
                texts: list.texts.clone(),
            });
        }
        let bounds = Bounds {
            timeout: dns.timeout,
            ttl_min: lists.ttl_min,
            ttl_max: lists.ttl_max,
            answers_max: lists.answers_max,
        };
        let dnsbl = Arc::new(Self {
            zones,
            scoring: Scoring {
                rules,
                threshold: lists.threshold,
                allow_threshold: (lists.allow_threshold < 0).then_some(lists.allow_threshold),
            },
            lookup: Lookup::new(&dns.servers, bounds)?,
            timeout: lists.timeout,
            skip: lists.skip_networks.clone(),
            test_interval: lists.self_test_interval,
            metrics: metrics.clone(),
            passes: passes.cloned(),
        });
        for (at, zone) in dnsbl.zones.iter().enumerate() {
            dnsbl
                .metrics
                .up
                .with_label_values(&[&zone.name])
                .set(i64::from(!zone.tested));
            if zone.tested {
                tokio::spawn(test(Arc::downgrade(&dnsbl), at));
            }
        }
        Ok(Some(dnsbl))
    }

    /// Whether a client is asked about at all.
    pub fn concerns(&self, client: IpAddr) -> bool {
        !network::contains(&self.skip, client)
    }

    /// Asks all lists at once. `good`: the client has shown itself before, so a list that has it is more likely wrong.
    pub fn start(self: &Arc<Self>, client: IpAddr, good: bool) -> Check {
        self.start_with(client, good, self.passes.clone())
    }

    /// The same, whoever is remembered, and nobody is then.
    pub fn start_dry(self: &Arc<Self>, client: IpAddr, good: bool) -> Check {
        self.start_with(client, good, None)
    }

    fn start_with(
        self: &Arc<Self>,
        client: IpAddr,
        good: bool,
        passes: Option<Arc<Kept>>,
    ) -> Check {
        let this = Arc::clone(self);
        let (told, result) = watch::channel(None);
        // Boxed, so that what it held goes when it is over: a client may wait much longer than its check takes.
        let task = tokio::spawn(Box::pin(async move {
            told.send_replace(Some(this.check(client, good, passes.as_deref()).await));
        }));
        Check {
            result,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn check(&self, client: IpAddr, good: bool, passes: Option<&Kept>) -> Listing {
        if passes.is_some_and(|passes| passes.knows(client)) {
            self.metrics.clients.with_label_values(&["known"]).inc();
            return Listing::NEUTRAL;
        }
        let now = Instant::now();
        let mut valid = Duration::MAX;
        let mut answers = vec![Answer::Void; self.zones.len()];
        let mut asked: Vec<Asking<'_>> = Vec::new();
        for (at, zone) in self.zones.iter().enumerate() {
            if zone.health().down(now).is_some() {
                self.count(zone, "skipped");
                continue;
            }
            answers[at] = Answer::Pending;
            asked.push((at, Box::pin(self.lookup.ask(&zone.zone, client))));
        }
        let waiting = async {
            while self.scoring.outcome(&answers).is_none() {
                match next(&mut asked).await {
                    Some((at, answer)) => {
                        valid = valid.min(answer.as_ref().map_or(valid, |answer| answer.valid));
                        answers[at] = self.answered(at, answer, good);
                    }
                    None => return,
                }
            }
        };
        // Those that have not answered add nothing.
        let _ = timeout(self.timeout, waiting).await;
        let outcome = self.scoring.decide(&answers);
        let label = match outcome {
            Outcome::Listed => "listed",
            Outcome::Allowed => "allowed",
            Outcome::Neutral => "neutral",
        };
        self.metrics.clients.with_label_values(&[label]).inc();
        let all_spoke = answers
            .iter()
            .all(|answer| matches!(answer, Answer::Codes(_)));
        if let Some(passes) = passes
            && outcome == Outcome::Neutral
            && all_spoke
        {
            passes.grant_for(client, valid);
        }
        Listing {
            outcome,
            hits: self.scoring.hits(&answers),
        }
    }

    fn answered(&self, at: usize, answer: Answered, good: bool) -> Answer {
        let zone = &self.zones[at];
        let codes = match answer {
            Ok(answer) => answer.codes,
            Err(_) => {
                self.count(zone, "failed");
                return Answer::Void;
            }
        };
        if codes.iter().any(|code| codes::is_error(*code)) {
            self.count(zone, "error");
            return Answer::Void;
        }
        let answer = Answer::Codes(codes);
        let counts = |rule: &&Rule| rule.zone == at && rule.weight > 0;
        let mut blocking = self.scoring.rules.iter().filter(counts).peekable();
        // Only a list of bad clients can hit too many.
        if blocking.peek().is_some() {
            let hit = match &answer {
                Answer::Codes(codes) => {
                    blocking.any(|rule| codes.iter().any(|code| rule.codes.count(*code)))
                }
                _ => false,
            };
            let crossing = zone.health().answered(hit, good, Instant::now());
            self.told(zone, crossing);
        }
        self.count(
            zone,
            if answer == Answer::Codes(Vec::new()) {
                "unlisted"
            } else {
                "listed"
            },
        );
        answer
    }

    fn count(&self, zone: &Zone, what: &str) {
        self.metrics
            .answers
            .with_label_values(&[&zone.name, what])
            .inc();
    }

    fn told(&self, zone: &Zone, crossing: Option<Crossing>) {
        self.metrics.told(&zone.name, crossing);
    }

    /// RFC 5782 5, on one list.
    async fn test(&self, zone: &Zone) -> Result<(), Box<str>> {
        let ask = |client: Ipv4Addr| self.lookup.ask(&zone.zone, client.into());
        let listed = ask(TEST_LISTED).await?.codes;
        if let Some(code) = listed.iter().find(|code| codes::is_error(**code)) {
            return Err(format!("answers {code}, which is an error: the list's page says which; often that the resolver is a public one").into());
        }
        if listed.is_empty() {
            return Err(format!("{TEST_LISTED} is not listed: the list is empty or gone").into());
        }
        match ask(TEST_UNLISTED).await?.codes.as_slice() {
            [] => Ok(()),
            [code, ..] => {
                Err(format!("{TEST_UNLISTED} is listed ({code}): it lists the world").into())
            }
        }
    }
}

/// A zone's place, and its answer to come.
type Asking<'a> = (usize, Pin<Box<dyn Future<Output = Answered> + Send + 'a>>);
type Answered = Result<lookup::Codes, Box<str>>;

/// The next answer to come; none when all have come. There are a few zones, so all are looked at; tasks of their own would cost more.
async fn next(asked: &mut Vec<Asking<'_>>) -> Option<(usize, Answered)> {
    poll_fn(|context| {
        for nth in 0..asked.len() {
            if let Poll::Ready(answer) = asked[nth].1.as_mut().poll(context) {
                let (at, _) = asked.swap_remove(nth);
                return Poll::Ready(Some((at, answer)));
            }
        }
        match asked.is_empty() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    })
    .await
}

/// Tests a list for as long as somebody uses it.
async fn test(dnsbl: Weak<Dnsbl>, at: usize) {
    while let Some(this) = dnsbl.upgrade() {
        let zone = &this.zones[at];
        let result = this.test(zone).await;
        let pause = match &result {
            Ok(()) => this.test_interval,
            Err(_) => this.test_interval.min(TEST_AGAIN),
        };
        if let Err(why) = &result {
            warn!(event = "dnsbl", list = %zone.name, outcome = "self_test_failed", why = %why);
        }
        let crossing = zone.health().tested(result, Instant::now());
        this.told(zone, crossing);
        drop(this);
        sleep(pause).await;
    }
}
