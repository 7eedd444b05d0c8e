//! The conformance suite's part on selections of what is being attempted: the attempt goes on, what it leaves is treated.

use spool::{Ends, Lease, Settlement};

use super::selects::{held_in_all, local_parts, names_found, to};
use super::*;

pub(super) async fn all(make: &impl Fn(&HandClock) -> Made) {
    what_an_attempt_leaves_is_treated(make).await;
    an_attempt_that_ends_well_leaves_nothing(make).await;
    a_hold_of_an_attempt_is_undone(make).await;
    children_of_an_attempt_are_treated(make).await;
    late_settlements_have_no_effect(make).await;
}

/// The selection meets a batch under way.
async fn in_flight(spool: &dyn Spool, predicate: &Predicate, action: Action, recipients: u64) {
    let counted = spool.select(predicate, Action::Count).await.unwrap();
    let selected = spool.select(predicate, action).await.unwrap();
    assert_eq!(counted, selected);
    let found = (selected.batches, selected.recipients, selected.in_flight);
    assert_eq!(found, (1, recipients, 1), "{predicate:?} {action:?}");
}

/// What waits, each batch as `names/hold/due in seconds`.
async fn waiting(spool: &dyn Spool, now: Timestamp) -> Vec<String> {
    let found = spool.find(&Predicate::default(), None, 100).await.unwrap();
    let tell = |found: &spool::Found| {
        let batch = &found.batch;
        let hold = batch.held.map_or("-".into(), |hold| hold.0.to_string());
        let due = batch.due.since(now).as_secs();
        format!("{}/{hold}/{due}", local_parts(&batch.recipients))
    };
    let mut all: Vec<_> = found.iter().map(tell).collect();
    all.sort();
    all
}

async fn attempted(clock: &HandClock, spool: &dyn Spool) -> Lease {
    let now = clock.now();
    let three = ["a@x.org", "b@x.org", "c@x.org"];
    let new = message(now, "x", vec![batch(Destination::Inside, now, &three)]);
    spool.accept(new, None).await.unwrap();
    claim_all(spool).await.remove(0)
}

/// Settles for all but the first recipient, who was delivered to.
fn all_but_one(lease: &Lease, until: Timestamp) -> Settlement {
    let mut outcome = deferred(lease, until);
    if let Outcome::Deferred { recipients, .. } = &mut outcome {
        recipients.remove(0);
    }
    Settlement {
        ends: Ends {
            delivered: 1,
            ..Ends::default()
        },
        ..settlement(lease, outcome)
    }
}

async fn what_an_attempt_leaves_is_treated(make: &impl Fn(&HandClock) -> Made) {
    let hold = |number| Action::Hold(HoldId(number));
    let released = Predicate {
        hold: Some(HoldId(2)),
        ..Predicate::default()
    };
    // Rows: selections with how many recipients they mean, what waits afterwards, how many were dropped.
    type Row = (Vec<(Predicate, Action, u64)>, &'static [&'static str], u64);
    let rows: Vec<Row> = vec![
        (vec![(to("*"), hold(1), 3)], &["b+c/1/60"], 0),
        (vec![(to("c@*"), hold(1), 1)], &["b/-/60", "c/1/60"], 0),
        // Delivered meanwhile: there is nothing to hold.
        (vec![(to("a@*"), hold(1), 1)], &["b+c/-/60"], 0),
        (vec![(to("*"), Action::Retry, 3)], &["b+c/-/0"], 0),
        (vec![(to("b@*"), Action::Drop, 1)], &["c/-/60"], 1),
        (vec![(to("*"), Action::Drop, 3)], &[], 2),
        (
            vec![(to("c@*"), hold(1), 1), (to("*"), hold(2), 3)],
            &["b/2/60", "c/1/60"],
            0,
        ),
        (
            vec![
                (to("c@*"), hold(1), 1),
                (to("*"), hold(2), 3),
                (released, Action::Release, 2),
            ],
            &["b/-/60", "c/1/60"],
            0,
        ),
        (
            vec![
                (to("*"), hold(1), 3),
                (to("c@*"), Action::Drop, 1),
                (to("*"), Action::Retry, 2),
            ],
            &["b/1/0"],
            1,
        ),
    ];
    for (selections, expected, dropped) in rows {
        let (clock, spool, _guard) = fresh(make);
        let now = clock.now();
        let lease = attempted(&clock, spool.as_ref()).await;
        for (predicate, action, recipients) in &selections {
            in_flight(spool.as_ref(), predicate, *action, *recipients).await;
        }
        assert!(claim_all(spool.as_ref()).await.is_empty(), "it is borrowed");
        let settled = all_but_one(&lease, now.after(Duration::from_secs(60)));
        assert_eq!(spool.settle(vec![settled]).await.unwrap(), 1);
        assert_eq!(
            waiting(spool.as_ref(), now).await,
            expected,
            "{selections:?}"
        );
        let ledger = spool.ledger().await.unwrap();
        assert_eq!(ledger.ends.dropped, dropped, "{selections:?}");
        assert_eq!(ledger.ends.delivered, 1);
        assert_eq!(ledger.difference(), 0, "{ledger:?}");
        let held = expected.iter().filter(|line| !line.contains("/-/"));
        assert_eq!(
            held_in_all(&spool.tally().await.unwrap()),
            held.count() as u64
        );
        // Once treated it goes on like any other.
        clock.advance(60_000);
        let free = expected.iter().filter(|line| line.contains("/-/"));
        let leases = claim_all(spool.as_ref()).await;
        assert_eq!(leases.len(), free.count(), "{selections:?}");
        let back = leases
            .iter()
            .map(|lease| settlement(lease, deferred(lease, clock.now())));
        spool.settle(back.collect()).await.unwrap();
        let again = claim_all(spool.as_ref()).await;
        assert_eq!(
            again.len(),
            leases.len(),
            "an order is followed once: {selections:?}"
        );
    }
}

async fn an_attempt_that_ends_well_leaves_nothing(make: &impl Fn(&HandClock) -> Made) {
    for action in [Action::Hold(HoldId(1)), Action::Drop, Action::Retry] {
        let (clock, spool, _guard) = fresh(make);
        let lease = attempted(&clock, spool.as_ref()).await;
        in_flight(spool.as_ref(), &to("*"), action, 3).await;
        assert!(!spool.body(lease.head.id).await.unwrap().is_empty());
        let done = Settlement {
            ends: Ends {
                delivered: 3,
                ..Ends::default()
            },
            ..settlement(&lease, Outcome::Finished)
        };
        assert_eq!(spool.settle(vec![done]).await.unwrap(), 1);
        let ledger = spool.ledger().await.unwrap();
        assert_eq!((ledger.ends.delivered, ledger.ends.sum()), (3, 3));
        assert_eq!(
            (ledger.waiting, ledger.held, ledger.difference()),
            (0, 0, 0)
        );
        assert!(spool.tally().await.unwrap().is_empty());
    }
}

async fn a_hold_of_an_attempt_is_undone(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let lease = attempted(&clock, spool.as_ref()).await;
    in_flight(spool.as_ref(), &to("*"), Action::Hold(HoldId(1)), 3).await;
    let of = |number| Predicate {
        hold: Some(HoldId(number)),
        ..Predicate::default()
    };
    assert_eq!(names_found(spool.as_ref(), &of(1)).await, ["a+b+c"]);
    let none = spool.select(&of(2), Action::Release).await.unwrap();
    assert_eq!(none.batches, 0);
    in_flight(spool.as_ref(), &of(1), Action::Release, 3).await;
    let back = settlement(&lease, deferred(&lease, clock.now()));
    spool.settle(vec![back]).await.unwrap();
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1);
}

async fn children_of_an_attempt_are_treated(make: &impl Fn(&HandClock) -> Made) {
    let expansions = Predicate {
        destinations: Some(vec![Destination::Expand]),
        ..Predicate::default()
    };
    let two = to("b@*");
    // Rows: the selection, what waits afterwards, how many were dropped.
    let rows: [(Predicate, Action, &[&str], u64); 5] = [
        (
            Predicate::default(),
            Action::Hold(HoldId(1)),
            &["a+b/1/0", "c/1/0"],
            0,
        ),
        (
            two.clone(),
            Action::Hold(HoldId(1)),
            &["a/-/0", "b/1/0", "c/-/0"],
            0,
        ),
        (two, Action::Drop, &["a/-/0", "c/-/0"], 1),
        (Predicate::default(), Action::Drop, &[], 3),
        // What comes of it is no expansion.
        (expansions, Action::Drop, &["a+b/-/0", "c/-/0"], 0),
    ];
    for (predicate, action, expected, dropped) in rows {
        let (clock, spool, _guard) = fresh(make);
        let now = clock.now();
        let both = vec![batch(Destination::Expand, now, &["list@x.org", "b@x.org"])];
        spool.accept(message(now, "x", both), None).await.unwrap();
        let lease = claim_all(spool.as_ref()).await.remove(0);
        let recipients = if predicate.recipient.is_some() { 1 } else { 2 };
        in_flight(spool.as_ref(), &predicate, action, recipients).await;
        let children = vec![
            batch(domain("y.org"), now, &["a@y.org", "b@y.org"]),
            batch(domain("z.org"), now, &["c@z.org"]),
        ];
        let replaced = settlement(&lease, Outcome::Replaced(children));
        assert_eq!(spool.settle(vec![replaced]).await.unwrap(), 1);
        assert_eq!(
            waiting(spool.as_ref(), now).await,
            expected,
            "{predicate:?}"
        );
        let ledger = spool.ledger().await.unwrap();
        assert_eq!((ledger.accepted, ledger.expanded, ledger.made), (2, 2, 3));
        assert_eq!(ledger.ends.dropped, dropped, "{predicate:?}");
        assert_eq!((ledger.unaccounted, ledger.difference()), (0, 0));
    }
}

async fn late_settlements_have_no_effect(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let lease = attempted(&clock, spool.as_ref()).await;
    in_flight(spool.as_ref(), &to("*"), Action::Drop, 3).await;
    let back = settlement(&lease, deferred(&lease, clock.now()));
    assert_eq!(
        spool
            .settle(vec![back.clone(), back.clone()])
            .await
            .unwrap(),
        1
    );
    assert_eq!(spool.settle(vec![back]).await.unwrap(), 0);
    let ledger = spool.ledger().await.unwrap();
    assert_eq!(
        (ledger.ends.dropped, ledger.waiting, ledger.difference()),
        (3, 0, 0)
    );
}
