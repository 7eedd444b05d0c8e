//! How a client stands before it says anything: whether it could wait for the greeting, and what was asked about it meanwhile. Asks as
//! late as it can, waits as short as it can.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smtp::server::{Facts, Screening};

use crate::admission::Refused;
use crate::admission::places::{Place, Places};
use crate::config::Action;
use crate::dnsbl;
use crate::inquiry::{Inquiry, Ruling};
use crate::policy::decide::Decision;
use crate::reason::Reason;
use crate::rules::Rules;
use crate::screen::{Screen, escaped};

/// See the module.
pub struct Caller {
    waited: Waited,
    /// How long it is to wait, and its place among those that do.
    wait: Option<(Duration, Place)>,
    /// What is known of it.
    pub inquiry: Inquiry,
}

/// How the client stood before its greeting.
#[derive(Default)]
enum Waited {
    /// Nobody asked it to wait.
    #[default]
    Exempt,
    /// It has passed lately.
    Known,
    /// It is waiting, or left.
    Waiting,
    /// It waited in silence.
    Passed,
    /// It did so at a backup address, which is not remembered.
    Backup,
    /// The lists spoke while it waited, so it need not wait to the end.
    Cut,
    /// It spoke.
    Spoke,
}

impl Caller {
    /// Just connected.
    pub fn new(ruling: &Arc<Ruling>, client: IpAddr) -> Self {
        Self {
            waited: Waited::default(),
            wait: None,
            inquiry: Inquiry::new(ruling, client),
        }
    }

    /// Finds a place for a client that is to wait, unless too many do; who has behaved before finds one.
    pub fn seat(
        &mut self,
        rules: &Rules,
        client: IpAddr,
        stressed: bool,
        places: &Places,
    ) -> Result<(), Reason> {
        let Some(screen) = &rules.screen else {
            return Ok(());
        };
        let Some(wait) = screen.wait(client, stressed) else {
            if screen.knows(client) || stressed && screen.trusts(client) {
                self.waited = Waited::Known;
            }
            return Ok(());
        };
        let place = match screen.trusts(client) {
            true => places.take_anyway(),
            false => places.take(screen.waiting_max).ok_or(Reason::Screening)?,
        };
        self.wait = Some((wait, place));
        Ok(())
    }

    /// Whether it is to wait.
    pub fn waits(&self) -> bool {
        self.wait.is_some()
    }

    /// Whether the lists' outcome ends the wait: not when they only warn.
    fn lists_count(&self) -> bool {
        self.inquiry.ruling().policy.listed == Action::Enforce
    }

    /// How the client is made to wait, where it has a place for that.
    pub fn screen(&mut self, rules: &Rules) -> Option<Screening> {
        let (wait, place) = self.wait.take()?;
        self.waited = Waited::Waiting;
        let counts = self.lists_count();
        // It waits anyway.
        let lists = self.inquiry.ask_lists().map(dnsbl::Check::decided);
        let decided = lists.filter(|_| counts);
        let over = async move {
            let decided = async {
                match decided {
                    Some(decided) => decided.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = decided => {}
            }
            drop(place);
        };
        Some(Screening {
            teaser: Some(rules.hostname.as_str().into()),
            over: Box::pin(over),
        })
    }

    /// It did not wait. Returns what it said, as a log can hold it.
    pub fn spoke_first(&mut self, bytes: &[u8]) -> String {
        let said = escaped(bytes);
        self.waited = Waited::Spoke;
        self.inquiry.spoke_first(&said);
        said
    }

    /// It was greeted, and speaks now.
    pub fn greeted(&mut self, rules: &Rules, facts: &Facts, ours: bool) {
        self.inquiry.greeted(&facts.helo, ours);
        if !matches!(self.waited, Waited::Waiting) {
            return;
        }
        self.waited = if self.lists_count() && self.inquiry.lists_decided() {
            Waited::Cut
        } else if rules.is_backup(facts.local.ip()) {
            Waited::Backup
        } else {
            Waited::Passed
        };
        if let (Waited::Passed, Some(screen)) = (&self.waited, &rules.screen) {
            screen.passed(facts.client.ip());
        }
    }

    /// It has waited in silence: what it is shown out for all the same.
    pub fn dropped(&self) -> Option<Refused> {
        let policy = &self.inquiry.ruling().policy;
        let listing = self.inquiry.listed()?;
        policy.drops.contains(&Reason::Listed).then(|| Refused {
            reason: Reason::Listed,
            evidence: listing.evidence(),
        })
    }

    /// How it was screened, for metrics.
    pub fn screened(&self) -> &'static str {
        match self.waited {
            Waited::Exempt => "exempt",
            Waited::Known => "known",
            Waited::Waiting => "left",
            Waited::Passed => "passed",
            Waited::Backup => "backup",
            Waited::Cut => "cut",
            Waited::Spoke => "spoke_first",
        }
    }

    /// Whether it waited for its greeting, in this session or before, where that counts.
    pub fn waited_in_silence(&self) -> bool {
        matches!(self.waited, Waited::Known | Waited::Passed)
    }

    /// Whether it had shown itself before this session.
    pub fn is_known(&self) -> bool {
        matches!(self.waited, Waited::Known)
    }

    /// What speaks against it, now that somebody here is to get a message: until then nothing is asked about who need not wait.
    pub async fn decide(&mut self, rules: &Rules, facts: &Facts, forward_path: &str) -> Decision {
        let known = |screen: &Screen| screen.knows(facts.client.ip());
        let good = rules.screen.as_ref().is_some_and(known);
        self.inquiry.known_good(good);
        self.inquiry.decide(forward_path).await
    }
}
