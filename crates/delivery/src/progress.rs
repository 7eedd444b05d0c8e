//! How far the transactions of one batch came: what each reply means for its recipient, for the site, and for the rest of the batch.
//! Pure; the transactions are `work`'s.

use std::sync::Arc;

use mail::{Recipient, Reply, Severity};
use smtp::client::{Answer, Cause, Phase};
use spool::{Batch, Lease};
use tokio::time::Instant;

use crate::attempt::{Attempted, Copy, Result, is_site_trouble, reply_of};
use crate::breaker::Signal;
use crate::outcome;
use crate::pool::{Passed, Stopped};
use crate::rules::{Action, Order, Rule, Rules};
use crate::seat::Key;

/// Transactions of one batch that may break on its own account, or be answered for the whole site, before the rest of it waits
/// for the next attempt. One would let a single recipient that makes a peer hang up keep all behind it waiting for ever.
const BAD_MAX: usize = 3;

/// Why somebody is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    /// Replies that concern recipients, or this message.
    Replies,
    /// The site wants less.
    PushedBack,
    /// The site is slow by order: not before then.
    Paced(Instant),
    /// The site.
    Site,
    /// A fault of this host.
    Fault,
    /// The engine stops.
    Stopping,
}

/// See the module.
pub(crate) struct Progress {
    site: Option<(Arc<Key>, Arc<Rules>)>,
    pub(crate) attempted: Vec<Attempted>,
    pub(crate) signal: Signal,
    /// What a provider's rule wants of the site.
    pub(crate) order: Option<Order>,
    /// Why the site could not be reached, or wants less, in one line.
    pub(crate) trouble: Option<Box<str>>,
    pub(crate) because: Because,
    bad: usize,
}

impl Progress {
    /// Nothing yet.
    pub(crate) fn new(key: &Arc<Key>, rules: &Arc<Rules>) -> Self {
        Self {
            site: Some((key.clone(), rules.clone())),
            attempted: Vec::new(),
            signal: Signal::Nothing,
            order: None,
            trouble: None,
            because: Because::Replies,
            bad: 0,
        }
    }

    /// Nothing needs to be tried: this came of everybody. `policy`: see [`Attempted::policy`].
    pub(crate) fn told(batch: &Batch, result: &Result, policy: bool) -> Self {
        Self {
            site: None,
            attempted: outcome::all(batch, result, policy),
            signal: Signal::Nothing,
            order: None,
            trouble: None,
            because: Because::Site,
            bad: 0,
        }
    }

    /// One transaction has ended with a reply for each recipient. Returns whether the next may begin.
    pub(crate) fn answered(&mut self, lease: &Lease, copy: &Copy, passed: Passed) -> bool {
        let missing = || Answer {
            phase: Phase::End,
            reply: Reply::new(
                451,
                (4, 5, 0),
                "the next hop gave no reply to this recipient",
            ),
        };
        let answers = passed.answers.into_iter();
        let answers = answers.chain(std::iter::repeat_with(missing));
        let recipients = copy.envelope.recipients.iter().zip(&copy.indices);
        let mut wanted = None;
        for ((recipient, &index), Answer { phase, reply }) in recipients.zip(answers) {
            let rule = self.rule(Some(recipient), &reply);
            let action = rule.map(|rule| rule.action);
            if action.is_some_and(Action::is_of_site) {
                wanted = rule.map(|rule| rule.order(lease.head.id));
                self.trouble = Some(reply.to_string().into());
            }
            self.attempted.push(Attempted {
                recipient: recipient.clone(),
                index,
                result: meant(action, reply),
                remote: Some(passed.remote.clone()),
                phase: Some(phase),
                dsn: passed.dsn,
                policy: action.is_some_and(|action| action != Action::Recipient),
            });
        }
        match wanted {
            Some(order) => self.wants(order),
            // Slowing down outlasts what went well before and after it.
            None if self.order.is_none() => {
                self.signal = Signal::Reached;
                true
            }
            None => true,
        }
    }

    /// A rule for the whole site has fitted.
    fn wants(&mut self, order: Order) -> bool {
        self.signal = match order.action {
            Action::Away => Signal::Unreached,
            _ => Signal::PushedBack,
        };
        self.because = match order.action {
            Action::Away => Because::Site,
            _ => Because::PushedBack,
        };
        self.order = Some(order);
        self.bad += 1;
        self.bad < BAD_MAX && self.because != Because::Site
    }

    /// A connection broke under the first of these copies. Returns whether the next may begin; if not, none of the others is tried.
    pub(crate) fn broke(&mut self, lease: &Lease, copies: &[Copy], stopped: &Stopped) -> bool {
        let said = match &stopped.trouble.cause {
            Cause::Refused(said) => Some(said),
            _ => None,
        };
        let recipient = copies
            .first()
            .and_then(|copy| copy.envelope.recipients.first());
        let rule = said.and_then(|said| self.rule(recipient, said));
        let action = rule.map(|rule| rule.action);
        let order = rule.filter(|_| action.is_some_and(Action::is_of_site));
        let order = order.map(|rule| rule.order(lease.head.id));
        let reply = reply_of(&stopped.trouble);
        let result = meant(action, reply.clone());
        self.trouble = Some(reply.to_string().into());
        self.bad += 1;
        let unprotected = self.is_unprotected(&stopped.trouble.cause);
        let of_site = is_site_trouble(stopped.trouble.phase)
            && action != Some(Action::Recipient)
            && !unprotected;
        if of_site {
            self.signal = match (&stopped.trouble.cause, &result) {
                // That a host never takes mail, or that there is none, says nothing about when it will.
                (_, Result::Failed(_)) => Signal::Nothing,
                (Cause::Refused(_), _) if stopped.remote.is_some() => Signal::TurnedAway,
                _ => Signal::Unreached,
            };
            self.because = Because::Site;
        } else if order.is_some() {
            self.signal = Signal::PushedBack;
            self.because = Because::PushedBack;
        } else if self.order.is_none() {
            // It took MAIL: the site is there. Whether it is the message that makes it hang up is not known.
            self.signal = Signal::Reached;
        }
        let policy = order.is_some();
        self.order = order.or(self.order.take());
        let goes_on = !of_site && !unprotected && self.bad < BAD_MAX;
        let untried = match goes_on {
            true => &copies[..1],
            false => copies,
        };
        for copy in untried {
            for (recipient, &index) in copy.envelope.recipients.iter().zip(&copy.indices) {
                self.attempted.push(Attempted {
                    recipient: recipient.clone(),
                    index,
                    result: result.clone(),
                    remote: stopped.remote.clone(),
                    phase: Some(stopped.trouble.phase),
                    dsn: false,
                    policy,
                });
            }
        }
        goes_on
    }

    /// Mail exchangers that do not offer what is asked for this domain's mail: others' mail goes there all the same. Inside, all mail
    /// needs the same.
    fn is_unprotected(&self, cause: &Cause) -> bool {
        let is_site = self
            .site
            .as_ref()
            .is_some_and(|(key, _)| matches!(**key, Key::Site(_)));
        is_site && matches!(cause, Cause::NoTls | Cause::Tls(_))
    }

    fn rule(&self, recipient: Option<&Recipient>, reply: &Reply) -> Option<&Rule> {
        let (key, rules) = self.site.as_ref()?;
        rules.find(key, recipient, reply)
    }
}

/// What a reply means for its recipient, given the rule that fits it: a refusal of the whole site is not his end.
fn meant(action: Option<Action>, reply: Reply) -> Result {
    let of_site = action.is_some_and(Action::is_of_site);
    match of_site && reply.severity() == Severity::Permanent {
        true => Result::Deferred(Reply::new(
            450,
            (4, 7, 1),
            format!("refused for all of this host's mail: {reply}"),
        )),
        false => Result::of(reply),
    }
}

#[cfg(test)]
mod tests {
    use smtp::client::Trouble;

    use super::*;
    use crate::site::Site;
    use crate::testing::{Memory, clock};

    #[tokio::test(start_paused = true)]
    async fn what_a_site_does_not_protect_waits_alone_and_inside_it_shuts_the_gate() {
        let spool = Memory::new(clock());
        let wanted = spool::Wanted {
            destinations: spool::Destinations::Except([].into()),
            lanes: [1; 4],
        };
        let to = "one@a.example";
        let domain = mail::Domain::parse("a.example").unwrap();
        spool.add(spool::Destination::Domain(domain), &[to]);
        let leases = spool::Spool::claim(&*spool, "test", &wanted).await.unwrap();
        let copy = crate::testing::copy(to);
        let site = Key::Site(Site::new(vec![(0, "mx.a.example".into())]));
        let table = [
            (site, Signal::Reached, Because::Replies),
            (Key::Route("".into()), Signal::Unreached, Because::Site),
        ];
        for (key, signal, because) in table {
            let mut progress = Progress::new(&Arc::new(key.clone()), &Arc::default());
            let stopped = Stopped {
                trouble: Trouble {
                    phase: Phase::Helo,
                    cause: Cause::NoTls,
                },
                remote: Some("mx.a.example[192.0.2.1]".into()),
            };
            let goes_on = progress.broke(&leases[0], std::slice::from_ref(&copy), &stopped);
            assert!(!goes_on, "{key}");
            assert_eq!(
                (progress.signal, progress.because),
                (signal, because),
                "{key}"
            );
            let result = &progress.attempted[0].result;
            assert!(
                matches!(result, Result::Deferred(reply) if reply.code == 451),
                "{key}"
            );
        }
    }
}
