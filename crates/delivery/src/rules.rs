//! Provider rules: what a reply says of the whole site or of us rather than of a recipient, and what sites allow. Data
//! (`providers.toml` and the configuration); pure. It counts nothing and waits for nothing: the hand does.

use std::time::Duration;

use mail::{MessageId, Recipient, Reply, Severity};
use serde::{Deserialize, Serialize};
use service::config::duration;

use crate::seat::Key;

/// The rules that come with the program.
const BUILT_IN: &str = include_str!("providers.toml");
/// Rules and sites of one table, each, at most: every reply that is not positive is held against all of them.
pub const RULES_MAX: usize = 1000;
/// No rule shuts a site for longer: who has been heard of for so long should look himself.
pub const SHUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A table of rules and sites, as it is written in TOML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// Replies, and what is done about them.
    pub rule: Vec<Rule>,
    /// What sites allow.
    pub site: Vec<SiteLimits>,
}

/// One rule: it fits a reply when all that is given fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For logs, metrics and listings.
    pub name: String,
    /// Exchangers' names, a route's name, or the recipient's domain; `*.x` is everything below x. Empty: all.
    #[serde(default)]
    pub sites: Vec<String>,
    /// Reply codes. Empty: 4xx and 5xx.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Enhanced status codes, `4.7.*`. Empty: all.
    #[serde(default)]
    pub enhanced: Vec<String>,
    /// Any of these stands in the reply, in any case of letters. Empty: any text.
    #[serde(default)]
    pub text: Vec<String>,
    /// What is done.
    pub action: Action,
    /// Attempts at once at most, for `duration`.
    #[serde(default)]
    pub connections_max: Option<usize>,
    /// Messages a second at most, for `duration`.
    #[serde(default)]
    pub messages_per_second_max: Option<f64>,
    /// How long the site is shut or limited [1 h].
    #[serde(default = "hour", with = "duration")]
    pub duration: Duration,
    /// Messages within an hour that must be answered so before the site is shut [3].
    #[serde(default = "three")]
    pub messages: u32,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The reply means what it says, for this recipient alone.
    Recipient,
    /// It speaks of the message or of us: the result stands, nobody is blamed for it.
    Message,
    /// The site wants less.
    Slow,
    /// Nothing goes for a while.
    Shut,
    /// As if there had been no connection.
    Away,
}

impl Action {
    /// It concerns the whole site: a refusal is not the recipient's end.
    pub(crate) fn is_of_site(self) -> bool {
        match self {
            Self::Slow | Self::Shut | Self::Away => true,
            Self::Recipient | Self::Message => false,
        }
    }
}

/// What a site allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteLimits {
    /// As in [`Rule::sites`], without recipients' domains.
    pub sites: Vec<String>,
    /// Attempts at once at most.
    pub connections_max: Option<usize>,
    /// Transactions over one connection at most.
    pub transactions_max: Option<usize>,
    /// Messages a second at most.
    pub messages_per_second_max: Option<f64>,
    /// New connections a second at most.
    pub connects_per_second_max: Option<f64>,
}

/// What a rule that fitted wants of the site.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) rule: Box<str>,
    pub(crate) action: Action,
    pub(crate) connections_max: Option<usize>,
    pub(crate) rate_max: Option<f64>,
    pub(crate) duration: Duration,
    /// Different messages it takes.
    pub(crate) messages: u32,
    /// The one that was answered so.
    pub(crate) message: MessageId,
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn three() -> u32 {
    3
}

/// The rules in force: the configuration's before those that come with the program.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    sites: Vec<SiteLimits>,
}

/// Those that come with the program.
impl Default for Rules {
    fn default() -> Self {
        Self::with(Table::default()).expect("a constant table is right")
    }
}

impl Rules {
    /// Those that come with the program, behind these.
    pub fn with(own: Table) -> Result<Self, String> {
        own.check()?;
        let built_in = Table::parse(BUILT_IN)?;
        Ok(Self {
            rules: own
                .rule
                .into_iter()
                .chain(built_in.rule)
                .map(lower)
                .collect(),
            sites: own.site.into_iter().chain(built_in.site).collect(),
        })
    }

    /// The first rule that fits what a site said to a recipient.
    pub(crate) fn find(
        &self,
        key: &Key,
        recipient: Option<&Recipient>,
        reply: &Reply,
    ) -> Option<&Rule> {
        if reply.severity() == Severity::Positive {
            return None;
        }
        let text = reply.to_string().to_lowercase();
        let domain = recipient.map(|recipient| recipient.address.domain().as_str());
        self.rules
            .iter()
            .find(|rule| rule.fits(key, domain, reply, &text))
    }

    /// What a site allows.
    pub(crate) fn limits(&self, key: &Key) -> SiteLimits {
        let found = self
            .sites
            .iter()
            .find(|limits| is_any(&limits.sites, key, None));
        found.cloned().unwrap_or_default()
    }
}

/// Text is compared in lower case.
fn lower(mut rule: Rule) -> Rule {
    rule.text
        .iter_mut()
        .for_each(|text| *text = text.to_lowercase());
    rule
}

impl Table {
    /// From TOML. The error says what and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        table.check()?;
        Ok(table)
    }

    /// What the form cannot say.
    pub fn check(&self) -> Result<(), String> {
        if self.rule.len().max(self.site.len()) > RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules or sites"));
        }
        for rule in &self.rule {
            rule.check()
                .map_err(|why| format!("rule {:?}: {why}", rule.name))?;
        }
        for limits in &self.site {
            limits
                .check()
                .map_err(|why| format!("site {:?}: {why}", limits.sites))?;
        }
        Ok(())
    }
}

impl Rule {
    /// What it wants of the site that answered this message so.
    pub(crate) fn order(&self, message: MessageId) -> Order {
        Order {
            rule: self.name.as_str().into(),
            action: self.action,
            connections_max: self.connections_max,
            rate_max: self.messages_per_second_max,
            duration: self.duration,
            messages: self.messages,
            message,
        }
    }

    fn fits(&self, key: &Key, domain: Option<&str>, reply: &Reply, text: &str) -> bool {
        let code = self.codes.is_empty() || self.codes.contains(&reply.code);
        let enhanced = || {
            let status = reply.enhanced.map(|status| status.to_string());
            self.enhanced.is_empty()
                || status.is_some_and(|status| self.enhanced.iter().any(|p| is_status(p, &status)))
        };
        let said =
            || self.text.is_empty() || self.text.iter().any(|part| text.contains(part.as_str()));
        code && enhanced() && said() && (self.sites.is_empty() || is_any(&self.sites, key, domain))
    }

    fn check(&self) -> Result<(), String> {
        if self.codes.is_empty() && self.enhanced.is_empty() && self.text.is_empty() {
            return Err("it fits every reply; give codes, enhanced or text".into());
        }
        if let Some(code) = self.codes.iter().find(|code| !(400..600).contains(*code)) {
            return Err(format!("code {code} is not in 400-599"));
        }
        if let Some(empty) = self.text.iter().find(|text| text.is_empty()) {
            return Err(format!("text {empty:?} stands in every reply"));
        }
        if self.duration > SHUT_MAX {
            return Err(format!(
                "duration is more than {} h",
                SHUT_MAX.as_secs() / 3600
            ));
        }
        at_least_one("connections_max", self.connections_max)?;
        above_zero("messages_per_second_max", self.messages_per_second_max)
    }
}

impl SiteLimits {
    fn check(&self) -> Result<(), String> {
        if self.sites.is_empty() {
            return Err("it names no sites".into());
        }
        at_least_one("connections_max", self.connections_max)?;
        at_least_one("transactions_max", self.transactions_max)?;
        above_zero("messages_per_second_max", self.messages_per_second_max)?;
        above_zero("connects_per_second_max", self.connects_per_second_max)
    }
}

fn at_least_one(key: &str, value: Option<usize>) -> Result<(), String> {
    match value {
        Some(0) => Err(format!("{key} is 0, nothing would go; give at least 1")),
        _ => Ok(()),
    }
}

fn above_zero(key: &str, value: Option<f64>) -> Result<(), String> {
    match value {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(format!("{key} is {rate}; give a number above 0"))
        }
        _ => Ok(()),
    }
}

/// Whether one of the patterns means this site.
fn is_any(patterns: &[String], key: &Key, domain: Option<&str>) -> bool {
    patterns.iter().any(|pattern| {
        let host = |host: &str| match pattern.strip_prefix('*') {
            Some(below) => host.len() > below.len() && host.ends_with(below),
            None => host == pattern,
        };
        domain.is_some_and(host)
            || match key {
                Key::Route(name) => host(if name.is_empty() { "inside" } else { name }),
                Key::Site(site) => site.exchangers.iter().any(|e| host(&e.host)),
            }
    })
}

/// `4.7.*`, `4.7.1`.
fn is_status(pattern: &str, status: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => status.starts_with(begin),
        None => status == pattern,
    }
}

#[cfg(test)]
mod tests;
