//! What a new version of a source may not do unasked: take much away, or be another than the successor of what is in force. Pure;
//! who is asked and what is kept meanwhile is `source`'s affair.

use super::catalog::{Catalog, Loss};

/// How much a new version may take away without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Per cent of the entries in force.
    pub shrink_percent_max: u64,
    /// So many entries may always go: two members of a list of ten are 20 %.
    pub shrink_entries_floor: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            shrink_percent_max: 2,
            shrink_entries_floor: 10,
        }
    }
}

/// Why a version is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It takes too much away.
    Shrunken,
    /// It is older than what is in force: replayed, or of a list host that was restored or lags behind.
    Older,
    /// It has the number of what is in force and another content: two list hosts disagree.
    Forked,
    /// It is of another epoch: a list host that was restored, or was made anew.
    Foreign,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Shrunken, Self::Older, Self::Forked, Self::Foreign];

    /// The word in logs, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shrunken => "shrunken",
            Self::Older => "older",
            Self::Forked => "forked",
            Self::Foreign => "foreign",
        }
    }

    /// The same for an operator.
    pub fn explained(self) -> &'static str {
        match self {
            Self::Shrunken => "it takes too much away",
            Self::Older => "it is older than what is in force",
            Self::Forked => "it has the number of what is in force, and another content",
            Self::Foreign => "it is of another epoch than what is in force",
        }
    }
}

/// A version that is not applied unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Why.
    pub cause: Cause,
    /// What it would take away.
    pub loss: Loss,
}

impl Guard {
    /// Whether so much may go unasked. A whole domain never may.
    pub fn allows(&self, loss: &Loss) -> bool {
        let share = loss.entries as u64 * 100 <= loss.of as u64 * self.shrink_percent_max;
        loss.domains.is_empty() && (share || loss.entries <= self.shrink_entries_floor)
    }

    /// What the newer version takes away, or why it may not follow what is in force.
    pub fn judge(&self, current: &Catalog, newer: &Catalog) -> Result<Loss, Objection> {
        let loss = current.loss(newer);
        let cause = place(current, newer).or((!self.allows(&loss)).then_some(Cause::Shrunken));
        match cause {
            None => Ok(loss),
            Some(cause) => Err(Objection { cause, loss }),
        }
    }
}

/// What is wrong with a directory's place in its history. Files have none.
fn place(current: &Catalog, newer: &Catalog) -> Option<Cause> {
    let (current, newer) = (current.seal.as_ref()?, newer.seal.as_ref()?);
    let (old, new) = (current.version, newer.version);
    if old.epoch != new.epoch {
        Some(Cause::Foreign)
    } else if new.serial < old.serial {
        Some(Cause::Older)
    } else if new.serial == old.serial && current.digest != newer.digest {
        Some(Cause::Forked)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::Address;
    use mail::directory::{Content, Seal, Version};

    fn check_guard(entries: usize, of: usize, domains: &[&str], expected: bool) {
        let loss = Loss {
            entries,
            of,
            domains: domains
                .iter()
                .map(|name| mail::Domain::parse(name).unwrap())
                .collect(),
        };
        assert_eq!(Guard::default().allows(&loss), expected, "{loss:?}");
    }

    #[test]
    fn the_guard_knows_a_share_a_floor_and_domains() {
        check_guard(0, 0, &[], true);
        check_guard(10, 10, &[], true);
        check_guard(11, 100, &[], false);
        check_guard(20, 1_000, &[], true);
        check_guard(21, 1_000, &[], false);
        check_guard(20_000, 1_000_000, &[], true);
        check_guard(20_001, 1_000_000, &[], false);
        check_guard(0, 1_000, &["gone.example"], false);
        check_guard(1, 1_000, &["gone.example"], false);
    }

    fn directory(epoch: u64, serial: u64, members: usize) -> Catalog {
        let mut catalog = Catalog::default();
        for member in 0..members {
            catalog.add_address(&Address::parse(&format!("u{member}@a.example")).unwrap());
        }
        let content: Content = catalog.content;
        let seal = Seal {
            version: Version { epoch, serial },
            digest: content.digest(),
            signatures: Vec::new(),
        };
        Catalog::of_directory(seal, content)
    }

    #[test]
    fn only_a_successor_follows() {
        let current = directory(1, 5, 100);
        for (newer, expected) in [
            (directory(1, 6, 101), None),
            (directory(1, 9, 95), None),
            (directory(1, 5, 100), None),
            (directory(1, 6, 50), Some(Cause::Shrunken)),
            (directory(1, 6, 0), Some(Cause::Shrunken)),
            (directory(1, 4, 100), Some(Cause::Older)),
            (directory(1, 4, 101), Some(Cause::Older)),
            (directory(1, 5, 101), Some(Cause::Forked)),
            (directory(2, 6, 101), Some(Cause::Foreign)),
            (directory(2, 1, 0), Some(Cause::Foreign)),
        ] {
            let judged = Guard::default().judge(&current, &newer);
            assert_eq!(
                judged.err().map(|objection| objection.cause),
                expected,
                "{}",
                newer.version
            );
        }
        // What never was loaded of a directory, and files, have no place in a history.
        let file = Catalog {
            seal: None,
            ..directory(1, 1, 100)
        };
        assert!(Guard::default().judge(&file, &directory(2, 1, 100)).is_ok());
    }
}
