//! Which node gets the next connection. Pure.

/// What counts about a node that may be picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Connections it has from us.
    pub in_flight: usize,
    /// Connections it gets from us at most.
    pub connections_max: usize,
    /// How many it works on at once, its weight included; `None` where nobody has said.
    pub slots: Option<f64>,
    /// How long a connection lasts there, seconds; `None` before the first has ended.
    pub seconds: Option<f64>,
    /// How much that says, from 0 to 1.
    pub certainty: f64,
    /// How long a client there has waited for an answer, at most, seconds.
    pub waits: f64,
    /// When it was picked last, as a count of picks; 0 never.
    pub last_picked: u64,
}

/// Two expectations within this factor are equal: averages are never that exact, and equals share.
const NOTICEABLE: f64 = 1.5;

/// And below so many seconds all are: nobody would notice.
const SECONDS_MIN: f64 = 0.01;

/// A node that leaves a client so many times longer without an answer than its connections last hangs.
const HANGS: f64 = 4.0;

/// The index of the node where a connection is expected to end first, among those that are not full; among equals the one with the
/// smallest share of its slots in use, then the one picked longest ago.
///
/// Connections in flight and how long they last count work that is done, probes do not: a spamd with all children busy still connects in
/// microseconds. A node with a free slot takes as long as it usually does; one without, as many times longer as there wait for each slot.
pub fn pick(candidates: impl IntoIterator<Item = Candidate>) -> Option<usize> {
    let open: Vec<(usize, Candidate)> = candidates
        .into_iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.in_flight < candidate.connections_max)
        .collect();
    // Nothing is known of a new node, and ever less of one that gets nothing: it is as good as the others.
    let known = open.iter().filter_map(|(_, candidate)| {
        let certainty = candidate.certainty.max(f64::MIN_POSITIVE);
        Some((candidate.seconds? * certainty, certainty))
    });
    let (sum, weight) = known.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let usual = if weight > 0.0 { sum / weight } else { 1.0 };
    let judged: Vec<(usize, Candidate, f64, f64)> = open
        .into_iter()
        .map(|(index, candidate)| {
            let share = (candidate.in_flight as f64 + 1.0) / candidate.slots.unwrap_or(1.0);
            (index, candidate, share, expected(&candidate, usual, share))
        })
        .collect();
    let first = judged
        .iter()
        .map(|(.., expected)| *expected)
        .reduce(f64::min)?;
    judged
        .into_iter()
        .filter(|(.., expected)| *expected <= first * NOTICEABLE)
        .min_by(|(_, one, share, _), (_, other, others, _)| {
            let last = one.last_picked.cmp(&other.last_picked);
            share.total_cmp(others).then(last)
        })
        .map(|(index, ..)| index)
}

/// In how many seconds a connection is expected to end there.
fn expected(candidate: &Candidate, usual: f64, share: f64) -> f64 {
    let differs = candidate.seconds.unwrap_or(usual) - usual;
    let mut seconds = (usual + differs * candidate.certainty).max(SECONDS_MIN);
    if candidate.waits > seconds * HANGS {
        seconds = candidate.waits;
    }
    seconds * share.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Candidate = Candidate {
        in_flight: 0,
        connections_max: 10,
        slots: None,
        seconds: None,
        certainty: 1.0,
        waits: 0.0,
        last_picked: 0,
    };

    /// Each candidate is (in flight, at most, last picked).
    fn check(candidates: &[(usize, usize, u64)], expected: Option<usize>) {
        let candidates = candidates
            .iter()
            .map(|&(in_flight, connections_max, last_picked)| Candidate {
                in_flight,
                connections_max,
                last_picked,
                ..NEW
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
            let picked = pick(last.map(|last_picked| Candidate { last_picked, ..NEW })).unwrap();
            last[picked] = round;
            order.push(picked);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    /// Each candidate is (in flight, slots, milliseconds).
    fn known(candidates: &[(usize, f64, f64)], expected: usize) {
        let candidates = candidates
            .iter()
            .map(|&(in_flight, slots, milliseconds)| Candidate {
                in_flight,
                slots: Some(slots),
                seconds: Some(milliseconds / 1000.0),
                ..NEW
            });
        let candidates: Vec<_> = candidates.collect();
        assert_eq!(pick(candidates.clone()), Some(expected), "{candidates:?}");
    }

    #[test]
    fn where_it_ends_first() {
        // Equally fast with free slots: the one with the smaller share in use.
        known(&[(3, 8.0, 100.0), (1, 2.0, 100.0)], 0);
        // A faster one with a free slot.
        known(&[(0, 4.0, 100.0), (3, 4.0, 50.0)], 1);
        // A faster one with a queue for its slots.
        known(&[(0, 4.0, 100.0), (9, 4.0, 50.0)], 0);
        // Differences that nobody would notice are none.
        known(&[(2, 4.0, 100.0), (1, 4.0, 105.0)], 1);
        known(&[(2, 4.0, 1.0), (1, 4.0, 9.0)], 1);
        // A slot that is weighted away counts as none.
        known(&[(1, 1.0, 100.0), (2, 8.0, 100.0)], 1);
    }

    #[test]
    fn a_node_nothing_is_known_of_gets_its_share() {
        let usual = Candidate {
            in_flight: 1,
            seconds: Some(0.1),
            ..NEW
        };
        assert_eq!(pick([usual, NEW, usual]), Some(1));
        let busy = Candidate {
            in_flight: 2,
            ..NEW
        };
        assert_eq!(pick([usual, busy]), Some(0));
    }

    #[test]
    fn what_was_slow_once_gets_mail_again() {
        let fast = Candidate {
            seconds: Some(0.1),
            last_picked: 9,
            ..NEW
        };
        let slow = Candidate {
            seconds: Some(1.0),
            last_picked: 1,
            ..NEW
        };
        assert_eq!(pick([fast, slow]), Some(0));
        let certainty = 0.01;
        assert_eq!(pick([fast, Candidate { certainty, ..slow }, fast]), Some(1));
    }

    #[test]
    fn a_node_that_hangs_is_seen_before_anything_has_ended() {
        let usual = Candidate {
            in_flight: 3,
            slots: Some(8.0),
            seconds: Some(0.1),
            waits: 0.3,
            ..NEW
        };
        let hangs = Candidate {
            in_flight: 1,
            seconds: None,
            waits: 2.0,
            ..usual
        };
        assert_eq!(pick([usual, hangs]), Some(0));
        assert_eq!(
            pick([
                usual,
                Candidate {
                    waits: 0.3,
                    ..hangs
                }
            ]),
            Some(1)
        );
    }
}
