//! Which of what waits is meant, in an operator's words: the options of the `queue` commands and the `where` of the control socket, and
//! the predicate that they are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mail::{Address, Domain, Timestamp};
use serde::{Deserialize, Serialize};
use service::config::duration;
use spool::{Destination, HoldId, Lane, Matcher, Pattern, Predicate};

use super::{Names, Refusal};
use crate::lane;

/// All conditions together. Texts as they were typed: the program that is asked says what is wrong with one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Words {
    /// Of this mailing list
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// From this reverse-path; `*` stands for any text, `<>` for the null reverse-path
    #[arg(long, value_name = "PATTERN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// To this recipient, others of the message are not touched; `*` stands for any text
    #[arg(long, value_name = "PATTERN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// To this site, as `queue sites` names it
    #[arg(long, value_name = "SITE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// To this domain; repeat for more
    #[arg(long = "domain", value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// In this lane (urgent, live, backlog, retry); repeat for more
    #[arg(long = "lane", value_name = "LANE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<String>,
    /// Arrived longer ago than this: 2h, 30m, 5d
    #[arg(long, value_name = "AGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older: Option<String>,
    /// Arrived within this time
    #[arg(long, value_name = "AGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
    /// Whose last reply holds this text
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Of the message with this id
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of the message with this ident
    #[arg(long, value_name = "IDENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ident: Option<String>,
    /// What an operator holds
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// What this hold holds
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
    /// What the inside refused for good after it was spooled (mx-edge)
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// What this rule of the policy holds (mx-edge)
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Everything
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Words {
    /// Whether nothing was said at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether what waits for an operator's decision is meant: what the inside refused, or a rule holds.
    pub(super) fn waits_for_decision(&self) -> bool {
        self.refused || self.rule.is_some()
    }

    /// For what changes something: everything is meant only by those who say so.
    pub(super) fn must_say(&self) -> Result<(), Refusal> {
        if self.is_empty() {
            return Err(Refusal::asked(
                "nothing says which mail is meant; give conditions such as --domain or --older, or --all for everything",
            ));
        }
        let conditions = Self {
            all: false,
            ..self.clone()
        };
        match self.all && !conditions.is_empty() {
            true => Err(Refusal::asked(
                "--all means everything and the other conditions do not; leave one of them out",
            )),
            false => Ok(()),
        }
    }

    /// The predicate. `site`: the destinations that lead to [`Self::site`], when that was said.
    pub(super) fn predicate(
        &self,
        names: &Arc<dyn Names>,
        site: Option<Vec<Destination>>,
        now: Timestamp,
    ) -> Result<Predicate, Refusal> {
        let mut predicate = Predicate {
            message: match &self.message {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| {
                    wrong(
                        "--message",
                        text,
                        "32 hexadecimal digits as `queue list` shows",
                    )
                })?),
            },
            lanes: lanes(&self.lanes)?,
            arrived_before: ago("--older", self.older.as_deref(), now)?,
            arrived_from: ago("--newer", self.newer.as_deref(), now)?,
            sender: self.sender.as_deref().map(Pattern::new),
            recipient: self.recipient.as_deref().map(Pattern::new),
            reply: self.reply.as_deref().map(Into::into),
            held: self.held.then_some(true),
            hold: self.hold.map(HoldId),
            owner: self.owner(names)?,
            ..Predicate::default()
        };
        self.destinations(&mut predicate, names, site)?;
        Ok(predicate)
    }

    /// What only the program can tell.
    fn owner(&self, names: &Arc<dyn Names>) -> Result<Option<Matcher>, Refusal> {
        let list = self.list.as_deref().map(|text| {
            let address = Address::parse(text);
            address.map_err(|error| wrong("--list", text, &format!("a list's address ({error})")))
        });
        let list = list
            .transpose()?
            .map(|list| list.to_string().to_lowercase());
        let (ident, rule) = (self.ident.clone(), self.rule.clone());
        // What a rule holds was not refused by anybody.
        let of_rule = self.waits_for_decision();
        if list.is_none() && ident.is_none() && !of_rule {
            return Ok(None);
        }
        let names = names.clone();
        Ok(Some(Matcher(Arc::new(move |head, batch| {
            let of_list = list.as_ref().is_none_or(|wanted| {
                let of = names.list(head, batch);
                of.is_some_and(|of| of.to_lowercase() == *wanted)
            });
            of_list
                && (ident.is_none() || ident == names.ident(head))
                && (!of_rule || rule == names.rule(head, batch))
        }))))
    }

    fn destinations(
        &self,
        predicate: &mut Predicate,
        names: &Arc<dyn Names>,
        site: Option<Vec<Destination>>,
    ) -> Result<(), Refusal> {
        let mut all = site;
        let mut add = |these: Vec<Destination>| {
            all = Some(match all.take() {
                None => these,
                Some(old) => old.into_iter().filter(|d| these.contains(d)).collect(),
            });
        };
        if self.waits_for_decision() {
            let Some(place) = names.refused() else {
                return Err(Refusal::asked(
                    "--refused, --rule: this program keeps nothing that was refused or a rule holds; see `quarantine list`",
                ));
            };
            add(vec![place]);
        }
        match self.domains.as_slice() {
            [] => {}
            domains if names.by_domain() => {
                let parsed = domains.iter().map(|text| {
                    let domain = Domain::parse(text);
                    domain
                        .map(Destination::Domain)
                        .map_err(|error| wrong("--domain", text, &format!("a domain ({error})")))
                });
                add(parsed.collect::<Result<_, _>>()?);
            }
            [domain] if self.recipient.is_none() => {
                predicate.recipient = Some(Pattern::new(&format!("*@{domain}")));
            }
            _ => {
                return Err(Refusal::asked(
                    "here all mail goes inside, so that --domain stands for --recipient '*@DOMAIN': give it once, and not both",
                ));
            }
        }
        predicate.destinations = all;
        Ok(())
    }
}

/// As they are typed.
impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |name: &'static str, text: &Option<String>| {
            text.iter().map(|text| (name, text.clone())).collect()
        };
        let many = |name: &'static str, texts: &[String]| {
            texts.iter().map(|text| (name, text.clone())).collect()
        };
        let options: [Vec<(&str, String)>; 13] = [
            one("--list", &self.list),
            one("--sender", &self.sender),
            one("--recipient", &self.recipient),
            one("--site", &self.site),
            many("--domain", &self.domains),
            many("--lane", &self.lanes),
            one("--older", &self.older),
            one("--newer", &self.newer),
            one("--reply", &self.reply),
            one("--message", &self.message),
            one("--ident", &self.ident),
            one("--hold", &self.hold.map(|hold| hold.to_string())),
            one("--rule", &self.rule),
        ];
        let mut words: Vec<String> = Vec::new();
        for (name, text) in options.into_iter().flatten() {
            words.push(name.into());
            words.push(quoted(text));
        }
        let flags = [
            ("--held", self.held),
            ("--refused", self.refused),
            ("--all", self.all),
        ];
        words.extend(flags.iter().filter(|flag| flag.1).map(|flag| flag.0.into()));
        f.write_str(&words.join(" "))
    }
}

fn quoted(text: String) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_+:/=".contains(&byte);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn wrong(option: &str, text: &str, expected: &str) -> Refusal {
    Refusal::asked(format!("{option} {text:?} is not {expected}"))
}

fn lanes(texts: &[String]) -> Result<Option<Vec<Lane>>, Refusal> {
    let lanes = texts.iter().map(|text| {
        let found = Lane::ALL
            .into_iter()
            .find(|lane| lane::label(*lane) == text);
        found.ok_or_else(|| wrong("--lane", text, "urgent, live, backlog or retry"))
    });
    let lanes: Vec<Lane> = lanes.collect::<Result<_, _>>()?;
    Ok((!lanes.is_empty()).then_some(lanes))
}

fn ago(option: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = text else {
        return Ok(None);
    };
    let age: Duration = duration::parse(text)
        .map_err(|_| wrong(option, text, "an age such as 90s, 30m, 2h or 5d"))?;
    let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Ok(Some(Timestamp(now.0.saturating_sub(millis))))
}

#[cfg(test)]
mod tests;
