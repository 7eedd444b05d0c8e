//! The embedded engine against the plain one in memory: the same random operations, including ends of the process and losses of
//! the index, must have the same outcomes. The seed is printed; the same seed is the same story.

#![allow(clippy::unwrap_used)]

mod shared;

use std::sync::Arc;

use mail::Timestamp;
use shared::*;
use spool::embedded::{Embedded, Options};
use spool::memory::Memory;
use spool::{
    Action, Class, Destination, Destinations, Ends, Found, HoldId, Lane, Lease, Matcher, NewBatch,
    Outcome, Pattern, Predicate, Spool, Tally, Wanted,
};

/// Times are multiples of this less a count, so that no two are the same and the order is one.
const TICK: u64 = 100_000;

struct Random(u64);

impl Random {
    /// Below `n` (xorshift).
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

struct Story {
    random: Random,
    clock: HandClock,
    folder: tempfile::TempDir,
    options: Options,
    embedded: Option<Embedded>,
    memory: Memory,
    /// Leases of both, pair by pair.
    held: Vec<(Lease, Lease)>,
    count: u64,
    /// Whether the order of claims is compared.
    ordered: bool,
    /// How many batches were selected.
    selected: u64,
}

/// By what leases of both engines are told to be of the same batch.
fn key(lease: &Lease) -> (Timestamp, Timestamp, Vec<String>) {
    let names = lease.batch.recipients.iter();
    let names = names.map(|to| to.address.to_string());
    (lease.head.arrival, lease.batch.due, names.collect())
}

fn destination(number: u64) -> Destination {
    match number {
        0 => Destination::Expand,
        1 => Destination::Inside,
        2 => Destination::Route("smarthost".into()),
        _ => domain(&format!("d{number}.example")),
    }
}

impl Story {
    fn new(seed: u64, window_max: usize, heads_max: usize) -> Self {
        let clock = HandClock::new();
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 64 * 1024,
            window_max,
            heads_max,
            unindexed_max: 500,
            content_bytes_max: if seed.is_multiple_of(2) { 0 } else { 1 << 20 },
            clock: clock.clock(),
            ..options(folder.path())
        };
        Self {
            random: Random(seed * 7919 + 1),
            memory: Memory::with_clock(clock.clock()),
            embedded: Some(Embedded::open(options.clone()).unwrap()),
            clock,
            folder,
            options,
            held: Vec::new(),
            count: 0,
            ordered: window_max > 1000,
            selected: 0,
        }
    }

    fn embedded(&self) -> &Embedded {
        self.embedded.as_ref().unwrap()
    }

    fn unique(&mut self, time: u64) -> Timestamp {
        self.count += 1;
        Timestamp(time - self.count)
    }

    /// Ordinary ones of a message sort by its arrival: one of them is enough.
    fn batches(&mut self, ident: Option<u64>) -> Vec<NewBatch> {
        let now = self.clock.now().0;
        let count = 1 + self.random.below(3);
        let mut batches = Vec::new();
        for number in 0..count {
            let ahead = self.random.below(4);
            let due = self.unique(now + ahead.saturating_sub(1) * TICK);
            let names: Vec<String> = (0..=self.random.below(2))
                .map(|_| match ident {
                    Some(_) => format!("path-{number}-{}@x.org", self.random.below(3)),
                    None => format!("u{}-{}@x.org", self.count, self.random.below(1000)),
                })
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut one = batch(destination(self.random.below(6)), due, &names);
            if number > 0 {
                one.class = Class::Urgent;
            }
            batches.push(one);
        }
        batches
    }

    async fn accept(&mut self) {
        let now = self.clock.now().0;
        let age = self.random.below(60);
        let arrival = self.unique(now - age * TICK);
        let ident = (self.random.below(3) == 0).then(|| self.random.below(20));
        let batches = self.batches(ident);
        let body = "b".repeat(self.random.below(3000) as usize);
        let new = message(arrival, &format!("{} {body}", self.count), batches);
        let ident = ident.map(|number| format!("e.1.{number}"));
        let one = self
            .embedded()
            .accept(new.clone(), ident.as_deref())
            .await
            .unwrap();
        let other = self.memory.accept(new, ident.as_deref()).await.unwrap();
        assert_eq!(one.paths, other.paths);
    }

    async fn claim(&mut self) {
        let some: Vec<_> = (0..self.random.below(4))
            .map(|_| destination(self.random.below(7)))
            .collect();
        let destinations = match self.random.below(2) {
            0 => Destinations::Except(some.into()),
            _ => Destinations::Only(some),
        };
        let lanes = match self.ordered {
            true => [0; 4].map(|_: u8| self.random.below(4) as usize),
            false => [1000; 4],
        };
        let wanted = Wanted {
            destinations,
            lanes,
        };
        let mut one = self.embedded().claim("here", &wanted).await.unwrap();
        let mut other = self.memory.claim("here", &wanted).await.unwrap();
        if !self.ordered {
            one.sort_by_key(key);
            other.sort_by_key(key);
        }
        let keys = |leases: &[Lease]| leases.iter().map(key).collect::<Vec<_>>();
        assert_eq!(keys(&one), keys(&other), "{wanted:?}");
        for (one, other) in one.into_iter().zip(other) {
            let mut same = one.batch.clone();
            same.id = other.batch.id;
            assert_eq!(same, other.batch);
            let mut same = spool::Head::clone(&one.head);
            same.id = other.head.id;
            assert_eq!(same, *other.head);
            self.held.push((one, other));
        }
    }

    async fn settle(&mut self) {
        let mut ones = Vec::new();
        let mut others = Vec::new();
        for _ in 0..self.random.below(6) {
            if self.held.is_empty() {
                break;
            }
            let which = self.random.below(self.held.len() as u64) as usize;
            // Sometimes it is kept, and settled again later with a stale token.
            let (one, other) = match self.random.below(8) {
                0 => self.held[which].clone(),
                _ => self.held.swap_remove(which),
            };
            let outcome = match self.random.below(4) {
                0 | 1 => Outcome::Finished,
                2 => {
                    let now = self.clock.now().0;
                    let ahead = self.random.below(4);
                    let mut outcome = deferred(&one, self.unique(now + ahead * TICK));
                    if let Outcome::Deferred {
                        recipients,
                        attempted,
                        moved,
                        ..
                    } = &mut outcome
                    {
                        *attempted = self.random.below(2) == 0;
                        if self.random.below(3) == 0 {
                            recipients.pop();
                        }
                        if self.random.below(3) == 0 {
                            *moved = self.batches(None);
                            let all = moved.iter_mut();
                            all.for_each(|one| one.class = Class::Urgent);
                        }
                    }
                    outcome
                }
                _ => {
                    let mut children = self.batches(None);
                    if one.batch.class == Class::Urgent {
                        children
                            .iter_mut()
                            .for_each(|child| child.class = Class::Urgent);
                    }
                    Outcome::Replaced(children)
                }
            };
            // Not always the truth.
            let mut settled = [
                settlement(&one, outcome.clone()),
                settlement(&other, outcome),
            ];
            let told = Ends {
                delivered: self.random.below(3),
                bounced: self.random.below(2),
                expired: self.random.below(2),
                ..Ends::default()
            };
            settled.iter_mut().for_each(|settled| settled.ends = told);
            let [one, other] = settled;
            ones.push(one);
            others.push(other);
        }
        let one = self.embedded().settle(ones).await.unwrap();
        let other = self.memory.settle(others).await.unwrap();
        assert_eq!(one, other);
    }

    /// Selects at random. What would make two batches the same but for their ids does not go with an order.
    async fn select(&mut self) {
        let now = self.clock.now().0;
        let mut predicate = Predicate::default();
        match self.random.below(8) {
            0 => predicate.destinations = Some((0..3).map(destination).collect()),
            1 => predicate.lanes = Some(vec![Lane::Live, Lane::Retry]),
            2 => predicate.arrived_before = Some(Timestamp(now - 20 * TICK)),
            3 => predicate.held = Some(self.random.below(2) == 0),
            4 => predicate.hold = Some(HoldId(self.random.below(3))),
            5 if !self.ordered => {
                let pattern = format!("*-*{}@*", self.random.below(10));
                predicate.recipient = Some(Pattern::new(&pattern));
            }
            6 => predicate.reply = Some("TRY again".into()),
            _ => {
                let odd = |head: &spool::Head, _: &spool::Batch| head.arrival.0 % 2 == 1;
                predicate.owner = Some(Matcher(Arc::new(odd)));
            }
        }
        let action = match self.random.below(9) {
            0 => Action::Count,
            1..4 => Action::Hold(HoldId(self.random.below(3))),
            4..7 => Action::Release,
            7 if !self.ordered => Action::Retry,
            _ => match self.random.below(4) {
                0 => Action::Drop,
                _ => Action::Count,
            },
        };
        let one = self.embedded().select(&predicate, action).await.unwrap();
        let other = self.memory.select(&predicate, action).await.unwrap();
        assert_eq!(one, other, "{predicate:?} {action:?}");
        self.selected += one.batches;
        let tell = |found: Vec<Found>| {
            let tell = |found: Found| {
                let (batch, head) = (found.batch, found.head);
                let names = batch.recipients.iter().map(|to| to.address.to_string());
                let names: Vec<_> = names.collect();
                (head.arrival, names, batch.held, batch.due, found.in_flight)
            };
            let mut all: Vec<_> = found.into_iter().map(tell).collect();
            all.sort();
            all
        };
        let one = self.embedded().find(&predicate, None, 10_000).await;
        let other = self.memory.find(&predicate, None, 10_000).await;
        assert_eq!(tell(one.unwrap()), tell(other.unwrap()), "{predicate:?}");
    }

    async fn tally(&mut self) {
        let key = |line: &Tally| (line.destination.clone(), line.class);
        let mut one = self.embedded().tally().await.unwrap();
        let mut other = self.memory.tally().await.unwrap();
        one.sort_by_key(key);
        other.sort_by_key(key);
        assert_eq!(one, other);
        let mut one = self.embedded().ages().await.unwrap();
        let mut other = self.memory.ages().await.unwrap();
        one.sort();
        other.sort();
        assert_eq!(one, other);
        let one = self.embedded().ledger().await.unwrap();
        assert_eq!(one, self.memory.ledger().await.unwrap());
    }

    async fn body(&mut self) {
        if let Some((one, other)) = self.held.last() {
            let found = self.embedded().body(one.head.id).await;
            if let Ok(expected) = self.memory.body(other.head.id).await {
                assert_eq!(found.unwrap(), expected);
            }
        }
    }

    async fn reopen(&mut self) {
        let spool = self.embedded.take().unwrap();
        if self.random.below(2) == 0 {
            spool.close().await;
        }
        drop(spool);
        if self.random.below(3) == 0 {
            lose_index(self.folder.path());
        }
        self.embedded = Some(Embedded::open(self.options.clone()).unwrap());
        self.memory.lapse();
        self.held.clear();
    }

    async fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.random.below(100) {
                0..35 => self.accept().await,
                35..55 => self.claim().await,
                55..76 => self.settle().await,
                76..82 => self.select().await,
                82..88 => self.tally().await,
                88..93 => self.body().await,
                93..98 => self.clock.advance(TICK * (1 + self.random.below(3))),
                _ => self.reopen().await,
            }
        }
        self.tally().await;
        self.clock.advance(100 * TICK);
        self.reopen().await;
        self.ordered = false;
        self.claim().await;
        self.tally().await;
    }
}

async fn stories(seeds: std::ops::Range<u64>, window_max: usize, heads_max: usize) {
    for seed in seeds {
        println!("seed {seed}, window {window_max}, heads {heads_max}");
        let mut story = Story::new(seed, window_max, heads_max);
        story.run(500).await;
        assert!(story.selected > 50, "{} were selected", story.selected);
    }
}

#[tokio::test]
async fn with_the_order_of_claims() {
    stories(1..7, 4096, 100_000).await;
}

#[tokio::test]
async fn with_hardly_anything_in_memory() {
    stories(10..16, 2, 100_000).await;
}

#[tokio::test]
async fn with_a_few_in_memory_of_all_destinations_together() {
    stories(20..26, 4096, 4).await;
}
