//! What is done with one message: trace, structure, presented verdict, scan, decision, relay, a reply a recipient.
//!
//! Owns the order of these steps and nothing else; a scanner may die at any of them and nothing is lost.

use std::sync::Arc;

use bytes::Bytes;
use mail::trace::{self, Custody, Trace};
use mail::verdict::{self, Action, Class, Keys, Token, Verdict};
use mail::{Envelope, Reply, Timestamp, header, structure};
use smtp::server::{Facts, Presence};
use tokio::time::Instant;

use crate::config::Config;
use crate::decide::{self, Decision, Findings};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::relay::{Failure, Parcel, Relay};
use crate::scan::{Item, Known, Running, Scan};
use crate::{clamd, headers, replies, spamd};

/// What every message needs.
pub struct Rooms {
    /// Both daemons.
    pub scan: Scan,
    /// The list hosts.
    pub relay: Relay,
    /// The canary's knowledge.
    pub health: Arc<Health>,
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
        message: headers::without_strangers(&received),
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
        match self.verdict().await {
            Ok((verdict, decision)) => self.carry_out(&verdict, &decision, presence).await,
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
    async fn verdict(&self) -> Result<(Verdict, Decision), crate::trouble::Trouble> {
        let (presented, known) = self.presented();
        let findings = match structure::scan(&self.message, &structure::Limits::default()) {
            Err(objection) => Findings::Objection(objection.to_string().into()),
            Ok(_) => {
                let item = Item {
                    message: &self.message,
                    preamble: &format!("Return-Path: <{}>\r\n", self.envelope.reverse_path),
                    custody: self.custody(),
                    known,
                };
                self.rooms.scan.ask(self.config, item).await
            }
        };
        let recipients = self.envelope.recipients.iter();
        let exempt: Vec<bool> = recipients
            .map(|recipient| decide::meets_no_kill_level(recipient.address.local()))
            .collect();
        let levels = self.config.levels.levels();
        let decision = decide::decide(&findings, levels, self.custody(), &exempt)?;
        let class = [decision.class.as_str()];
        self.rooms.metrics.messages.with_label_values(&class).inc();
        let verdict = Verdict {
            class: decision.class,
            score_hundredths: decision.score_hundredths,
            required_hundredths: levels.tag,
            tests: decision.tests.clone(),
            reason: decision.reason.clone(),
            rules: self.config.scan.rules_version.as_str().into(),
            signatures: self.rooms.health.signatures().as_ref().into(),
            // A verdict that is passed on unchanged does not get younger.
            time: presented.unwrap_or_else(Timestamp::now),
        };
        self.log_verdict(&verdict, &decision, presented.is_some());
        Ok((verdict, decision))
    }

    /// What a token that the edge presents spares us: spamd while the rules are the same, clamd while the signatures are. With
    /// the time of the scan that it tells of, when nothing is asked anew.
    fn presented(&self) -> (Option<Timestamp>, Known) {
        let Some(token) = self.trace.as_ref().and_then(|trace| trace.verdict.as_ref()) else {
            return (None, Known::default());
        };
        let verified = Token::verify(token, &verdict::digest(&self.received), self.keys);
        let signatures = self.rooms.health.signatures();
        let known = verified.as_ref().map_or_else(Known::default, |verdict| {
            known(verdict, self.config, &signatures, Timestamp::now())
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

    /// Refuses, passes and quarantines, each recipient as was decided.
    async fn carry_out(
        &self,
        verdict: &Verdict,
        decision: &Decision,
        presence: &Presence,
    ) -> Vec<Reply> {
        let refusal = replies::refusal(verdict, self.config, self.ident());
        let mut replies = vec![None; decision.actions.len()];
        for action in [Action::Refuse, Action::Pass, Action::Quarantine] {
            let at: Vec<usize> = (0..decision.actions.len())
                .filter(|&index| decision.actions[index] == action)
                .collect();
            if at.is_empty() {
                continue;
            }
            if action == Action::Refuse {
                self.count("refused", at.len());
                at.iter()
                    .for_each(|&index| replies[index] = Some(refusal.clone()));
                continue;
            }
            let verdict = Verdict {
                class: decision.class_for(action),
                ..verdict.clone()
            };
            let answers = self.pass(&verdict, action, &at, presence).await;
            for (&index, answer) in at.iter().zip(answers) {
                replies[index] = Some(answer);
            }
        }
        let every = "every action was carried out";
        replies
            .into_iter()
            .map(|reply| reply.expect(every))
            .collect()
    }

    /// Relays to some recipients under a verdict.
    async fn pass(
        &self,
        verdict: &Verdict,
        action: Action,
        at: &[usize],
        presence: &Presence,
    ) -> Vec<Reply> {
        let fields: Bytes = headers::render(verdict, &self.config.hostname).into();
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
        let word = match (action, verdict.class) {
            (Action::Quarantine, _) => "quarantined",
            (_, Class::Clean) => "passed",
            _ => "tagged",
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

    fn log_verdict(&self, verdict: &Verdict, decision: &Decision, reused: bool) {
        let mut actions: Vec<&str> = decision.actions.iter().map(|&a| replies::word(a)).collect();
        actions.dedup();
        tracing::info!(
            event = "verdict",
            ident = self.ident(),
            session = %self.facts.session,
            class = verdict.class.as_str(),
            score = verdict.score_hundredths.map(headers::points),
            action = actions.join(","),
            tests = verdict.tests.join(","),
            reason = %verdict.reason,
            reused,
        );
    }
}

/// What of a verified verdict still holds.
fn known(verdict: &Verdict, config: &Config, signatures: &str, now: Timestamp) -> Known {
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
    // Malware and unchecked are found anew: they are rare, and a false alarm ends with the next signatures.
    let is_clean = verdict.class < Class::Unchecked || verdict.class == Class::Spam;
    let virus = (is_clean && *verdict.signatures == *signatures).then_some(clamd::Finding::Clean);
    Known { virus, spam }
}
