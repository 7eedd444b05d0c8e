//! What a selection does to one batch: which of its recipients are meant, and what becomes of it. Pure, and the same for every
//! engine; it stores nothing.

use mail::Timestamp;

use crate::{Action, Batch, BatchId, Head, HoldId, Lane, Pattern, Predicate};

/// What an operator asked for.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Of what.
    pub predicate: Predicate,
    /// What.
    pub action: Action,
}

/// What is to become of a batch when its attempt ends: of its selection those conditions that can be true of some of its
/// recipients and not of others by then. All others were true when it was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Of such recipients.
    pub recipient: Option<Pattern>,
    /// Whose last reply holds this text by then.
    pub reply: Option<Box<str>>,
    /// If they are held by then, or not.
    pub held: Option<bool>,
    /// If they are held by this hold.
    pub hold: Option<HoldId>,
    /// What.
    pub action: Action,
}

/// A batch that was treated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Treated {
    /// What is left of it; the first one keeps its id.
    pub batches: Vec<Batch>,
    /// Recipients that ended.
    pub dropped: u64,
    /// Whether it is not what it was.
    pub changed: bool,
}

// === impl Predicate ===

impl Predicate {
    /// How many recipients of a batch are meant.
    pub fn meant(&self, head: &Head, batch: &Batch, now: Timestamp) -> u64 {
        match self.is_about(head, batch, now) {
            true => self.whose().places(batch).count() as u64,
            false => 0,
        }
    }

    fn is_about(&self, head: &Head, batch: &Batch, now: Timestamp) -> bool {
        let lane = || Lane::of(batch.class, head.arrival, batch.attempts, now);
        self.message.is_none_or(|message| message == head.id)
            && (self.destinations.as_ref()).is_none_or(|these| these.contains(&batch.destination))
            && (self.lanes.as_ref()).is_none_or(|lanes| lanes.contains(&lane()))
            && (self.arrived_before).is_none_or(|time| head.arrival < time)
            && (self.arrived_from).is_none_or(|time| head.arrival >= time)
            && (self.held).is_none_or(|held| held == batch.held.is_some())
            && (self.hold).is_none_or(|hold| batch.held == Some(hold))
            && (self.sender.as_ref()).is_none_or(|from| from.matches_path(&head.reverse_path))
            && (self.owner.as_ref()).is_none_or(|owner| (owner.0)(head, batch))
    }

    /// The places of those recipients of a batch who are meant, if the batch is.
    pub fn places(&self, batch: &Batch) -> impl Iterator<Item = usize> {
        self.whose().places(batch)
    }

    fn whose(&self) -> Whose<'_> {
        Whose {
            recipient: self.recipient.as_ref(),
            reply: self.reply.as_deref(),
        }
    }
}

/// What is asked of each recipient.
#[derive(Clone, Copy)]
struct Whose<'a> {
    recipient: Option<&'a Pattern>,
    reply: Option<&'a str>,
}

impl<'a> Whose<'a> {
    fn places(self, batch: &Batch) -> impl Iterator<Item = usize> + use<'a, '_> {
        let part = self.reply.map(str::to_lowercase);
        let all = batch.recipients.iter().enumerate();
        let meant = all.filter(move |(place, to)| {
            (self.recipient).is_none_or(|pattern| pattern.matches(&to.address))
                && (part.as_ref()).is_none_or(|part| {
                    // In any case of letters.
                    batch.replies.of(*place).to_lowercase().contains(part)
                })
        });
        meant.map(|(place, _)| place)
    }
}

// === impl Selection ===

impl Selection {
    /// What is to be done with a batch that is meant.
    pub fn order(&self) -> Order {
        Order {
            recipient: self.predicate.recipient.clone(),
            reply: self.predicate.reply.clone(),
            held: self.predicate.held,
            hold: self.predicate.hold,
            action: self.action,
        }
    }

    /// How many recipients of a batch that is being attempted are meant: of what it would leave if the attempt did nothing.
    pub(crate) fn meant_in_flight(
        &self,
        head: &Head,
        batch: &Batch,
        orders: &[Order],
        now: Timestamp,
    ) -> u64 {
        if orders.is_empty() {
            return self.predicate.meant(head, batch, now);
        }
        let left = treat(orders, batch.clone(), now, &mut || batch.id).batches;
        left.iter()
            .map(|batch| self.predicate.meant(head, batch, now))
            .sum()
    }

    /// Treats a batch that comes into being: meant or not.
    pub(crate) fn treat_new(
        &self,
        head: &Head,
        batch: Batch,
        now: Timestamp,
        new_id: &mut impl FnMut() -> BatchId,
    ) -> Treated {
        match self.predicate.meant(head, &batch, now) {
            0 => Treated::left_alone(batch),
            _ => self.order().treat(batch, now, new_id),
        }
    }
}

// === impl Order ===

impl Order {
    /// Whether it changes anything about a batch in this state.
    fn applies(&self, batch: &Batch, now: Timestamp) -> bool {
        let wanted = (self.held).is_none_or(|held| held == batch.held.is_some())
            && (self.hold).is_none_or(|hold| batch.held == Some(hold));
        wanted
            && match self.action {
                Action::Count => false,
                // What is held stays under the hold that came first: whoever undoes the other one does not let it go.
                Action::Hold(_) => batch.held.is_none(),
                Action::Release => batch.held.is_some(),
                Action::Retry => batch.due > now,
                Action::Drop => true,
            }
    }

    /// Treats a batch that is meant.
    pub(crate) fn treat(
        &self,
        mut batch: Batch,
        now: Timestamp,
        new_id: &mut impl FnMut() -> BatchId,
    ) -> Treated {
        if !self.applies(&batch, now) {
            return Treated::left_alone(batch);
        }
        let whose = Whose {
            recipient: self.recipient.as_ref(),
            reply: self.reply.as_deref(),
        };
        let meant: Vec<usize> = whose.places(&batch).collect();
        if meant.is_empty() {
            return Treated::left_alone(batch);
        }
        let rest = batch.part(&meant);
        let mut treated = Treated {
            changed: true,
            ..Treated::default()
        };
        if self.action == Action::Drop {
            treated.dropped = meant.len() as u64;
            treated.batches.extend(rest);
            return treated;
        }
        let rest = rest.map(|rest| Batch {
            id: new_id(),
            ..rest
        });
        match self.action {
            Action::Hold(hold) => batch.held = Some(hold),
            Action::Release => batch.held = None,
            Action::Retry => batch.due = now,
            Action::Count | Action::Drop => {}
        }
        treated.batches.push(batch);
        treated.batches.extend(rest);
        treated
    }
}

// === impl Treated ===

impl Treated {
    /// As it was.
    pub(crate) fn left_alone(batch: Batch) -> Self {
        Self {
            batches: vec![batch],
            dropped: 0,
            changed: false,
        }
    }

    /// Goes on with each batch that is left.
    pub(crate) fn then(self, mut next: impl FnMut(Batch) -> Self) -> Self {
        let mut after = Self {
            batches: Vec::new(),
            ..self
        };
        for batch in self.batches {
            let one = next(batch);
            after.batches.extend(one.batches);
            after.dropped += one.dropped;
            after.changed |= one.changed;
        }
        after
    }
}

/// Treats a batch by all orders, in the order in which they came.
pub(crate) fn treat(
    orders: &[Order],
    batch: Batch,
    now: Timestamp,
    new_id: &mut impl FnMut() -> BatchId,
) -> Treated {
    let start = Treated::left_alone(batch);
    orders.iter().fold(start, |before, order| {
        before.then(|batch| order.treat(batch, now, new_id))
    })
}

/// A batch that is being attempted, with the hold that some of what its attempt leaves will be under.
pub(crate) fn as_left(batch: &Batch, orders: &[Order], now: Timestamp) -> Batch {
    let left = treat(orders, batch.clone(), now, &mut || batch.id).batches;
    Batch {
        held: left.iter().find_map(|batch| batch.held),
        ..batch.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Destination};
    use mail::Address;

    const NOW: Timestamp = Timestamp(1_000);

    fn batch(recipients: &[&str]) -> Batch {
        let address = |text: &&str| Address::parse(text).unwrap().into();
        Batch {
            id: BatchId(1),
            destination: Destination::Inside,
            class: Class::Ordinary,
            due: Timestamp(2_000),
            attempts: 1,
            recipients: recipients.iter().map(address).collect(),
            template: Default::default(),
            note: Default::default(),
            replies: Default::default(),
            held: None,
        }
    }

    fn order(recipient: Option<&str>, hold: Option<u64>, action: Action) -> Order {
        Order {
            recipient: recipient.map(Pattern::new),
            reply: None,
            held: None,
            hold: hold.map(HoldId),
            action,
        }
    }

    /// Each batch as `names/hold/due`, then what was dropped.
    fn tell(treated: &Treated) -> String {
        let batches = treated.batches.iter().map(|batch| {
            let names: Vec<_> = (batch.recipients.iter().map(|to| to.address.local())).collect();
            let hold = batch.held.map_or("-".into(), |hold| hold.0.to_string());
            format!("{}/{hold}/{}", names.join("+"), batch.due.0)
        });
        let batches: Vec<_> = batches.collect();
        format!("{} dropped {}", batches.join(" "), treated.dropped)
    }

    #[test]
    fn orders_are_followed_one_after_the_other() {
        use Action::{Drop, Hold, Release, Retry};
        let hold = |number| Hold(HoldId(number));
        let rows: &[(&[Order], &str)] = &[
            (&[], "a+b/-/2000 dropped 0"),
            (&[order(None, None, hold(7))], "a+b/7/2000 dropped 0"),
            (
                &[order(Some("a@*"), None, hold(7))],
                "a/7/2000 b/-/2000 dropped 0",
            ),
            (&[order(Some("c@*"), None, hold(7))], "a+b/-/2000 dropped 0"),
            (&[order(Some("b@*"), None, Drop)], "a/-/2000 dropped 1"),
            (&[order(None, None, Drop)], " dropped 2"),
            (&[order(None, None, Retry)], "a+b/-/1000 dropped 0"),
            (
                &[
                    order(Some("a@*"), None, hold(7)),
                    order(None, None, hold(8)),
                ],
                "a/7/2000 b/8/2000 dropped 0",
            ),
            (
                &[
                    order(Some("a@*"), None, hold(7)),
                    order(None, None, hold(8)),
                    order(None, Some(8), Release),
                ],
                "a/7/2000 b/-/2000 dropped 0",
            ),
            (
                &[
                    order(None, None, hold(7)),
                    order(Some("a@*"), Some(7), Drop),
                ],
                "b/7/2000 dropped 1",
            ),
        ];
        for (orders, expected) in rows {
            let mut next = 1;
            let treated = treat(orders, batch(&["a@x.org", "b@x.org"]), NOW, &mut || {
                next += 1;
                BatchId(next)
            });
            assert_eq!(tell(&treated), *expected, "{orders:?}");
            let unchanged = *expected == "a+b/-/2000 dropped 0";
            assert_eq!(treated.changed, !unchanged, "{orders:?}");
        }
    }
}
