//! The decision on a recipient that exists, out of what is known of its client and sender. Pure: it says what it still needs to
//! know, cheap things first, and nothing more once a rule has refused.

use std::net::IpAddr;
use std::sync::Arc;

use mail::trace::Spf;

use super::evidence::{Asked, Evidence, Helo, Question};
use super::tables::{Says, Tables};
use crate::config::{self, Action};
use crate::dnsbl::Outcome;
use crate::names::{ClientName, MailDomain};
use crate::reason::Reason;

/// Which rules are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `[policy]`.
    pub rules: config::Policy,
    /// Those of `policy.tables`.
    pub tables: Arc<Tables>,
    /// `screen.action`.
    pub spoke_first: Action,
    /// `dnsbl.action`.
    pub listed: Action,
    /// Those of these whose hits end the session at once.
    pub drops: Vec<Reason>,
    /// `greylist.action`.
    pub greylist: Action,
    /// `greylist.spf_pass`: whether who passes SPF is made to wait as well.
    pub greylist_spf_pass: bool,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub reason: Reason,
    /// What it found, for the client and the log.
    pub evidence: String,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The rule that refuses; none: the recipient is accepted.
    pub refusal: Option<Finding>,
    /// The rule that has the message held, if it is taken.
    pub hold: Option<Box<str>>,
    /// The rule that has it end here, told 250.
    pub discard: Option<Box<str>>,
    /// Rules that would refuse if they were enforced.
    pub warned: Vec<Finding>,
    /// Named rules that hit, and what each does.
    pub named: Vec<(Box<str>, &'static str)>,
}

/// How far a decision has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This has to be known first; in any order, and at once.
    Ask(Vec<Question>),
    /// It is made.
    Done(Decision),
}

/// What one rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Nothing against it.
    Clear,
    /// This has to be known first.
    Needs(Question),
    /// This is against it.
    Hit(String),
}

/// The rules, cheap ones first. Who is unknown here, or nobody of ours, was told so before.
pub const RULES: [Reason; 16] = [
    Reason::SpokeFirst,
    Reason::Table,
    Reason::HeloSyntax,
    Reason::HeloLiteral,
    Reason::HeloOurs,
    Reason::HeloName,
    Reason::SenderName,
    Reason::Listed,
    Reason::ClientName,
    Reason::ClientUnconfirmed,
    Reason::HeloUnknown,
    Reason::SenderNullMx,
    Reason::SenderUnknown,
    Reason::DomainListed,
    Reason::SpfFail,
    Reason::Greylisted,
];

/// One step further.
pub fn step(policy: &Policy, evidence: &Evidence) -> Step {
    let mut decision = Decision::default();
    let mut questions = Vec::new();
    for reason in RULES {
        let action = policy.action(reason);
        if action == Action::Off {
            continue;
        }
        if reason == Reason::Table {
            match tables(policy, evidence, &mut decision) {
                Found::Decided => return Step::Done(decision),
                Found::Needs(question, true) => return Step::Ask(vec![question]),
                Found::Needs(question, false) => questions.push(question),
                Found::Nothing => {}
            }
            continue;
        }
        match judge(policy, reason, evidence) {
            Judged::Clear => {}
            Judged::Needs(question) if questions.contains(&question) => {}
            // To ask it is to remember that the client was here: only for who is refused for nothing else.
            Judged::Needs(Question::Greylist) if !questions.is_empty() => {}
            Judged::Needs(question) => questions.push(question),
            Judged::Hit(text) => {
                let finding = Finding {
                    reason,
                    evidence: text,
                };
                if action == Action::Enforce {
                    decision.refusal = Some(finding);
                    return Step::Done(decision);
                }
                decision.warned.push(finding);
            }
        }
    }
    if questions.is_empty() {
        return Step::Done(decision);
    }
    Step::Ask(questions)
}

/// What all tables say together.
enum Found {
    /// One of them permits or refuses.
    Decided,
    /// This has to be known first; before anything else where the table, or one below it, may permit what a rule would refuse.
    Needs(Question, bool),
    /// Neither.
    Nothing,
}

fn tables(policy: &Policy, evidence: &Evidence, decision: &mut Decision) -> Found {
    if evidence.exempt {
        return Found::Nothing;
    }
    for (at, table) in policy.tables.active().enumerate() {
        let enforced = table.action == Action::Enforce;
        let mut named = |what| decision.named.push((table.name.clone(), what));
        match table.says(evidence) {
            Says::Nothing => {}
            Says::Needs(question) => {
                let below = policy.tables.active().skip(at);
                let may_permit = below.into_iter().any(|table| table.may_permit());
                return Found::Needs(question, may_permit);
            }
            Says::Permits(_) if !enforced => {}
            Says::Permits(_) => {
                named("permitted");
                return Found::Decided;
            }
            Says::Holds(_) if enforced => {
                named("held");
                decision.hold.get_or_insert(table.name.clone());
            }
            Says::Refuses(evidence) if enforced => {
                named("refused");
                decision.refusal = Some(Finding {
                    reason: Reason::Table,
                    evidence,
                });
                return Found::Decided;
            }
            Says::Holds(evidence) | Says::Refuses(evidence) => {
                named("warned");
                decision.warned.push(Finding {
                    reason: Reason::Table,
                    evidence,
                });
            }
        }
    }
    Found::Nothing
}

/// What one rule says; tables speak for themselves.
pub fn judge(policy: &Policy, reason: Reason, evidence: &Evidence) -> Judged {
    let own_skip = matches!(reason, Reason::SpokeFirst | Reason::Listed);
    if evidence.exempt && !own_skip {
        return Judged::Clear;
    }
    match reason {
        Reason::SpokeFirst => match &evidence.spoke_first {
            Some(said) => Judged::Hit(format!("it began with \"{said}\"")),
            None => Judged::Clear,
        },
        Reason::HeloSyntax | Reason::HeloLiteral | Reason::HeloOurs | Reason::HeloName => {
            hit(helo(reason, evidence))
        }
        Reason::HeloUnknown => helo_unknown(evidence),
        Reason::Listed => known(&evidence.listing, Question::Listing, |listing| {
            (listing.outcome == Outcome::Listed).then(|| listing.evidence())
        }),
        Reason::ClientName | Reason::ClientUnconfirmed => client_name(reason, evidence),
        Reason::SenderName | Reason::SenderUnknown | Reason::SenderNullMx => {
            sender(reason, evidence)
        }
        Reason::DomainListed => domain_listed(policy, evidence),
        Reason::SpfFail => known(&evidence.spf, Question::Spf, |result| {
            (*result == Spf::Fail).then(|| {
                format!(
                    "{} does not let {} send",
                    sender_of(evidence),
                    evidence.client
                )
            })
        }),
        Reason::Greylisted => greylisted(policy, evidence),
        _ => Judged::Clear,
    }
}

fn hit(found: Option<String>) -> Judged {
    found.map_or(Judged::Clear, Judged::Hit)
}

fn known<T>(
    asked: &Asked<T>,
    question: Question,
    against: impl Fn(&T) -> Option<String>,
) -> Judged {
    match asked {
        Asked::No => Judged::Needs(question),
        Asked::Silent => Judged::Clear,
        Asked::Known(answer) => hit(against(answer)),
    }
}

fn helo(reason: Reason, evidence: &Evidence) -> Option<String> {
    let said = shown(&evidence.said);
    match (reason, &evidence.helo) {
        (Reason::HeloSyntax, Helo::Nonsense) => Some(format!("\"{said}\" is no host name")),
        (Reason::HeloSyntax, Helo::Number) => {
            Some(format!("{said} is a bare address, not a host name"))
        }
        (Reason::HeloLiteral, Helo::Literal(address)) => {
            let (named, real) = (address.to_canonical(), evidence.client.to_canonical());
            (named != real && !same_host(named, real)).then(|| format!("{said} is not {real}"))
        }
        (Reason::HeloOurs, _) => evidence
            .helo_is_ours
            .then(|| format!("{said} is this host")),
        (Reason::HeloName, Helo::Host(name)) => {
            (!name.as_str().contains('.')).then(|| format!("{said} is not a full host name"))
        }
        _ => None,
    }
}

/// A host with several IPv6 addresses in its network often names another one of them.
fn same_host(named: IpAddr, real: IpAddr) -> bool {
    named.is_ipv6() && crate::network::client_key(named) == crate::network::client_key(real)
}

fn helo_unknown(evidence: &Evidence) -> Judged {
    match &evidence.helo {
        Helo::Host(name) if !name.is_literal() => {
            known(&evidence.helo_host, Question::HeloHost, |exists| {
                (!exists).then(|| format!("{name} does not exist"))
            })
        }
        _ => Judged::Clear,
    }
}

fn client_name(reason: Reason, evidence: &Evidence) -> Judged {
    let client = evidence.client;
    known(&evidence.client_name, Question::ClientName, |name| {
        match (reason, name) {
            (Reason::ClientName, ClientName::Missing) => Some(format!("{client} has no name")),
            (Reason::ClientUnconfirmed, ClientName::Unconfirmed(name)) => {
                Some(format!("{name} does not have the address {client}"))
            }
            _ => None,
        }
    })
}

fn sender(reason: Reason, evidence: &Evidence) -> Judged {
    let Some(domain) = evidence.domain() else {
        return Judged::Clear;
    };
    if reason == Reason::SenderName {
        let full = domain.as_str().contains('.');
        return hit((!full).then(|| format!("{domain} is not a full domain name")));
    }
    known(
        &evidence.sender_domain,
        Question::SenderDomain,
        |found| match (reason, found) {
            (Reason::SenderUnknown, MailDomain::Missing) => {
                Some(format!("{domain} has neither MX nor address"))
            }
            (Reason::SenderNullMx, MailDomain::NullMx) => {
                Some(format!("{domain} says that it takes no mail"))
            }
            _ => None,
        },
    )
}

/// The client's name is asked about too where a list is for it.
fn domain_listed(policy: &Policy, evidence: &Evidence) -> Judged {
    let lists = &policy.rules.domain_lists;
    if lists.is_empty() {
        return Judged::Clear;
    }
    let wants_client = lists
        .iter()
        .any(|list| list.about.contains(&config::About::Client));
    if wants_client && evidence.client_name == Asked::No {
        return Judged::Needs(Question::ClientName);
    }
    known(&evidence.domain_lists, Question::DomainLists, |hits| {
        (!hits.is_empty()).then(|| hits.join(", "))
    })
}

fn greylisted(policy: &Policy, evidence: &Evidence) -> Judged {
    if let Asked::Known(listing) = &evidence.listing
        && listing.outcome == Outcome::Allowed
    {
        return Judged::Clear;
    }
    match evidence.spf {
        Asked::No => return Judged::Needs(Question::Spf),
        Asked::Known(Spf::Pass) if !policy.greylist_spf_pass => return Judged::Clear,
        _ => {}
    }
    known(&evidence.greylist, Question::Greylist, |wait| {
        wait.map(|seconds| format!("come again in {seconds} seconds"))
    })
}

fn sender_of(evidence: &Evidence) -> String {
    match evidence.domain() {
        Some(domain) => domain.to_string(),
        None => shown(&evidence.said),
    }
}

/// A stranger's text as a reply and a log can hold it.
pub(super) fn shown(said: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    said.chars().take(100).map(printable).collect()
}

impl Policy {
    /// What is done when a rule hits.
    pub fn action(&self, rule: Reason) -> Action {
        let rules = &self.rules;
        match rule {
            Reason::SpokeFirst => self.spoke_first,
            Reason::Listed => self.listed,
            Reason::HeloSyntax => rules.helo_syntax,
            Reason::HeloLiteral => rules.helo_literal,
            Reason::HeloOurs => rules.helo_ours,
            Reason::HeloName => rules.helo_name,
            Reason::HeloUnknown => rules.helo_unknown,
            Reason::ClientName => rules.client_name,
            Reason::ClientUnconfirmed => rules.client_unconfirmed,
            Reason::SenderName => rules.sender_name,
            Reason::SenderUnknown => rules.sender_unknown,
            Reason::SenderNullMx => rules.sender_null_mx,
            Reason::DomainListed => rules.domain_listed,
            Reason::SpfFail => rules.spf_fail,
            Reason::Greylisted => self.greylist,
            // The rest is no matter of taste: whose mail is taken, and what fits.
            _ => Action::Enforce,
        }
    }
}

#[cfg(test)]
mod tests;
