//! What is done with one message: trace, structure, presented verdict, scan, decision, relay, a reply a recipient.
//!
//! Owns the order of these steps and nothing else; a scanner may die at any of them and nothing is lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mail::trace::{self, Custody, Trace};
use mail::verdict::{self, Action, Class, Keys, Token, Verdict};
use mail::{Envelope, Reply, Timestamp, header};
use smtp::server::{Facts, Presence};
use tokio::time::Instant;

use crate::authenticate::Sender;
use crate::config::Config;
use crate::decide::{self, Decision, Outcome};
use crate::health::Health;
use crate::metrics::{Metrics, Running};
use crate::policy::Policy;
use crate::relay::{Failure, Parcel, Relay};
use crate::scan::{Item, Known, Scan};
use crate::trouble::Trouble;
use crate::{clamd, headers, replies, spamd};

/// What every message needs.
pub struct Rooms {
    /// All that look at a message.
    pub scan: Scan,
    /// The list hosts.
    pub relay: Relay,
    /// The daemons.
    pub health: Health,
    /// Counters.
    pub metrics: Metrics,
}

/// One message on its way.
struct Work<'a> {
    rooms: &'a Rooms,
    config: &'a Config,
    keys: &'a Keys,
    facts: &'a Facts,
    envelope: &'a Envelope,
    trace: Option<Trace>,
    /// The message without its trace field, as it came: what a token for the edge is about.
    received: Bytes,
    /// Without strangers' fields, too: what is scanned and passed on.
    message: Bytes,
    deadline: Instant,
}

/// What was found out and decided.
struct Judgement {
    decision: Decision,
    /// The version of clamd and its signatures.
    signatures: Arc<str>,
    /// Of the scan.
    time: Timestamp,
    /// Our Authentication-Results.
    results: String,
}

/// Answers for a message from a trusted peer.
pub async fn answer(
    rooms: &Rooms,
    config: &Config,
    keys: &Keys,
    facts: &Facts,
    envelope: &Envelope,
    message: &Bytes,
    presence: &Presence,
) -> Vec<Reply> {
    let metrics = &rooms.metrics;
    let _running = Running::new(&metrics.in_flight);
    metrics.offered.inc_by(envelope.recipients.len() as u64);
    let received = headers::without_trace(message);
    let work = Work {
        rooms,
        config,
        keys,
        facts,
        envelope,
        trace: first_trace(message),
        message: headers::without_strangers(&received, config.authserv_id()),
        received,
        deadline: Instant::now() + config.receive.budget,
    };
    let mut presence_told = presence.0.clone();
    let mut answered = std::pin::pin!(work.answer(presence));
    tokio::select! {
        replies = &mut answered => return replies,
        Ok(_) = presence_told.wait_for(|present| !present) => {}
    }
    // The work goes on: a scan that has begun is not given up, and what follows looks at `presence` itself.
    tracing::info!(event = "client_gone", ident = work.ident());
    answered.await
}

/// The edge's trace, which it puts first; one further down is a stranger's.
fn first_trace(message: &[u8]) -> Option<Trace> {
    let field = header::fields(message).next()?;
    if !field.is(trace::NAME) {
        return None;
    }
    Trace::parse(&field.text())
}

impl Work<'_> {
    async fn answer(&self, presence: &Presence) -> Vec<Reply> {
        if self.trace.as_ref().is_some_and(|trace| trace.exempt) {
            return self.pass_exempt(presence).await;
        }
        match self.judgement().await {
            Ok(judgement) => self.carry_out(&judgement, presence).await,
            Err(trouble) => {
                let (event, ident) = ("verdict", self.ident());
                tracing::info!(event, ident, action = "defer", reason = %trouble);
                self.all("deferred", &trouble.reply())
            }
        }
    }

    fn custody(&self) -> Custody {
        self.trace.as_ref().map_or(Custody::Live, |t| t.custody)
    }

    /// The message's name in logs: the edge's, else the session's.
    fn ident(&self) -> &str {
        let traced = self.trace.as_ref().map(|trace| trace.ident.as_str());
        let told = || {
            self.facts
                .xforward
                .ident
                .as_ref()
                .map(|ident| ident.as_str())
        };
        traced.or_else(told).unwrap_or(&self.facts.session)
    }

    /// Finds out and decides.
    async fn judgement(&self) -> Result<Judgement, Trouble> {
        let (presented, known) = self.presented();
        let item = Item {
            message: &self.message,
            preamble: &format!("Return-Path: <{}>\r\n", self.envelope.reverse_path),
            custody: self.custody(),
            known,
            utf8: self.envelope.parameters.smtputf8,
            sender: self.sender(),
        };
        let scanned = self.rooms.scan.find(self.config, item).await;
        let recipients = self.envelope.recipients.iter();
        let policies: Vec<Policy<'_>> = recipients
            .map(|recipient| self.config.policy(&recipient.address))
            .collect();
        let decision = decide::decide(&scanned.findings, &policies, self.custody())?;
        let class = [decision.worst().0.as_str()];
        self.rooms.metrics.messages.with_label_values(&class).inc();
        if decision
            .tests
            .iter()
            .any(|test| **test == *spamd::TRUNCATED)
        {
            self.rooms.metrics.truncated.inc();
        }
        self.log_verdict(&decision, presented.is_some());
        // A verdict that is passed on unchanged does not get younger.
        let results = scanned
            .evidence
            .map(|evidence| evidence.field(self.config.authserv_id()));
        Ok(Judgement {
            decision,
            signatures: scanned.signatures,
            time: presented.unwrap_or_else(Timestamp::now),
            results: results.unwrap_or_default(),
        })
    }

    /// Whom the edge's SPF spoke of (RFC 7208 2.4).
    fn sender(&self) -> Option<Sender<'_>> {
        let trace = self.trace.as_ref();
        let domain = match self.envelope.reverse_path.address() {
            Some(address) => address.domain().as_str(),
            None => trace.map_or("", |trace| &trace.helo),
        };
        Some(Sender {
            domain,
            spf: trace.map(|trace| trace.spf).unwrap_or_default(),
        })
    }

    /// What travels on for recipients with this outcome.
    fn verdict_of(&self, judgement: &Judgement, outcome: &Outcome) -> Verdict {
        let decision = &judgement.decision;
        Verdict {
            class: outcome.class,
            found: outcome.found,
            action: outcome.action,
            score_hundredths: decision.score_hundredths,
            required_hundredths: outcome.levels.tag2,
            tests: decision.tests.clone(),
            reason: outcome.reason.clone(),
            rules: self.config.scan.rules_version.as_str().into(),
            signatures: judgement.signatures.as_ref().into(),
            time: judgement.time,
        }
    }

    /// What a token that the edge presents spares us: spamd while the rules are the same, clamd while the signatures are. With
    /// the time of the scan that it tells of, when nothing is asked anew.
    fn presented(&self) -> (Option<Timestamp>, Known) {
        let Some(token) = self.trace.as_ref().and_then(|trace| trace.verdict.as_ref()) else {
            return (None, Known::default());
        };
        let verified = Token::verify(token, &verdict::digest(&self.received), self.keys);
        let clamd = &self.rooms.health.clamd;
        let known = verified.as_ref().map_or_else(Known::default, |verdict| {
            let is_current = clamd.has_version(&verdict.signatures);
            known(verdict, self.config, is_current, Timestamp::now())
        });
        let outcome = match (&known.virus, &known.spam) {
            (Some(_), Some(_)) => "reused",
            (None, Some(_)) => "score_reused",
            _ => "not_believed",
        };
        self.rooms
            .metrics
            .tokens
            .with_label_values(&[outcome])
            .inc();
        let whole = known.virus.is_some() && known.spam.is_some();
        (
            verified.filter(|_| whole).map(|verdict| verdict.time),
            known,
        )
    }

    /// Refuses, defers, passes and quarantines, each recipient as was decided; those with one outcome together.
    async fn carry_out(&self, judgement: &Judgement, presence: &Presence) -> Vec<Reply> {
        let outcomes = &judgement.decision.outcomes;
        let mut replies = vec![None; outcomes.len()];
        for first in 0..outcomes.len() {
            if replies[first].is_some() {
                continue;
            }
            let outcome = &outcomes[first];
            let at: Vec<usize> = (first..outcomes.len())
                .filter(|&index| outcomes[index] == *outcome)
                .collect();
            let verdict = self.verdict_of(judgement, outcome);
            let answers = match outcome.action {
                Action::Refuse => {
                    let contact = &self.config.receive.contact;
                    let kill = outcome.levels.kill;
                    let refusal = replies::refusal(&verdict, kill, contact, self.ident());
                    self.count("refused", at.len());
                    vec![refusal; at.len()]
                }
                Action::Defer => {
                    self.count("deferred", at.len());
                    vec![replies::deferral(verdict.class, self.ident()); at.len()]
                }
                Action::Pass | Action::Tag | Action::Quarantine => {
                    let fields =
                        headers::render(&verdict, outcome.levels.tag, &self.config.hostname);
                    self.pass(&verdict, fields + &judgement.results, &at, presence)
                        .await
                }
            };
            for (&index, answer) in at.iter().zip(answers) {
                replies[index] = Some(answer);
            }
        }
        let every = "every outcome was carried out";
        replies
            .into_iter()
            .map(|reply| reply.expect(every))
            .collect()
    }

    /// Relays to some recipients under a verdict.
    async fn pass(
        &self,
        verdict: &Verdict,
        fields: String,
        at: &[usize],
        presence: &Presence,
    ) -> Vec<Reply> {
        let fields: Bytes = fields.into();
        let signed = self.trace.as_ref().map(|trace| {
            // What the list host gets is another octet string than what the edge sent, so it gets a token of its own.
            let mut relayed = Vec::with_capacity(fields.len() + self.message.len());
            relayed.extend_from_slice(&fields);
            relayed.extend_from_slice(&self.message);
            let token = Token::sign(verdict, &verdict::digest(&relayed), self.keys);
            let verdict = Some(token.into());
            let trace = trace.clone();
            Trace { verdict, ..trace }.header()
        });
        let trace: Bytes = signed.unwrap_or_default().into();
        let parts = vec![trace, fields, self.message.clone()];
        let sent = self.send(parts, at, presence).await;
        let word = match verdict.action {
            Action::Quarantine => "quarantined",
            Action::Tag => "tagged",
            _ => "passed",
        };
        // For the edge, about what the edge sent: presented with the next attempt it spares the scan.
        let for_edge = || {
            let token = Token::sign(verdict, &verdict::digest(&self.received), self.keys);
            Token::to_lines(&token)
        };
        match sent {
            Ok(replies) => replies
                .into_iter()
                .map(|reply| {
                    self.count(replies::outcome(&reply, word), 1);
                    replies::passed_on(reply, verdict.class, for_edge)
                })
                .collect(),
            Err(failure) => {
                self.count("deferred", at.len());
                let reply = replies::unreached(verdict.class, &failure, for_edge());
                vec![reply; at.len()]
            }
        }
    }

    /// Own networks, by rule: passed as it came, but for fields in which strangers say that we had scanned.
    async fn pass_exempt(&self, presence: &Presence) -> Vec<Reply> {
        let event = "verdict";
        tracing::info!(
            event,
            ident = self.ident(),
            class = "exempt",
            action = "pass"
        );
        let trace = self.trace.as_ref().map(Trace::header).unwrap_or_default();
        let at: Vec<usize> = (0..self.envelope.recipients.len()).collect();
        match self
            .send(vec![trace.into(), self.message.clone()], &at, presence)
            .await
        {
            Ok(replies) => {
                for reply in &replies {
                    self.count(replies::outcome(reply, "exempt"), 1);
                }
                replies
            }
            Err(failure) => self.all("deferred", &replies::unreached_exempt(&failure)),
        }
    }

    async fn send(
        &self,
        parts: Vec<Bytes>,
        at: &[usize],
        presence: &Presence,
    ) -> Result<Vec<Reply>, Failure> {
        // Whoever hears no reply will come again: passing it on now would only make it arrive twice.
        if presence.gone() {
            let metrics = &self.rooms.metrics;
            metrics.relays.with_label_values(&["client_gone"]).inc();
            return Err(Failure::Unreachable("the client has gone".into()));
        }
        let recipients = at
            .iter()
            .map(|&index| self.envelope.recipients[index].clone());
        let mut xforward = self.facts.xforward.clone();
        xforward.addr = xforward.addr.or(Some(self.facts.client.ip()));
        if let Some(trace) = &self.trace {
            xforward.ident = Some(trace.ident.clone());
            xforward.addr = Some(trace.client);
        }
        let parcel = Parcel {
            envelope: Envelope {
                recipients: recipients.collect(),
                ..self.envelope.clone()
            },
            xforward,
            parts,
        };
        let deadline = self.deadline.min(Instant::now() + self.config.relay.budget);
        let replies = self
            .rooms
            .relay
            .send(self.config, &parcel, deadline)
            .await?;
        match replies.len() == at.len() {
            true => Ok(replies),
            // Should not be; deferring is always safe.
            false => Err(Failure::Cut("not one reply a recipient".into())),
        }
    }

    fn all(&self, outcome: &str, reply: &Reply) -> Vec<Reply> {
        let recipients = self.envelope.recipients.len();
        self.count(outcome, recipients);
        vec![reply.clone(); recipients]
    }

    fn count(&self, outcome: &str, recipients: usize) {
        let counter = self.rooms.metrics.recipients.with_label_values(&[outcome]);
        counter.inc_by(recipients as u64);
    }

    fn log_verdict(&self, decision: &Decision, reused: bool) {
        let (class, reason) = decision.worst();
        let all = || decision.outcomes.iter();
        let mut actions: Vec<&str> = all().map(|outcome| outcome.action.as_str()).collect();
        actions.dedup();
        let found: BTreeSet<Class> = all().flat_map(|outcome| outcome.found.iter()).collect();
        let found: Vec<&str> = found.into_iter().map(Class::as_str).collect();
        tracing::info!(
            event = "verdict",
            ident = self.ident(),
            session = %self.facts.session,
            class = class.as_str(),
            found = found.join(","),
            score = decision.score_hundredths.map(headers::points),
            action = actions.join(","),
            tests = decision.tests.join(","),
            reason,
            reused,
        );
    }
}

/// What of a verified verdict still holds.
fn known(verdict: &Verdict, config: &Config, is_current: bool, now: Timestamp) -> Known {
    if now.since(verdict.time) > config.token.age_max {
        return Known::default();
    }
    let spam = (*verdict.rules == *config.scan.rules_version)
        .then_some(verdict.score_hundredths)
        .flatten()
        .map(|score_hundredths| spamd::Finding {
            score_hundredths,
            tests: verdict.tests.clone(),
        });
    // What is bad is found anew: it is rare, and a false alarm ends with the next signatures. Neither does a score tell of clamd.
    let seen = !verdict.found.has_any(&[
        Class::Malware,
        Class::Unscanned,
        Class::Oversized,
        Class::Ambiguous,
    ]);
    let virus = (seen && is_current).then(|| {
        (
            clamd::Finding::Clean,
            Arc::from(verdict.signatures.as_ref()),
        )
    });
    Known { virus, spam }
}
