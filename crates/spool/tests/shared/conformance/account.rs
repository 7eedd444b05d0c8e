//! The conformance suite's part on the ledger: every recipient ends once, as whoever settled it said, or waits.

use spool::{Ends, Ledger, Settlement};

use super::selects::to;
use super::*;

pub(super) async fn all(make: &impl Fn(&HandClock) -> Made) {
    the_account_balances_at_every_step(make).await;
    what_nobody_accounts_for_is_told(make).await;
    who_moves_stays_the_same_recipient(make).await;
    too_much_told_is_not_believed(make).await;
}

fn ends(delivered: u64, bounced: u64, expired: u64, set_aside: u64) -> Ends {
    Ends {
        delivered,
        bounced,
        expired,
        dropped: 0,
        set_aside,
    }
}

async fn account(spool: &dyn Spool) -> Ledger {
    let ledger = spool.ledger().await.unwrap();
    let tally = spool.tally().await.unwrap();
    let waiting = tally.iter().map(|line| line.recipients).sum::<u64>();
    assert_eq!(ledger.waiting, waiting, "the tally says the same");
    assert_eq!(
        ledger.difference(),
        i128::from(ledger.unaccounted),
        "{ledger:?}"
    );
    ledger
}

async fn the_account_balances_at_every_step(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    assert_eq!(account(spool.as_ref()).await, Ledger::default());
    let both = || {
        vec![batch(
            Destination::Expand,
            now,
            &["list@x.org", "joe@x.org"],
        )]
    };
    let accept = async |batches| {
        let new = message(now, "x", batches);
        spool.accept(new, Some("e.1.1")).await.unwrap()
    };
    accept(both()).await;
    let mut expected = Ledger {
        accepted: 2,
        waiting: 2,
        ..Ledger::default()
    };
    assert_eq!(account(spool.as_ref()).await, expected);
    // Accepted under the same ident before: counted once.
    accept(both()).await;
    let mut more = both();
    more[0].recipients.push(recipient("ann@x.org"));
    accept(more).await;
    (expected.accepted, expected.waiting) = (3, 3);
    assert_eq!(account(spool.as_ref()).await, expected);
    // Expanded: five members, in two batches.
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 2);
    let children = vec![
        batch(domain("y.org"), now, &["a@y.org", "b@y.org", "c@y.org"]),
        batch(domain("z.org"), now, &["d@z.org", "e@z.org"]),
    ];
    let replaced = settlement(&leases[0], Outcome::Replaced(children));
    let back = settlement(&leases[1], deferred(&leases[1], now));
    spool.settle(vec![replaced, back]).await.unwrap();
    (expected.expanded, expected.made, expected.waiting) = match leases[0].batch.recipients.len() {
        2 => (2, 5, 6),
        _ => (1, 5, 7),
    };
    assert_eq!(account(spool.as_ref()).await, expected);
    // One of each end.
    spool.select(&to("e@*"), Action::Drop).await.unwrap();
    expected.ends.dropped = 1;
    expected.waiting -= 1;
    assert_eq!(account(spool.as_ref()).await, expected);
    spool
        .select(&to("d@*"), Action::Hold(HoldId(3)))
        .await
        .unwrap();
    expected.held = 1;
    assert_eq!(account(spool.as_ref()).await, expected);
    for lease in claim_all(spool.as_ref()).await {
        let told = match lease.batch.recipients.len() {
            3 => ends(1, 1, 1, 0),
            2 => ends(1, 0, 0, 1),
            _ => ends(0, 0, 1, 0),
        };
        expected.ends += told;
        expected.waiting -= told.sum();
        let done = settlement(&lease, Outcome::Finished);
        spool
            .settle(vec![Settlement { ends: told, ..done }])
            .await
            .unwrap();
        assert_eq!(account(spool.as_ref()).await, expected);
    }
    assert_eq!(
        (expected.waiting, expected.held, expected.unaccounted),
        (1, 1, 0)
    );
}

async fn what_nobody_accounts_for_is_told(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let three = ["a@x.org", "b@x.org", "c@x.org"];
    let new = message(now, "x", vec![batch(Destination::Inside, now, &three)]);
    spool.accept(new, None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    // One is left out and nobody says how it ended.
    let mut outcome = deferred(&lease, now);
    if let Outcome::Deferred { recipients, .. } = &mut outcome {
        recipients.pop();
    }
    spool
        .settle(vec![settlement(&lease, outcome)])
        .await
        .unwrap();
    let ledger = account(spool.as_ref()).await;
    assert_eq!((ledger.unaccounted, ledger.waiting), (1, 2));
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let done = settlement(&lease, Outcome::Finished);
    let told = ends(1, 0, 0, 0);
    spool
        .settle(vec![Settlement { ends: told, ..done }])
        .await
        .unwrap();
    let ledger = account(spool.as_ref()).await;
    assert_eq!((ledger.unaccounted, ledger.waiting), (2, 0));
    assert_eq!((ledger.ends, ledger.difference()), (told, 2));
}

/// Who goes on elsewhere is no other recipient, keeps what he was told, and stays one after each of several moves of one batch.
async fn who_moves_stays_the_same_recipient(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let four = ["a@x.org", "b@x.org", "c@x.org", "d@x.org"];
    let new = message(now, "x", vec![batch(Destination::Inside, now, &four)]);
    spool.accept(new, None).await.unwrap();
    let aside = Destination::Route("aside".into());
    let inside = Wanted {
        destinations: Destinations::Only(vec![Destination::Inside]),
        ..everything()
    };
    // One is delivered to at once; each attempt moves one, the last one moves all that are left.
    for (attempt, to) in ["b@x.org", "c@x.org", "d@x.org"].into_iter().enumerate() {
        let lease = spool.claim("here", &inside).await.unwrap().remove(0);
        let told = ends(u64::from(attempt == 0), 0, 0, 0);
        let left = lease.batch.recipients.iter().skip(1 + told.sum() as usize);
        let outcome = Outcome::Deferred {
            until: now,
            replies: Replies::all("451 4.3.0 later"),
            note: Bytes::new(),
            recipients: left.cloned().collect(),
            attempted: true,
            moved: vec![NewBatch {
                replies: Replies::all("550 5.1.1 unknown"),
                ..batch(aside.clone(), now, &[to])
            }],
        };
        let done = settlement(&lease, outcome);
        let done = Settlement { ends: told, ..done };
        assert_eq!(spool.settle(vec![done]).await.unwrap(), 1);
        let ledger = account(spool.as_ref()).await;
        assert_eq!((ledger.accepted, ledger.made, ledger.expanded), (4, 0, 0));
        assert_eq!((ledger.waiting, ledger.ends), (3, ends(1, 0, 0, 0)));
        assert_eq!((ledger.difference(), ledger.unaccounted), (0, 0));
    }
    assert!(spool.claim("here", &inside).await.unwrap().is_empty());
    let moved = claim_all(spool.as_ref()).await;
    let mut to = names(&moved);
    to.sort();
    assert_eq!(to, ["b@x.org", "c@x.org", "d@x.org"]);
    for lease in &moved {
        assert_eq!(lease.batch.destination, aside);
        assert_eq!(lease.batch.replies.of(0), "550 5.1.1 unknown");
    }
}

async fn too_much_told_is_not_believed(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    spool.accept(simple(now, "a@x.org"), None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let done = settlement(&lease, Outcome::Finished);
    let told = ends(0, 5, 1, 0);
    spool
        .settle(vec![Settlement { ends: told, ..done }])
        .await
        .unwrap();
    let ledger = account(spool.as_ref()).await;
    assert_eq!((ledger.ends.bounced, ledger.ends.sum()), (1, 1));
}
