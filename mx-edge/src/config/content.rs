//! `[[policy.headers]]` and `[[policy.body]]`: rules on what a message says.

use mail::{Address, header};
use serde::{Deserialize, Serialize};
use service::config::Complaints;

use super::tables::is_rule_name;
use super::{Action, Config};
use crate::policy::pattern::Pattern;

/// As `field`: whichever; the pattern sees `Name: text`.
pub const ANY_FIELD: &str = "*";
/// A header line that is put on (RFC 5322 2.1.1).
const LINE_BYTES_MAX: usize = 998;

/// `[[policy.headers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// The rule's name in replies, logs and metrics.
    pub name: String,
    /// The field, or [`ANY_FIELD`].
    pub field: String,
    /// Whose header.
    #[serde(default)]
    pub of: Of,
    /// What its text must match.
    pub pattern: Pattern,
    /// What is done then.
    #[serde(default)]
    pub then: Then,
    /// The line that is put on.
    #[serde(default)]
    pub value: String,
    /// Whether it is.
    #[serde(default = "super::policy::enforce")]
    pub action: Action,
}

/// `[[policy.body]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyRule {
    /// The rule's name in replies, logs and metrics.
    pub name: String,
    /// What the body's beginning must match.
    pub pattern: Pattern,
    /// What is done then.
    #[serde(default)]
    pub then: Then,
    /// The line that is put on.
    #[serde(default)]
    pub value: String,
    /// Whether it is.
    #[serde(default = "super::policy::enforce")]
    pub action: Action,
}

/// Whose header a rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The message's own.
    #[default]
    Message,
    /// Those of its parts and of messages in it.
    Parts,
    /// All of them.
    Any,
}

/// What a rule does with a message that meets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// 550 5.7.1.
    #[default]
    Reject,
    /// It is taken and waits for an operator.
    Hold,
    /// It is taken and ends here.
    Discard,
    /// A line is put on.
    Prepend,
    /// It goes to `policy.redirect_to` instead.
    Redirect,
}

impl Config {
    pub(super) fn check_content(&self, complaints: &mut Complaints) {
        for rule in &self.policy.headers {
            let name = |c: char| c.is_ascii_graphic() && c != ':';
            complaints.unless(
                !rule.field.is_empty() && rule.field.chars().all(name),
                "policy.headers.field",
                format!("{:?}", rule.field),
                "it is no name of a header field",
                "give a name like Subject, without the colon, or * for any",
            );
            let (then, value) = (rule.then, &rule.value);
            self.check_rule(complaints, "policy.headers", &rule.name, then, value);
        }
        for rule in &self.policy.body {
            let (then, value) = (rule.then, &rule.value);
            self.check_rule(complaints, "policy.body", &rule.name, then, value);
        }
        let to = &self.policy.redirect_to;
        complaints.unless(
            to.is_empty() || Address::parse(to).is_ok(),
            "policy.redirect_to",
            format!("{to:?}"),
            "it is no address",
            "give one that the inside takes mail for",
        );
    }

    fn check_rule(
        &self,
        complaints: &mut Complaints,
        section: &str,
        name: &str,
        then: Then,
        value: &str,
    ) {
        complaints.unless(
            is_rule_name(name),
            &format!("{section}.name"),
            format!("{name:?}"),
            "it stands in replies, metrics and `queue release --rule`",
            "give 1 to 40 letters, digits, -, _ and dots",
        );
        complaints.unless(
            match then {
                Then::Prepend => is_header_line(value),
                _ => value.is_empty(),
            },
            &format!("{section}.value"),
            format!("{value:?} of {name}"),
            "it is the header line that `then = \"prepend\"` puts on, and of no use without",
            "give one line like \"X-Local-Rule: seen\", in ASCII and no field of Mailflow's own",
        );
        complaints.unless(
            then != Then::Redirect || !self.policy.redirect_to.is_empty(),
            "policy.redirect_to",
            format!("\"\" with the rule {name}"),
            "mail that is redirected has to go somewhere",
            "give the one address that gets it",
        );
    }
}

/// One whole field that this edge may put on.
fn is_header_line(line: &str) -> bool {
    let bytes = line.as_bytes();
    let plain = |b: &u8| b.is_ascii_graphic() || *b == b' ';
    let mut fields = header::fields(bytes);
    let field = fields.next();
    let whole = field.is_some_and(|field| {
        let ours = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        field.raw.len() == bytes.len() && !ours.starts_with("x-mailflow-") && ours != "received"
    });
    whole && bytes.len() <= LINE_BYTES_MAX && bytes.iter().all(plain)
}
