//! Expansion: works off what was accepted for our own addresses. A list becomes its members in one atomic replacement, an alias
//! its forward-paths, a command its answer, a return its count.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::dsn::Action;
use mail::envelope::OriginalRecipient;
use mail::recipient::ListAddress;
use mail::{Address, RcptParameters, Recipient, Reply, Timestamp};
use service::shutdown::Shutdown;
use spool::{
    Class, Destination, Destinations, Ends, Lease, NewBatch, Outcome, Replies, Seen, Settlement,
    Spool, Wanted,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::bounce::{self, Says};
use crate::command::{Commander, Trouble};
use crate::config::Config;
use crate::deliver::notify::{Evidence, Notifier};
use crate::directory::{Directory, Error as DirectoryError, Target};
use crate::facts::{Facts, Template};
use crate::metrics::{Metrics, count};
use crate::posting;
use crate::quarantine::{self, Quarantine};

/// Wait after an expansion that could not be done, by attempts so far.
const PUT_OFF: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// Works off [`Destination::Expand`].
#[derive(Clone)]
pub struct Expander {
    /// The queue.
    pub spool: Arc<dyn Spool>,
    /// Lists and members.
    pub directory: Directory,
    /// Where mail goes that nobody here owns.
    pub quarantine: Quarantine,
    /// Carries out commands.
    pub commander: Commander,
    /// Reports failures.
    pub notifier: Notifier,
    /// `[lists]`, `postmaster`.
    pub config: watch::Receiver<Config>,
    /// Counters.
    pub metrics: Metrics,
}

/// How a forward-path ended here, and what is to be done for it.
struct Done {
    outcome: &'static str,
    batches: Vec<NewBatch>,
}

impl Done {
    fn ended(outcome: &'static str) -> Self {
        Self {
            outcome,
            batches: Vec::new(),
        }
    }
}

/// Why an expansion was not done.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// For good: the sender is told what the rule allows.
    #[error("{0}")]
    Refused(Reply),
    /// Not now.
    #[error("{0}")]
    Later(String),
}

impl From<DirectoryError> for Stop {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Unavailable(_) => Self::Later(error.to_string()),
            // The list or alias was removed after the mail was accepted.
            DirectoryError::Missing(_) => {
                Self::Refused(Reply::new(550, (5, 1, 1), error.to_string()))
            }
            DirectoryError::Taken(_) | DirectoryError::Invalid(_) => {
                Self::Refused(Reply::new(554, (5, 3, 5), error.to_string()))
            }
        }
    }
}

impl From<spool::Error> for Stop {
    fn from(error: spool::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Directory(error) => error.into(),
            Trouble::Spool(error) => error.into(),
        }
    }
}

impl Expander {
    /// Works until shutdown; what is under way then is settled.
    pub async fn run(self, shutdown: Shutdown) {
        let _activity = shutdown.activity("expansion");
        let mut under_way = JoinSet::new();
        let host = self.config.borrow().hostname.clone();
        let mut stopped = String::new();
        let mut seen = Seen::default();
        loop {
            let free = self.config.borrow().lists.expansions_max.max(1);
            let free = free.saturating_sub(under_way.len());
            let wanted = Wanted {
                destinations: Destinations::Only(vec![Destination::Expand]),
                lanes: [free; 4],
            };
            let claimed = match free {
                0 => Ok(Vec::new()),
                _ if shutdown.begun() => Ok(Vec::new()),
                _ => self.spool.claim(&host, &wanted).await,
            };
            let claimed = claimed.unwrap_or_else(|error| {
                let why = error.to_string();
                if stopped != why {
                    warn!(event = "expansion", outcome = "stopped", reason = %why);
                    stopped = why;
                }
                Vec::new()
            });
            for lease in claimed {
                let this = self.clone();
                under_way.spawn(async move { this.work(lease).await });
            }
            if shutdown.begun() {
                while under_way.join_next().await.is_some() {}
                return;
            }
            tokio::select! {
                () = shutdown.wait() => {}
                () = self.spool.ready(&mut seen), if free > 0 => {}
                Some(_) = under_way.join_next() => {}
            }
        }
    }

    /// Works on one lease and settles it.
    async fn work(&self, lease: Lease) {
        let (outcome, ends) = match self.expand(&lease).await {
            Ok((batches, ends)) if batches.is_empty() => (Outcome::Finished, ends),
            Ok((batches, _)) => (Outcome::Replaced(batches), Ends::default()),
            Err(why) => (self.put_off(&lease, &why), Ends::default()),
        };
        let settlement = Settlement {
            batch: lease.batch.id,
            token: lease.token,
            outcome,
            ends,
        };
        if let Err(error) = self.spool.settle(vec![settlement]).await {
            // Nothing is lost: it is expanded again, to the same batches under the same number.
            warn!(event = "expansion", message = %lease.head.id, outcome = "unsettled", reason = %error);
        }
    }

    fn put_off(&self, lease: &Lease, why: &str) -> Outcome {
        count(&self.metrics.put_off, "unavailable");
        warn!(event = "expansion", message = %lease.head.id, outcome = "deferred", reason = why);
        let step = (lease.batch.attempts as usize).min(PUT_OFF.len() - 1);
        Outcome::Deferred {
            until: Timestamp::now().after(PUT_OFF[step]),
            replies: Replies::all(&format!("451 4.3.0 {}", why.replace(['\r', '\n'], " "))),
            note: Bytes::new(),
            recipients: lease.batch.recipients.clone(),
            attempted: true,
            moved: Vec::new(),
        }
    }

    /// What takes the batch's place, and how its recipients ended if nothing does. `Err` puts it off as a whole.
    async fn expand(&self, lease: &Lease) -> Result<(Vec<NewBatch>, Ends), String> {
        let mut ends = Ends::default();
        let message = match self.spool.body(lease.head.id).await {
            Ok(message) => message,
            Err(error @ (spool::Error::Corrupt(..) | spool::Error::Unknown(_))) => {
                // The spool has set it aside with its envelope, if there is anything of it. It is not bounced: an operator may still
                // mend it.
                tracing::error!(event = "expansion", message = %lease.head.id, outcome = "corrupt", reason = %error);
                ends.set_aside = lease.batch.recipients.len() as u64;
                self.metrics
                    .ended
                    .with_label_values(&["corrupt"])
                    .inc_by(ends.set_aside);
                return Ok((Vec::new(), ends));
            }
            Err(error) => return Err(error.to_string()),
        };
        let mut batches = Vec::new();
        for recipient in &lease.batch.recipients {
            match self.expand_one(lease, recipient, &message).await {
                Ok(done) => {
                    count(&self.metrics.ended, done.outcome);
                    ends.delivered += 1;
                    batches.extend(done.batches);
                }
                Err(Stop::Later(why)) => return Err(why),
                Err(Stop::Refused(reply)) => {
                    self.refuse(lease, recipient, reply).await?;
                    ends.bounced += 1;
                }
            }
        }
        for batch in &batches {
            let made = batch.recipients.len() as u64;
            match batch.destination {
                // A path of ours again, that will end here.
                Destination::Expand => self
                    .metrics
                    .accepted
                    .with_label_values(&["inside"])
                    .inc_by(made),
                _ => self.metrics.created.inc_by(made),
            }
        }
        Ok((batches, ends))
    }

    async fn refuse(&self, lease: &Lease, to: &Recipient, reply: Reply) -> Result<(), String> {
        count(&self.metrics.ended, "refused");
        info!(event = "failed", message = %lease.head.id, to = %to.address, remote = "", reply = %reply);
        let failure = Evidence::ours(to.clone(), reply);
        self.notifier
            .report(Action::Failed, &lease.head, &[failure])
            .await
            .map_err(|error| error.to_string())
    }

    async fn expand_one(
        &self,
        lease: &Lease,
        recipient: &Recipient,
        message: &Bytes,
    ) -> Result<Done, Stop> {
        let address = &recipient.address;
        let names = self
            .directory
            .names()
            .ok_or_else(|| Stop::Later("the directory is not loaded".into()))?;
        let target = match names.resolve(address) {
            Some(target) => target,
            // A domain of ours without lists: role addresses exist all the same.
            None if crate::directory::is_role(address) => Target::Role,
            None => return Err(DirectoryError::Missing(address.to_string()).into()),
        };
        match target {
            Target::List { list, what } => match what {
                ListAddress::Post => {
                    let done = self.post(lease, &list, message).await?;
                    // To a list it was sent, and there it is (RFC 3461 5.2.7.3).
                    self.succeeded(Action::Delivered, lease, recipient).await?;
                    Ok(done)
                }
                ListAddress::Owner => self.forward(lease, recipient, message).await,
                ListAddress::Return { number, member } => {
                    self.returned(lease, &list, number, member, message).await
                }
                what => {
                    self.commander.run(lease, &list, &what, message).await?;
                    Ok(Done::ended("answered"))
                }
            },
            Target::Alias(_) | Target::Role => self.forward(lease, recipient, message).await,
        }
    }

    /// Tells the sender who asked for it that his mail is where he sent it.
    async fn succeeded(
        &self,
        action: Action,
        lease: &Lease,
        recipient: &Recipient,
    ) -> Result<(), Stop> {
        let told = Evidence::ours(recipient.clone(), Reply::new(250, (2, 1, 5), "delivered"));
        self.notifier
            .report(action, &lease.head, &[told])
            .await
            .map_err(|error| Stop::Later(error.to_string()))
    }

    async fn post(&self, lease: &Lease, list: &Address, message: &Bytes) -> Result<Done, Stop> {
        let hops_max = self.config.borrow().lists.hops_max;
        let objection = posting::to_list(list, &lease.head.reverse_path, message, hops_max);
        if let Some(objection) = objection {
            return Err(Stop::Refused(objection.reply()));
        }
        let (at, id) = (list.clone(), lease.head.id.to_string());
        let posting = self
            .directory
            .write(move |store| store.posting(&at, &id))
            .await?;
        let template = Template::Post {
            list: list.to_string(),
            number: posting.number,
        };
        info!(event = "expanded", message = %lease.head.id, list = %list, number = posting.number,
            members = posting.members.len());
        Ok(Done {
            outcome: "expanded",
            batches: plan::batches(
                posting.members.into_iter().map(Recipient::from),
                lease.batch.class,
                Timestamp::now(),
                &template,
            ),
        })
    }

    /// An alias, a list's owners, or a role.
    async fn forward(
        &self,
        lease: &Lease,
        recipient: &Recipient,
        message: &Bytes,
    ) -> Result<Done, Stop> {
        let by = recipient.address.clone();
        let (hops_max, postmasters) = {
            let config = self.config.borrow();
            (config.lists.hops_max, config.postmasters())
        };
        let names = self
            .directory
            .names()
            .ok_or_else(|| Stop::Later("the directory is not loaded".into()))?;
        let target = names.resolve(&by);
        if let Some(objection) = posting::to_forward(&by, message, hops_max) {
            if matches!(target, Some(Target::Alias(_))) {
                return Err(Stop::Refused(objection.reply()));
            }
            // Mail that must be taken is not refused for the way that we chose for it.
            let reason = format!("{}: {by} leads back to here", objection.as_str());
            return self.unowned(lease, recipient, message, reason).await;
        }
        let start = match target {
            None => postmasters.clone(), // a role in a domain of ours without lists
            Some(_) => vec![by.clone()],
        };
        let opened = self
            .directory
            .read(move |store| plan::open(store, &names, &postmasters, start))
            .await?;
        if opened.outside.is_empty() && opened.inside.is_empty() {
            let reason =
                format!("unowned: {by} leads to nobody; set `postmaster` and release this");
            return self.unowned(lease, recipient, message, reason).await;
        }
        let mut parameters = forwarded(recipient);
        if opened.outside.len() + opened.inside.len() > 1 {
            // One success is told, not one for each address that the sender does not know of (RFC 3461 5.2.7.2).
            self.succeeded(Action::Expanded, lease, recipient).await?;
            if let Some(notify) = &mut parameters.notify {
                notify.success = false;
            }
        }
        info!(event = "forwarded", message = %lease.head.id, by = %by,
            to = opened.outside.len() + opened.inside.len());
        let mut batches = plan::batches(
            opened.outside.into_iter().map(|address| Recipient {
                address,
                parameters: parameters.clone(),
            }),
            lease.batch.class,
            Timestamp::now(),
            &Template::Forward { by: by.to_string() },
        );
        batches.extend(opened.inside.into_iter().map(|address| NewBatch {
            destination: Destination::Expand,
            class: lease.batch.class,
            due: Timestamp::now(),
            recipients: vec![Recipient {
                address,
                parameters: parameters.clone(),
            }],
            template: Bytes::new(),
            replies: Default::default(),
        }));
        Ok(Done {
            outcome: "forwarded",
            batches,
        })
    }

    /// Mail that must be taken, to an address behind which nobody stands: kept where the operator looks.
    async fn unowned(
        &self,
        lease: &Lease,
        recipient: &Recipient,
        message: &Bytes,
        reason: String,
    ) -> Result<Done, Stop> {
        warn!(event = "quarantined", message = %lease.head.id, ident = "", reason = %reason);
        let item = quarantine::Item {
            arrival: lease.head.arrival,
            reverse_path: lease.head.reverse_path.clone(),
            parameters: lease.head.parameters.clone(),
            recipients: vec![recipient.clone()],
            facts: lease.head.facts.clone(),
            reason,
            body: message.clone(),
        };
        self.quarantine
            .keep(item, format!("unowned.{:032x}", lease.batch.id.0))
            .await
            .map_err(|error| Stop::Later(error.to_string()))?;
        Ok(Done::ended("quarantined"))
    }

    /// A bounce: counted, never passed on, never answered.
    async fn returned(
        &self,
        lease: &Lease,
        list: &Address,
        number: u64,
        member: Option<Address>,
        message: &Bytes,
    ) -> Result<Done, Stop> {
        let says = bounce::read(&lease.head.reverse_path, message);
        let outcome = match (says, member.clone()) {
            (Says::Failed, Some(member)) => {
                let at = list.clone();
                let counted = self
                    .directory
                    .write(move |store| {
                        store.count_bounce(&at, &member, number, "returned by mail")
                    })
                    .await?;
                if counted { "counted" } else { "no-member" }
            }
            (Says::Failed, None) => "no-member",
            (says, _) => says.as_str(),
        };
        count(&self.metrics.bounces, outcome);
        let member = member.map_or_else(String::new, |member| member.to_string());
        let facts = Facts::read(&lease.head.facts);
        info!(event = "bounce", message = %lease.head.id, ident = facts.ident.as_deref().unwrap_or(""),
            list = %list, number, member = %member, outcome);
        Ok(Done::ended("returned"))
    }
}

/// The parameters of a forward-path that takes another's place: the sender is told of the address that he knows (RFC 3461 5.2.7.1).
fn forwarded(recipient: &Recipient) -> RcptParameters {
    let by = &recipient.address;
    let orcpt = recipient.parameters.orcpt.clone().or_else(|| {
        by.local().is_ascii().then(|| OriginalRecipient {
            kind: "rfc822".into(),
            address: by.to_string().into(),
        })
    });
    RcptParameters {
        orcpt,
        notify: recipient.parameters.notify,
    }
}

/// The batch in which a forward-path of ours is accepted.
pub fn arrival(recipient: Recipient, class: Class, now: Timestamp) -> NewBatch {
    NewBatch {
        destination: Destination::Expand,
        class,
        due: now,
        recipients: vec![recipient],
        template: Bytes::new(),
        replies: Default::default(),
    }
}
