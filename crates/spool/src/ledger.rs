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
    /// What came in less what is known of it; 0 when the account balances.
    pub fn difference(&self) -> i128 {
        let came = i128::from(self.accepted) + i128::from(self.made);
        let known = [self.expanded, self.ends.sum(), self.waiting];
        came - known.into_iter().map(i128::from).sum::<i128>()
    }
}
