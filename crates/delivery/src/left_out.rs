//! Which sites claims leave out, of what is fresh and of what is old, and whether that has changed since it was last asked for.

use std::collections::HashSet;
use std::sync::Arc;

use spool::Destination;

use crate::lane::Age;
use crate::seat::Key;

/// See the module.
#[derive(Default)]
pub(crate) struct LeftOut {
    /// By [`Age`].
    sites: [HashSet<Arc<Key>>; 2],
    changed: [bool; 2],
    widened: bool,
}

/// What a claim leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unwanted {
    pub(crate) destinations: HashSet<Destination>,
    /// Routes of which nothing is wanted, whatever is pinned to them.
    pub(crate) routes: Vec<Box<str>>,
}

impl LeftOut {
    /// Leaves a site out from now on, or no longer.
    pub(crate) fn set(&mut self, age: Age, key: &Arc<Key>, left_out: bool) {
        match left_out {
            true => self.sites[age as usize].insert(key.clone()),
            false => self.sites[age as usize].remove(key),
        };
        self.changed[age as usize] = true;
        self.widened |= !left_out;
    }

    /// Forgets sites that are not known any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&Key) -> bool) {
        for sites in &mut self.sites {
            sites.retain(|key| is_known(key));
        }
        self.changed = [true; 2];
    }

    /// The sites of an age.
    pub(crate) fn sites(&self, age: Age) -> impl Iterator<Item = &Arc<Key>> {
        self.sites[age as usize].iter()
    }

    /// More is left out, or something else: of this age.
    pub(crate) fn change(&mut self, age: Age) {
        self.changed[age as usize] = true;
    }

    /// The same for both ages.
    pub(crate) fn change_all(&mut self) {
        self.changed = [true; 2];
    }

    /// A claim may find more than before.
    pub(crate) fn widen(&mut self) {
        self.widened = true;
    }

    /// Whether something of an age has changed since [`Self::take_changed`].
    pub(crate) fn has_changed(&self, age: Age) -> bool {
        self.changed[age as usize]
    }

    /// The same, and it counts as seen.
    pub(crate) fn take_changed(&mut self, age: Age) -> bool {
        std::mem::take(&mut self.changed[age as usize])
    }

    /// Whether a claim may find more than before, since the last call.
    pub(crate) fn take_widened(&mut self) -> bool {
        std::mem::take(&mut self.widened)
    }
}
