//! Content classes, sets of them, and what is done with a message of a class.

/// Content classes, best first: where several are found, the last of them names the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// None of the others.
    Clean,
    /// Its header breaks RFC 5322 or RFC 2045 in a way that readers see differently or not at all.
    BadHeader,
    /// Marked as spam, and passed: from the tag2 level on, or spam for one who meets no kill level.
    Spammy,
    /// Larger than a daemon would look at.
    Oversized,
    /// Nobody could look inside: encrypted, nested too deep, too many parts, larger than what it says.
    Unscanned,
    /// Two readers would see two structures, or two names of one attachment.
    Ambiguous,
    /// From the kill level on.
    Spam,
    /// A name or type that the site does not let in.
    Banned,
    /// clamd found something.
    Malware,
}

impl Class {
    /// All of them, best first.
    pub const ALL: [Self; 9] = [
        Self::Clean,
        Self::BadHeader,
        Self::Spammy,
        Self::Oversized,
        Self::Unscanned,
        Self::Ambiguous,
        Self::Spam,
        Self::Banned,
        Self::Malware,
    ];

    /// How a scanner's reply tells a client and an edge the class: `scanned as spam`.
    pub fn told(self) -> String {
        format!("scanned as {}", self.as_str())
    }

    /// The class that a line of a reply tells.
    pub fn told_in(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("scanned as ")?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = rest.split(|c| !is_word(c)).next()?;
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }

    /// `clean`, `bad_header`, `spammy`, `oversized`, `unscanned`, `ambiguous`, `spam`, `banned`, `malware`: the word in
    /// configurations, logs, metrics and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::BadHeader => "bad_header",
            Self::Spammy => "spammy",
            Self::Oversized => "oversized",
            Self::Unscanned => "unscanned",
            Self::Ambiguous => "ambiguous",
            Self::Spam => "spam",
            Self::Banned => "banned",
            Self::Malware => "malware",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of classes: all that were found of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Classes(u16);

impl Classes {
    /// Adds one. [`Class::Clean`] is what an empty set means, and is never in one.
    pub fn add(&mut self, class: Class) {
        if class != Class::Clean {
            self.0 |= class.bit();
        }
    }

    /// Whether it was found.
    pub fn has(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    /// Whether any of these was found.
    pub fn has_any(self, classes: &[Class]) -> bool {
        classes.iter().any(|class| self.has(*class))
    }

    /// Those found, best first.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| self.has(*class))
    }

    /// The worst of them; clean when there is none.
    pub fn worst(self) -> Class {
        self.iter().last().unwrap_or(Class::Clean)
    }

    /// As bits, the n-th for the n-th of [`Class::ALL`].
    pub fn bits(self) -> u16 {
        self.0
    }

    /// From bits; `None` when one stands for nothing.
    pub fn from_bits(bits: u16) -> Option<Self> {
        let known = Class::ALL[1..]
            .iter()
            .fold(0, |all, class| all | class.bit());
        (bits & !known == 0).then_some(Self(bits))
    }
}

impl FromIterator<Class> for Classes {
    fn from_iter<I: IntoIterator<Item = Class>>(classes: I) -> Self {
        let mut set = Self::default();
        classes.into_iter().for_each(|class| set.add(class));
        set
    }
}

/// What is done with a message, gentlest first: where several classes are found, the strongest of their actions is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// On its way.
    #[default]
    Pass,
    /// On its way, and its header says why it might better not be.
    Tag,
    /// 4xx: it comes again, and is scanned anew.
    Defer,
    /// To listserv's quarantine.
    Quarantine,
    /// 5xx while the client waits. Where nobody waits any more it is quarantined: strangers get no bounce.
    Refuse,
}

impl Action {
    /// All of them, gentlest first.
    pub const ALL: [Self; 5] = [
        Self::Pass,
        Self::Tag,
        Self::Defer,
        Self::Quarantine,
        Self::Refuse,
    ];

    /// `pass`, `tag`, `defer`, `quarantine`, `refuse`: the word in configurations, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Tag => "tag",
            Self::Defer => "defer",
            Self::Quarantine => "quarantine",
            Self::Refuse => "refuse",
        }
    }

    /// The action with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_told() {
        for class in Class::ALL {
            let line = format!("queued, {}, and more", class.told());
            assert_eq!(Class::told_in(&line), Some(class), "{line}");
        }
        for line in ["scanned as", "scanned as cleanest", "scanned as bad", ""] {
            assert_eq!(Class::told_in(line), None, "{line}");
        }
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(action));
        }
        assert_eq!(Action::parse("drop"), None);
    }

    #[test]
    fn a_set_names_its_worst() {
        let set = |classes: &[Class]| classes.iter().copied().collect::<Classes>();
        for (classes, worst) in [
            (&[][..], Class::Clean),
            (&[Class::Clean], Class::Clean),
            (&[Class::Spam, Class::BadHeader], Class::Spam),
            (&[Class::Spam, Class::Ambiguous], Class::Spam),
            (&[Class::Banned, Class::Malware], Class::Malware),
        ] {
            assert_eq!(set(classes).worst(), worst, "{classes:?}");
            assert_eq!(Classes::from_bits(set(classes).bits()), Some(set(classes)));
        }
        assert_eq!(Classes::from_bits(1), None, "clean is no bit");
        assert_eq!(Classes::from_bits(1 << 9), None);
        assert!(set(&[Class::Spam]).has_any(&[Class::Banned, Class::Spam]));
        assert!(!set(&[Class::Spam]).has(Class::Clean));
    }
}
