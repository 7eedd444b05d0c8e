//! What changes by time alone: gates to be probed, lookups to be made again, paces with a token.

use std::cmp::Reverse;
use std::sync::Arc;

use mail::Domain;
use tokio::time::Instant;

use super::{Hand, is_drained};
use crate::seat::Key;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    Seat(Arc<Key>),
    Domain(Domain),
}

impl Hand {
    /// When something changes by time alone.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waits = (0..4).any(|lane| is_drained(lane) && !self.turns[lane].is_empty());
        let drain = self.drain.free_at(now).filter(|_| waits);
        self.next_wake().into_iter().chain(drain).min()
    }

    fn next_wake(&self) -> Option<Instant> {
        self.wakes.peek().map(|Reverse((at, _))| *at)
    }

    /// Lets probes go whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while self.next_wake().is_some_and(|at| at <= now) {
            match self.wakes.pop() {
                Some(Reverse((_, Wake::Seat(key)))) => self.queue(&key, now),
                Some(Reverse((_, Wake::Domain(domain)))) => {
                    let over = self.domains.retry(&domain, now);
                    if over {
                        self.left_out.change_all();
                        self.left_out.widen();
                    }
                }
                None => {}
            }
        }
    }

    /// Lets every shut site be probed, every failed lookup be made again, at once.
    pub(crate) fn nudge(&mut self, now: Instant) {
        let keys: Vec<_> = self
            .seats
            .iter_mut()
            .filter_map(|(key, seat)| seat.gate.nudge(now).then(|| key.clone()))
            .collect();
        for key in keys {
            self.queue(&key, now);
        }
        if self.domains.retry_all() {
            self.left_out.change_all();
        }
        self.left_out.widen();
    }
}
