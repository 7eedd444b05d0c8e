//! Mail in: LMTP from scanners and edges. Says 250 only for what the spool or the quarantine has on stable storage.

mod admit;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use mail::recipient::{self, ListAddress, Request};
use mail::trace::{self, Trace};
use mail::verdict::{self, Token, Verdict};
use mail::{Address, Envelope, MailParameters, Recipient, Reply, ReversePath, Timestamp, header};
use service::tls::{Role, has_role};
use smtp::server::{Facts as Session, Handler, Presence};
use spool::{Class, NewMessage, Path, Spool};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, Unscanned};
use crate::directory::{Directory, Target, is_role};
use crate::expansion::arrival;
use crate::facts::Facts;
use crate::metrics::{Metrics, count};
use crate::posting;
use crate::quarantine::{self, Quarantine};
use crate::secrets::Secrets;
use admit::Admission;

/// Roles whose certificates may bring mail.
const PEERS: [Role; 2] = [Role::Scanner, Role::MxEdge];

/// One session; cloned from one that stands for all.
#[derive(Clone)]
pub struct Receiver {
    /// The session's id, once something was said in it.
    pub session: Box<str>,
    /// Where mail is accepted.
    pub spool: Arc<dyn Spool>,
    /// Who is known.
    pub directory: Directory,
    /// Where bad mail is kept.
    pub quarantine: Quarantine,
    /// The configuration in force.
    pub config: watch::Receiver<Config>,
    /// Keys of verdicts and confirmations.
    pub secrets: watch::Receiver<Secrets>,
    /// Counters.
    pub metrics: Metrics,
}

/// What is known of a message beside its envelope.
struct Message {
    facts: Facts,
    trace: Option<Trace>,
    verdict: Option<Verdict>,
    ident: Option<String>,
    arrival: Timestamp,
    /// Without the trace field.
    body: Bytes,
}

/// Recipients of one transaction by what is done for them; places in the envelope.
#[derive(Default)]
struct Sorted {
    spool: Vec<(usize, Class)>,
    quarantine: Vec<usize>,
    reason: String,
}

impl Receiver {
    /// What an address means, or the reply that refuses it.
    fn resolve(&self, address: &Address) -> Result<Target, Reply> {
        let Some(names) = self.directory.names() else {
            return Err(Reply::new(
                451,
                (4, 3, 0),
                "the directory is not loaded yet",
            ));
        };
        if let Some(target) = names.resolve(address) {
            self.check_cookie(&target)?;
            return Ok(target);
        }
        let ours =
            self.config.borrow().domains.iter().any(|text| {
                mail::Domain::parse(text).is_ok_and(|domain| domain == *address.domain())
            });
        if is_role(address) && ours {
            return Ok(Target::Role);
        }
        if names.is_empty() {
            // Unknown only when sure: a directory without one name knows nobody because nobody has filled it.
            return Err(Reply::new(451, (4, 3, 0), "the directory is empty"));
        }
        Err(Reply::new(
            550,
            (5, 1, 1),
            format!("{address}: unknown here"),
        ))
    }

    /// A confirmation with a cookie that none of our keys made is refused before its message is sent; one too old is answered.
    fn check_cookie(&self, target: &Target) -> Result<(), Reply> {
        let Target::List { list, what } = target else {
            return Ok(());
        };
        let (request, confirmation) = match what {
            ListAddress::ConfirmSubscribe(confirmation) => (Request::Subscribe, confirmation),
            ListAddress::ConfirmUnsubscribe(confirmation) => (Request::Unsubscribe, confirmation),
            _ => return Ok(()),
        };
        let now = Timestamp::now().seconds();
        let keys = self.secrets.borrow().cookie.clone();
        if recipient::verify(list, request, confirmation, now, u64::MAX, &keys) {
            return Ok(());
        }
        Err(Reply::new(
            550,
            (5, 1, 1),
            "this is no confirmation of ours; reply to the confirmation message again",
        ))
    }

    /// Whether mail and trace of this peer are believed: a certificate of the right role, or plain loopback.
    fn trusts(&self, session: &Session) -> bool {
        match &session.tls {
            Some(tls) => has_role(&tls.peer_certificates, &PEERS),
            None => session.client.ip().is_loopback(),
        }
    }

    fn read(&self, session: &Session, message: Bytes) -> Message {
        let trace = header::fields(&message)
            .next()
            .filter(|field| field.is(trace::NAME))
            .and_then(|field| Trace::parse(&field.text()));
        let body = header::without(&message, |field| field.is(trace::NAME));
        let token = trace.as_ref().and_then(|trace| trace.verdict.as_deref());
        let keys = self.secrets.borrow().verdict.clone();
        let verdict = match (token, &keys) {
            (Some(token), Some(keys)) => Token::verify(token, &verdict::digest(&body), keys),
            _ => None,
        };
        let mut facts = Facts {
            ident: session.xforward.ident.as_ref().map(ToString::to_string),
            session: session.session.to_string(),
            client: session.xforward.addr,
            helo: session.xforward.helo.as_deref().unwrap_or("").to_owned(),
            ..Facts::default()
        };
        if let Some(trace) = &trace {
            facts.learn(trace, verdict.as_ref());
        }
        Message {
            ident: facts.ident.clone(),
            arrival: trace
                .as_ref()
                .map_or_else(Timestamp::now, |trace| trace.arrival),
            facts,
            trace,
            verdict,
            body,
        }
    }

    /// What is done for one recipient: `Err` is its reply.
    fn sort(
        &self,
        recipient: &Recipient,
        reverse_path: &ReversePath,
        message: &Message,
    ) -> Result<(Class, Option<String>), Reply> {
        let target = self.resolve(&recipient.address)?;
        let required = {
            let config = self.config.borrow();
            self.secrets.borrow().verdict.is_some() && config.lmtp.unscanned == Unscanned::Defer
        };
        let role = target == Target::Role;
        let admission = admit::admit(
            message.trace.as_ref(),
            message.verdict.as_ref(),
            role,
            required,
        );
        let reason = match admission {
            Admission::Deliver => None,
            Admission::Quarantine(reason) => Some(reason),
            Admission::Reply(reply) => return Err(reply),
        };
        let hops_max = self.config.borrow().lists.hops_max;
        let (class, objection) = match &target {
            Target::List { list, what } => match what {
                ListAddress::Post => (
                    Class::Ordinary,
                    posting::to_list(list, reverse_path, &message.body, hops_max),
                ),
                ListAddress::Owner | ListAddress::Return { .. } => (Class::Ordinary, None),
                _ => (Class::Urgent, None),
            },
            Target::Alias(alias) => (
                Class::Ordinary,
                posting::to_forward(alias, &message.body, hops_max),
            ),
            Target::Role => (Class::Ordinary, None),
        };
        match objection {
            Some(objection) if reason.is_none() => {
                info!(event = "refused", session = %message.facts.session, from = %reverse_path,
                    to = %recipient.address, reason = objection.as_str());
                Err(objection.reply())
            }
            _ => Ok((class, reason)),
        }
    }

    async fn take(&self, session: &Session, envelope: &Envelope, message: Bytes) -> Vec<Reply> {
        let message = self.read(session, message);
        let mut sorted = Sorted::default();
        let mut replies: Vec<Option<Reply>> = vec![None; envelope.recipients.len()];
        let mut seen = HashSet::new();
        let mut repeated = Vec::new();
        for (at, recipient) in envelope.recipients.iter().enumerate() {
            if !seen.insert(recipient.address.key()) {
                repeated.push(at);
                continue;
            }
            match self.sort(recipient, &envelope.reverse_path, &message) {
                Ok((class, None)) => sorted.spool.push((at, class)),
                Ok((_, Some(reason))) => {
                    sorted.quarantine.push(at);
                    sorted.reason = reason;
                }
                Err(reply) => {
                    count(&self.metrics.refused, &reply.code.to_string());
                    replies[at] = Some(reply);
                }
            }
        }
        let spooled = self.spool(envelope, &message, &sorted.spool).await;
        let kept = self.keep(envelope, &message, &sorted).await;
        for (at, _) in &sorted.spool {
            replies[*at] = Some(spooled.clone());
        }
        for at in &sorted.quarantine {
            replies[*at] = Some(kept.clone());
        }
        // An address that was given twice gets one copy and the same answer twice.
        for at in repeated {
            let key = envelope.recipients[at].address.key();
            let first = envelope
                .recipients
                .iter()
                .position(|r| r.address.key() == key);
            replies[at] = first.and_then(|first| replies[first].clone());
        }
        replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(|| Reply::new(451, (4, 3, 0), "internal error")))
            .collect()
    }

    async fn spool(
        &self,
        envelope: &Envelope,
        message: &Message,
        places: &[(usize, Class)],
    ) -> Reply {
        if places.is_empty() {
            return accepted("nothing");
        }
        let now = Timestamp::now();
        let new = NewMessage {
            arrival: message.arrival,
            reverse_path: envelope.reverse_path.clone(),
            parameters: envelope.parameters.clone(),
            facts: message.facts.to_bytes(),
            body: vec![message.body.clone()],
            batches: places
                .iter()
                .map(|(at, class)| arrival(envelope.recipients[*at].clone(), *class, now))
                .collect(),
        };
        match self.spool.accept(new, message.ident.as_deref()).await {
            Ok(taken) => {
                for path in &taken.paths {
                    let label = match path {
                        Path::New => "new",
                        Path::Again => "again",
                    };
                    count(&self.metrics.accepted, label);
                }
                let again = taken.paths.iter().all(|path| *path == Path::Again);
                let to = list_of(envelope, places.iter().map(|(at, _)| *at));
                info!(event = "accepted", message = %taken.id, ident = message.ident.as_deref().unwrap_or(""),
                    session = %message.facts.session, from = %envelope.reverse_path, to = %to, again);
                accepted(&taken.id.to_string())
            }
            Err(error) => {
                warn!(event = "accepted", outcome = "deferred", ident = message.ident.as_deref().unwrap_or(""),
                    reason = %error);
                let reply = refusal(&error);
                count(&self.metrics.refused, &reply.code.to_string());
                reply
            }
        }
    }

    async fn keep(&self, envelope: &Envelope, message: &Message, sorted: &Sorted) -> Reply {
        if sorted.quarantine.is_empty() {
            return accepted("nothing");
        }
        let item = quarantine::Item {
            arrival: message.arrival,
            reverse_path: envelope.reverse_path.clone(),
            parameters: envelope.parameters.clone(),
            recipients: sorted
                .quarantine
                .iter()
                .map(|at| envelope.recipients[*at].clone())
                .collect(),
            facts: message.facts.to_bytes(),
            reason: sorted.reason.clone(),
            body: message.body.clone(),
        };
        // Only traced mail is quarantined, and a trace has an ident.
        let ident = message.ident.clone().unwrap_or_default();
        match self.quarantine.keep(item, ident.clone()).await {
            Ok(new) => {
                let label = if new { "new" } else { "again" };
                for _ in &sorted.quarantine {
                    count(&self.metrics.accepted, label);
                    if new {
                        count(&self.metrics.ended, "quarantined");
                    }
                }
                let to = list_of(envelope, sorted.quarantine.iter().copied());
                info!(event = "quarantined", message = "", ident = %ident, session = %message.facts.session,
                    from = %envelope.reverse_path, to = %to, reason = %sorted.reason, again = !new);
                accepted("quarantine")
            }
            Err(error) => {
                warn!(event = "quarantined", outcome = "deferred", ident = %ident, reason = %error);
                let reply = not_kept(&error);
                count(&self.metrics.refused, &reply.code.to_string());
                reply
            }
        }
    }
}

/// The recipients at these places, as a log shows them.
fn list_of(envelope: &Envelope, places: impl Iterator<Item = usize>) -> String {
    let addresses: Vec<String> = places
        .map(|at| envelope.recipients[at].address.to_string())
        .collect();
    addresses.join(",")
}

fn accepted(id: &str) -> Reply {
    Reply::new(250, (2, 0, 0), format!("accepted as {id}"))
}

fn refusal(error: &spool::Error) -> Reply {
    match error {
        spool::Error::Full(_) => Reply::new(452, (4, 3, 1), "spool full"),
        spool::Error::Slow(_) => {
            Reply::new(451, (4, 3, 2), "too much waits for the disk at present")
        }
        spool::Error::TooLarge(_) => Reply::new(552, (5, 3, 4), "message too large"),
        _ => Reply::new(451, (4, 3, 0), "the message could not be stored"),
    }
}

fn not_kept(error: &quarantine::Error) -> Reply {
    match error {
        quarantine::Error::Full(_) => Reply::new(452, (4, 3, 1), "quarantine full"),
        _ => Reply::new(451, (4, 3, 0), "quarantine unavailable"),
    }
}

#[async_trait::async_trait]
impl Handler for Receiver {
    async fn mail(
        &mut self,
        session: &Session,
        _reverse_path: &ReversePath,
        _parameters: &MailParameters,
        _size: Option<u64>,
    ) -> Result<(), Reply> {
        self.session = session.session.clone();
        if !self.trusts(session) {
            return Err(Reply::new(
                550,
                (5, 7, 1),
                "mail is taken from scanners and edges of this site alone",
            ));
        }
        match self.spool.refuses() {
            Some(error) => {
                let reply = refusal(&error);
                count(&self.metrics.refused, &reply.code.to_string());
                Err(reply)
            }
            None => Ok(()),
        }
    }

    async fn rcpt(
        &mut self,
        _session: &Session,
        _envelope: &Envelope,
        recipient: &Recipient,
    ) -> Result<(), Reply> {
        self.resolve(&recipient.address)
            .map(|_| ())
            .inspect_err(|reply| {
                count(&self.metrics.refused, &reply.code.to_string());
            })
    }

    async fn message(
        &mut self,
        session: &Session,
        envelope: &Envelope,
        message: Bytes,
        _presence: &Presence,
    ) -> Vec<Reply> {
        self.take(session, envelope, message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reply: &Reply) -> String {
        let mail::EnhancedStatus(class, subject, detail) = reply.enhanced.unwrap();
        format!("{} {class}.{subject}.{detail}", reply.code)
    }

    #[test]
    fn the_door_says_what_spool_and_quarantine_say() {
        use spool::Error;
        let io = Error::Io {
            path: "/spool".into(),
            source: Arc::new(std::io::Error::other("EIO")),
        };
        let id = mail::MessageId(1);
        for (error, expected) in [
            (Error::Full("bytes".into()), "452 4.3.1"),
            (Error::Slow("2 s a sync".into()), "451 4.3.2"),
            (Error::Poisoned("sync failed".into()), "451 4.3.0"),
            (io, "451 4.3.0"),
            (Error::Closed, "451 4.3.0"),
            (Error::Unknown(id), "451 4.3.0"),
            (Error::Corrupt(id, "/corrupt".into()), "451 4.3.0"),
            (Error::TooLarge("1 byte".into()), "552 5.3.4"),
        ] {
            assert_eq!(said(&refusal(&error)), expected, "{error}");
        }
        for (error, expected) in [
            (quarantine::Error::Full(1), "452 4.3.1"),
            (quarantine::Error::Unavailable("locked".into()), "451 4.3.0"),
            (quarantine::Error::Missing(1), "451 4.3.0"),
        ] {
            assert_eq!(said(&not_kept(&error)), expected, "{error}");
        }
    }
}
