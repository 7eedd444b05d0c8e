//! What a site does with each class, and where one recipient's domain differs from it: `[levels]`, `[classes]`, `[domains]`. Values
//! only: `decide` uses them.

use mail::verdict::{Action, Class};
use serde::{Deserialize, Serialize};

use crate::structure::banned::Banned;

/// The scores that matter, in hundredths of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// From here on the header tells the score in all its fields.
    pub tag: i32,
    /// From here on a message is marked as spam.
    pub tag2: i32,
    /// From here on it is spam.
    pub kill: i32,
}

/// `[levels]`, in points.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LevelSettings {
    /// Points from which all fields about the score are put in front.
    pub tag: f64,
    /// Points from which a message is marked as spam.
    pub tag2: f64,
    /// Points from which it is spam.
    pub kill: f64,
}

impl Default for LevelSettings {
    fn default() -> Self {
        Self {
            tag: 2.0,
            tag2: 6.31,
            kill: 6.31,
        }
    }
}

impl LevelSettings {
    /// In hundredths, as everything behind the configuration counts.
    pub fn levels(&self) -> Levels {
        let hundredths = |points: f64| (points * 100.0).round() as i32;
        Levels {
            tag: hundredths(self.tag),
            tag2: hundredths(self.tag2),
            kill: hundredths(self.kill),
        }
    }

    /// Whether a message is told about before it is marked, and marked before it is spam.
    pub fn is_rising(&self) -> bool {
        let all = [self.tag, self.tag2, self.kill];
        all.iter().all(|level| level.is_finite()) && all.is_sorted()
    }
}

/// An action by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(pub Action);

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let known = "pass, tag, defer, quarantine or refuse";
        let action = Action::parse(&word);
        action
            .map(Self)
            .ok_or_else(|| format!("{word:?} is no action: {known}"))
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0.as_str().into()
    }
}

/// `[classes]`: the action of each class. Clean mail passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Actions {
    /// Of [`Class::BadHeader`].
    pub bad_header: Word,
    /// Of [`Class::Spammy`].
    pub spammy: Word,
    /// Of [`Class::Oversized`].
    pub oversized: Word,
    /// Of [`Class::Unscanned`].
    pub unscanned: Word,
    /// Of [`Class::Ambiguous`].
    pub ambiguous: Word,
    /// Of [`Class::Spam`].
    pub spam: Word,
    /// Of [`Class::Banned`].
    pub banned: Word,
    /// Of [`Class::Malware`].
    pub malware: Word,
}

impl Default for Actions {
    fn default() -> Self {
        Self {
            bad_header: Word(Action::Tag),
            spammy: Word(Action::Tag),
            oversized: Word(Action::Refuse),
            unscanned: Word(Action::Refuse),
            ambiguous: Word(Action::Refuse),
            spam: Word(Action::Refuse),
            banned: Word(Action::Refuse),
            malware: Word(Action::Refuse),
        }
    }
}

impl Actions {
    /// What is done with a class.
    pub fn of(&self, class: Class) -> Action {
        match class {
            Class::Clean => Action::Pass,
            Class::BadHeader => self.bad_header.0,
            Class::Spammy => self.spammy.0,
            Class::Oversized => self.oversized.0,
            Class::Unscanned => self.unscanned.0,
            Class::Ambiguous => self.ambiguous.0,
            Class::Spam => self.spam.0,
            Class::Banned => self.banned.0,
            Class::Malware => self.malware.0,
        }
    }
}

/// `[domains."NAME"]`: what differs for recipients of one domain. What is not given is the site's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainSettings {
    /// Another tag level, in points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<f64>,
    /// Another tag2 level, in points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag2: Option<f64>,
    /// Another kill level, in points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<f64>,
    /// Another action of [`Class::BadHeader`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_header: Option<Word>,
    /// Another action of [`Class::Spammy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spammy: Option<Word>,
    /// Another action of [`Class::Oversized`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oversized: Option<Word>,
    /// Another action of [`Class::Unscanned`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unscanned: Option<Word>,
    /// Another action of [`Class::Ambiguous`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambiguous: Option<Word>,
    /// Another action of [`Class::Spam`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spam: Option<Word>,
    /// Another action of [`Class::Banned`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banned: Option<Word>,
    /// Another action of [`Class::Malware`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malware: Option<Word>,
    /// Lists of its own in place of `[banned]`; one that is not given is as shipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lists: Option<Banned>,
}

impl DomainSettings {
    /// The levels for this domain.
    pub fn levels(&self, site: &LevelSettings) -> LevelSettings {
        LevelSettings {
            tag: self.tag.unwrap_or(site.tag),
            tag2: self.tag2.unwrap_or(site.tag2),
            kill: self.kill.unwrap_or(site.kill),
        }
    }

    /// The actions for this domain.
    pub fn actions(&self, site: &Actions) -> Actions {
        Actions {
            bad_header: self.bad_header.unwrap_or(site.bad_header),
            spammy: self.spammy.unwrap_or(site.spammy),
            oversized: self.oversized.unwrap_or(site.oversized),
            unscanned: self.unscanned.unwrap_or(site.unscanned),
            ambiguous: self.ambiguous.unwrap_or(site.ambiguous),
            spam: self.spam.unwrap_or(site.spam),
            banned: self.banned.unwrap_or(site.banned),
            malware: self.malware.unwrap_or(site.malware),
        }
    }
}

/// What holds for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Scores.
    pub levels: Levels,
    /// What is done with each class.
    pub actions: Actions,
    /// postmaster@, abuse@, security@: spam is marked and passed.
    pub no_kill_level: bool,
    /// Names and types that it does not let in.
    pub banned: &'a Banned,
}
