//! How a client stands before it says anything: whether it could wait for the greeting, and what was asked about it meanwhile. Asks as
//! late as it can, waits as short as it can.

use std::net::IpAddr;
use std::sync::Arc;

use smtp::server::{Facts, Screening};

use crate::dnsbl;
use crate::inquiry::{Inquiry, Ruling};
use crate::policy::decide::Decision;
use crate::rules::Rules;
use crate::screen::{Screen, escaped};

/// See the module.
pub struct Caller {
    waited: Waited,
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
            inquiry: Inquiry::new(ruling, client),
        }
    }

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
        let decided = self.inquiry.ask_lists().map(dnsbl::Check::decided);
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
        self.waited = if self.inquiry.lists_decided() {
            Waited::Cut
        } else {
            Waited::Passed
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
            Waited::Spoke => "spoke_first",
        }
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
