//! The heads beside an index that is a list: what is in memory is bounded, and nothing is lost, doubled, overtaken or starved by it.

use std::collections::{BTreeMap, BTreeSet};

use mail::MessageId;

use super::*;
use crate::embedded::entry::{Hold, Span};

const NOW: u64 = 1_000_000;

/// Heads, with all batches in an index.
struct World {
    heads: Heads,
    index: BTreeMap<(u32, Track), BTreeMap<Key, Entry>>,
    read: usize,
    most: usize,
}

fn entry(id: u128, destination: u32, track: Track, arrival: u64, due: u64) -> Entry {
    Entry {
        id: BatchId(id),
        message: MessageId(id),
        destination,
        track,
        hold: Hold::Free,
        arrival,
        due,
        recipients: 1,
        span: Span {
            generation: 1,
            offset: 0,
            length: 1,
        },
    }
}

impl World {
    fn new(window_max: usize, heads_max: usize) -> Self {
        Self {
            heads: Heads::new(window_max, heads_max, 500_000),
            index: BTreeMap::new(),
            read: 0,
            most: 0,
        }
    }

    /// A batch is accepted and indexed.
    fn add(&mut self, entry: Entry) {
        self.heads.insert(entry.clone());
        self.heads.indexed(&entry);
        self.heads.trim(&entry, |_| false);
        self.heads.shed((0, |_| false), None);
        self.most = self.most.max(self.heads.held());
        let rows = self.index.entry((entry.destination, entry.track));
        rows.or_default().insert(entry.key(), entry);
    }

    fn refill(&mut self, gap: Gap) {
        let limit = self.heads.share();
        let rows = self.index.get(&(gap.destination, gap.window.track()));
        let rows = rows.into_iter().flat_map(BTreeMap::values);
        let rows = rows.filter(|row| row.key() > gap.after && row.key().0 < gap.below);
        let rows: Vec<Entry> = rows.take(limit).cloned().collect();
        self.read += rows.len();
        self.heads.refill(gap, rows, limit, |_| true);
        let except = Some((gap.destination, gap.window));
        self.heads.shed((0, |_| false), except);
        self.most = self.most.max(self.heads.held());
    }

    /// The next one of a lane, which is done with.
    fn next(&mut self, lane: Lane) -> Option<Entry> {
        loop {
            match self.heads.next(lane, NOW, None) {
                Next::Nothing => return None,
                Next::Gap(gap) => self.refill(gap),
                Next::Entry(entry) => {
                    let rows = self.index.get_mut(&(entry.destination, entry.track));
                    let row = rows.unwrap().remove(&entry.key());
                    assert_eq!(row.as_ref(), Some(&entry), "it was served before");
                    return Some(entry);
                }
            }
        }
    }
}

/// 20,000 batches of 2,000 destinations, one after the other, in three lanes.
fn many(world: &mut World) -> usize {
    let batches = 20_000;
    for number in 0..batches {
        let destination = (number * 7919 % 2000) as u32;
        let id = u128::from(number) + 1;
        let time = 400_000 + number * 10;
        let (track, due) = match number % 7 {
            0 => (Track::Retry, time),
            _ => (Track::Ripe, 0),
        };
        world.add(entry(id, destination, track, time, due));
    }
    batches as usize
}

#[test]
fn memory_is_bounded_over_all_destinations() {
    // (of a window, of all; the bound)
    for (window_max, heads_max, bound) in [
        (4096, 1000, 1001),
        (4096, 100_000, 20_000),
        (16, 5000, 5001),
        // Far less than one of each destination: a refill is as much as it is.
        (4096, 10, 10 + SHARE_MIN),
        (1, 1, 3),
    ] {
        let mut world = World::new(window_max, heads_max);
        let batches = many(&mut world);
        assert!(
            world.most <= bound,
            "{window_max} {heads_max}: {}",
            world.most
        );
        let mut served = 0;
        for lane in [Lane::Live, Lane::Backlog, Lane::Retry] {
            let mut last = 0;
            while let Some(entry) = world.next(lane) {
                assert!(entry.key().0 >= last, "{entry:?} was overtaken");
                last = entry.key().0;
                served += 1;
            }
        }
        assert_eq!(served, batches, "{window_max} {heads_max}");
        assert!(
            world.most <= bound,
            "{window_max} {heads_max}: {}",
            world.most
        );
        assert_eq!((world.heads.held(), world.heads.filled.len()), (0, 0));
    }
}

#[test]
fn what_is_read_is_served_before_it_is_let_go_of() {
    for heads_max in [2000, 10_000] {
        let mut world = World::new(4096, heads_max);
        let batches = many(&mut world);
        while world.next(Lane::Live).is_some() {}
        while world.next(Lane::Backlog).is_some() {}
        while world.next(Lane::Retry).is_some() {}
        // With the memory for all of them in step, each is read about once.
        assert!(world.read <= 2 * batches, "{heads_max}: {}", world.read);
    }
}

#[test]
fn nobody_starves_who_has_nothing_in_memory() {
    let mut world = World::new(4096, 50);
    many(&mut world);
    let (mut first, mut served) = (BTreeSet::new(), 0);
    while first.len() < 2000 {
        let entry = world.next(Lane::Backlog).or_else(|| world.next(Lane::Live));
        first.insert(entry.unwrap().destination);
        served += 1;
    }
    // By arrival: each of them comes about once in 2,000.
    assert!(served < 8000, "{served}");
}

#[test]
fn what_the_index_lacks_is_kept_whatever_the_memory() {
    let mut heads = Heads::new(4, 4, 0);
    let entries = |range: std::ops::Range<u64>| {
        range.map(|number| entry(u128::from(number) + 1, 7, Track::Ripe, number, 0))
    };
    entries(0..100).for_each(|entry| heads.insert(entry));
    heads.shed((100, |_| true), None);
    assert_eq!(heads.held(), 100);
    // Half of them are in the index by now.
    heads.shed((50, |id: BatchId| id.0 > 50), None);
    assert_eq!(heads.held(), 52, "two are kept of those that could go");
    for expected in [1, 2] {
        let next = heads.next(Lane::Live, NOW, None);
        assert!(matches!(next, Next::Entry(entry) if entry.id.0 == expected));
    }
    let Next::Gap(gap) = heads.next(Lane::Live, NOW, None) else {
        panic!("what was let go of comes first");
    };
    assert_eq!(gap.after, (2, BatchId(2)));
}

#[test]
fn what_ripens_waits_for_room() {
    let mut world = World::new(4096, 100);
    for number in 0..1000 {
        let id = u128::from(number) + 1;
        world.add(entry(
            id,
            number as u32 % 50,
            Track::Waiting,
            number,
            number + 10,
        ));
    }
    assert!(world.heads.held() <= 101);
    let mut served = 0;
    loop {
        let ripened = world.heads.ripen(NOW, None);
        if let Ripened::Gap(gap) = ripened {
            world.refill(gap);
            continue;
        }
        let mut some = 0;
        while some < 100 && world.next(Lane::Backlog).is_some() {
            some += 1;
        }
        served += some;
        world.most = world.most.max(world.heads.held());
        if some == 0 {
            break;
        }
    }
    assert_eq!(served, 1000);
    assert!(world.most <= 50 * 2 * SHARE_MIN + 101, "{}", world.most);
}
