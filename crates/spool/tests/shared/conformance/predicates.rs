//! The conformance suite's part on predicates: what is meant by each condition, counted and listed.

use spool::{Lane, Matcher, Pattern, Selected};

use super::selects::{names_found, select, to};
use super::*;

pub(super) async fn all(make: &impl Fn(&HandClock) -> Made) {
    every_condition_selects(make).await;
    a_reply_means_those_who_were_told_it(make).await;
    a_listing_is_complete(make).await;
}

/// Who was told something else goes on as before, and everybody keeps what he was told; also when it is told by an attempt that was
/// under way.
async fn a_reply_means_those_who_were_told_it(make: &impl Fn(&HandClock) -> Made) {
    for in_flight in [false, true] {
        let (clock, spool, _guard) = fresh(make);
        let now = clock.now();
        let three = ["a@x.org", "b@x.org", "c@x.org"];
        let told = [
            "452 4.2.2 mailbox FULL",
            "451 4.7.1 later",
            "452 4.2.2 mailbox FULL",
        ];
        let mut new = batch(Destination::Inside, now, &three);
        new.replies = told.into_iter().collect();
        spool
            .accept(message(now, "x", vec![new]), None)
            .await
            .unwrap();
        let leases = match in_flight {
            true => claim_all(spool.as_ref()).await,
            false => Vec::new(),
        };
        let full = Predicate {
            reply: Some("mailbox full".into()),
            ..Predicate::default()
        };
        let hold = Action::Hold(HoldId(1));
        let selected = spool.select(&full, hold).await.unwrap();
        assert_eq!((selected.batches, selected.recipients), (1, 2));
        for lease in &leases {
            let mut outcome = deferred(lease, now);
            if let Outcome::Deferred { replies, .. } = &mut outcome {
                // Now it is the last two.
                *replies = [told[1], told[0], told[2]].into_iter().collect();
            }
            spool
                .settle(vec![settlement(lease, outcome)])
                .await
                .unwrap();
        }
        let found = spool.find(&Predicate::default(), None, 10).await.unwrap();
        let mut kept: Vec<_> = found
            .iter()
            .flat_map(|found| {
                let batch = &found.batch;
                let all = batch.recipients.iter().enumerate();
                all.map(|(place, to)| {
                    (
                        to.address.to_string(),
                        batch.held.is_some(),
                        batch.replies.of(place).to_owned(),
                    )
                })
            })
            .collect();
        kept.sort();
        let expected = match in_flight {
            false => [(true, told[0]), (false, told[1]), (true, told[0])],
            true => [(false, told[1]), (true, told[0]), (true, told[0])],
        };
        let expected = three.iter().zip(expected);
        let expected: Vec<_> = expected
            .map(|(to, (held, text))| (to.to_string(), held, text.to_owned()))
            .collect();
        assert_eq!(kept, expected, "in flight: {in_flight}");
    }
}

/// Mail of several kinds, each batch named after its recipients: two messages inside, one with two destinations, one to a list, one
/// retried, one urgent. Returns the id of the message for two destinations.
async fn several_kinds(clock: &HandClock, spool: &dyn Spool) -> mail::MessageId {
    let now = clock.now();
    let accept = async |new| spool.accept(new, None).await.unwrap().id;
    // Told to try again at once, later by the lanes alone.
    accept(simple(now, "retried@x.org")).await;
    let lease = claim_all(spool).await.remove(0);
    let mut outcome = deferred(&lease, now);
    if let Outcome::Deferred { replies, .. } = &mut outcome {
        *replies = Replies::all("421 4.7.0 Too MANY connections");
    }
    spool
        .settle(vec![settlement(&lease, outcome)])
        .await
        .unwrap();
    let mut old = simple(Timestamp(now.0 - 7_200_000), "old@x.org");
    old.reverse_path = mail::ReversePath::Null;
    accept(old).await;
    let mut urgent = simple(now, "urgent@x.org");
    urgent.batches[0].class = Class::Urgent;
    accept(urgent).await;
    let two = vec![
        batch(domain("y.org"), now, &["one@y.org", "two@y.org"]),
        batch(domain("z.org"), now, &["three@z.org"]),
    ];
    let two = accept(message(now, "two", two)).await;
    let mut post = batch(Destination::Expand, now, &["list@x.org"]);
    post.template = Bytes::from_static(b"of a list");
    let mut post = message(Timestamp(now.0 - 1000), "post", vec![post]);
    post.reverse_path = mail::ReversePath::parse("Joe@lists.example").unwrap();
    accept(post).await;
    two
}

async fn every_condition_selects(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let two = several_kinds(&clock, spool.as_ref()).await;
    let held = Action::Hold(HoldId(4));
    assert_eq!(select(spool.as_ref(), &to("old@x.org"), held).await, (1, 1));
    let held = Action::Hold(HoldId(5));
    assert_eq!(select(spool.as_ref(), &to("list@*"), held).await, (1, 1));
    let now = clock.now();
    let any = Predicate::default;
    let owner: fn(&spool::Head, &spool::Batch) -> bool =
        |head, batch| &head.facts[..] == b"{}" && &batch.template[..] == b"of a list";
    let rows: Vec<(Predicate, &[&str])> = vec![
        (
            any(),
            &["list", "old", "one+two", "retried", "three", "urgent"],
        ),
        (
            Predicate {
                message: Some(two),
                ..any()
            },
            &["one+two", "three"],
        ),
        (
            Predicate {
                message: Some(mail::MessageId(7)),
                ..any()
            },
            &[],
        ),
        (
            Predicate {
                destinations: Some(vec![domain("y.org"), Destination::Expand]),
                ..any()
            },
            &["list", "one+two"],
        ),
        (
            Predicate {
                destinations: Some(vec![domain("nowhere.org")]),
                ..any()
            },
            &[],
        ),
        (
            Predicate {
                destinations: Some(Vec::new()),
                ..any()
            },
            &[],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Urgent]),
                ..any()
            },
            &["urgent"],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Live]),
                ..any()
            },
            &["list", "one+two", "three"],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Backlog]),
                ..any()
            },
            &["old"],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Retry]),
                ..any()
            },
            &["retried"],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Retry, Lane::Backlog]),
                ..any()
            },
            &["old", "retried"],
        ),
        (
            Predicate {
                arrived_before: Some(now),
                ..any()
            },
            &["list", "old"],
        ),
        (
            Predicate {
                arrived_from: Some(Timestamp(now.0 - 1000)),
                ..any()
            },
            &["list", "one+two", "retried", "three", "urgent"],
        ),
        (
            Predicate {
                arrived_from: Some(Timestamp(now.0 - 1000)),
                arrived_before: Some(Timestamp(now.0 - 999)),
                ..any()
            },
            &["list"],
        ),
        (
            Predicate {
                sender: Some(Pattern::new("<>")),
                ..any()
            },
            &["old"],
        ),
        (
            Predicate {
                sender: Some(Pattern::new("joe@LISTS.*")),
                ..any()
            },
            &["list"],
        ),
        (to("*@y.org"), &["one+two"]),
        (to("two@*"), &["one+two"]),
        (
            Predicate {
                reply: Some("too many".into()),
                ..any()
            },
            &["retried"],
        ),
        (
            Predicate {
                held: Some(true),
                ..any()
            },
            &["list", "old"],
        ),
        (
            Predicate {
                held: Some(false),
                ..any()
            },
            &["one+two", "retried", "three", "urgent"],
        ),
        (
            Predicate {
                hold: Some(HoldId(4)),
                ..any()
            },
            &["old"],
        ),
        (
            Predicate {
                hold: Some(HoldId(6)),
                ..any()
            },
            &[],
        ),
        (
            Predicate {
                hold: Some(HoldId(4)),
                held: Some(false),
                ..any()
            },
            &[],
        ),
        (
            Predicate {
                owner: Some(Matcher(Arc::new(owner))),
                ..any()
            },
            &["list"],
        ),
        (
            Predicate {
                lanes: Some(vec![Lane::Live]),
                held: Some(false),
                ..to("*@z.org")
            },
            &["three"],
        ),
    ];
    for (predicate, expected) in rows {
        let found = names_found(spool.as_ref(), &predicate).await;
        assert_eq!(found, expected, "{predicate:?}");
        let counted = spool.select(&predicate, Action::Count).await.unwrap();
        assert_eq!(counted.batches, expected.len() as u64, "{predicate:?}");
    }
    let counted = spool.select(&to("two@*"), Action::Count).await.unwrap();
    let only_two = Selected {
        batches: 1,
        recipients: 1,
        unreadable: 0,
        in_flight: 0,
    };
    assert_eq!(counted, only_two, "only those that are meant are counted");
    assert_eq!(
        claim_all(spool.as_ref()).await.len(),
        4,
        "a count changes nothing"
    );
}

async fn a_listing_is_complete(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    for number in 0..53 {
        let site = format!("d{}.example", number % 3);
        let to = format!("u{number}@{site}");
        let new = message(now, &to, vec![batch(domain(&site), now, &[&to])]);
        spool.accept(new, None).await.unwrap();
    }
    let mut ones = everything();
    ones.destinations = Destinations::Only(vec![domain("d1.example")]);
    let leased = spool.claim("here", &ones).await.unwrap().len();
    let mut predicate = Predicate::default();
    for (destinations, expected) in [
        (None, 53),
        (Some(vec![domain("d1.example"), domain("d2.example")]), 35),
    ] {
        predicate.destinations = destinations;
        let mut after = None;
        let mut all = Vec::new();
        loop {
            let page = spool.find(&predicate, after, 10).await.unwrap();
            assert!(page.len() <= 10);
            after = page.last().map(|found| found.batch.id);
            all.extend(page);
            if after.is_none() {
                break;
            }
        }
        assert!(all.is_sorted_by(|one, next| one.batch.id < next.batch.id));
        assert_eq!(all.len(), expected);
        assert_eq!(all.iter().filter(|found| found.in_flight).count(), leased);
        let arrived = all.iter().all(|found| found.head.arrival == now);
        assert!(arrived && all.iter().all(|found| found.batch.recipients.len() == 1));
    }
    assert!(spool.find(&predicate, None, 0).await.unwrap().is_empty());
}
