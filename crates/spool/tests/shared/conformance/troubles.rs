//! Leases whose holder is gone, and bodies that are not what they were.

use super::*;

pub async fn all(make: &impl Fn(&HandClock) -> Made, outside: &dyn Outside) {
    a_lapsed_lease_is_handed_to_another(make, outside).await;
    what_was_settled_does_not_lapse(make, outside).await;
    a_flipped_bit_of_a_body_is_found(make, outside).await;
}

async fn a_lapsed_lease_is_handed_to_another(
    make: &impl Fn(&HandClock) -> Made,
    outside: &dyn Outside,
) {
    let clock = HandClock::new();
    let made = make(&clock);
    let now = clock.now();
    for (age, name) in [(2, "a@x.org"), (1, "b@x.org")] {
        let arrival = Timestamp(now.0 - age);
        made.0.accept(simple(arrival, name), None).await.unwrap();
    }
    let old = made.0.claim("one", &everything()).await.unwrap();
    assert_eq!(names(&old), ["a@x.org", "b@x.org"]);
    let other = made.0.claim("two", &everything()).await.unwrap();
    assert!(other.is_empty(), "handed out twice");
    clock.advance(1);
    let made = outside.lapse(made, &clock);
    let new = made.0.claim("two", &everything()).await.unwrap();
    assert_eq!(names(&new), names(&old));
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(
            old.batch, new.batch,
            "an attempt that never ended counts for nothing"
        );
        assert_ne!(old.token, new.token);
    }
    // The old holder comes late, with every outcome there is.
    let late = clock.now();
    let outcomes = [
        Outcome::Finished,
        deferred(&old[0], late),
        Outcome::Replaced(vec![batch(Destination::Inside, late, &["c@x.org"])]),
    ];
    for outcome in outcomes {
        let settled = made
            .0
            .settle(vec![settlement(&old[0], outcome.clone())])
            .await;
        assert_eq!(settled.unwrap(), 0, "{outcome:?} of a lapsed lease");
    }
    let done = vec![delivered(&old[1]), delivered(&new[1])];
    assert_eq!(
        made.0.settle(done).await.unwrap(),
        1,
        "the new holder's alone"
    );
    assert_eq!(made.0.settle(vec![delivered(&new[0])]).await.unwrap(), 1);
    assert_eq!(made.0.settle(vec![delivered(&old[0])]).await.unwrap(), 0);
    assert!(claim_all(made.0.as_ref()).await.is_empty());
    let ledger = made.0.ledger().await.unwrap();
    assert_eq!(
        (ledger.ends.delivered, ledger.waiting, ledger.difference()),
        (2, 0, 0)
    );
}

async fn what_was_settled_does_not_lapse(
    make: &impl Fn(&HandClock) -> Made,
    outside: &dyn Outside,
) {
    let clock = HandClock::new();
    let made = make(&clock);
    let now = clock.now();
    for (age, name) in [(3, "a@x.org"), (2, "b@x.org"), (1, "c@x.org")] {
        let new = simple(Timestamp(now.0 - age), name);
        made.0.accept(new, Some(name)).await.unwrap();
    }
    let leases = claim_all(made.0.as_ref()).await;
    let later = Timestamp(now.0 + 60_000);
    let settled = made.0.settle(vec![
        delivered(&leases[0]),
        settlement(&leases[1], deferred(&leases[1], later)),
    ]);
    assert_eq!(settled.await.unwrap(), 2);
    clock.advance(1);
    let made = outside.lapse(made, &clock);
    assert_eq!(names(&claim_all(made.0.as_ref()).await), ["c@x.org"]);
    clock.advance(60_000);
    let back = claim_all(made.0.as_ref()).await;
    assert_eq!(names(&back), ["b@x.org"]);
    assert_eq!(back[0].batch.attempts, 1);
    let again = made.0.accept(simple(now, "a@x.org"), Some("a@x.org")).await;
    assert_eq!(
        again.unwrap().paths,
        [Path::Again],
        "an ident outlives whoever had the lease"
    );
}

async fn a_flipped_bit_of_a_body_is_found(
    make: &impl Fn(&HandClock) -> Made,
    outside: &dyn Outside,
) {
    let clock = HandClock::new();
    let made = make(&clock);
    let spool = made.0.clone();
    let now = clock.now();
    let body = "none but this message says so";
    let to = |name| batch(Destination::Inside, now, &[name]);
    let new = message(now, body, vec![to("a@x.org"), to("b@x.org")]);
    let bad = spool.accept(new, None).await.unwrap().id;
    let good = spool.accept(simple(now, "c@x.org"), None).await.unwrap().id;
    assert!(spool.body(bad).await.unwrap().ends_with(body.as_bytes()));
    outside.flip_bit(&made, bad, body.as_bytes());
    // Whoever asks is told, each time; it counts once.
    for _ in 0..2 {
        let found = spool.body(bad).await;
        assert!(
            matches!(found, Err(Error::Corrupt(id, _)) if id == bad),
            "{found:?}"
        );
    }
    assert_eq!(spool.vitals().set_aside, 1);
    assert!(spool.body(good).await.is_ok());
    // Its batches are handed out like all others, and end as whoever has them says.
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 3);
    let settlements = leases.iter().map(|lease| match lease.head.id == bad {
        true => spool::Settlement {
            ends: spool::Ends {
                set_aside: 1,
                ..Default::default()
            },
            ..settlement(lease, Outcome::Finished)
        },
        false => delivered(lease),
    });
    assert_eq!(spool.settle(settlements.collect()).await.unwrap(), 3);
    let ledger = spool.ledger().await.unwrap();
    assert_eq!((ledger.ends.set_aside, ledger.ends.delivered), (2, 1));
    assert_eq!((ledger.waiting, ledger.difference()), (0, 0));
    assert!(spool.tally().await.unwrap().is_empty());
}
