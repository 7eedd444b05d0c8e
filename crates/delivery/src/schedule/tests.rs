//! The hand by itself: order, bounds, and what a shut site does to the others.

use std::sync::Arc;

use bytes::Bytes;
use mail::{Domain, MessageId, ReversePath, Timestamp};
use spool::{Batch, BatchId, Class, Destination, Head, Lane, Lease};

use super::*;
use crate::domains::{LOCATING_MAX, REMEMBER};
use crate::site::Site;

fn limits() -> Limits {
    Limits {
        failures: 1,
        probe_interval: Duration::from_secs(60),
        start: 2,
    }
}

fn unlimited() -> Arc<Pace> {
    Arc::new(Pace::new(None, Instant::now()))
}

fn key(host: &str) -> Arc<Key> {
    Arc::new(Key::Site(Site::new(vec![(0, host.into())])))
}

fn work(n: u128, host: &str, lane: Lane) -> Work {
    let head = Head {
        id: MessageId(n),
        arrival: Timestamp(0),
        accepted: Timestamp(0),
        reverse_path: ReversePath::Null,
        parameters: Default::default(),
        facts: Bytes::new(),
        body_bytes: 0,
    };
    let batch = Batch {
        id: BatchId(n),
        destination: Destination::Domain(Domain::parse(host).unwrap()),
        class: Class::Ordinary,
        due: Timestamp(0),
        attempts: 0,
        recipients: Vec::new(),
        template: Bytes::new(),
        note: Bytes::new(),
        replies: Default::default(),
        held: None,
    };
    Work {
        claimed: Instant::now(),
        ends: spool::Ends::default(),
        lease: Lease {
            head: Arc::new(head),
            batch,
            token: 1,
        },
        lane,
    }
}

fn put(hand: &mut Hand, n: u128, host: &str, lane: Lane, now: Instant) -> Placed {
    let ceiling = Ceiling {
        attempts: 10,
        rate: None,
    };
    hand.put(&key(host), ceiling, work(n, host, lane), now)
}

/// The next one's batch and host.
fn next(hand: &mut Hand, now: Instant) -> Option<(u128, String)> {
    let (key, _, work) = hand.next(now, true)?;
    Some((work.lease.batch.id.0, key.to_string()))
}

#[test]
fn sites_take_turns_and_a_site_keeps_its_order() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 100, unlimited());
    for n in 0..4 {
        put(&mut hand, n, "a.example", Lane::Live, now);
        put(&mut hand, 10 + n, "b.example", Lane::Live, now);
    }
    let order: Vec<u128> = std::iter::from_fn(|| next(&mut hand, now))
        .map(|(n, _)| n)
        .collect();
    assert_eq!(order, [0, 10, 1, 11], "two at once each, in turn");
    assert_eq!(hand.held(), 4);
    // One end of a.example lets one more of it go; a second makes a full round, and the window grows.
    hand.ended(
        &key("a.example"),
        Lane::Live,
        Signal::Reached,
        None,
        None,
        now,
    );
    assert_eq!(next(&mut hand, now).map(|(n, _)| n), Some(2));
    assert_eq!(next(&mut hand, now), None);
    hand.ended(
        &key("a.example"),
        Lane::Live,
        Signal::Reached,
        None,
        None,
        now,
    );
    assert_eq!(next(&mut hand, now).map(|(n, _)| n), Some(3));
}

#[test]
fn what_waits_for_a_shut_or_busy_site_takes_no_room_from_others() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 8, unlimited());
    assert_eq!(hand.room(), [8; 4]);
    for n in 0..6 {
        put(&mut hand, n, "a.example", Lane::Live, now);
    }
    assert_eq!(
        hand.room(),
        [8, 0, 8, 8],
        "more than half of the stock can go"
    );
    while next(&mut hand, now).is_some() {}
    assert_eq!(hand.room(), [8; 4], "the other four wait for their site");
    let (crossing, back) = hand.ended(
        &key("a.example"),
        Lane::Live,
        Signal::Unreached,
        None,
        Some("451 x".into()),
        now,
    );
    assert_eq!(crossing, Some(Crossing::Shut));
    assert_eq!(back.len(), 3, "one stays as the probe");
    assert_eq!((hand.held(), hand.shut(), hand.room()), (1, 1, [8; 4]));
    assert!(matches!(
        put(&mut hand, 9, "a.example", Lane::Live, now),
        Placed::Back(..)
    ));
    assert_eq!(hand.trouble(&key("a.example")), "451 x");
}

#[test]
fn a_shut_site_is_left_out_of_claims_until_its_probe() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 8, unlimited());
    let dead = Destination::Domain(Domain::parse("dead.example").unwrap());
    put(&mut hand, 1, "dead.example", Lane::Live, now);
    assert!(next(&mut hand, now).is_some());
    hand.ended(
        &key("dead.example"),
        Lane::Live,
        Signal::Unreached,
        None,
        None,
        now,
    );
    let unwanted = hand.changed(Age::Fresh).expect("the site is shut");
    assert!(unwanted.destinations.contains(&dead));
    assert!(hand.lacks_probe(&key("dead.example")));

    let later = now + Duration::from_secs(60);
    assert_eq!(hand.wake_at(now), Some(later));
    hand.wake(later);
    assert!(hand.widened(), "a claim may bring a probe");
    assert!(
        !hand
            .changed(Age::Fresh)
            .unwrap()
            .destinations
            .contains(&dead)
    );
    put(&mut hand, 2, "dead.example", Lane::Retry, later);
    put(&mut hand, 3, "dead.example", Lane::Retry, later);
    assert!(
        hand.changed(Age::Fresh)
            .unwrap()
            .destinations
            .contains(&dead),
        "one is enough"
    );
    assert_eq!(next(&mut hand, later).map(|(n, _)| n), Some(2));
    assert_eq!(next(&mut hand, later), None, "one probe");
    let (crossing, _) = hand.ended(
        &key("dead.example"),
        Lane::Retry,
        Signal::Reached,
        None,
        None,
        later,
    );
    assert_eq!(crossing, Some(Crossing::Opened));
    assert_eq!(next(&mut hand, later).map(|(n, _)| n), Some(3));
    assert_eq!(hand.shut(), 0);
}

/// Batches of a backlog fill a site and the hand; what is fresh is claimed and goes all the same.
#[test]
fn a_backlog_keeps_places_and_claims_for_what_is_fresh() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 100, unlimited());
    let busy = Destination::Domain(Domain::parse("busy.example").unwrap());
    for n in 0..6 {
        put(&mut hand, n, "busy.example", Lane::Backlog, now);
    }
    let left_out = |hand: &mut Hand, age| {
        let unwanted = hand.changed(age).unwrap_or_default();
        unwanted.destinations.contains(&busy)
    };
    assert!(left_out(&mut hand, Age::Old), "it has enough of a backlog");
    assert!(!left_out(&mut hand, Age::Fresh), "live mail is claimed");
    assert_eq!(next(&mut hand, now).map(|(n, _)| n), Some(0));
    assert_eq!(next(&mut hand, now), None, "one place of two stays free");
    put(&mut hand, 10, "busy.example", Lane::Live, now);
    assert_eq!(next(&mut hand, now).map(|(n, _)| n), Some(10));
    assert_eq!(next(&mut hand, now), None, "the site is full");
    let end = |hand: &mut Hand, lane| {
        let site = key("busy.example");
        hand.ended(&site, lane, Signal::Nothing, None, None, now);
    };
    end(&mut hand, Lane::Live);
    assert_eq!(next(&mut hand, now), None, "the place stays free");
    end(&mut hand, Lane::Backlog);
    assert_eq!(next(&mut hand, now).map(|(n, _)| n), Some(1));
}

#[test]
fn a_busy_site_is_left_out_until_half_of_it_has_gone() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 100, unlimited());
    let busy = Destination::Domain(Domain::parse("a.example").unwrap());
    put(&mut hand, 0, "a.example", Lane::Live, now);
    assert!(hand.changed(Age::Fresh).is_none());
    put(&mut hand, 1, "a.example", Lane::Live, now);
    assert!(
        hand.changed(Age::Fresh)
            .unwrap()
            .destinations
            .contains(&busy)
    );
    assert!(!hand.widened());
    next(&mut hand, now);
    assert!(hand.widened());
    assert!(hand.changed(Age::Fresh).unwrap().destinations.is_empty());
}

#[test]
fn a_full_hand_gives_back_what_its_site_has_enough_of() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 2, unlimited());
    for n in 0..u128::from(HELD_STOCKS as u64 * 2) {
        assert!(matches!(
            put(&mut hand, n, "a.example", Lane::Live, now),
            Placed::Waits
        ));
    }
    assert_eq!(hand.room(), [0; 4]);
    let Placed::Back(_, until) = put(&mut hand, 99, "a.example", Lane::Live, now) else {
        panic!("it should be given back");
    };
    assert_eq!(until, now + BACK);
    assert!(matches!(
        put(&mut hand, 100, "b.example", Lane::Live, now),
        Placed::Waits
    ));
    assert_eq!(hand.empty().len(), HELD_STOCKS * 2 + 1);
    assert_eq!((hand.held(), hand.room()), (0, [2; 4]));
}

#[test]
fn lookups_gather_the_batches_of_a_domain_and_are_remembered() {
    let now = Instant::now();
    let mut hand = Hand::new(limits(), 100, unlimited());
    let domain = Domain::parse("d.example").unwrap();
    assert!(
        hand.locate(&domain, work(1, "d.example", Lane::Live)),
        "the first starts it"
    );
    for n in 2..=LOCATING_MAX as u128 {
        assert!(!hand.locate(&domain, work(n, "d.example", Lane::Live)));
    }
    let wanted = Destination::Domain(domain.clone());
    assert!(
        hand.changed(Age::Fresh)
            .unwrap()
            .destinations
            .contains(&wanted),
        "enough of it for now"
    );
    assert_eq!(hand.located(&domain).len(), LOCATING_MAX);
    assert!(hand.changed(Age::Fresh).unwrap().destinations.is_empty());
    let key = hand.remember(
        domain.clone(),
        Site::new(vec![(0, "mx.example".into())]),
        now,
    );
    assert_eq!(hand.site_of(&domain, now), Some(key));
    assert_eq!(hand.site_of(&domain, now + REMEMBER), None);

    hand.unresolved(domain.clone(), now + BACK);
    assert!(
        hand.changed(Age::Fresh)
            .unwrap()
            .destinations
            .contains(&wanted)
    );
    hand.wake(now + BACK);
    assert!(hand.widened());
    assert!(hand.changed(Age::Fresh).unwrap().destinations.is_empty());
}
