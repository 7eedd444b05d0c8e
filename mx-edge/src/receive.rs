//! A session with a client: asks `policy` and `recipients` what to answer, and takes each message through, else into the spool.
//! A 250 is only said for what the inside has taken or the spool has made durable.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use mail::trace::Spf;
use mail::{Domain, Envelope, MailParameters, Recipient, Reply, ReversePath};
use smtp::server::{Ending, Facts, Handler, Presence, Screening};
use tracing::info;

use crate::admission::rates::Of;
use crate::admission::{Admission, Door, Entry, Refused, Standing};
use crate::caller::{Caller, Found};
use crate::dnsbl::Dnsbl;
use crate::ended::Ended;
use crate::ident::Idents;
use crate::keep::Keeper;
use crate::metrics::Metrics;
use crate::network::{Network, contains};
use crate::policy::{self, Scanning, Transaction};
use crate::reason::Reason;
use crate::recipients::Recipients;
use crate::screen::{Memory, Screen};
use crate::spf::{self, Check, Checker};
use crate::take::Take;
use crate::through::Through;

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
    /// Who has passed the screen.
    pub passes: Arc<Memory>,
    /// The list of what was not passed in.
    pub ended: Arc<Ended>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Being drained: no new mail is taken, what is spooled goes on.
    pub draining: AtomicBool,
    /// Whether the next hop gets the trace field.
    pub trace: bool,
    /// How long mail that the inside has just deferred waits for its first attempt out of the spool.
    pub deferred_pause: Duration,
}

/// What a session is held to.
pub struct Rules {
    /// In Received fields.
    pub hostname: Domain,
    /// Who may come in, and how often.
    pub door: Door,
    /// Exempt from scanning and from SPF.
    pub own_networks: Vec<Network>,
    /// Not checked by SPF.
    pub spf_skip_networks: Vec<Network>,
    /// SPF; none when it is off.
    pub spf: Option<Checker>,
    /// Lists of clients; none when none are configured, or they are off.
    pub dnsbl: Option<Arc<Dnsbl>>,
    /// Whether a listed client is refused, and not only told of in the log.
    pub dnsbl_enforced: bool,
    /// The screen before the greeting; none when it is off.
    pub screen: Option<Screen>,
    /// Whether who did not wait is refused, and not only told of in the log.
    pub screen_enforced: bool,
    /// Sessions in all from which on there is stress, and below which there is none any more.
    pub stress_sessions: (usize, usize),
    /// See the configuration.
    pub null_sender_recipients_max: usize,
    /// See the configuration.
    pub hops_max: usize,
    /// See the configuration.
    pub contact: String,
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
        self.admission.pressure.sessions(open, high, low);
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
    spf: Option<Check>,
    caller: Caller,
}

impl Session {
    /// Just connected.
    pub fn new(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr) -> Self {
        edge.metrics.sessions_open.inc();
        edge.feel_sessions(&rules);
        Self::with(edge, rules, client, Standing::Ordinary)
    }

    /// A proxy that looks whether we live: in no figure and under no limit.
    pub fn check(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr) -> Self {
        Self::with(edge, rules, client, Standing::Check)
    }

    fn with(edge: Arc<Edge>, rules: Arc<Rules>, client: SocketAddr, standing: Standing) -> Self {
        Self {
            rules,
            edge,
            id: Box::default(),
            client,
            entry: Entry {
                standing,
                admitted: None,
            },
            transaction: Transaction::default(),
            spf: None,
            caller: Caller::default(),
        }
    }

    /// Over: counted and logged.
    pub fn ended(self, ending: Ending) {
        if self.is_check() {
            return;
        }
        let outcome = outcome(ending);
        let screened = &self.edge.metrics.screened;
        screened.with_label_values(&[self.caller.screened()]).inc();
        self.edge
            .metrics
            .sessions
            .with_label_values(&[outcome])
            .inc();
        info!(event = "session", session = %self.id, client = %self.client, outcome);
    }

    fn refusal(&self, reason: Reason, facts: &Facts) -> Reply {
        reason.reply(&facts.session, &self.rules.contact)
    }

    fn take<'a>(&'a self, facts: &'a Facts) -> Take<'a> {
        Take {
            edge: &self.edge,
            rules: &self.rules,
            facts,
            exempt: self.is_own(facts.client.ip()),
        }
    }

    fn is_check(&self) -> bool {
        matches!(self.entry.standing, Standing::Check)
    }

    /// Counts what the client does, unless it does too much of it.
    fn count(&self, of: Of, facts: &Facts) -> Result<(), Refused> {
        let Self { edge, rules, .. } = self;
        let client = facts.client.ip();
        let admission = &edge.admission;
        admission.count(&rules.door, &self.entry.standing, of, client)
    }

    fn refusal_with(&self, refused: &Refused, facts: &Facts) -> Reply {
        let Refused { reason, evidence } = refused;
        reason.reply_with(evidence, &facts.session, &self.rules.contact)
    }

    fn is_own(&self, client: IpAddr) -> bool {
        contains(&self.rules.own_networks, client)
    }

    /// SPF is first needed once somebody here is to get the message.
    fn start_spf(&mut self, facts: &Facts, reverse_path: &ReversePath) {
        let client = facts.client.ip();
        let skipped = contains(&self.rules.spf_skip_networks, client) || self.is_own(client);
        if self.spf.is_none() && !skipped {
            let checker = self.rules.spf.as_ref();
            self.spf = checker.map(|checker| checker.start(client, &facts.helo, reverse_path));
        }
    }

    /// What speaks against the client, for recipients that it may concern (never a role: RFC 5321 4.5.1).
    async fn refused_client(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Option<(Reason, Reply)> {
        let found = match &self.entry.standing {
            Standing::Exempt | Standing::Check => return None,
            Standing::Rejected(note) => Found {
                reason: Reason::Access,
                evidence: note.to_string(),
                enforced: true,
            },
            Standing::Ordinary => self.caller.found(&self.rules, facts).await?,
        };
        let Found {
            reason,
            evidence,
            enforced,
        } = found;
        info!(
            event = "recipient",
            session = %facts.session,
            client = %facts.client.ip(),
            helo = %facts.helo,
            from = %envelope.reverse_path,
            to = %recipient.address,
            outcome = if enforced { "refused" } else { "warned" },
            reason = reason.label(),
            evidence
        );
        let reply = || reason.reply_with(&evidence, &facts.session, &self.rules.contact);
        enforced.then(|| (reason, reply()))
    }

    async fn spf_result(&mut self) -> Spf {
        match self.spf.take() {
            None => Spf::None,
            Some(check) => {
                let result = check.result().await;
                let counter = &self.edge.metrics.spf;
                counter.with_label_values(&[spf::label(result)]).inc();
                result
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
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
        self.client = facts.client;
        if self.is_check() {
            return Ok(());
        }
        // The same session may come again for another client (XCLIENT).
        self.entry = Entry::default();
        self.caller = Caller::default();
        let entry = match self.edge.is_draining() {
            true => Err(Reason::Draining.into()),
            false => self
                .edge
                .admission
                .admit(&self.rules.door, facts.client.ip()),
        };
        match entry {
            Ok(entry) => {
                self.entry = entry;
                Ok(())
            }
            Err(refused) => {
                let turned_away = &self.edge.metrics.turned_away;
                turned_away
                    .with_label_values(&[refused.reason.label()])
                    .inc();
                Err(self.refusal_with(&refused, facts))
            }
        }
    }

    async fn screen(&mut self, facts: &Facts) -> Option<Screening> {
        let stressed = self.edge.admission.pressure.is_stressed();
        let exempt = self.entry.standing.is_exempt() || self.is_check();
        self.caller.screen(&self.rules, facts, stressed, exempt)
    }

    async fn spoke_first(&mut self, facts: &Facts, bytes: &[u8]) -> Result<(), Reply> {
        let said = self.caller.spoke_first(bytes);
        info!(event = "spoke_first", session = %facts.session, client = %facts.client.ip(), said);
        Ok(())
    }

    async fn helo(&mut self, facts: &Facts) -> Result<(), Reply> {
        self.caller.greeted(&self.rules, facts);
        Ok(())
    }

    async fn mail(
        &mut self,
        facts: &Facts,
        reverse_path: &ReversePath,
        _parameters: &MailParameters,
        _size: Option<u64>,
    ) -> Result<(), Reply> {
        if self.edge.is_draining() {
            return Err(self.refusal(Reason::Draining, facts));
        }
        if self.is_check() {
            return Err(self.refusal(Reason::NoClient, facts));
        }
        // Neither way in is open: better said before the message is sent.
        if let Some(reason) = self.edge.keeper.refuses()
            && self.edge.through.is_shut()
        {
            return Err(self.refusal(reason, facts));
        }
        self.count(Of::Messages, facts)
            .map_err(|refused| self.refusal_with(&refused, facts))?;
        self.transaction = Transaction {
            null_sender: *reverse_path == ReversePath::Null,
            ..Transaction::default()
        };
        self.spf = None;
        Ok(())
    }

    async fn rcpt(
        &mut self,
        facts: &Facts,
        envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply> {
        if let Err(refused) = self.count(Of::Recipients, facts) {
            let label = refused.reason.label();
            self.edge
                .metrics
                .recipients
                .with_label_values(&[label])
                .inc();
            return Err(self.refusal_with(&refused, facts));
        }
        let known = self
            .edge
            .recipients
            .lookup(&recipient.address, facts.local.ip());
        self.transaction.accepted = envelope.recipients.len();
        let most = self.rules.null_sender_recipients_max;
        let decision = policy::recipient(known, &self.transaction, most);
        if decision == Ok(Scanning::Ordinary)
            && let Some((reason, reply)) = self.refused_client(facts, envelope, recipient).await
        {
            let recipients = &self.edge.metrics.recipients;
            recipients.with_label_values(&[reason.label()]).inc();
            return Err(reply);
        }
        let label = decision.map_or_else(Reason::label, |_| "accepted");
        self.edge
            .metrics
            .recipients
            .with_label_values(&[label])
            .inc();
        match decision {
            Ok(scanning) => {
                self.transaction.scanning = Some(scanning);
                self.start_spf(facts, &envelope.reverse_path);
                Ok(())
            }
            Err(reason) => {
                info!(
                    event = "recipient",
                    session = %facts.session,
                    client = %facts.client.ip(),
                    from = %envelope.reverse_path,
                    to = %recipient.address,
                    outcome = "refused",
                    reason = reason.label()
                );
                Err(self.refusal(reason, facts))
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
        if let Err(reason) = policy::hops(&message, self.rules.hops_max) {
            return vec![self.take(facts).refuse(envelope, reason)];
        }
        let spf = self.spf_result().await;
        let reply = self
            .take(facts)
            .take(envelope, message, spf, presence)
            .await;
        vec![reply]
    }

    fn reset(&mut self) {
        self.transaction = Transaction::default();
        self.spf = None;
    }
}

fn outcome(ending: Ending) -> &'static str {
    match ending {
        Ending::Quit => "quit",
        Ending::Lost => "lost",
        Ending::TimedOut => "timed_out",
        Ending::Refused => "refused",
        Ending::Shutdown => "shutdown",
        Ending::Tls => "tls_failed",
    }
}
