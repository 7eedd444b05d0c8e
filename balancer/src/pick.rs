//! Which node gets the next connection. Pure.

/// What counts about a node that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Connections it has from us.
    pub in_flight: usize,
    /// Connections it gets from us at most.
    pub connections_max: usize,
    /// When it was picked last, as a count of picks; 0 never.
    pub last_picked: u64,
}

/// The index of the node with the fewest connections in flight that is not full; among equals the one picked longest ago.
///
/// In-flight counts work that is done, probes do not: a spamd with all children busy still connects in microseconds.
pub fn pick(candidates: impl IntoIterator<Item = Candidate>) -> Option<usize> {
    candidates
        .into_iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.in_flight < candidate.connections_max)
        .min_by_key(|(_, candidate)| (candidate.in_flight, candidate.last_picked))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each candidate is (in flight, at most, last picked).
    fn check(candidates: &[(usize, usize, u64)], expected: Option<usize>) {
        let candidates = candidates
            .iter()
            .map(|&(in_flight, connections_max, last_picked)| Candidate {
                in_flight,
                connections_max,
                last_picked,
            });
        let candidates: Vec<_> = candidates.collect();
        assert_eq!(pick(candidates.clone()), expected, "{candidates:?}");
    }

    #[test]
    fn the_least_busy_is_picked() {
        check(&[], None);
        check(&[(0, 10, 0)], Some(0));
        check(&[(3, 10, 0), (2, 10, 9), (4, 10, 1)], Some(1));
        check(&[(2, 10, 7), (2, 10, 5), (2, 10, 6)], Some(1));
        check(&[(2, 2, 0), (3, 10, 0)], Some(1));
        check(&[(2, 2, 0), (3, 3, 0)], None);
        check(&[(0, 0, 0)], None);
    }

    #[test]
    fn equals_take_turns() {
        let mut last = [0; 3];
        let mut order = Vec::new();
        for round in 1..=6 {
            let candidates = last.map(|last_picked| Candidate {
                in_flight: 0,
                connections_max: 1,
                last_picked,
            });
            let picked = pick(candidates).unwrap();
            last[picked] = round;
            order.push(picked);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }
}
