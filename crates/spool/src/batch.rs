//! Batches: what is to be done with a message, for whom, where to. Never how it is done.

use bytes::Bytes;
use mail::{Domain, Recipient, Timestamp};

use crate::{HoldId, Replies};

/// Something to be done with a message for some recipients, about a hundred at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Not before.
    pub due: Timestamp,
    /// For whom.
    pub recipients: Vec<Recipient>,
    /// From what the owner renders each recipient's copy (list, number, reverse-path pattern), in its own form, at most 4 KiB.
    pub template: Bytes,
    /// What they were told before, as another batch.
    pub replies: Replies,
}

impl NewBatch {
    /// As it comes into being: never attempted, and free to be.
    pub fn named(self, id: BatchId) -> Batch {
        Batch {
            id,
            destination: self.destination,
            class: self.class,
            due: self.due,
            attempts: 0,
            recipients: self.recipients,
            template: self.template,
            note: Bytes::new(),
            replies: self.replies,
            held: None,
        }
    }
}

/// Where a batch goes. A domain is mapped to a site (its MX set) when the batch is claimed, not before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// To be expanded here: lists, aliases, commands.
    Expand,
    /// To the next hop inside.
    Inside,
    /// To a configured route.
    Route(Box<str>),
    /// To the mail exchangers of a domain.
    Domain(Domain),
}

/// What kind of mail a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Confirmations, moderation, DSN: a person waits for it.
    Urgent,
    /// All other mail.
    Ordinary,
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its id; a child's is a hash of (parent, chunk), so that a repeated expansion makes the same ones.
    pub id: BatchId,
    /// Where to.
    pub destination: Destination,
    /// How urgent.
    pub class: Class,
    /// Not before.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// For whom, those not done yet.
    pub recipients: Vec<Recipient>,
    /// The owner's template.
    pub template: Bytes,
    /// What the owner noted when it deferred the batch last (a signed verdict, say), at most 4 KiB.
    pub note: Bytes,
    /// The last reply to each of them, in one line.
    pub replies: Replies,
    /// The hold by which it is kept from being attempted.
    pub held: Option<HoldId>,
}

impl Batch {
    /// Takes all but those at `places`, which are in order, out of it, and returns them as a batch under the same id; none when all stay.
    pub(crate) fn part(&mut self, places: &[usize]) -> Option<Self> {
        let all = self.recipients.len();
        if places.len() == all {
            return None;
        }
        let others = (0..all).filter(|place| places.binary_search(place).is_err());
        let others: Vec<usize> = others.collect();
        let rest = self.of(&others);
        *self = self.of(places);
        Some(rest)
    }

    /// The same for those at these places alone.
    fn of(&self, places: &[usize]) -> Self {
        let recipients = places.iter().map(|place| self.recipients[*place].clone());
        Self {
            recipients: recipients.collect(),
            replies: self.replies.at(places.iter().copied()),
            template: self.template.clone(),
            note: self.note.clone(),
            destination: self.destination.clone(),
            ..*self
        }
    }
}

/// A batch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u128);
