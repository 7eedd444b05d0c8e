//! What the hand knows of its sites: how each stands, for others; and which of them it forgets.

use std::time::Duration;

use mail::Timestamp;
use tokio::time::Instant;

use super::{Hand, PROBES_HELD_MAX, SITES_MAX};
use crate::board::{SITES_SHOWN_MAX, SiteState};
use crate::seat::{Key, Seat};

/// A site not needed for so long may be forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Forgetting looks at every site; it is not tried more often than this.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

impl Hand {
    /// Whether a shut site has nothing in hand by which it could be probed, and may have.
    pub(crate) fn lacks_probe(&self, key: &Key) -> bool {
        self.shut <= PROBES_HELD_MAX
            && self
                .seats
                .get(key)
                .is_some_and(|seat| seat.gate.is_shut() && seat.waits() == 0)
    }

    /// Why a site could not be reached last, in one line.
    pub(crate) fn trouble(&self, key: &Key) -> &str {
        self.seats.get(key).map_or("", |seat| &seat.trouble)
    }

    /// When the next probe of a site may go, while it is shut.
    pub(crate) fn shut_until(&self, key: &Key) -> Option<Instant> {
        self.seats.get(key)?.gate.shut_until()
    }

    /// Whether nothing but the probe that is under way, if any, goes to a site now.
    pub(crate) fn keeps_out(&self, key: &Key, now: Instant) -> bool {
        self.seats.get(key).is_some_and(|seat| {
            seat.gate.is_shut() && seat.gate.shut_until().is_none_or(|until| until > now)
        })
    }

    /// The sites as they stand, those first that are shut, then those with most to do; at most [`SITES_SHOWN_MAX`].
    pub(crate) fn sites(&self, now: Instant, wall: Timestamp) -> Vec<SiteState> {
        let weight = |seat: &Seat| (seat.gate.is_shut(), seat.running + seat.waits());
        let mut all: Vec<_> = self
            .seats
            .iter()
            .map(|(key, seat)| (weight(seat), key, seat))
            .collect();
        all.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        all.truncate(SITES_SHOWN_MAX);
        all.into_iter()
            .map(|(_, key, seat)| seat.shown(key, now, wall))
            .collect()
    }

    /// Whether that was a provider's rule against this host.
    pub(crate) fn is_policy(&self, key: &Key) -> bool {
        self.seats.get(key).is_some_and(|seat| seat.policy)
    }

    /// Forgets sites that have nothing to do, when there are too many.
    pub(super) fn forget(&mut self, now: Instant) {
        if self.seats.len() < SITES_MAX || self.forget_at.is_some_and(|at| at > now) {
            return;
        }
        self.forget_at = Some(now + FORGET_INTERVAL);
        let shut = &mut self.shut;
        self.seats.retain(|_, seat| {
            let busy = seat.running > 0 || seat.waits() > 0;
            let keep = busy || !seat.gate.is_shut() && now.duration_since(seat.used) < FORGET;
            *shut -= usize::from(!keep && seat.gate.is_shut());
            keep
        });
        self.left_out.retain(|key| self.seats.contains_key(key));
    }
}
