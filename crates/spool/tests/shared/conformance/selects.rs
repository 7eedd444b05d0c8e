//! The conformance suite's part on selections of what nobody is attempting: what becomes of it.

use spool::{Found, Lease, Pattern};

use super::*;

pub(super) async fn all(make: &impl Fn(&HandClock) -> Made) {
    held_is_not_claimed_until_released(make).await;
    each_hold_is_undone_alone(make).await;
    recipients_not_meant_go_on_alone(make).await;
    retry_is_due_now(make).await;
    dropped_is_gone(make).await;
    many_are_selected_in_steps(make).await;
}

pub(super) async fn select(spool: &dyn Spool, predicate: &Predicate, action: Action) -> (u64, u64) {
    let counted = spool.select(predicate, Action::Count).await.unwrap();
    // The same by a condition that is always true, so that each batch is looked at.
    let looked = Predicate {
        arrived_from: predicate.arrived_from.or(Some(mail::Timestamp(0))),
        ..predicate.clone()
    };
    let looked = spool.select(&looked, Action::Count).await.unwrap();
    assert_eq!(counted, looked, "{predicate:?}");
    let selected = spool.select(predicate, action).await.unwrap();
    assert_eq!(counted, selected, "the count goes first: {predicate:?}");
    assert_eq!(selected.in_flight, 0);
    (selected.batches, selected.recipients)
}

pub(super) fn to(pattern: &str) -> Predicate {
    Predicate {
        recipient: Some(Pattern::new(pattern)),
        ..Predicate::default()
    }
}

pub(super) async fn names_found(spool: &dyn Spool, predicate: &Predicate) -> Vec<String> {
    let found = spool.find(predicate, None, 1_000_000).await.unwrap();
    let mut names: Vec<_> = found.iter().map(name).collect();
    names.sort();
    names
}

/// All recipients of a batch, local parts alone.
fn name(found: &Found) -> String {
    local_parts(&found.batch.recipients)
}

pub(super) fn local_parts(recipients: &[mail::Recipient]) -> String {
    let names: Vec<_> = recipients.iter().map(|to| to.address.local()).collect();
    names.join("+")
}

pub(super) fn held_in_all(tally: &[spool::Tally]) -> u64 {
    tally.iter().map(|line| line.held).sum()
}

async fn held_is_not_claimed_until_released(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    for number in 0..6 {
        let to = format!("u{number}@x.org");
        spool.accept(simple(now, &to), None).await.unwrap();
    }
    let hold = Action::Hold(HoldId(1));
    let mut three = Vec::new();
    for number in 0..3 {
        let pattern = format!("u{number}@*");
        assert_eq!(select(spool.as_ref(), &to(&pattern), hold).await, (1, 1));
        three.push(format!("u{number}@x.org"));
    }
    let mut seen = Seen::default();
    spool.ready(&mut seen).await;
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 3);
    assert!(names(&leases).iter().all(|name| !three.contains(name)));
    let tally = spool.tally().await.unwrap();
    assert_eq!(
        (tally[0].batches, tally[0].held, tally[0].leased),
        (6, 3, 3)
    );
    finish(spool.as_ref(), &leases).await;
    let tally = spool.tally().await.unwrap();
    assert_eq!(
        (tally[0].batches, tally[0].held, tally[0].leased),
        (3, 3, 0)
    );
    assert_eq!((tally[0].recipients, tally[0].oldest), (3, now));
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.waiting, ledger.held), (3, 3));
    spool.ready(&mut seen).await;
    assert!(claim_all(spool.as_ref()).await.is_empty());
    let everything = Predicate::default();
    assert_eq!(
        select(spool.as_ref(), &everything, Action::Release).await,
        (3, 3)
    );
    tokio::time::timeout(Duration::from_secs(20), spool.ready(&mut seen))
        .await
        .expect("what was released is new");
    let mut released = names(&claim_all(spool.as_ref()).await);
    released.sort();
    assert_eq!(released, three);
    assert_eq!(held_in_all(&spool.tally().await.unwrap()), 0);
}

async fn each_hold_is_undone_alone(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    for to in ["a@x.org", "b@x.org", "c@x.org"] {
        spool.accept(simple(now, to), None).await.unwrap();
    }
    let hold = |number| Action::Hold(HoldId(number));
    let of = |number| Predicate {
        hold: Some(HoldId(number)),
        ..Predicate::default()
    };
    select(spool.as_ref(), &to("a@*"), hold(1)).await;
    // What is held already stays under its name.
    assert_eq!(
        select(spool.as_ref(), &to("*@x.org"), hold(2)).await,
        (3, 3)
    );
    assert_eq!(names_found(spool.as_ref(), &of(1)).await, ["a"]);
    assert_eq!(names_found(spool.as_ref(), &of(2)).await, ["b", "c"]);
    assert_eq!(
        select(spool.as_ref(), &of(2), Action::Release).await,
        (2, 2)
    );
    assert_eq!(claim_all(spool.as_ref()).await.len(), 2);
    assert_eq!(
        select(spool.as_ref(), &of(1), Action::Release).await,
        (1, 1)
    );
    assert_eq!(names(&claim_all(spool.as_ref()).await), ["a@x.org"]);
}

async fn recipients_not_meant_go_on_alone(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let all = ["a@x.org", "b@x.org", "c@y.org", "d@x.org"];
    let new = message(now, "x", vec![batch(Destination::Inside, now, &all)]);
    let accepted = spool.accept(new, None).await.unwrap();
    let hold = Action::Hold(HoldId(1));
    assert_eq!(select(spool.as_ref(), &to("*@x.org"), hold).await, (1, 3));
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(names(&leases), ["c@y.org"]);
    assert_eq!(leases[0].head.id, accepted.id);
    assert_eq!(&leases[0].batch.template[..], b"template");
    finish(spool.as_ref(), &leases).await;
    // Again, of those that are held.
    assert_eq!(
        select(spool.as_ref(), &to("b@*"), Action::Release).await,
        (1, 1)
    );
    let released = claim_all(spool.as_ref()).await;
    assert_eq!(names(&released), ["b@x.org"]);
    finish(spool.as_ref(), &released).await;
    assert_eq!(
        select(spool.as_ref(), &to("a@*"), Action::Drop).await,
        (1, 1)
    );
    let ledger = spool.ledger().await.unwrap();
    assert_eq!(
        (ledger.waiting, ledger.held, ledger.ends.dropped),
        (1, 1, 1)
    );
    // The body is there as long as anything is left.
    assert!(!spool.body(accepted.id).await.unwrap().is_empty());
    assert_eq!(
        select(spool.as_ref(), &to("d@*"), Action::Release).await,
        (1, 1)
    );
    assert_eq!(names(&claim_all(spool.as_ref()).await), ["d@x.org"]);
}

async fn retry_is_due_now(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let both = vec![batch(Destination::Inside, now, &["a@x.org", "b@x.org"])];
    spool.accept(message(now, "x", both), None).await.unwrap();
    spool.accept(simple(now, "held@x.org"), None).await.unwrap();
    let leases = claim_all(spool.as_ref()).await;
    let later = now.after(Duration::from_secs(3600));
    let back = leases
        .iter()
        .map(|lease| settlement(lease, deferred(lease, later)));
    spool.settle(back.collect()).await.unwrap();
    select(spool.as_ref(), &to("held@*"), Action::Hold(HoldId(1))).await;
    assert!(claim_all(spool.as_ref()).await.is_empty());
    let mut seen = Seen::default();
    spool.ready(&mut seen).await;
    clock.advance(1000);
    assert_eq!(
        select(spool.as_ref(), &to("a@*"), Action::Retry).await,
        (1, 1)
    );
    tokio::time::timeout(Duration::from_secs(20), spool.ready(&mut seen))
        .await
        .expect("what is due is new");
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(names(&leases), ["a@x.org"]);
    assert_eq!(leases[0].batch.due, clock.now());
    assert_eq!(leases[0].batch.attempts, 1, "it is the same mail");
    assert_eq!(
        select(spool.as_ref(), &to("held@*"), Action::Retry).await,
        (1, 1)
    );
    assert!(
        claim_all(spool.as_ref()).await.is_empty(),
        "held stays held"
    );
    select(spool.as_ref(), &to("held@*"), Action::Release).await;
    assert_eq!(names(&claim_all(spool.as_ref()).await), ["held@x.org"]);
    clock.advance(3_600_000);
    assert_eq!(names(&claim_all(spool.as_ref()).await), ["b@x.org"]);
}

async fn dropped_is_gone(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let mut ids = Vec::new();
    for to in ["a@x.org", "b@x.org"] {
        ids.push(spool.accept(simple(now, to), None).await.unwrap().id);
    }
    assert_eq!(
        select(spool.as_ref(), &to("a@*"), Action::Drop).await,
        (1, 1)
    );
    assert_eq!(
        names_found(spool.as_ref(), &Predicate::default()).await,
        ["b"]
    );
    let gone = async {
        while !matches!(spool.body(ids[0]).await, Err(Error::Unknown(_))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
    let leases: Vec<Lease> = claim_all(spool.as_ref()).await;
    assert_eq!(names(&leases), ["b@x.org"]);
    finish(spool.as_ref(), &leases).await;
    assert!(spool.tally().await.unwrap().is_empty());
}

/// More than any step takes at once.
async fn many_are_selected_in_steps(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let post = batch(Destination::Expand, now, &["list@x.org"]);
    spool
        .accept(message(now, "x", vec![post]), None)
        .await
        .unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let children = (0..1500).map(|number| {
        let site = format!("d{}.example", number % 7);
        let to = [format!("a{number}@{site}"), format!("b{number}@{site}")];
        batch(domain(&site), now, &[&to[0], &to[1]])
    });
    let replaced = settlement(&lease, Outcome::Replaced(children.collect()));
    spool.settle(vec![replaced]).await.unwrap();
    let hold = Action::Hold(HoldId(9));
    assert_eq!(select(spool.as_ref(), &to("a*"), hold).await, (1500, 1500));
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.waiting, ledger.held), (3000, 1500));
    let mut seven = Predicate {
        destinations: Some(vec![domain("d1.example")]),
        ..Predicate::default()
    };
    assert_eq!(
        select(spool.as_ref(), &seven, Action::Drop).await,
        (430, 430)
    );
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1285);
    seven.destinations = Some(vec![domain("d2.example")]);
    let counted = spool.select(&seven, Action::Count).await.unwrap();
    assert_eq!((counted.batches, counted.in_flight), (428, 214));
    let held = Predicate {
        held: Some(true),
        ..Predicate::default()
    };
    assert_eq!(
        select(spool.as_ref(), &held, Action::Release).await,
        (1285, 1285)
    );
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1285);
}
