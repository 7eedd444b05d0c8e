//! What a session knows of its client beside what it says: whether it could wait for the greeting, and which lists have it. Asks as
//! late as it can, waits as short as it can.

use std::net::IpAddr;

use smtp::server::{Facts, Screening};

use crate::dnsbl::{Check, Listing, Outcome};
use crate::network;
use crate::reason::Reason;
use crate::receive::Rules;
use crate::screen::{Screen, escaped};

/// See the module.
#[derive(Default)]
pub struct Caller {
    waited: Waited,
    listed: Listed,
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
    /// The lists spoke while it waited, so it need not wait to the end.
    Cut,
    /// It spoke, beginning with this.
    Spoke(String),
}

/// How far asking the lists has come.
#[derive(Default)]
enum Listed {
    #[default]
    NotAsked,
    Asking(Check),
    Known(Listing),
}

/// What speaks against a client.
pub struct Found {
    /// Why.
    pub reason: Reason,
    /// By what, for the client and the log.
    pub evidence: String,
    /// Whether it is refused for it.
    pub enforced: bool,
}

impl Caller {
    /// How the client is made to wait; `exempt` ones are not.
    pub fn screen(
        &mut self,
        rules: &Rules,
        facts: &Facts,
        stressed: bool,
        exempt: bool,
    ) -> Option<Screening> {
        let client = facts.client.ip();
        let screen = rules.screen.as_ref().filter(|_| !exempt)?;
        let Some(wait) = screen.wait(client, stressed) else {
            if screen.knows(client) {
                self.waited = Waited::Known;
            }
            return None;
        };
        self.waited = Waited::Waiting;
        // It waits anyway.
        self.ask_lists(rules, client);
        let decided = match &self.listed {
            Listed::Asking(check) => Some(check.decided()),
            _ => None,
        };
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
        };
        Some(Screening {
            teaser: Some(rules.hostname.as_str().into()),
            over: Box::pin(over),
        })
    }

    /// It did not wait. Returns what it said, as a log can hold it.
    pub fn spoke_first(&mut self, bytes: &[u8]) -> String {
        let said = escaped(bytes);
        self.waited = Waited::Spoke(said.clone());
        said
    }

    /// It was greeted, and speaks now.
    pub fn greeted(&mut self, rules: &Rules, facts: &Facts) {
        if !matches!(self.waited, Waited::Waiting) {
            return;
        }
        let outcome = match &self.listed {
            Listed::Asking(check) => check.outcome(),
            _ => None,
        };
        self.waited = match outcome {
            Some(Outcome::Listed | Outcome::Allowed) => Waited::Cut,
            _ => Waited::Passed,
        };
        if let (Waited::Passed, Some(screen)) = (&self.waited, &rules.screen) {
            screen.passed(facts.client.ip());
        }
    }

    /// How it was screened, for metrics.
    pub fn screened(&self) -> &'static str {
        match self.waited {
            Waited::Exempt => "exempt",
            Waited::Known => "known",
            Waited::Waiting => "left",
            Waited::Passed => "passed",
            Waited::Cut => "cut",
            Waited::Spoke(_) => "spoke_first",
        }
    }

    /// What speaks against it, now that somebody here is to get a message: until then nothing is asked about who need not wait.
    pub async fn found(&mut self, rules: &Rules, facts: &Facts) -> Option<Found> {
        if let Waited::Spoke(said) = &self.waited {
            return Some(Found {
                reason: Reason::SpokeFirst,
                evidence: format!("it began with \"{said}\""),
                enforced: rules.screen_enforced,
            });
        }
        self.ask_lists(rules, facts.client.ip());
        let listing = self.listing().await?;
        (listing.outcome == Outcome::Listed).then(|| Found {
            reason: Reason::Listed,
            evidence: listing.evidence(),
            enforced: rules.dnsbl_enforced,
        })
    }

    /// Once a session.
    fn ask_lists(&mut self, rules: &Rules, client: IpAddr) {
        if let (Listed::NotAsked, Some(lists)) = (&self.listed, &rules.dnsbl)
            && lists.concerns(client)
            && !network::contains(&rules.own_networks, client)
        {
            let known = |screen: &Screen| screen.knows(client);
            let good = rules.screen.as_ref().is_some_and(known);
            self.listed = Listed::Asking(lists.start(client, good));
        }
    }

    /// What the lists say, when they were asked; waits for them.
    async fn listing(&mut self) -> Option<&Listing> {
        if let Listed::Asking(check) = &mut self.listed {
            self.listed = Listed::Known(check.result().await);
        }
        match &self.listed {
            Listed::Known(listing) => Some(listing),
            _ => None,
        }
    }
}
