//! Which destinations claims leave out, as the hand has it.

use spool::Destination;

use super::Hand;
use crate::lane::Age;
use crate::left_out::Unwanted;
use crate::seat::Key;

impl Hand {
    /// Whether the destinations not wanted of an age have changed since [`Self::changed`] was last called.
    pub(crate) fn has_changed(&self, age: Age) -> bool {
        self.left_out.has_changed(age)
    }

    /// The destinations of which nothing of an age is wanted now, when they have changed since the last call.
    pub(crate) fn changed(&mut self, age: Age) -> Option<Unwanted> {
        if !self.left_out.take_changed(age) {
            return None;
        }
        let mut unwanted = Unwanted::default();
        for key in self.left_out.sites(age) {
            if let Some(seat) = self.seats.get(key) {
                unwanted.destinations.extend(seat.destinations().cloned());
            }
            if let Key::Route(name) = &**key {
                unwanted.routes.push(name.clone());
            }
        }
        let domains = self.domains.unwanted();
        unwanted
            .destinations
            .extend(domains.cloned().map(Destination::Domain));
        Some(unwanted)
    }

    /// Whether a claim may find more than before, since the last call.
    pub(crate) fn widened(&mut self) -> bool {
        self.left_out.take_widened()
    }
}
