//! A session with a client: asks `policy` and `recipients` what to answer, and takes each message through, else into the spool.
//! A 250 is only said for what the inside has taken or the spool has made durable.

mod entrance;
mod judge;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use mail::trace::Spf;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use smtp::server::{Ending, Facts, Handler, Presence, Refusal, Screening};
use tracing::info;

use crate::admission::rates::Of;
use entrance::decided;

use crate::admission::{Admission, Entry, Refused, Standing};
use crate::caller::Caller;
use crate::ended::Ended;
use crate::ident::Idents;
use crate::keep::Keeper;
use crate::metrics::Metrics;
use crate::network::contains;
use crate::objections;
use crate::passes::Kept;
use crate::policy::Transaction;
use crate::policy::content::Judgement;
use crate::policy::evidence::Asked;
use crate::reason::Reason;
use crate::recipients::{Recipients, literal};
use crate::report::Tops;
use crate::rules::Rules;
use crate::screen;
use crate::seen::{No, Seen};
use crate::shadow::Visit;
use crate::spf;
use crate::take::{Sender, Take, message_id};
use crate::through::Through;
use crate::trail::Trail;

/// What all sessions share.
pub struct Edge {
    /// What may change on reload; a session keeps those it began with.
    pub rules: RwLock<Arc<Rules>>,
    /// Who is known.
    pub recipients: Arc<Recipients>,
    /// Names for messages.
    pub idents: Idents,
    /// The way through.
    pub through: Through,
    /// The way into the spool.
    pub keeper: Keeper,
    /// Who may come in.
    pub admission: Admission,
    /// Who has passed which test of the screen.
    pub passes: screen::Memory,
    /// Who came again.
    pub greylist: Arc<Kept>,
    /// The list of what was not passed in.
    pub ended: Arc<Ended>,
    /// What happened, for those who ask.
    pub trail: Arc<Trail>,
    /// Who sends and who is refused most.
    pub tops: Arc<Tops>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Being drained: no new mail is taken, what is spooled goes on.
    pub draining: AtomicBool,
    /// Whether the next hop gets the trace field.
    pub trace: bool,
    /// How long mail that the inside has just deferred waits for its first attempt out of the spool.
    pub deferred_pause: Duration,
}

impl Edge {
    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().expect("no holder panics"))
    }

    /// Looks whether there are too many sessions.
    fn feel_sessions(&self, rules: &Rules) {
        let open = usize::try_from(self.metrics.sessions_open.get()).unwrap_or_default();
        let (high, low) = rules.stress_sessions;
        let Admission {
            pressure,
            sessions,
            sessions_max,
            ..
        } = &self.admission;
        pressure.sessions(open, high, low);
        pressure.places(sessions.taken(), *sessions_max);
    }

    /// A connection that became no session.
    pub fn count_turned_away(&self, reason: Reason) {
        let metrics = &self.metrics;
        metrics.connections.inc();
        metrics.screened.with_label_values(&["exempt"]).inc();
        let ending = objections::ending(Ending::Refused);
        metrics.sessions.with_label_values(&[ending]).inc();
        let turned_away = &metrics.turned_away;
        turned_away.with_label_values(&[reason.label()]).inc();
        self.feel_sessions(&self.rules());
    }

    /// Whether it is being drained.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// One session.
pub struct Session {
    edge: Arc<Edge>,
    rules: Arc<Rules>,
    id: Box<str>,
    client: SocketAddr,
    entry: Entry,
    transaction: Transaction,
    /// The rule that has its message held.
    hold: Option<Box<str>>,
    /// Forward-paths that were answered 250 and wait for their message.
    paths_open: u64,
    /// It has sent a message.
    sent: bool,
    /// How it stands before a second policy that let it in.
    visit: Option<Visit>,
    /// What its record says.
    seen: Seen,
    caller: Caller,
}

impl Session {
    /// Just connected.
    pub fn new(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr) -> Self {
        edge.metrics.sessions_open.inc();
        edge.metrics.connections.inc();
        edge.feel_sessions(&rules);
        Self::with(edge, rules, client, Standing::Ordinary)
    }

    /// A proxy that looks whether we live: in no figure and under no limit.
    pub fn check(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr) -> Self {
        Self::with(edge, rules, client, Standing::Check)
    }

    fn with(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr, standing: Standing) -> Self {
        Self {
            caller: Caller::new(&rules.ruling, client.ip()),
            rules,
            edge,
            id: Box::default(),
            client,
            entry: standing.into(),
            transaction: Transaction::default(),
            hold: None,
            paths_open: 0,
            sent: false,
            visit: None,
            seen: Seen::default(),
        }
    }

    /// Over: counted and logged.
    pub fn ended(self, ending: Ending) {
        if self.is_check() {
            return;
        }
        self.remember(ending);
        let outcome = objections::ending(ending);
        let metrics = &self.edge.metrics;
        let screened = self.caller.screened();
        metrics.screened.with_label_values(&[screened]).inc();
        metrics.sessions.with_label_values(&[outcome]).inc();
        let Self { id, client, .. } = &self;
        let (objections, reason) = (self.seen.objections, self.seen.ended_by());
        self.seen.record(&self.edge.trail, id, client.ip(), outcome);
        info!(event = "session", session = %id, client = %client, outcome, reason, objections);
    }

    fn take<'a>(&'a self, facts: &'a Facts, message: &Bytes) -> Take<'a> {
        Take {
            edge: &self.edge,
            rules: &self.rules,
            facts,
            exempt: self.is_own(facts.client.ip()),
            bytes: message.len() as u64,
            redirected: Vec::new(),
            prepended: String::new(),
            message_id: message_id(message),
        }
    }

    /// Whether a client that is not of our own calls itself by this host's name or address.
    fn is_this_host(&self, facts: &Facts) -> bool {
        let own = literal(facts.local.ip());
        facts.client.ip() != facts.local.ip()
            && Domain::parse(&facts.helo).is_ok_and(|said| {
                said == self.rules.hostname || Domain::parse(&own).is_ok_and(|own| own == said)
            })
    }

    fn is_own(&self, client: IpAddr) -> bool {
        contains(&self.rules.own_networks, client)
    }

    /// No message will come for what was let in.
    fn abandon(&mut self) {
        let paths = std::mem::take(&mut self.paths_open);
        if paths > 0 {
            let ends = &self.edge.metrics.path_ends;
            ends.with_label_values(&["abandoned", ""]).inc_by(paths);
        }
    }

    async fn spf_result(&mut self) -> Option<Spf> {
        let result = self.caller.inquiry.spf_result().await?;
        let counter = &self.edge.metrics.spf;
        counter.with_label_values(&[spf::label(result)]).inc();
        Some(result)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abandon();
        if !self.is_check() {
            self.edge.metrics.sessions_open.dec();
            self.edge.feel_sessions(&self.rules);
        }
    }
}

#[async_trait::async_trait]
impl Handler for Session {
    async fn connect(&mut self, facts: &Facts) -> Result<(), Reply> {
        self.id = facts.session.clone();
        let before = std::mem::replace(&mut self.client, facts.client);
        if self.is_check() {
            return Ok(());
        }
        // The same session may come again for another client (XCLIENT), with a record of its own.
        if !self.seen.is_empty() {
            let seen = std::mem::take(&mut self.seen);
            seen.record(&self.edge.trail, &self.id, before.ip(), "xclient");
        }
        self.entry = Entry::default();
        self.visit = None;
        self.caller = Caller::new(&self.rules.ruling, facts.client.ip());
        let come = self.come_in(facts);
        self.shadow_door(facts, &come);
        come.map_err(|refused| self.turn_away(&refused, facts))
    }

    fn is_exempt(&self) -> bool {
        self.is_check() || self.entry.standing.is_exempt()
    }

    async fn screen(&mut self, _: &Facts) -> Option<Screening> {
        self.caller.screen(&self.rules)
    }

    async fn waited(&mut self, facts: &Facts) -> Result<(), Reply> {
        match self.caller.dropped() {
            Some(refused) => Err(self.turn_away(&refused, facts)),
            None => Ok(()),
        }
    }

    async fn start_tls(&mut self, facts: &Facts) -> Result<(), Reply> {
        let counted = self.count(Of::Tls, facts);
        let handshakes = &self.edge.metrics.handshakes;
        handshakes.with_label_values(&[decided(&counted)]).inc();
        counted.map_err(|refused| self.no(("starttls", facts), "", &[], &refused))
    }

    async fn spoke_first(&mut self, facts: &Facts, bytes: &[u8]) -> Result<(), Reply> {
        let said = self.caller.spoke_first(bytes);
        info!(event = "spoke_first", session = %facts.session, client = %facts.client.ip(), said);
        self.edge.passes.forget(facts.client.ip());
        if !self.rules.ruling.policy.drops.contains(&Reason::SpokeFirst) {
            return Ok(());
        }
        let refused = Refused {
            reason: Reason::SpokeFirst,
            evidence: format!("it began with \"{said}\""),
        };
        Err(self.turn_away(&refused, facts))
    }

    async fn helo(&mut self, facts: &Facts) -> Result<(), Reply> {
        let ours = self.is_this_host(facts);
        self.caller.greeted(&self.rules, facts, ours);
        Ok(())
    }

    async fn mail(
        &mut self,
        facts: &Facts,
        reverse_path: &ReversePath,
        _parameters: &MailParameters,
        _size: Option<u64>,
    ) -> Result<(), Reply> {
        let admitted = self.may_send(facts);
        let senders = &self.edge.metrics.senders;
        senders.with_label_values(&[decided(&admitted)]).inc();
        if let Err(refused) = admitted {
            let from = reverse_path.to_string();
            return Err(self.no(("mail", facts), &from, &[], &refused));
        }
        self.transaction = Transaction {
            null_sender: *reverse_path == ReversePath::Null,
            ..Transaction::default()
        };
        self.hold = None;
        self.caller.inquiry.sender(reverse_path);
        Ok(())
    }

    async fn rcpt(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply> {
        let decision = match self.count(Of::Recipients, facts) {
            Ok(()) => self.admit(facts, envelope, recipient).await,
            Err(refused) => Err(refused),
        };
        let label =
            (decision.as_ref()).map_or_else(|refused| refused.reason.label(), |_| "accepted");
        let metrics = &self.edge.metrics;
        metrics.recipients.with_label_values(&[label]).inc();
        match decision {
            Ok(scanning) => {
                self.transaction.scanning = Some(scanning);
                self.paths_open += 1;
                // Somebody here is to get the message.
                self.caller.inquiry.start_spf();
                Ok(())
            }
            Err(refused) => {
                if refused.reason.is_permanent() && self.rules.words.soft {
                    metrics.softened.with_label_values(&[label]).inc();
                }
                let from = envelope.reverse_path.to_string();
                let to = [recipient.address.to_string().into()];
                Err(self.no(("rcpt", facts), &from, &to, &refused))
            }
        }
    }

    async fn message(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        message: Bytes,
        presence: &Presence,
    ) -> Vec<Reply> {
        self.paths_open = 0;
        self.sent = true;
        let judged = self.judge_message(facts, envelope, &message);
        let Judgement {
            decision,
            prepended,
            redirected,
        } = match judged {
            Ok(judgement) => judgement,
            Err(finding) => return vec![self.take(facts, &message).refuse(envelope, &finding)],
        };
        if let Some(rule) = decision.discard {
            return vec![self.take(facts, &message).discard(envelope, &rule)];
        }
        let spf = self.spf_result().await;
        let sender = Sender {
            spf,
            client_name: match &self.caller.inquiry.evidence().client_name {
                Asked::Known(name) => Some(name.clone()),
                _ => None,
            },
        };
        let mut taking = self.take(facts, &message);
        taking.prepended = prepended;
        let elsewhere = redirected.and(self.rules.redirect_to.as_ref());
        let elsewhere = elsewhere.map(|to| Envelope {
            recipients: vec![to.clone()],
            ..envelope.clone()
        });
        if elsewhere.is_some() {
            let named = envelope.recipients.iter();
            let named = named.map(|to| to.address.to_string().into());
            taking.redirected = named.collect();
        }
        let envelope = elsewhere.as_ref().unwrap_or(envelope);
        let reply = match self.hold.clone().or(decision.hold) {
            Some(rule) => {
                let held = taking.hold(envelope, message, sender, presence, rule);
                held.await
            }
            None => taking.take(envelope, message, sender, presence).await,
        };
        vec![reply]
    }

    fn objected(&mut self, facts: &Facts, refusal: Refusal) {
        if self.is_check() {
            return;
        }
        self.seen.objections = self.seen.objections.saturating_add(1);
        objections::count(&self.edge, facts, &refusal, &mut self.paths_open);
        let told = refusal.objection.is_of_message() || refusal.reply.is_positive();
        if !told {
            self.seen.refused(&self.edge.tops, facts, &No::of(&refusal));
        }
    }

    fn reset(&mut self) {
        self.abandon();
        self.transaction = Transaction::default();
    }
}
