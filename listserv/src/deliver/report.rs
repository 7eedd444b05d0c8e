//! Gathered reports on their way: how they are kept, and the loop that sends those that are due, each once.

use mail::dsn::{self, Action, Report, Status};
use mail::envelope::{OriginalRecipient, Ret};
use mail::reply::EnhancedStatus;
use mail::{Address, MailParameters, Recipient, Reply, Timestamp};
use serde::{Deserialize, Serialize};
use service::shutdown::Shutdown;
use spool::Head;
use tracing::{error, info, warn};

use super::notify::{AGAIN, Evidence, Notifier, accept_own};
use crate::directory::{Due, Gathered};
use crate::metrics::count;

/// What is common to the lines of a report.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Common {
    action: String,
    message: String,
    to: String,
    arrival: u64,
    retry_until: Option<u64>,
    smtputf8: bool,
    whole: bool,
    envid: Option<String>,
}

/// What is said of one recipient.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    address: String,
    orcpt: Option<(String, String)>,
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    text: Vec<String>,
    remote: Option<String>,
    phase: Option<String>,
    at: u64,
}

/// What is kept of a report until it is due.
pub(super) fn gathered(
    action: Action,
    head: &Head,
    to: &Address,
    retry_until: Option<Timestamp>,
    message: &[u8],
    told: &[&Evidence],
) -> Gathered {
    let (returned, ret) = dsn::needed(action, &head.parameters, message);
    let common = Common {
        action: action.as_str().into(),
        message: head.id.to_string(),
        to: to.to_string(),
        arrival: head.arrival.0,
        retry_until: retry_until.map(|until| until.0),
        smtputf8: head.parameters.smtputf8,
        whole: ret == Ret::Full,
        envid: head.parameters.envid.as_deref().map(str::to_owned),
    };
    Gathered {
        id: format!("{}.{}", head.id, action.as_str()),
        head: json(&common),
        returned: returned.to_vec(),
        lines: told
            .iter()
            .map(|one| (one.recipient.address.key(), json(&line(one))))
            .collect(),
    }
}

fn line(told: &Evidence) -> Line {
    let orcpt = told.recipient.parameters.orcpt.as_ref();
    Line {
        address: told.recipient.address.to_string(),
        orcpt: orcpt.map(|orcpt| (orcpt.kind.to_string(), orcpt.address.to_string())),
        code: told.reply.code,
        enhanced: told.reply.enhanced.map(|e| (e.0, e.1, e.2)),
        text: told.reply.lines.clone(),
        remote: told.remote.as_deref().map(str::to_owned),
        phase: told.phase.map(str::to_owned),
        at: told.at.0,
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("these have no keys that JSON cannot have")
}

impl Notifier {
    /// Sends what is due until shutdown. What is left then is sent after the next start.
    pub async fn run(self, shutdown: Shutdown) {
        let _activity = shutdown.activity("reports");
        while !shutdown.begun() {
            let next = match self.send_due(&shutdown).await {
                Ok(next) => next,
                Err(why) => {
                    warn!(event = "dsn", outcome = "put off", reason = %why);
                    Some(Timestamp::now().after(AGAIN))
                }
            };
            tokio::select! {
                () = shutdown.wait() => {}
                () = self.begun.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// Sends all that is due; returns when the next is.
    async fn send_due(&self, shutdown: &Shutdown) -> Result<Option<Timestamp>, String> {
        loop {
            let taking = self
                .directory
                .write(|store| store.due_reports(Timestamp::now()));
            let due = taking.await.map_err(|error| error.to_string())?;
            if due.is_empty() || shutdown.begun() {
                break;
            }
            for one in due {
                self.send(&one).await.map_err(|error| error.to_string())?;
                let merge = self.config.borrow().dsn.merge;
                let again = Timestamp::now().after(merge);
                let ending = self
                    .directory
                    .write(move |store| store.end_report(&one, again));
                ending.await.map_err(|error| error.to_string())?;
            }
        }
        let next = self.directory.read(|store| store.next_report()).await;
        next.map_err(|error| error.to_string())
    }

    async fn send(&self, due: &Due) -> Result<(), spool::Error> {
        let Some((common, to, action)) = read(due) else {
            // Nobody can mend it, and it must not hold up the others.
            error!(event = "dsn", report = %due.id, outcome = "unreadable");
            count(&self.metrics.dsn, "unreadable");
            return Ok(());
        };
        let ident = format!("dsn.{}.{}", due.id, due.last);
        let text = self.write(due, &common, &to, action, &ident);
        let (spool, directory) = (&*self.spool, &self.directory);
        let dsn = accept_own(spool, directory, &self.metrics, &to, text, &ident).await?;
        let outcome = match action {
            Action::Failed => "sent",
            action => action.as_str(),
        };
        count(&self.metrics.dsn, outcome);
        info!(event = "dsn", message = %common.message, %dsn, %to, outcome, recipients = due.lines.len());
        Ok(())
    }

    fn write(
        &self,
        due: &Due,
        common: &Common,
        to: &Address,
        action: Action,
        ident: &str,
    ) -> Vec<u8> {
        let lines = due.lines.iter();
        let lines: Vec<Line> = lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let told: Vec<(Recipient, Reply)> = lines.iter().filter_map(told).collect();
        let statuses = told
            .iter()
            .zip(&lines)
            .map(|((recipient, reply), line)| Status {
                recipient,
                reply,
                remote: line.remote.as_deref(),
                phase: line.phase.as_deref(),
                at: Some(Timestamp(line.at)),
            });
        let statuses: Vec<Status<'_>> = statuses.collect();
        Report {
            action,
            reporting_host: &self.hostname,
            to,
            parameters: &MailParameters {
                smtputf8: common.smtputf8,
                ret: Some(if common.whole {
                    Ret::Full
                } else {
                    Ret::Headers
                }),
                envid: common.envid.as_deref().map(Into::into),
                ..MailParameters::default()
            },
            arrival: Timestamp(common.arrival),
            retry_until: common.retry_until.map(Timestamp),
            statuses: &statuses,
            message: &due.returned,
            now: Timestamp::now(),
            unique: ident,
        }
        .write()
    }
}

fn read(due: &Due) -> Option<(Common, Address, Action)> {
    let common: Common = serde_json::from_str(&due.head).ok()?;
    let to = Address::parse(&common.to).ok()?;
    let all = [
        Action::Failed,
        Action::Delayed,
        Action::Relayed,
        Action::Delivered,
        Action::Expanded,
    ];
    let action = all
        .into_iter()
        .find(|action| action.as_str() == common.action)?;
    Some((common, to, action))
}

fn told(line: &Line) -> Option<(Recipient, Reply)> {
    let mut recipient = Recipient::from(Address::parse(&line.address).ok()?);
    let orcpt = line.orcpt.as_ref();
    recipient.parameters.orcpt = orcpt.map(|(kind, address)| OriginalRecipient {
        kind: kind.as_str().into(),
        address: address.as_str().into(),
    });
    let reply = Reply {
        code: line.code,
        enhanced: line.enhanced.map(|(a, b, c)| EnhancedStatus(a, b, c)),
        lines: line.text.clone(),
    };
    Some((recipient, reply))
}

async fn until(next: Option<Timestamp>) {
    match next {
        Some(next) => tokio::time::sleep(next.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}
