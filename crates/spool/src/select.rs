//! What an operator does to what waits: a predicate says which recipients of which batches, an action says what becomes of them.

use std::fmt;
use std::sync::Arc;

use mail::{Address, MessageId, ReversePath, Timestamp};

use crate::{Batch, BatchId, Destination, Head, Lane};

/// The name of one hold, so that it can be undone alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// Which of what waits is meant: all conditions together. The default means everything.
#[derive(Clone, Debug, Default)]
pub struct Predicate {
    /// Of this message.
    pub message: Option<MessageId>,
    /// To one of these; a site is the domains that it serves.
    pub destinations: Option<Vec<Destination>>,
    /// In one of these lanes now.
    pub lanes: Option<Vec<Lane>>,
    /// Arrived before this.
    pub arrived_before: Option<Timestamp>,
    /// Arrived at this time or later.
    pub arrived_from: Option<Timestamp>,
    /// From such a reverse-path.
    pub sender: Option<Pattern>,
    /// To such a recipient: only these of a batch are meant, the others go on as before.
    pub recipient: Option<Pattern>,
    /// Whose last reply holds this text, in any case of letters: only these of a batch are meant.
    pub reply: Option<Box<str>>,
    /// Held, or not.
    pub held: Option<bool>,
    /// Held by this hold.
    pub hold: Option<HoldId>,
    /// What only the spool's owner can tell (of which list it is, say).
    pub owner: Option<Matcher>,
}

/// A condition that the spool's owner supplies.
#[derive(Clone)]
pub struct Matcher(pub Arc<Condition>);

/// What a [`Matcher`] asks.
pub type Condition = dyn Fn(&Head, &Batch) -> bool + Send + Sync;

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matcher")
    }
}

/// A pattern for addresses: `*` stands for any text, case of letters does not matter; `<>` is the null reverse-path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// From its text: `joe@one.example`, `*@one.example`, `*-owner@*`, `<>`.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().into())
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether a forward-path is meant.
    pub fn matches(&self, address: &Address) -> bool {
        wild(
            self.0.as_bytes(),
            address.to_string().to_lowercase().as_bytes(),
        )
    }

    /// Whether a reverse-path is meant.
    pub fn matches_path(&self, path: &ReversePath) -> bool {
        match path {
            ReversePath::Null => &*self.0 == "<>",
            ReversePath::Address(address) => self.matches(address),
        }
    }
}

/// Matches with `*`, in linear memory and without recursion.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at + 1, from));
                at += 1;
            }
            Some(wanted) if text.get(from) == Some(wanted) => {
                at += 1;
                from += 1;
            }
            _ => match back {
                Some((after, tried)) => {
                    at = after;
                    from = tried + 1;
                    back = Some((after, tried + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == b'*')
}

/// What becomes of what was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it is counted.
    Count,
    /// It waits until it is released, under this name. What is held already stays under the name that it has.
    Hold(HoldId),
    /// It goes on.
    Release,
    /// It is due now; what is held stays held.
    Retry,
    /// It ends here, without a report.
    Drop,
}

/// How much was selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Batches of which all or some recipients are meant.
    pub batches: u64,
    /// Those recipients.
    pub recipients: u64,
    /// Of the batches, those being attempted just now: what the attempt leaves of them is treated like the others.
    pub in_flight: u64,
    /// Batches besides, of which nobody can tell, since they cannot be read just now.
    pub unreadable: u64,
}

/// A batch that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its message.
    pub head: Arc<Head>,
    /// The batch, whole. While it is being attempted, `held` says whether what the attempt leaves will be.
    pub batch: Batch,
    /// Whether it is being attempted.
    pub in_flight: bool,
}

/// Where a listing goes on.
pub type After = Option<BatchId>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_an_operator_expects() {
        for (pattern, address, expected) in [
            ("joe@one.example", "Joe@one.example", true),
            ("joe@one.example", "joe@two.example", false),
            ("*@one.example", "a.b@one.example", true),
            ("*@one.example", "a@sub.one.example", false),
            ("*one.example", "a@sub.one.example", true),
            ("j*e@*.example", "jane@one.example", true),
            ("j*e@*.example", "jan@one.example", false),
            ("*", "x@y.example", true),
            ("", "x@y.example", false),
            ("<>", "x@y.example", false),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(
                Pattern::new(pattern).matches(&address),
                expected,
                "{pattern} {address}"
            );
        }
        assert!(Pattern::new("<>").matches_path(&ReversePath::Null));
        assert!(!Pattern::new("*").matches_path(&ReversePath::Null));
    }
}
