//! The ledger: how every accepted recipient ended, counted with the settlement that ended it, so that it can be proved that none
//! was lost: `accepted + made = expanded + ended + unaccounted + waiting`.

/// How recipients of a batch ended, as whoever settles it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The next hop owns them, or they were handled here (a command, the quarantine).
    pub delivered: u64,
    /// Refused for good; whoever had to be told was told, or that was suppressed and listed.
    pub bounced: u64,
    /// Given up for their age.
    pub expired: u64,
    /// Ended by an operator.
    pub dropped: u64,
    /// Their message cannot be read; it was set aside with its envelope for an operator.
    pub set_aside: u64,
}

impl Ends {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.delivered + self.bounced + self.expired + self.dropped + self.set_aside
    }

    /// No more than so many of them: whoever settles may say more than there were, the account must balance all the same.
    fn at_most(mut self, mut room: u64) -> Self {
        for count in [
            &mut self.delivered,
            &mut self.bounced,
            &mut self.expired,
            &mut self.dropped,
            &mut self.set_aside,
        ] {
            *count = room.min(*count);
            room -= *count;
        }
        self
    }
}

impl std::ops::AddAssign for Ends {
    fn add_assign(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.bounced += more.bounced;
        self.expired += more.expired;
        self.dropped += more.dropped;
        self.set_aside += more.set_aside;
    }
}

/// The account of a spool since it was made; recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Accepted, those accepted before under the same ident not counted.
    pub accepted: u64,
    /// Replaced by others: a list, an alias.
    pub expanded: u64,
    /// Those that took their places.
    pub made: u64,
    /// How others ended.
    pub ends: Ends,
    /// Gone without an end being told: an error of whoever settled them.
    pub unaccounted: u64,
    /// Not ended yet.
    pub waiting: u64,
    /// Of these, held by an operator.
    pub held: u64,
}

impl Ledger {
    /// What came in less what is known of it; 0 when the account balances, more when recipients are unaccounted for.
    pub fn difference(&self) -> i128 {
        let came = i128::from(self.accepted) + i128::from(self.made);
        let known = [self.expanded, self.ends.sum(), self.waiting];
        came - known.into_iter().map(i128::from).sum::<i128>()
    }

    /// A batch was settled for good or for less: of `before` recipients `left` wait on, the others ended like this.
    pub(crate) fn settle(&mut self, before: u64, left: u64, ends: Ends) {
        // More than there were: whoever settled it made them.
        self.made += left.saturating_sub(before);
        let gone = before.saturating_sub(left);
        let ends = ends.at_most(gone);
        self.unaccounted += gone - ends.sum();
        self.ends += ends;
    }

    /// Of a batch with `before` recipients came others with `made`.
    pub(crate) fn replace(&mut self, before: u64, made: u64) {
        self.expanded += before;
        self.made += made;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_settlement_is_balanced() {
        let ends = |delivered, bounced| Ends {
            delivered,
            bounced,
            ..Ends::default()
        };
        // Rows: before, left, ends told; delivered, bounced, made, unaccounted.
        for (before, left, told, expected) in [
            (3, 0, ends(2, 1), (2, 1, 0, 0)),
            (3, 1, ends(2, 0), (2, 0, 0, 0)),
            (3, 1, ends(0, 0), (0, 0, 0, 2)),
            (3, 1, ends(1, 5), (1, 1, 0, 0)),
            (2, 3, ends(1, 0), (0, 0, 1, 0)),
        ] {
            let mut ledger = Ledger {
                accepted: before,
                waiting: left,
                ..Ledger::default()
            };
            ledger.settle(before, left, told);
            let found = ledger.ends;
            assert_eq!(
                (
                    found.delivered,
                    found.bounced,
                    ledger.made,
                    ledger.unaccounted
                ),
                expected
            );
            assert_eq!(ledger.difference(), i128::from(ledger.unaccounted));
        }
    }
}
