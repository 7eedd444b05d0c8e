//! Fronts: by window, which destination comes next. Destinations that claims left out stand aside, so that a claim never passes
//! them one by one, however many sites are dead. Claims name two sets in turn (of what is fresh and of what is old), so there are two
//! views, each with those aside that its set leaves out. Pure; owns no batches.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::window::Window;

/// The key that comes first for a destination.
type Front = (u64, u32);

/// Sets of destinations that are kept aside.
pub const VIEWS: usize = 2;

/// All fronts.
#[derive(Debug, Default)]
pub struct Fronts {
    views: [View; VIEWS],
    /// The view that is served.
    current: usize,
}

/// All fronts, as a claim sees them that leaves some out.
#[derive(Debug, Default)]
struct View {
    served: BTreeMap<Window, BTreeSet<Front>>,
    aside: BTreeMap<Window, BTreeSet<Front>>,
    left_out: HashSet<u32>,
}

impl View {
    fn change(&mut self, window: Window, destination: u32, old: Option<u64>, new: Option<u64>) {
        let fronts = match self.left_out.contains(&destination) {
            true => self.aside.entry(window).or_default(),
            false => self.served.entry(window).or_default(),
        };
        if let Some(old) = old {
            fronts.remove(&(old, destination));
        }
        if let Some(new) = new {
            fronts.insert((new, destination));
        }
    }

    /// In how many destinations its set differs from another.
    fn difference(&self, other: &HashSet<u32>) -> usize {
        let both = other.intersection(&self.left_out).count();
        self.left_out.len() + other.len() - 2 * both
    }

    fn leave_out(&mut self, left_out: HashSet<u32>, front: impl Fn(u32, Window) -> Option<u64>) {
        let before = std::mem::replace(&mut self.left_out, left_out);
        let moves =
            |these: Vec<u32>, from: &mut BTreeMap<_, BTreeSet<_>>, to: &mut BTreeMap<_, _>| {
                for destination in these {
                    for window in Window::ALL {
                        let Some(key) = front(destination, window) else {
                            continue;
                        };
                        from.entry(window).or_default().remove(&(key, destination));
                        let to: &mut BTreeSet<Front> = to.entry(window).or_default();
                        to.insert((key, destination));
                    }
                }
            };
        let back = before.difference(&self.left_out).copied().collect();
        moves(back, &mut self.aside, &mut self.served);
        let out = self.left_out.difference(&before).copied().collect();
        moves(out, &mut self.served, &mut self.aside);
    }
}

impl Fronts {
    /// Says that the front of a destination has changed.
    pub fn change(&mut self, window: Window, destination: u32, old: Option<u64>, new: Option<u64>) {
        for view in &mut self.views {
            view.change(window, destination, old, new);
        }
    }

    /// Puts these destinations aside and takes all others back, in the view that differs least from that: it costs what the
    /// difference costs. Returns that view, for [`Self::see`]; it is served from now on.
    pub fn leave_out(
        &mut self,
        left_out: HashSet<u32>,
        front: impl Fn(u32, Window) -> Option<u64>,
    ) -> usize {
        let differences = self.views.iter().map(|view| view.difference(&left_out));
        let nearest = differences.enumerate().min_by_key(|(_, much)| *much);
        self.current = nearest.map_or(0, |(view, _)| view);
        if let Some(view) = self.views.get_mut(self.current) {
            view.leave_out(left_out, front);
        }
        self.current
    }

    /// Serves that view from now on.
    pub fn see(&mut self, view: usize) {
        self.current = view.min(VIEWS - 1);
    }

    fn current(&self) -> &View {
        &self.views[self.current]
    }

    /// The first one of a window, without those left out.
    pub fn first(&self, window: Window) -> Option<Front> {
        self.current().served.get(&window)?.first().copied()
    }

    /// The destinations of a window with fronts up to `key`, without those left out.
    pub fn up_to(&self, window: Window, key: u64) -> Vec<u32> {
        let fronts = self.current().served.get(&window).into_iter();
        fronts
            .flat_map(|fronts| fronts.range(..=(key, u32::MAX)))
            .map(|(_, destination)| *destination)
            .collect()
    }

    /// The destinations of a window with fronts below `key`, all of them.
    pub fn all_below(&self, window: Window, key: u64) -> Vec<u32> {
        self.everybody(window)
            .flat_map(|fronts| fronts.range(..(key, 0)))
            .map(|(_, destination)| *destination)
            .collect()
    }

    /// The first key of a window above `key`, of all destinations.
    pub fn first_above(&self, window: Window, key: u64) -> Option<u64> {
        let firsts = self.everybody(window).filter_map(|fronts| {
            let mut above = fronts.range((key + 1, 0)..);
            above.next().map(|(key, _)| *key)
        });
        firsts.min()
    }

    /// Those served and those aside.
    fn everybody(&self, window: Window) -> impl Iterator<Item = &BTreeSet<Front>> {
        let view = self.current();
        let both = [&view.served, &view.aside].into_iter();
        both.filter_map(move |fronts| fronts.get(&window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_out_stands_aside_and_comes_back_where_it_was() {
        let mut fronts = Fronts::default();
        let keys = BTreeMap::from([(1, 10), (2, 20), (3, 30)]);
        let front = |destination: u32, window| {
            (window == Window::Live).then(|| keys.get(&destination).copied())?
        };
        for (destination, key) in &keys {
            fronts.change(Window::Live, *destination, None, Some(*key));
        }
        for (left_out, first) in [
            (vec![], Some((10, 1))),
            (vec![1], Some((20, 2))),
            (vec![1, 2], Some((30, 3))),
            (vec![2, 3, 7], Some((10, 1))),
            (vec![1, 2, 3], None),
            (vec![], Some((10, 1))),
        ] {
            fronts.leave_out(left_out.iter().copied().collect(), front);
            assert_eq!(fronts.first(Window::Live), first, "{left_out:?}");
            assert_eq!(fronts.first(Window::Retry), None);
            assert_eq!(fronts.all_below(Window::Live, 30).len(), 2);
            assert_eq!(fronts.first_above(Window::Live, 10), Some(20));
            assert_eq!(
                fronts.up_to(Window::Live, 20).len(),
                [1, 2].iter().filter(|one| !left_out.contains(one)).count()
            );
        }
    }

    #[test]
    fn what_changes_aside_stays_aside() {
        let mut fronts = Fronts::default();
        fronts.leave_out(HashSet::from([1]), |_, _| None);
        fronts.change(Window::Retry, 1, None, Some(5));
        fronts.change(Window::Retry, 2, None, Some(9));
        assert_eq!(fronts.first(Window::Retry), Some((9, 2)));
        fronts.change(Window::Retry, 1, Some(5), Some(6));
        assert_eq!(fronts.first_above(Window::Retry, 0), Some(6));
        fronts.leave_out(HashSet::new(), |destination, window| {
            (window == Window::Retry && destination == 1).then_some(6)
        });
        assert_eq!(fronts.first(Window::Retry), Some((6, 1)));
    }

    /// Two sets in turn, as claims of what is fresh and of what is old name them.
    #[test]
    fn two_sets_in_turn_keep_a_view_each() {
        let mut fronts = Fronts::default();
        for destination in 1..=6 {
            let key = u64::from(destination) * 10;
            fronts.change(Window::Live, destination, None, Some(key));
        }
        let moved = std::cell::Cell::new(0);
        let front = |destination: u32, window| {
            moved.set(moved.get() + usize::from(window == Window::Live));
            (window == Window::Live).then_some(u64::from(destination) * 10)
        };
        let old = fronts.leave_out((1..=4).collect(), front);
        let fresh = fronts.leave_out(HashSet::from([1]), front);
        assert_ne!(old, fresh);
        assert_eq!(
            moved.get(),
            5,
            "each destination that is put aside is moved once"
        );
        for (view, first) in [(old, 50), (fresh, 20), (old, 50)] {
            fronts.see(view);
            assert_eq!(fronts.first(Window::Live).map(|(key, _)| key), Some(first));
        }
        // A set that has changed takes the place of its like.
        assert_eq!(fronts.leave_out((1..=5).collect(), front), old);
        assert_eq!(fronts.leave_out(HashSet::from([1, 6]), front), fresh);
        assert_eq!(moved.get(), 7);
        fronts.change(Window::Live, 2, Some(20), Some(70));
        assert_eq!(fronts.first(Window::Live), Some((30, 3)));
        fronts.see(old);
        assert_eq!(fronts.first(Window::Live), Some((60, 6)));
        assert_eq!(fronts.first_above(Window::Live, 60), Some(70));
    }
}
