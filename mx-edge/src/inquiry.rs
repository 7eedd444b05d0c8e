//! Gathers the evidence that a policy asks for, as late as it can, and all that is needed at the same time; what is known is not asked
//! twice. Owns what is under way; decides nothing itself.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mail::trace::Spf;
use mail::{Address, ReversePath, Timestamp};
use prometheus::IntCounterVec;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::About;
use crate::dnsbl::{self, Dnsbl, DomainLists, Listing, Outcome};
use crate::greylist::{Greylist, Visit};
use crate::names::{ClientName, Names};
use crate::network::{self, Network};
use crate::policy::content::Checks;
use crate::policy::decide::{self, Decision, Policy, Step};
use crate::policy::evidence::{Answer, Asked, Evidence, Helo, Question};
use crate::spf::{self, Checker};

/// A policy with all that it can ask.
pub struct Ruling {
    /// The rules.
    pub policy: Policy,
    /// Those on what a message says.
    pub checks: Checks,
    /// Who meets none of them.
    pub exempt: Vec<Network>,
    /// Networks of our own.
    pub own_networks: Vec<Network>,
    /// Not checked by SPF.
    pub spf_skip: Vec<Network>,
    /// SPF; none when it is off.
    pub spf: Option<Checker>,
    /// Lists of clients; none when none are configured, or they are off.
    pub dnsbl: Option<Arc<Dnsbl>>,
    /// Lists of domains, likewise.
    pub domain_lists: Option<Arc<DomainLists>>,
    /// Who came before; none when it is off.
    pub greylist: Option<Arc<Greylist>>,
    /// Names of hosts and domains.
    pub names: Arc<Names>,
    /// For each question about these.
    pub timeout: Duration,
    /// Questions by whether they were answered.
    pub questions: IntCounterVec,
}

/// What one session has found out.
pub struct Inquiry {
    ruling: Arc<Ruling>,
    evidence: Evidence,
    lists: Option<dnsbl::Check>,
    spf: Option<spf::Check>,
    /// The client has shown itself before, so that a list that has it is more likely wrong.
    good: bool,
    /// Nothing is remembered of it: for shadows and explanations.
    dry: bool,
}

impl Inquiry {
    /// A client that has just connected.
    pub fn new(ruling: &Arc<Ruling>, client: IpAddr) -> Self {
        let mut evidence = Evidence::new(client);
        let exempt = |networks: &[Network]| network::contains(networks, client);
        evidence.exempt = exempt(&ruling.exempt) || exempt(&ruling.own_networks);
        Self {
            ruling: Arc::clone(ruling),
            evidence,
            lists: None,
            spf: None,
            good: false,
            dry: false,
        }
    }

    /// The same client before another policy: what does not depend on a policy is known already, and nothing is remembered of it.
    pub fn before(&self, ruling: &Arc<Ruling>) -> Self {
        let mut other = Self::new(ruling, self.evidence.client).dry();
        let exempt = other.evidence.exempt;
        other.evidence = Evidence {
            exempt,
            listing: Asked::No,
            domain_lists: Asked::No,
            greylist: Asked::No,
            ..self.evidence.clone()
        };
        other
    }

    /// Has nothing remembered of it.
    pub fn dry(mut self) -> Self {
        self.dry = true;
        self
    }

    /// What is known.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The policy's.
    pub fn ruling(&self) -> &Arc<Ruling> {
        &self.ruling
    }

    /// It spoke before it was greeted.
    pub fn spoke_first(&mut self, said: &str) {
        self.evidence.spoke_first = Some(said.into());
    }

    /// HELO.
    pub fn greeted(&mut self, said: &str, ours: bool) {
        self.evidence.greeted(said, ours);
        self.spf = None;
    }

    /// MAIL, or the end of a transaction.
    pub fn sender(&mut self, reverse_path: &ReversePath) {
        self.evidence.sender(reverse_path);
        self.spf = None;
    }

    /// Whether the client has shown itself before.
    pub fn known_good(&mut self, good: bool) {
        self.good = good;
    }

    /// Asks the lists of clients, once; also before anybody needs to know.
    pub fn ask_lists(&mut self) -> Option<&dnsbl::Check> {
        let client = self.evidence.client;
        if self.lists.is_none()
            && self.evidence.listing == Asked::No
            && let Some(lists) = &self.ruling.dnsbl
            && lists.concerns(client)
            && !network::contains(&self.ruling.own_networks, client)
        {
            let lists = match self.dry {
                true => lists.start_dry(client, self.good),
                false => lists.start(client, self.good),
            };
            self.lists = Some(lists);
        }
        self.lists.as_ref()
    }

    /// Starts SPF, where it is checked.
    pub fn start_spf(&mut self) {
        let client = self.evidence.client;
        let ruling = &self.ruling;
        let skipped = network::contains(&ruling.spf_skip, client)
            || network::contains(&ruling.own_networks, client);
        if self.spf.is_none() && !skipped && self.evidence.spf == Asked::No {
            let checker = ruling.spf.as_ref();
            let (said, sender) = (&self.evidence.said, &self.evidence.reverse_path);
            self.spf = checker.map(|checker| checker.start(client, said, sender));
        }
    }

    /// What SPF says of this sender, as evidence; none when it is not checked.
    pub async fn spf_result(&mut self) -> Option<Spf> {
        if let (Asked::No, Some(check)) = (&self.evidence.spf, &self.spf) {
            self.evidence.spf = Asked::Known(check.result().await);
        }
        let checked = self.spf.is_some();
        match self.evidence.spf {
            Asked::Known(result) if checked => Some(result),
            _ => None,
        }
    }

    /// Decides on a recipient that exists.
    pub async fn decide(&mut self, forward_path: &str) -> Decision {
        let mut lists = self.ruling.policy.rules.domain_lists.iter();
        if lists.any(|list| list.about.contains(&About::Recipient)) {
            self.evidence.domain_lists = Asked::No;
        }
        self.evidence.recipient(forward_path, Timestamp::now());
        let ruling = Arc::clone(&self.ruling);
        let mut asked: Vec<Question> = Vec::new();
        let mut under_way = JoinSet::new();
        loop {
            let questions = match decide::step(&ruling.policy, &self.evidence) {
                Step::Done(decision) => return decision,
                Step::Ask(questions) => questions,
            };
            let mut known = false;
            for question in questions {
                if asked.contains(&question) {
                    continue;
                }
                asked.push(question);
                let mut asking = Box::pin(self.ask(question));
                // What is known already, as lists are that were asked while the client waited, needs no task of its own.
                match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
                    Poll::Ready(answer) => {
                        self.learn(question, answer);
                        known = true;
                    }
                    Poll::Pending => {
                        under_way.spawn(async move { (question, asking.await) });
                    }
                }
            }
            if known {
                continue;
            }
            match under_way.join_next().await {
                Some(Ok((question, answer))) => self.learn(question, answer),
                Some(Err(_)) => {}
                // Whoever was to answer has failed.
                None => asked
                    .iter()
                    .for_each(|question| self.evidence.give_up(*question)),
            }
        }
    }

    fn learn(&mut self, question: Question, answer: Option<Answer>) {
        let silent = answer.as_ref().is_none_or(Answer::is_silence);
        let outcome = if silent { "silent" } else { "answered" };
        let counter = &self.ruling.questions;
        counter
            .with_label_values(&[question.label(), outcome])
            .inc();
        match answer {
            Some(answer) => self.evidence.learn(answer),
            None => self.evidence.give_up(question),
        }
    }

    /// The answer to come; none when nobody answers in time.
    fn ask(&mut self, question: Question) -> impl Future<Output = Option<Answer>> + Send + use<> {
        let names = Arc::clone(&self.ruling.names);
        let client = self.evidence.client;
        let patience = self.ruling.timeout;
        let (host, domain) = (self.host(), self.domain());
        let (lists, spf) = match question {
            Question::Listing => (self.ask_lists().map(dnsbl::Check::settled), None),
            Question::Spf => {
                self.start_spf();
                (None, self.spf.clone())
            }
            _ => (None, None),
        };
        let of_hosts = match question {
            Question::Hosts(subject) => self.evidence.hosts_of(subject).cloned(),
            _ => None,
        };
        let domains = self.domains();
        let domain_lists = self.ruling.domain_lists.clone();
        let good = self.good;
        let visit = (question == Question::Greylist).then(|| self.visit());
        async move {
            let within = |answer| timeout(patience, answer);
            match question {
                Question::Listing => Some(Answer::Listing(match lists {
                    Some(lists) => lists.await,
                    None => Listing::NEUTRAL,
                })),
                Question::ClientName => {
                    let name = timeout(patience, names.client(client)).await.ok().flatten();
                    Some(Answer::ClientName(name))
                }
                Question::HeloHost => {
                    let exists = timeout(patience, names.exists(&host?)).await.ok().flatten();
                    Some(Answer::HeloHost(exists))
                }
                Question::SenderDomain => {
                    let domain = domain?;
                    let found = within(names.receives(&domain)).await.ok().flatten();
                    Some(Answer::SenderDomain(found))
                }
                Question::DomainLists => Some(Answer::DomainLists(match domain_lists {
                    Some(lists) => lists.ask(domains, good).await,
                    None => Vec::new(),
                })),
                Question::Spf => Some(Answer::Spf(match spf {
                    Some(check) => check.result().await,
                    None => Spf::None,
                })),
                Question::Hosts(subject) => {
                    let found = names.hosts(&of_hosts?, subject, patience).await;
                    Some(Answer::Hosts(subject, found))
                }
                Question::Greylist => visit.map(Answer::Greylist),
            }
        }
    }

    fn visit(&self) -> Option<u64> {
        let greylist = self.ruling.greylist.as_ref()?;
        let evidence = &self.evidence;
        let organisation = match (&evidence.spf, evidence.domain()) {
            (Asked::Known(Spf::Pass), Some(domain)) => Some(domain.as_str()),
            _ => None,
        };
        let sender = evidence.reverse_path.to_string();
        let visit = Visit {
            client: evidence.client,
            organisation,
            sender: &sender,
            recipient: &evidence.forward_path,
        };
        greylist.visit(&visit, self.dry)
    }

    fn host(&self) -> Option<String> {
        match &self.evidence.helo {
            Helo::Host(name) => Some(name.to_string()),
            _ => None,
        }
    }

    fn domain(&self) -> Option<String> {
        self.evidence.domain().map(ToString::to_string)
    }

    fn domains(&self) -> Vec<(About, Box<str>)> {
        let mut domains = Vec::new();
        let mut add = |about, name: &str| domains.push((about, name.into()));
        if let Some(domain) = self.evidence.domain() {
            add(About::Sender, domain.as_str());
        }
        if let Helo::Host(name) = &self.evidence.helo {
            add(About::Helo, name.as_str());
        }
        if let Asked::Known(ClientName::Confirmed(name)) = &self.evidence.client_name {
            add(About::Client, name);
        }
        if let Ok(address) = Address::parse(&self.evidence.forward_path)
            && !address.domain().is_literal()
        {
            add(About::Recipient, address.domain().as_str());
        }
        domains
    }

    /// What the lists have against the client by now.
    pub fn listed(&self) -> Option<Listing> {
        let found = self.lists.as_ref().and_then(dnsbl::Check::found)?;
        (found.outcome == Outcome::Listed).then_some(found)
    }

    /// Whether the lists have spoken for or against the client by now.
    pub fn lists_decided(&self) -> bool {
        let outcome = self.lists.as_ref().and_then(dnsbl::Check::outcome);
        matches!(outcome, Some(Outcome::Listed | Outcome::Allowed))
    }
}
