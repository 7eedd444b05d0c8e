//! What becomes of recipients, batches and settlements, also when something fails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mail::Timestamp;
use spool::Class;
use tokio::time::Instant;

use super::{Bench, DAY, MINUTE, domain};
use crate::testing::{Clerk, Memory, World, accepted, clock, reply};

#[tokio::test(start_paused = true)]
async fn partial_results_leave_only_whom_they_concern() {
    let world = World::that(|_, copy| {
        let replies = copy
            .envelope
            .recipients
            .iter()
            .map(|r| match r.address.local() {
                "gone" => reply(550, "no such user"),
                "full" => reply(452, "mailbox full"),
                _ => reply(250, "ok"),
            });
        replies.collect()
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.spool.add(
        domain("a.example"),
        &["one@a.example", "gone@a.example", "full@a.example"],
    );
    bench.pass(Duration::from_secs(10)).await;
    let left = bench.spool.left();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].recipients.len(), 1);
    assert_eq!(left[0].recipients[0].address.local(), "full");
    assert_eq!(left[0].attempts, 1);
    assert_eq!(left[0].replies.of(0), "452 4.0.0 mailbox full");
    assert_eq!(&left[0].note[..], b"noted");
    assert_eq!(bench.ends(), [1, 1, 0, 0]);
    // 300 s, up to a quarter of jitter off; then again and again, never a second 5xx.
    let wait = left[0].due.since(crate::testing::EPOCH);
    assert!(
        wait >= Duration::from_secs(225) && wait <= Duration::from_secs(301),
        "{wait:?}"
    );
    bench.pass(Duration::from_secs(3600)).await;
    let heard = bench.clerk.heard();
    assert_eq!(
        heard
            .iter()
            .filter(|h| *h == "gone@a.example failed")
            .count(),
        1
    );
    assert_eq!(
        heard
            .iter()
            .filter(|h| *h == "one@a.example delivered")
            .count(),
        1
    );
    assert!(
        heard
            .iter()
            .filter(|h| *h == "full@a.example deferred")
            .count()
            >= 3,
        "{heard:?}"
    );
}

/// Also who was not reached the last time, and who is refused for good where that is no end.
#[tokio::test(start_paused = true)]
async fn each_recipient_keeps_what_he_was_told() {
    let begun = Instant::now();
    let world = World::that(move |_, copy| {
        let first = begun.elapsed() < MINUTE;
        let recipients = copy.envelope.recipients.iter();
        let replies = recipients.map(|to| match (to.address.local(), first) {
            ("gone", _) => reply(550, "no such user"),
            ("full", _) => reply(452, "mailbox full"),
            ("grey" | "also", true) => reply(450, "greylisted"),
            _ => reply(451, "out of order"),
        });
        replies.collect()
    });
    let clerk = Clerk {
        keeps_refused: Some("held"),
        ..Clerk::default()
    };
    let bench = Bench::edge(world, clerk, 10).start();
    let to = |name: &str| format!("{name}@a.example");
    let all = ["grey", "gone", "full", "also"].map(to);
    let all = all.each_ref().map(String::as_str);
    bench.spool.add(spool::Destination::Inside, &all);
    let told = || {
        let left = bench.spool.left();
        let of = |batch: &spool::Batch| {
            let all = batch.recipients.iter().enumerate();
            let told = all.map(|(at, to)| {
                let (local, text) = (to.address.local(), batch.replies.of(at));
                format!(
                    "{} {local}: {text}",
                    crate::queue::destination(&batch.destination)
                )
            });
            told.collect::<Vec<_>>()
        };
        let mut told: Vec<String> = left.iter().flat_map(of).collect();
        told.sort();
        told
    };
    bench.pass(Duration::from_secs(10)).await;
    let held = "route held gone: 550 5.0.0 no such user";
    let expected = [
        "inside also: 450 4.0.0 greylisted",
        "inside full: 452 4.0.0 mailbox full",
        "inside grey: 450 4.0.0 greylisted",
        held,
    ];
    assert_eq!(told(), expected);
    let texts = bench.spool.left();
    let texts = texts.iter().find(|batch| batch.recipients.len() == 3);
    assert_eq!(texts.unwrap().replies.texts().count(), 2, "equal ones once");
    bench.pass(10 * MINUTE).await;
    let expected = [
        "inside also: 451 4.0.0 out of order",
        "inside full: 452 4.0.0 mailbox full",
        "inside grey: 451 4.0.0 out of order",
        held,
    ];
    assert_eq!(told(), expected);
    assert_eq!(bench.ends(), [0, 0, 0, 0], "nobody has ended");
}

#[tokio::test(start_paused = true)]
async fn a_4xx_then_success_is_delivered_once() {
    let begun = Instant::now();
    let world = World::that(move |_, copy| match begun.elapsed() < 10 * MINUTE {
        true => vec![reply(450, "greylisted")],
        false => accepted(copy),
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(Duration::from_secs(3600)).await;
    assert!(bench.spool.left().is_empty());
    let heard = bench.clerk.heard();
    assert_eq!(
        heard.iter().filter(|h| h.ends_with("delivered")).count(),
        1,
        "{heard:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_refuses_stops_the_engine_and_costs_nothing() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.spool.refuses.store(true, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    let claims = bench.spool.claims.load(Ordering::Relaxed);
    bench.spool.add(domain("b.example"), &["two@b.example"]);
    bench.pass(10 * MINUTE).await;
    assert_eq!(
        bench.spool.claims.load(Ordering::Relaxed),
        claims,
        "nothing is claimed"
    );
    bench.spool.refuses.store(false, Ordering::Relaxed);
    bench.drained().await;
    let delivered = bench.world.recipients();
    assert_eq!(delivered.len(), 2, "each once: {delivered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_is_worked_off() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.spool.full.store(true, Ordering::Relaxed);
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.drained().await;
    assert_eq!(bench.world.recipients(), ["one@a.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_settlement_repeats_what_was_not_settled_and_no_more() {
    let clock = clock();
    let spool = Memory::new(clock.clone());
    let first = Bench::with(
        spool.clone(),
        World::kind(),
        Clerk::default(),
        10,
        clock.clone(),
    )
    .start();
    spool.add(domain("a.example"), &["settled@a.example"]);
    first.drained().await;
    spool.refuses.store(true, Ordering::Relaxed);
    spool.add(domain("a.example"), &["window@a.example"]);
    // Claims are refused too: claim as the engine did a moment before.
    spool.refuses.store(false, Ordering::Relaxed);
    first.pass(Duration::from_millis(6)).await;
    first.running.as_ref().unwrap().abort();
    let seen = first.world.recipients();
    spool.forget_leases();
    let second = Bench::with(spool.clone(), World::kind(), Clerk::default(), 10, clock).start();
    second.drained().await;
    assert_eq!(
        seen,
        ["settled@a.example", "window@a.example"],
        "delivered, not settled"
    );
    assert_eq!(
        second.world.recipients(),
        ["window@a.example"],
        "the stated window"
    );
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_body_is_set_aside_and_blocks_nobody() {
    let bench = Bench::new(World::kind(), Clerk::default(), 1);
    let bad = bench.spool.add(domain("a.example"), &["bad@a.example"]);
    bench.spool.corrupt(bad);
    // Nor does one that is not there at all, whose recipients are accounted for too.
    let lost = bench.spool.add(domain("a.example"), &["lost@a.example"]);
    bench.spool.lose(lost);
    bench.spool.add(domain("a.example"), &["good@a.example"]);
    let bench = bench.start();
    bench.drained().await;
    assert_eq!(bench.world.recipients(), ["good@a.example"]);
    assert_eq!(
        bench.clerk.heard(),
        ["good@a.example delivered"],
        "no silent bounce"
    );
    assert_eq!(bench.metric("delivery_corrupt_total"), 2.0);
    assert_eq!(bench.ends(), [1, 0, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn mail_is_given_up_five_days_after_acceptance_here_also_at_a_dead_site() {
    let world = World::that(|_, _| vec![reply(450, "later")]);
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.world.kill("dead.example");
    // It spent ten days on an edge before: those do not count.
    let arrival = Timestamp(crate::testing::EPOCH.0 - 10 * 86_400_000);
    bench.spool.add_of(
        Class::Ordinary,
        arrival,
        domain("a.example"),
        &["slow@a.example"],
    );
    for n in 0..20 {
        let to = format!("u{n}@dead.example");
        bench
            .spool
            .add_of(Class::Ordinary, arrival, domain("dead.example"), &[&to]);
    }
    bench.pass(5 * DAY - 2 * MINUTE).await;
    assert_eq!(bench.spool.left().len(), 21);
    bench.pass(2 * 3600 * Duration::from_secs(1)).await;
    assert!(bench.spool.left().is_empty(), "{:?}", bench.spool.left());
    let told = bench.clerk.told.lock().unwrap().clone();
    let expired: Vec<_> = told
        .iter()
        .filter(|(_, _, kind, _)| *kind == "expired")
        .collect();
    assert_eq!(expired.len(), 21);
    assert!(expired.iter().all(|(.., code)| *code == 554));
    assert_eq!(bench.ends(), [0, 0, 21, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_report_is_given_up_sooner_and_what_goes_inside_never() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    for host in ["dead.example", "inside"] {
        bench.world.kill(host);
    }
    for n in 0..200 {
        let to = format!("u{n}@dead.example");
        bench.spool.add_from("", domain("dead.example"), &[&to]);
    }
    bench
        .spool
        .add_from("", spool::Destination::Inside, &["in@lists.example"]);
    bench
        .spool
        .add(domain("dead.example"), &["mail@dead.example"]);
    bench.pass(2 * DAY - MINUTE).await;
    assert_eq!(bench.spool.left().len(), 202);
    // Behind a shut gate all of them end, not only those that are its probes.
    bench.pass(20 * MINUTE).await;
    let left = |bench: &Bench| -> Vec<String> {
        let left = bench.spool.left();
        let to = left.iter().flat_map(|batch| &batch.recipients);
        to.map(|to| to.address.to_string()).collect()
    };
    assert_eq!(left(&bench), ["in@lists.example", "mail@dead.example"]);
    bench.pass(4 * DAY).await;
    assert_eq!(left(&bench), ["in@lists.example"]);
    assert_eq!(bench.ends(), [0, 0, 201, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_owner_loses_nothing_and_sends_nothing_twice() {
    let bench = Bench::new(World::kind(), Clerk::default(), 10).start();
    bench.clerk.panics.store(true, Ordering::Relaxed);
    bench.spool.add(domain("a.example"), &["one@a.example"]);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(bench.spool.left()[0].attempts, 1);
    bench.clerk.panics.store(false, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    assert!(bench.spool.left().is_empty());

    let world = World::that(|_, copy| {
        let replies = copy
            .envelope
            .recipients
            .iter()
            .map(|r| match r.address.local() {
                "gone" => reply(550, "no such user"),
                _ => reply(250, "ok"),
            });
        replies.collect()
    });
    let bench = Bench::new(world, Clerk::default(), 10).start();
    bench.clerk.refuses.store(true, Ordering::Relaxed);
    bench
        .spool
        .add(domain("a.example"), &["one@a.example", "gone@a.example"]);
    bench.pass(Duration::from_secs(1)).await;
    let left = bench.spool.left();
    assert_eq!(
        left[0].recipients.len(),
        1,
        "who failed stays, to fail again"
    );
    bench.clerk.refuses.store(false, Ordering::Relaxed);
    bench.pass(10 * MINUTE).await;
    assert_eq!(bench.clerk.heard(), ["gone@a.example failed"]);
    assert_eq!(bench.ends(), [1, 1, 0, 0]);
    assert_eq!(
        bench.world.recipients(),
        ["one@a.example", "gone@a.example", "gone@a.example"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_behind_mail_whose_delay_nobody_is_told_of() {
    let clerk = Clerk {
        overdue_after: Some(Duration::from_secs(3600)),
        overdue_of: "joe",
        ..Clerk::default()
    };
    let bench = Bench::new(World::kind(), clerk, 10).start();
    bench.world.kill("a.example");
    for n in 0..100 {
        let to = format!("member{n}@a.example");
        bench.spool.add(domain("a.example"), &[&to]);
    }
    bench.pass(Duration::from_secs(1)).await;
    for n in 0..3 {
        let to = format!("joe{n}@a.example");
        bench.spool.add(domain("a.example"), &[&to]);
    }
    let told = || {
        let left = bench.spool.left();
        let told = left.iter().filter(|batch| !batch.note.is_empty());
        told.filter(|batch| batch.recipients[0].address.local().starts_with("joe"))
            .count()
    };
    bench.pass(Duration::from_secs(3500)).await;
    assert_eq!(told(), 0);
    // They wait for the next look, not for one look for each that stands before them.
    bench.pass(Duration::from_secs(100) + MINUTE * 17).await;
    assert_eq!(told(), 3);
    let settled = || bench.spool.groups.lock().unwrap().iter().sum::<usize>();
    let claims = || bench.spool.claims.load(Ordering::Relaxed);
    let before = settled();
    let claims_before = claims();
    bench.pass(MINUTE * 60).await;
    let claimed = claims() - claims_before;
    assert!(claimed < 1000, "{claimed} claims in an hour");
    let looks = (settled() - before) / 100;
    assert!((1..=5).contains(&looks), "{looks} in an hour");
    bench.world.revive("a.example");
    bench.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_told_although_the_site_is_not_there() {
    let clerk = Clerk {
        overdue_after: Some(Duration::from_secs(3600)),
        ..Clerk::default()
    };
    let bench = Bench::new(World::kind(), clerk, 10).start();
    bench.world.kill("a.example");
    for n in 0..20 {
        let to = format!("u{n}@a.example");
        bench.spool.add(domain("a.example"), &[&to]);
    }
    bench.pass(Duration::from_secs(3500)).await;
    let noted = || {
        let left = bench.spool.left();
        left.iter().filter(|batch| !batch.note.is_empty()).count()
    };
    // Those that were probes were concluded all the same.
    let before = noted();
    assert!(before < 20, "{before}");
    // The probe gives its place to another within a quarter of an hour.
    bench.pass(Duration::from_secs(100) + MINUTE * 16).await;
    assert_eq!(noted(), 20);
    let heard = bench.clerk.heard();
    assert!(
        heard.iter().all(|line| line.ends_with(" deferred")),
        "{heard:?}"
    );
    assert_eq!(bench.ends(), [0, 0, 0, 0]);
    // Hearing of it is no attempt, and nobody hears of it twice.
    let told = heard.len();
    bench.pass(MINUTE * 10).await;
    let later = bench.clerk.heard().len() - told;
    assert!(later <= 11, "one probe a minute: {later}");
    bench.world.revive("a.example");
    bench.drained().await;
    assert_eq!(bench.ends(), [20, 0, 0, 0]);
}
