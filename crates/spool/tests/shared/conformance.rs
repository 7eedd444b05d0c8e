//! The conformance suite: what every engine must do, written against the interface alone. An engine passes by running [`all`]
//! with a factory that makes an empty one on a given clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::Timestamp;
use spool::{
    Action, Class, Destination, Destinations, Error, HoldId, NewBatch, Outcome, Path, Predicate,
    Replies, Seen, Spool, Wanted,
};

use super::*;

mod account;
mod attempts;
mod claims;
mod predicates;
mod selects;
mod troubles;
use claims::*;

/// A new engine and what must live as long as it (its folder).
pub type Made = (Arc<dyn Spool>, Box<dyn std::any::Any>);

/// Runs the whole suite.
pub async fn all(make: impl Fn(&HandClock) -> Made) {
    accepted_is_claimed_once(&make).await;
    empty_messages_store_nothing(&make).await;
    ident_counts_once_for_each_path(&make).await;
    ident_counts_once_when_concurrent(&make).await;
    lanes_come_in_their_order(&make).await;
    backlog_is_oldest_first(&make).await;
    mail_ages_from_live_to_backlog(&make).await;
    limits_and_destinations_are_kept(&make).await;
    deferred_comes_back_when_due(&make).await;
    put_off_is_no_attempt(&make).await;
    stale_tokens_have_no_effect(&make).await;
    replaced_is_atomic_and_repeatable(&make).await;
    settle_takes_effect_together(&make).await;
    bodies_are_whole_and_released(&make).await;
    tally_equals_a_recount(&make).await;
    ready_does_not_miss(&make).await;
    ready_tells_everyone(&make).await;
    dropped_claims_give_back(&make).await;
    closed_says_so(&make).await;
}

/// What can happen to an engine from outside, which its interface does not do.
pub trait Outside {
    /// Whoever had leases is gone (its process ended, its heart stopped), and the engine is there again for others.
    fn lapse(&self, made: Made, clock: &HandClock) -> Made;
    /// Flips a bit of a message's body where the engine keeps it; `body` stands nowhere else.
    fn flip_bit(&self, made: &Made, message: mail::MessageId, body: &[u8]);
}

/// Runs its part on what happens from outside.
pub async fn outside(make: impl Fn(&HandClock) -> Made, outside: &dyn Outside) {
    troubles::all(&make, outside).await;
}

/// Runs its part on selections and the ledger.
pub async fn selections(make: impl Fn(&HandClock) -> Made) {
    predicates::all(&make).await;
    selects::all(&make).await;
    attempts::all(&make).await;
    account::all(&make).await;
}

fn fresh(
    make: &impl Fn(&HandClock) -> Made,
) -> (HandClock, Arc<dyn Spool>, Box<dyn std::any::Any>) {
    let clock = HandClock::new();
    let (spool, guard) = make(&clock);
    (clock, spool, guard)
}

async fn accepted_is_claimed_once(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let mut new = simple(now, "a@example.org");
    let mut to = recipient("b@example.net");
    to.parameters.notify = Some(mail::envelope::Notify {
        success: true,
        failure: false,
        delay: true,
    });
    to.parameters.orcpt = Some(mail::envelope::OriginalRecipient {
        kind: "rfc822".into(),
        address: "B@Example.Net".into(),
    });
    new.batches[0].recipients.push(to.clone());
    new.parameters.envid = Some("envelope 1".into());
    new.parameters.smtputf8 = true;
    let accepted = spool.accept(new.clone(), None).await.unwrap();
    assert_eq!(accepted.paths, [Path::New, Path::New]);
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 1);
    let lease = &leases[0];
    assert_eq!(lease.head.id, accepted.id);
    assert_eq!(lease.head.arrival, now);
    assert_eq!(lease.head.accepted, now);
    assert_eq!(lease.head.reverse_path, new.reverse_path);
    assert_eq!(lease.head.parameters, new.parameters);
    assert_eq!(lease.head.facts, new.facts);
    assert_eq!(lease.batch.recipients, [recipient("a@example.org"), to]);
    assert_eq!(lease.batch.template, new.batches[0].template);
    assert_eq!((lease.batch.attempts, lease.batch.replies.of(0)), (0, ""));
    assert!(claim_all(spool.as_ref()).await.is_empty(), "claimed twice");
    assert_eq!(finish(spool.as_ref(), &leases).await, 1);
    assert!(
        claim_all(spool.as_ref()).await.is_empty(),
        "claimed when done"
    );
    assert!(spool.tally().await.unwrap().is_empty());
}

async fn empty_messages_store_nothing(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let none = message(clock.now(), "", Vec::new());
    assert!(spool.accept(none, None).await.unwrap().paths.is_empty());
    let empty = vec![batch(Destination::Inside, clock.now(), &[])];
    let empty = message(clock.now(), "", empty);
    assert!(spool.accept(empty, None).await.unwrap().paths.is_empty());
    assert!(claim_all(spool.as_ref()).await.is_empty());
    assert!(spool.tally().await.unwrap().is_empty());
}

async fn ident_counts_once_for_each_path(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let make_message = |to: &[&[&str]]| {
        let batches = to.iter().map(|to| batch(Destination::Expand, now, to));
        message(now, "x", batches.collect())
    };
    let accept = |to: &[&[&str]], ident: Option<&'static str>| {
        let new = make_message(to);
        let spool = spool.clone();
        async move { spool.accept(new, ident).await.unwrap().paths }
    };
    // Rows: recipients by batch, ident, paths.
    const NEW: Path = Path::New;
    const AGAIN: Path = Path::Again;
    type Row = (
        &'static [&'static [&'static str]],
        Option<&'static str>,
        &'static [Path],
    );
    let rows: &[Row] = &[
        (&[&["a@x.org", "b@x.org"]], Some("e.1.1"), &[NEW, NEW]),
        (&[&["a@x.org", "b@x.org"]], Some("e.1.1"), &[AGAIN, AGAIN]),
        (
            &[&["c@x.org"], &["b@x.org", "d@x.org"]],
            Some("e.1.1"),
            &[NEW, AGAIN, NEW],
        ),
        (&[&["a@x.org"]], Some("e.1.2"), &[NEW]),
        (&[&["a@x.org"]], None, &[NEW]),
        (&[&["a@x.org"]], None, &[NEW]),
        // Repeated within the message: stays so.
        (&[&["r@x.org", "r@x.org"]], Some("e.1.3"), &[NEW, NEW]),
        (&[&["r@x.org", "s@x.org"]], Some("e.1.3"), &[AGAIN, NEW]),
    ];
    for (to, ident, paths) in rows {
        assert_eq!(accept(to, *ident).await, *paths, "{to:?} {ident:?}");
    }
    let leases = claim_all(spool.as_ref()).await;
    let all = leases.iter().flat_map(|lease| &lease.batch.recipients);
    let mut all: Vec<String> = all.map(|to| to.address.local().to_owned()).collect();
    all.sort();
    assert_eq!(all.concat(), "aaaabcdrrs");
    // Remembered when all is done, too.
    finish(spool.as_ref(), &leases).await;
    assert_eq!(accept(&[&["a@x.org"]], Some("e.1.1")).await, [AGAIN]);
}

async fn ident_counts_once_when_concurrent(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let tasks: Vec<_> = (0..32)
        .map(|number| {
            let spool = spool.clone();
            let new = simple(now, &format!("u{}@x.org", number % 4));
            tokio::spawn(async move { spool.accept(new, Some("e.2.7")).await.unwrap().paths })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += usize::from(task.await.unwrap() == [Path::New]);
    }
    assert_eq!(new, 4);
    assert_eq!(claim_all(spool.as_ref()).await.len(), 4);
}

async fn deferred_comes_back_when_due(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let mut new = simple(now, "a@x.org");
    new.batches[0].recipients.push(recipient("b@x.org"));
    spool.accept(new, None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let mut outcome = deferred(&lease, now.after(Duration::from_secs(60)));
    if let Outcome::Deferred { recipients, .. } = &mut outcome {
        recipients.remove(0);
    }
    assert_eq!(
        spool
            .settle(vec![settlement(&lease, outcome)])
            .await
            .unwrap(),
        1
    );
    clock.advance(59_999);
    assert!(claim_all(spool.as_ref()).await.is_empty(), "not due yet");
    clock.advance(1);
    let again = claim_all(spool.as_ref()).await.remove(0);
    assert_eq!(again.batch.id, lease.batch.id);
    assert_ne!(again.token, lease.token);
    assert_eq!(again.batch.attempts, 1);
    assert_eq!(again.batch.recipients, [recipient("b@x.org")]);
    assert_eq!(again.batch.replies.of(0), "450 4.2.1 try again");
    assert_eq!(&again.batch.note[..], b"note");
    assert_eq!(again.batch.template, lease.batch.template);
    // Deferred for nobody is done.
    let mut outcome = deferred(&again, now);
    if let Outcome::Deferred { recipients, .. } = &mut outcome {
        recipients.clear();
    }
    spool
        .settle(vec![settlement(&again, outcome)])
        .await
        .unwrap();
    assert!(spool.tally().await.unwrap().is_empty());
}

async fn put_off_is_no_attempt(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    spool.accept(simple(now, "a@x.org"), None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let mut outcome = deferred(&lease, now.after(Duration::from_secs(5)));
    if let Outcome::Deferred { attempted, .. } = &mut outcome {
        *attempted = false;
    }
    spool
        .settle(vec![settlement(&lease, outcome)])
        .await
        .unwrap();
    assert!(claim_all(spool.as_ref()).await.is_empty());
    clock.advance(5_000);
    let mut live = everything();
    live.lanes = [0, 1, 0, 0];
    let again = spool.claim("here", &live).await.unwrap();
    assert_eq!(again[0].batch.attempts, 0);
}

async fn stale_tokens_have_no_effect(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    spool.accept(simple(now, "a@x.org"), None).await.unwrap();
    let first = claim_all(spool.as_ref()).await.remove(0);
    let mut forged = first.clone();
    forged.token += 1;
    assert_eq!(finish(spool.as_ref(), &[forged]).await, 0);
    let back = settlement(&first, deferred(&first, now));
    assert_eq!(
        spool
            .settle(vec![back.clone(), back.clone()])
            .await
            .unwrap(),
        1,
        "only once"
    );
    let second = claim_all(spool.as_ref()).await.remove(0);
    assert_eq!(finish(spool.as_ref(), &[first]).await, 0);
    assert_eq!(spool.settle(vec![back]).await.unwrap(), 0);
    assert_eq!(
        finish(spool.as_ref(), std::slice::from_ref(&second)).await,
        1
    );
    assert_eq!(finish(spool.as_ref(), &[second]).await, 0);
}

async fn replaced_is_atomic_and_repeatable(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let new = message(
        now,
        "post",
        vec![batch(Destination::Expand, now, &["list@x.org"])],
    );
    let accepted = spool.accept(new, None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let children: Vec<NewBatch> = (0..250)
        .map(|number| {
            let site = format!("d{}.example", number % 10);
            batch(domain(&site), now, &[&format!("m{number}@{site}")])
        })
        .collect();
    let outcome = Outcome::Replaced(children);
    assert_eq!(
        spool
            .settle(vec![settlement(&lease, outcome)])
            .await
            .unwrap(),
        1
    );
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 250);
    let ids: BTreeSet<_> = leases.iter().map(|lease| lease.batch.id).collect();
    assert_eq!(ids.len(), 250);
    assert!(!ids.contains(&lease.batch.id));
    assert!(
        leases
            .iter()
            .all(|child| child.head.id == accepted.id && child.batch.attempts == 0)
    );
    assert_eq!(
        spool.body(accepted.id).await.unwrap(),
        &b"Subject: test\r\n\r\npost"[..]
    );
    assert_eq!(finish(spool.as_ref(), &leases).await, 250);
    // Replaced by nothing is done.
    spool.accept(simple(now, "a@x.org"), None).await.unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let nothing = settlement(&lease, Outcome::Replaced(Vec::new()));
    assert_eq!(spool.settle(vec![nothing]).await.unwrap(), 1);
    assert!(spool.tally().await.unwrap().is_empty());
}

async fn settle_takes_effect_together(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let to = ["a@x.org", "b@x.org", "c@x.org"];
    let batches = to.iter().map(|to| batch(Destination::Inside, now, &[to]));
    spool
        .accept(message(now, "x", batches.collect()), None)
        .await
        .unwrap();
    let leases = claim_all(spool.as_ref()).await;
    let settlements = vec![
        settlement(&leases[0], Outcome::Finished),
        settlement(&leases[1], deferred(&leases[1], now)),
        settlement(
            &leases[2],
            Outcome::Replaced(vec![batch(domain("y.org"), now, &["c@y.org"])]),
        ),
    ];
    assert_eq!(spool.settle(settlements).await.unwrap(), 3);
    let mut left = names(&claim_all(spool.as_ref()).await);
    left.sort();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&"c@y.org".to_owned()));
    assert_eq!(spool.settle(Vec::new()).await.unwrap(), 0);
}

async fn bodies_are_whole_and_released(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let now = clock.now();
    let mut large = simple(now, "large@x.org");
    // Larger than a segment of these tests.
    let parts: Vec<Bytes> = (0..9u8).map(|byte| vec![byte; 100_000].into()).collect();
    large.body = parts.clone();
    let large = spool.accept(large, None).await.unwrap().id;
    let mut empty = simple(now, "empty@x.org");
    empty.body = Vec::new();
    let empty = spool.accept(empty, None).await.unwrap().id;
    assert_eq!(spool.body(large).await.unwrap(), parts.concat());
    assert!(spool.body(empty).await.unwrap().is_empty());
    assert!(matches!(
        spool.body(mail::MessageId(7)).await,
        Err(Error::Unknown(mail::MessageId(7)))
    ));
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 2);
    assert!(leases.iter().any(|lease| lease.head.body_bytes == 900_000));
    finish(spool.as_ref(), &leases).await;
    // Room comes back behind the caller's back; that it is gone is all that can be waited for.
    let gone = async {
        while !matches!(spool.body(large).await, Err(Error::Unknown(_))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
}

async fn tally_equals_a_recount(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    let start = clock.now();
    for number in 0..40u64 {
        let arrival = Timestamp(start.0 - 4_000_000 + number * 100_000);
        let site = format!("d{}.example", number % 3);
        let mut one = batch(domain(&site), arrival, &["a@x.org", "b@x.org"]);
        if number % 4 == 0 {
            one.class = Class::Urgent;
        }
        if number % 5 == 0 {
            one.due = start.after(Duration::from_secs(100 + number));
        }
        spool
            .accept(message(arrival, "x", vec![one]), None)
            .await
            .unwrap();
    }
    let leases = claim_all(spool.as_ref()).await;
    assert_eq!(leases.len(), 32);
    let (done, rest) = leases.split_at(8);
    finish(spool.as_ref(), done).await;
    let (back, held) = rest.split_at(12);
    let settlements = back
        .iter()
        .map(|lease| settlement(lease, deferred(lease, start.after(Duration::from_secs(50)))));
    spool.settle(settlements.collect()).await.unwrap();
    let tally = spool.tally().await.unwrap();
    clock.advance(1_000_000);
    let mut all = claim_all(spool.as_ref()).await;
    assert_eq!(all.len(), 20);
    all.extend(held.iter().cloned());
    for line in &tally {
        let of_line = |lease: &&Lease| {
            lease.batch.destination == line.destination && lease.batch.class == line.class
        };
        let these: Vec<_> = all.iter().filter(of_line).collect();
        let leased = held.iter().filter(of_line).count() as u64;
        assert_eq!(line.batches, these.len() as u64, "{line:?}");
        assert_eq!(line.recipients, 2 * line.batches, "{line:?}");
        assert_eq!(line.leased, leased, "{line:?}");
        let oldest = these.iter().map(|lease| lease.head.arrival).min().unwrap();
        assert_eq!(line.oldest, oldest, "{line:?}");
        let due = these.iter().map(|lease| lease.batch.due).min().unwrap();
        let due = if leased > 0 { start } else { due.max(start) };
        assert_eq!(line.next_due, due, "{line:?}");
    }
    assert_eq!(tally.iter().map(|line| line.batches).sum::<u64>(), 32);
}

async fn closed_says_so(make: &impl Fn(&HandClock) -> Made) {
    let (clock, spool, _guard) = fresh(make);
    spool
        .accept(simple(clock.now(), "a@x.org"), None)
        .await
        .unwrap();
    let lease = claim_all(spool.as_ref()).await.remove(0);
    let waiting = spool.clone();
    let waits = tokio::spawn(async move {
        let _ = waiting.claim("here", &everything()).await;
        waiting.ready(&mut Seen::default()).await;
    });
    spool.close().await;
    spool.close().await;
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap()
        .unwrap();
    let new = simple(clock.now(), "b@x.org");
    assert!(matches!(spool.accept(new, None).await, Err(Error::Closed)));
    let done = settlement(&lease, Outcome::Finished);
    assert!(matches!(spool.settle(vec![done]).await, Err(Error::Closed)));
    assert!(matches!(
        spool.claim("here", &everything()).await,
        Err(Error::Closed)
    ));
    assert!(matches!(spool.tally().await, Err(Error::Closed)));
    assert!(matches!(spool.ledger().await, Err(Error::Closed)));
    let everything = Predicate::default();
    let held = spool.select(&everything, Action::Hold(HoldId(1))).await;
    assert!(matches!(held, Err(Error::Closed)));
    let found = spool.find(&everything, None, 9).await;
    assert!(matches!(found, Err(Error::Closed)));
    assert!(matches!(
        spool.body(lease.head.id).await,
        Err(Error::Closed)
    ));
    tokio::time::timeout(Duration::from_secs(20), spool.ready(&mut Seen::default()))
        .await
        .unwrap();
}
