//! Fronts: by window, which destination comes next. Destinations that the last claim left out stand aside, so that a claim
//! never passes them one by one, however many sites are dead. Pure; owns no batches.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::heads::Window;

/// The key that comes first for a destination.
type Front = (u64, u32);

/// All fronts.
#[derive(Debug, Default)]
pub struct Fronts {
    served: BTreeMap<Window, BTreeSet<Front>>,
    aside: BTreeMap<Window, BTreeSet<Front>>,
    left_out: HashSet<u32>,
}

impl Fronts {
    /// Says that the front of a destination has changed.
    pub fn change(&mut self, window: Window, destination: u32, old: Option<u64>, new: Option<u64>) {
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

    /// Puts these destinations aside and takes all others back; costs what the difference to the last time costs.
    pub fn leave_out(
        &mut self,
        left_out: HashSet<u32>,
        front: impl Fn(u32, Window) -> Option<u64>,
    ) {
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

    /// The first one of a window, without those left out.
    pub fn first(&self, window: Window) -> Option<Front> {
        self.served.get(&window)?.first().copied()
    }

    /// The destinations of a window with fronts up to `key`, without those left out.
    pub fn up_to(&self, window: Window, key: u64) -> Vec<u32> {
        let fronts = self.served.get(&window).into_iter();
        fronts
            .flat_map(|fronts| fronts.range(..=(key, u32::MAX)))
            .map(|(_, destination)| *destination)
            .collect()
    }

    /// The destinations of a window with fronts below `key`, all of them.
    pub fn all_below(&self, window: Window, key: u64) -> Vec<u32> {
        let both = [&self.served, &self.aside].into_iter();
        both.filter_map(|fronts| fronts.get(&window))
            .flat_map(|fronts| fronts.range(..(key, 0)))
            .map(|(_, destination)| *destination)
            .collect()
    }

    /// The first key of a window above `key`, of all destinations.
    pub fn first_above(&self, window: Window, key: u64) -> Option<u64> {
        let both = [&self.served, &self.aside].into_iter();
        both.filter_map(|fronts| {
            let mut above = fronts.get(&window)?.range((key + 1, 0)..);
            above.next().map(|(key, _)| *key)
        })
        .min()
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
}
