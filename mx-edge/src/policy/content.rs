//! Checks of a message before it is taken: its structure, its header fields, those of its parts, and the beginning of its body. Pure; a
//! message is walked once, and patterns are compiled when the configuration is read.

use mail::header::{self, Field};
use mail::structure::{self, Limits, Objection};
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::decide::{Decision, Finding};
use crate::config::{self, Action, BodyRule, Config, HeaderRule, Of, Then};
use crate::reason::Reason;

/// What all patterns for bodies together may become when they are compiled.
const SET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The checks of one policy.
#[derive(Debug)]
pub struct Checks {
    structure: Action,
    limits: Limits,
    headers: Vec<HeaderRule>,
    body: Vec<BodyRule>,
    /// Those of `body`, in their order.
    patterns: RegexSet,
    body_bytes_max: usize,
}

/// What they say of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it is taken, and what for.
    pub decision: Decision,
    /// Whole header fields to put in front of it.
    pub prepended: String,
    /// The rule that sends it to the one configured address instead.
    pub redirected: Option<Box<str>>,
}

/// A header field in the forms in which a rule sees it.
struct Seen {
    name: String,
    /// Unfolded, decoded where that differs, and as it stands.
    forms: Vec<String>,
}

impl Seen {
    fn of(field: &Field<'_>) -> Self {
        let name = String::from_utf8_lossy(field.name).into_owned();
        let (text, decoded) = (field.text(), field.decoded());
        let raw = String::from_utf8_lossy(field.value);
        let raw = raw.trim();
        let mut forms = vec![text];
        for form in [&*decoded, raw] {
            if !forms.iter().any(|known| known == form) {
                forms.push(form.to_owned());
            }
        }
        Self { name, forms }
    }

    fn meets(&self, rule: &HeaderRule) -> bool {
        match &*rule.field {
            config::ANY_FIELD => self.forms.iter().any(|form| {
                let line = format!("{}: {form}", self.name);
                rule.pattern.matches(&line)
            }),
            field => {
                field.eq_ignore_ascii_case(&self.name)
                    && self.forms.iter().any(|form| rule.pattern.matches(form))
            }
        }
    }
}

impl Checks {
    /// Of this configuration.
    pub fn new(config: &Config) -> Result<Self, String> {
        let (policy, limits) = (&config.policy, &config.limits);
        let active = |action: &Action| *action != Action::Off;
        let body = policy.body.iter().filter(|rule| active(&rule.action));
        let body: Vec<BodyRule> = body.cloned().collect();
        let headers = policy.headers.iter().filter(|rule| active(&rule.action));
        let patterns = RegexSetBuilder::new(body.iter().map(|rule| rule.pattern.as_str()))
            .case_insensitive(true)
            .multi_line(true)
            .crlf(true)
            .size_limit(SET_BYTES_MAX)
            .build();
        Ok(Self {
            structure: policy.structure,
            limits: Limits {
                depth: limits.mime_depth_max,
                parts: limits.mime_parts_max,
                header_bytes: usize::try_from(limits.header_bytes_max).unwrap_or(usize::MAX),
                header_fields: limits.header_fields_max,
                // Lines are no matter of parsers; a header's are within its octets.
                line_bytes: usize::MAX,
            },
            headers: headers.cloned().collect(),
            body,
            patterns: patterns.map_err(|error| error.to_string())?,
            body_bytes_max: usize::try_from(policy.body_bytes_max).unwrap_or(usize::MAX),
        })
    }

    /// Whether the message may be taken as it is built, whoever it is for.
    pub fn structure(&self, message: &[u8]) -> Decision {
        let mut decision = Decision::default();
        if self.structure != Action::Off
            && let Err(objection) = structure::scan(message, &self.limits)
        {
            self.objected(&objection, &mut decision);
        }
        decision
    }

    fn objected(&self, objection: &Objection, decision: &mut Decision) {
        // What readers may read in two ways is the scanner's to judge: it is a class with an action of its own.
        if matches!(objection, Objection::Ambiguous(_)) {
            return;
        }
        let finding = Finding {
            reason: Reason::Structure,
            evidence: objection.to_string(),
        };
        match self.structure {
            Action::Enforce => decision.refusal = Some(finding),
            _ => decision.warned.push(finding),
        }
    }

    /// Everything that is checked, of a message for somebody whom the policy is for.
    pub fn judge(&self, message: &[u8]) -> Judgement {
        let mut judgement = Judgement::default();
        let for_parts = self.headers.iter().any(|rule| rule.of != Of::Message);
        let mut parts: Vec<Seen> = Vec::new();
        if for_parts {
            let mut first = true;
            let walked = structure::each(message, &self.limits, &mut |part| {
                if !std::mem::take(&mut first) {
                    parts.extend(header::fields(part.header).map(|field| Seen::of(&field)));
                }
            });
            if let (true, Err(objection)) = (self.structure != Action::Off, walked) {
                self.objected(&objection, &mut judgement.decision);
            }
        } else {
            judgement.decision = self.structure(message);
        }
        if judgement.decision.refusal.is_none() {
            self.apply(message, &parts, &mut judgement);
        }
        judgement
    }

    /// In the order of the rules; the first that refuses or discards is the last.
    fn apply(&self, message: &[u8], parts: &[Seen], judgement: &mut Judgement) {
        if !self.headers.is_empty() {
            let fields = header::fields(message).take(self.limits.header_fields);
            let fields: Vec<Seen> = fields.map(|field| Seen::of(&field)).collect();
            for rule in &self.headers {
                let (of_message, of_parts) = (rule.of != Of::Parts, rule.of != Of::Message);
                let hit = (of_message && fields.iter().any(|field| field.meets(rule)))
                    || (of_parts && parts.iter().any(|field| field.meets(rule)));
                let evidence = || match &*rule.field {
                    config::ANY_FIELD => format!("the header ({})", rule.name),
                    field => format!("{field} ({})", rule.name),
                };
                if hit && rule.deed().done(judgement, Reason::Header, evidence()) {
                    return;
                }
            }
        }
        if self.body.is_empty() {
            return;
        }
        let body = &message[header::body_offset(message)..];
        let looked_at = &body[..body.len().min(self.body_bytes_max)];
        for hit in self.patterns.matches(looked_at) {
            let rule = &self.body[hit];
            let evidence = format!("it matches a rule ({})", rule.name);
            if rule.deed().done(judgement, Reason::Body, evidence) {
                return;
            }
        }
    }
}

/// What a rule that hit does.
struct Deed<'a> {
    name: &'a str,
    action: Action,
    then: Then,
    value: &'a str,
}

impl HeaderRule {
    fn deed(&self) -> Deed<'_> {
        Deed {
            name: &self.name,
            action: self.action,
            then: self.then,
            value: &self.value,
        }
    }
}

impl BodyRule {
    fn deed(&self) -> Deed<'_> {
        Deed {
            name: &self.name,
            action: self.action,
            then: self.then,
            value: &self.value,
        }
    }
}

impl Deed<'_> {
    /// Does it; whether nothing else counts any more.
    fn done(&self, judgement: &mut Judgement, reason: Reason, evidence: String) -> bool {
        let decision = &mut judgement.decision;
        let name = || Box::from(self.name);
        let finding = Finding { reason, evidence };
        let what = match (self.action, self.then) {
            (Action::Enforce, Then::Reject) => {
                decision.refusal = Some(finding);
                "refused"
            }
            (Action::Enforce, Then::Discard) => {
                decision.discard = Some(name());
                "discarded"
            }
            (Action::Enforce, Then::Hold) => {
                decision.hold.get_or_insert_with(name);
                "held"
            }
            (Action::Enforce, Then::Redirect) => {
                judgement.redirected.get_or_insert_with(name);
                "redirected"
            }
            (Action::Enforce, Then::Prepend) => {
                judgement.prepended.push_str(self.value);
                judgement.prepended.push_str("\r\n");
                "prepended"
            }
            _ => {
                decision.warned.push(finding);
                "warned"
            }
        };
        decision.named.push((name(), what));
        decision.refusal.is_some() || decision.discard.is_some()
    }
}

#[cfg(test)]
mod tests;
