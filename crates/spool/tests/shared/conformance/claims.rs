//! The conformance suite's part on claims: lanes, order, limits, destinations, and hearing of what is new.

use super::*;

pub(super) async fn lanes_come_in_their_order(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let hours_ago = |hours: u64| Timestamp(now.0 - hours * 3_600_000);
    spool
        .accept(simple(now, "retry@x.org"), None)
        .await
        .unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let retry = settlement(&lease, deferred(&lease, now));
    spool.settle(vec![retry]).await.unwrap();
    spool
        .accept(simple(hours_ago(5), "backlog@x.org"), None)
        .await
        .unwrap();
    spool.accept(simple(now, "live@x.org"), None).await.unwrap();
    let mut urgent = simple(hours_ago(3), "urgent@x.org");
    urgent.batches[0].class = Class::Urgent;
    spool.accept(urgent, None).await.unwrap();
    for (lane, name) in ["urgent@x.org", "live@x.org", "backlog@x.org", "retry@x.org"]
        .into_iter()
        .enumerate()
    {
        let mut wanted = everything();
        wanted.lanes = [0; 4];
        wanted.lanes[lane] = 9;
        let leases = spool.claim("here", &wanted).await.unwrap();
        assert_eq!(names(&leases), [name]);
    }
}

pub(super) async fn backlog_is_oldest_first(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    for hours in [3, 9, 5, 7, 2, 8] {
        let arrival = Timestamp(now.0 - hours * 3_600_000);
        let to = format!("h{hours}@x.org");
        let mut new = simple(arrival, &to);
        // Due in another order than they arrived.
        new.batches[0].due = Timestamp(now.0 - 10 + hours);
        new.batches[0].destination = domain(&format!("d{}.example", hours % 3));
        spool.accept(new, None).await.unwrap();
    }
    let mut wanted = everything();
    let mut order = Vec::new();
    for _ in 0..3 {
        wanted.lanes = [0, 0, 2, 0];
        order.extend(names(&spool.claim("here", &wanted).await.unwrap()));
    }
    assert_eq!(
        order.concat(),
        "h9@x.orgh8@x.orgh7@x.orgh5@x.orgh3@x.orgh2@x.org"
    );
}

pub(super) async fn mail_ages_from_live_to_backlog(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    for name in ["a@x.org", "b@x.org", "c@x.org"] {
        spool.accept(simple(clock.now(), name), None).await.unwrap();
        clock.advance(1000);
    }
    let mut put_off = simple(clock.now(), "d@x.org");
    put_off.batches[0].due = clock.now().after(Duration::from_secs(7200));
    spool.accept(put_off, None).await.unwrap();
    let only = |lane: usize| {
        let mut wanted = everything();
        wanted.lanes = [0; 4];
        wanted.lanes[lane] = 9;
        wanted
    };
    clock.advance(3_600_000 - 2_500);
    assert_eq!(
        names(&spool.claim("here", &only(1)).await.unwrap()),
        ["b@x.org", "c@x.org"]
    );
    assert_eq!(
        names(&spool.claim("here", &only(2)).await.unwrap()),
        ["a@x.org"]
    );
    clock.advance(3_600_000 + 5_000);
    assert!(spool.claim("here", &only(1)).await.unwrap().is_empty());
    assert_eq!(
        names(&spool.claim("here", &only(2)).await.unwrap()),
        ["d@x.org"]
    );
}

pub(super) async fn limits_and_destinations_are_kept(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let route = || Destination::Route("smarthost".into());
    for number in 0..5 {
        let to = format!("u{number}@x.org");
        let batches = vec![
            batch(Destination::Inside, now, &[&to]),
            batch(route(), now, &[&to]),
            batch(domain("x.org"), now, &[&to]),
        ];
        spool
            .accept(message(now, "x", batches), None)
            .await
            .unwrap();
    }
    let claim = |destinations: Destinations, limit: usize| {
        let spool = spool.clone();
        async move {
            let wanted = Wanted {
                destinations,
                lanes: [limit; 4],
            };
            let leases = spool.claim("here", &wanted).await.unwrap();
            let found: BTreeSet<_> = leases.iter().map(|l| l.batch.destination.clone()).collect();
            (leases.len(), found)
        }
    };
    // Rows: wanted, limit, how many, from where.
    let (count, from) = claim(Destinations::Only(vec![route()]), 2).await;
    assert_eq!((count, from), (2, [route()].into()));
    let (count, from) = claim(
        Destinations::Only(vec![route(), domain("absent.example")]),
        9,
    )
    .await;
    assert_eq!((count, from), (3, [route()].into()));
    let (count, from) = claim(Destinations::Except([Destination::Inside].into()), 9).await;
    assert_eq!((count, from), (5, [domain("x.org")].into()));
    assert_eq!(claim(Destinations::Only(Vec::new()), 9).await.0, 0);
    assert_eq!(claim(Destinations::Except([].into()), 0).await.0, 0);
    assert_eq!(claim(Destinations::Except([].into()), 9).await.0, 5);
    // The same set again and again, also for what is new since it was named first.
    let dead = Destinations::Except([domain("dead.example"), Destination::Inside].into());
    for (first, due) in [
        ("dead.example", 0),
        ("live.example", 1),
        ("dead.example", 0),
    ] {
        assert_eq!(claim(dead.clone(), 9).await.0, 0);
        let batches = vec![
            batch(domain(first), now, &["a@x.org"]),
            batch(Destination::Inside, now, &["a@x.org"]),
        ];
        let new = message(now, "x", batches);
        spool.accept(new, None).await.unwrap();
        assert_eq!(claim(dead.clone(), 9).await.0, due, "{first}");
    }
    let all = Destinations::Except([].into());
    assert_eq!(claim(all, 9).await.0, 5);
}

pub(super) async fn ready_does_not_miss(make: &impl Fn(&HandClock) -> Made) {
    let soon = Duration::from_secs(20);
    let (clock, spool, _guard) = fresh(make);
    let mut seen = Seen::default();
    // Accepted while nobody waited.
    assert!(claim_all(spool.as_ref()).await.is_empty());
    spool
        .accept(simple(clock.now(), "a@x.org"), None)
        .await
        .unwrap();
    tokio::time::timeout(soon, spool.ready(&mut seen))
        .await
        .unwrap();
    let leases = claim_all(spool.as_ref()).await;
    // Accepted while somebody waits.
    let accept = spool.accept(simple(clock.now(), "b@x.org"), None);
    let (accepted, ready) =
        tokio::join!(accept, tokio::time::timeout(soon, spool.ready(&mut seen)));
    accepted.unwrap();
    ready.unwrap();
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1);
    // Settled.
    let back = settlement(&leases[0], deferred(&leases[0], clock.now()));
    spool.settle(vec![back]).await.unwrap();
    tokio::time::timeout(soon, spool.ready(&mut seen))
        .await
        .unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    // Becomes due: the clock moves on while the timer runs.
    let later = clock.now().after(Duration::from_millis(30));
    spool
        .settle(vec![settlement(&lease, deferred(&lease, later))])
        .await
        .unwrap();
    tokio::time::timeout(soon, spool.ready(&mut seen))
        .await
        .unwrap();
    assert!(claim_all(spool.as_ref()).await.is_empty());
    tokio::time::timeout(soon, spool.ready(&mut seen))
        .await
        .unwrap();
    clock.advance(30);
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1);
    // Cut by the limit: there is more.
    for name in ["c@x.org", "d@x.org"] {
        spool.accept(simple(clock.now(), name), None).await.unwrap();
    }
    let mut one = everything();
    one.lanes = [1; 4];
    assert_eq!(spool.claim("here", &one).await.unwrap().len(), 1);
    tokio::time::timeout(soon, spool.ready(&mut seen))
        .await
        .unwrap();
    assert_eq!(spool.claim("here", &one).await.unwrap().len(), 1);
}

/// Two who claim, each for destinations of its own: what one has claimed or heard of takes nothing from the other.
pub(super) async fn ready_tells_everyone(make: &impl Fn(&HandClock) -> Made) {
    let soon = Duration::from_secs(20);
    let (clock, spool, _guard) = fresh(make);
    let (mut first, mut second) = (Seen::default(), Seen::default());
    let nothing = Wanted {
        destinations: Destinations::Only(vec![Destination::Expand]),
        ..everything()
    };
    for seen in [&mut first, &mut second] {
        tokio::time::timeout(soon, spool.ready(seen)).await.unwrap();
        assert!(spool.claim("here", &nothing).await.unwrap().is_empty());
    }
    let message = simple(clock.now(), "a@x.org");
    spool.accept(message, None).await.unwrap();
    tokio::time::timeout(soon, spool.ready(&mut first))
        .await
        .unwrap();
    assert!(spool.claim("here", &nothing).await.unwrap().is_empty());
    tokio::time::timeout(soon, spool.ready(&mut second))
        .await
        .unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    // Becomes due between a claim that did not find it and the wait that follows.
    let later = clock.now().after(Duration::from_secs(3600));
    let back = settlement(&lease, deferred(&lease, later));
    spool.settle(vec![back]).await.unwrap();
    for seen in [&mut first, &mut second] {
        tokio::time::timeout(soon, spool.ready(seen)).await.unwrap();
    }
    assert!(claim_all(spool.as_ref()).await.is_empty());
    clock.advance(3_600_000);
    for seen in [&mut first, &mut second] {
        tokio::time::timeout(soon, spool.ready(seen)).await.unwrap();
    }
    assert_eq!(claim_all(spool.as_ref()).await.len(), 1);
}

pub(super) async fn dropped_claims_give_back(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    for number in 0..50 {
        let to = format!("u{number}@x.org");
        spool.accept(simple(clock.now(), &to), None).await.unwrap();
    }
    for _ in 0..20 {
        let wanted = everything();
        // Polled once at most, then dropped; what it took and did not hand over must come back.
        tokio::select! {
            biased;
            leases = spool.claim("here", &wanted) => {
                let leases = leases.unwrap();
                let back = leases.iter().map(|lease| {
                    let mut outcome = deferred(lease, clock.now());
                    if let Outcome::Deferred { attempted, .. } = &mut outcome {
                        *attempted = false;
                    }
                    settlement(lease, outcome)
                });
                spool.settle(back.collect()).await.unwrap();
            }
            () = std::future::ready(()) => {}
        }
    }
    let mut found = 0;
    let all = async {
        while found < 50 {
            found += claim_all(spool.as_ref()).await.len();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
}
