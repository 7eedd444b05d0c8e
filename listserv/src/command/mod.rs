//! Commands by mail, in ezmlm's manner: subscribe and unsubscribe with a confirmation that only the mailbox's owner can give,
//! help, and `-request@` for those who write their command in the subject.

mod answer;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use mail::recipient::{self, Confirmation, ListAddress, Request};
use mail::{Address, Domain, ReversePath, Timestamp};
use spool::{Lease, Spool};
use tokio::sync::watch;
use tracing::info;

use crate::config::Config;
use crate::deliver::notify::accept_own;
use crate::directory::{Directory, Error as DirectoryError, Joined, Target};
use crate::metrics::{Metrics, count};
use crate::posting::auto_submitted;
use crate::secrets::Secrets;
use answer::{Answer, Subject};
use request::Verb;

/// Why a command was not carried out now; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] spool::Error),
}

/// Why nobody is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The reverse-path is null.
    NullSender,
    /// A program wrote it (RFC 3834 2).
    Automatic,
    /// The answer would go to an address of our own.
    Own,
    /// The address had its answers of the day.
    RateLimited,
    /// The cookie is not ours.
    Forged,
}

impl Ignored {
    /// The word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NullSender => "null-sender",
            Self::Automatic => "automatic",
            Self::Own => "own-address",
            Self::RateLimited => "rate-limited",
            Self::Forged => "forged",
        }
    }
}

/// Carries out commands.
#[derive(Clone)]
pub struct Commander {
    /// Where answers are accepted.
    pub spool: Arc<dyn Spool>,
    /// Members.
    pub directory: Directory,
    /// `[lists]`.
    pub config: watch::Receiver<Config>,
    /// Our name in Message-IDs.
    pub hostname: Domain,
    /// Cookies.
    pub secrets: watch::Receiver<Secrets>,
    /// Counters.
    pub metrics: Metrics,
}

impl Commander {
    /// Carries out what the mail of `lease` to `what` below `list` asks for. Repeated, it does the same once.
    pub async fn run(
        &self,
        lease: &Lease,
        list: &Address,
        what: &ListAddress,
        message: &Bytes,
    ) -> Result<(), Trouble> {
        let sender = match asker(&lease.head.reverse_path, message) {
            Ok(sender) => sender.clone(),
            Err(ignored) => {
                self.ignore(lease, list, ignored);
                return Ok(());
            }
        };
        let answer = match what {
            ListAddress::Subscribe(target) => {
                let target = target.as_ref().unwrap_or(&sender);
                self.asked(list, Request::Subscribe, target).await?
            }
            ListAddress::Unsubscribe(target) => {
                let target = target.as_ref().unwrap_or(&sender);
                self.asked(list, Request::Unsubscribe, target).await?
            }
            ListAddress::ConfirmSubscribe(confirmation) => {
                self.confirmed(list, Request::Subscribe, confirmation)
                    .await?
            }
            ListAddress::ConfirmUnsubscribe(confirmation) => {
                self.confirmed(list, Request::Unsubscribe, confirmation)
                    .await?
            }
            ListAddress::Request => self.requested(list, &sender, message).await?,
            ListAddress::Help
            | ListAddress::Post
            | ListAddress::Owner
            | ListAddress::Return { .. } => Ok(Answer::new(&sender, Subject::Help)),
        };
        match answer {
            Ok(answer) => self.send(lease, list, answer, message).await,
            Err(ignored) => {
                self.ignore(lease, list, ignored);
                Ok(())
            }
        }
    }

    async fn requested(
        &self,
        list: &Address,
        sender: &Address,
        message: &Bytes,
    ) -> Result<Result<Answer, Ignored>, Trouble> {
        let asked = request::read(message);
        let target = asked.address.as_ref().unwrap_or(sender);
        match asked.verb {
            Verb::Subscribe => self.asked(list, Request::Subscribe, target).await,
            Verb::Unsubscribe => self.asked(list, Request::Unsubscribe, target).await,
            Verb::Help => Ok(Ok(Answer::new(sender, Subject::Help))),
        }
    }

    /// A request: answered to the mailbox it is about, which alone can confirm it.
    async fn asked(
        &self,
        list: &Address,
        request: Request,
        target: &Address,
    ) -> Result<Result<Answer, Ignored>, Trouble> {
        let (at, who) = (list.clone(), target.clone());
        let member = self
            .directory
            .read(move |store| store.member(&at, &who))
            .await?;
        Ok(Ok(match (request, member) {
            (Request::Subscribe, Some(member)) => Answer::new(target, Subject::Already(member)),
            (Request::Unsubscribe, None) => Answer::new(target, Subject::NotSubscribed),
            (Request::Subscribe, None) => self.confirmation(list, request, target),
            // The mailbox reads under which spelling it is subscribed.
            (Request::Unsubscribe, Some(member)) => self.confirmation(list, request, &member),
        }))
    }

    fn confirmation(&self, list: &Address, request: Request, target: &Address) -> Answer {
        let now = Timestamp::now().seconds();
        let keys = self.secrets.borrow().cookie.clone();
        let local = recipient::confirmation(list, request, target, now, &keys);
        match Address::new(&local, list.domain().clone()) {
            Ok(reply_to) => Answer::new(target, Subject::Confirm(request, reply_to)),
            // An address so long that no confirmation of it fits into an address.
            Err(_) => Answer::new(target, Subject::TooLong),
        }
    }

    async fn confirmed(
        &self,
        list: &Address,
        request: Request,
        confirmation: &Confirmation,
    ) -> Result<Result<Answer, Ignored>, Trouble> {
        let valid = self.config.borrow().lists.confirm_valid.as_secs();
        let now = Timestamp::now().seconds();
        let keys = self.secrets.borrow().cookie.clone();
        let check = |valid| recipient::verify(list, request, confirmation, now, valid, &keys);
        if !check(u64::MAX) {
            return Ok(Err(Ignored::Forged));
        }
        let member = confirmation.member.clone();
        if !check(valid) {
            return self.asked(list, request, &member).await; // too old: a fresh one
        }
        let (at, who) = (list.clone(), member.clone());
        let subject = match request {
            Request::Subscribe => {
                let found = self
                    .directory
                    .write(move |store| store.add_members(&at, &[who]))
                    .await?;
                match found.first() {
                    Some(Joined::Already) => Subject::Already(member.clone()),
                    _ => Subject::Welcome,
                }
            }
            Request::Unsubscribe => {
                let found = self
                    .directory
                    .write(move |store| store.remove_members(&at, &[who]))
                    .await?;
                match found.first() {
                    Some(true) => Subject::Goodbye,
                    _ => Subject::NotSubscribed,
                }
            }
        };
        info!(event = "member", list = %list, member = %member, by = "mail", outcome = subject.as_str());
        Ok(Ok(Answer::new(&member, subject)))
    }

    async fn send(
        &self,
        lease: &Lease,
        list: &Address,
        answer: Answer,
        message: &Bytes,
    ) -> Result<(), Trouble> {
        let own = self.directory.names().is_some_and(|names| {
            matches!(
                names.resolve(&answer.to),
                Some(Target::List { .. } | Target::Role)
            )
        });
        if own {
            self.ignore(lease, list, Ignored::Own);
            return Ok(());
        }
        let (key, per_day) = (answer.to.key(), self.config.borrow().lists.answers_per_day);
        let allowed = self
            .directory
            .write(move |store| store.allow("answer", &key, per_day))
            .await?;
        if !allowed {
            self.ignore(lease, list, Ignored::RateLimited);
            return Ok(());
        }
        let ident = format!("answer.{:032x}", lease.batch.id.0);
        let text = answer.write(list, &self.hostname, &ident, message);
        let id = accept_own(
            &*self.spool,
            &self.directory,
            &self.metrics,
            &answer.to,
            text,
            &ident,
        )
        .await?;
        count(&self.metrics.answers, answer.subject.as_str());
        info!(event = "answer", message = %lease.head.id, answer = %id, list = %list, to = %answer.to,
            outcome = answer.subject.as_str());
        Ok(())
    }

    fn ignore(&self, lease: &Lease, list: &Address, ignored: Ignored) {
        count(&self.metrics.answers, ignored.as_str());
        info!(event = "answer", message = %lease.head.id, list = %list, to = %lease.head.reverse_path,
            outcome = "none", reason = ignored.as_str());
    }
}

/// Who asks, when it is a person who may be answered. An auto-responder's answer to our confirmation must not confirm it.
fn asker<'a>(reverse_path: &'a ReversePath, message: &[u8]) -> Result<&'a Address, Ignored> {
    let sender = reverse_path.address().ok_or(Ignored::NullSender)?;
    let bulk = mail::header::fields(message).any(|field| {
        let word = field.text().to_ascii_lowercase();
        (field.is("Precedence") && matches!(word.as_str(), "bulk" | "list" | "junk"))
            || field.is("List-Id")
            || field.is("X-Autoreply")
    });
    if bulk
        || auto_submitted(message).is_some()
        || sender.local().eq_ignore_ascii_case("mailer-daemon")
    {
        return Err(Ignored::Automatic);
    }
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_people_are_answered() {
        let joe = "joe@one.example";
        let table = [
            (joe, "", Ok(())),
            (joe, "Auto-Submitted: no\r\n", Ok(())),
            (joe, "Precedence: first-class\r\n", Ok(())),
            ("", "", Err(Ignored::NullSender)),
            (
                joe,
                "Auto-Submitted: auto-replied\r\n",
                Err(Ignored::Automatic),
            ),
            (
                joe,
                "Auto-Submitted: auto-generated\r\n",
                Err(Ignored::Automatic),
            ),
            (joe, "Precedence: Bulk\r\n", Err(Ignored::Automatic)),
            (joe, "Precedence: list\r\n", Err(Ignored::Automatic)),
            (joe, "List-Id: <x.y>\r\n", Err(Ignored::Automatic)),
            ("MAILER-DAEMON@one.example", "", Err(Ignored::Automatic)),
        ];
        for (from, header, expected) in table {
            let from = ReversePath::parse(from).unwrap();
            let message = format!("{header}Subject: s\r\n\r\nx");
            let got = asker(&from, message.as_bytes()).map(|_| ());
            assert_eq!(got, expected, "{from} {header}");
        }
    }
}
