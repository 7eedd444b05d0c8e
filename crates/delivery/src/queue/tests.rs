//! What an operator asks of a queue with mail for three domains, on the engine that keeps it in memory.

use std::sync::Arc;
use std::time::Duration;

use mail::{Address, Domain, MailParameters, Reply, ReversePath, Timestamp};
use serde_json::{Value, json};
use spool::{Class, Destination, NewBatch, NewMessage, Spool};
use tokio::sync::watch;

use super::actions::Verb;
use super::*;
use crate::testing::{Clerk, World, clock, settings};

struct Lists;

impl Names for Lists {
    fn ident(&self, head: &Head) -> Option<String> {
        String::from_utf8(head.facts.to_vec()).ok()
    }

    fn list(&self, _: &Head, batch: &Batch) -> Option<String> {
        String::from_utf8(batch.template.to_vec()).ok()
    }

    fn by_domain(&self) -> bool {
        true
    }
}

struct Bench {
    queue: Queue,
    spool: Arc<dyn Spool>,
    folder: tempfile::TempDir,
    paused: watch::Receiver<bool>,
}

/// Rows: ident, sender, list, domain, recipients, age in minutes.
const MAIL: [(&str, &str, &str, &str, usize, u64); 4] = [
    (
        "mx1.a.1",
        "ann@four.example",
        "dev@l.example",
        "one.example",
        3,
        200,
    ),
    (
        "mx1.a.2",
        "ann@four.example",
        "dev@l.example",
        "two.example",
        2,
        7,
    ),
    ("mx1.a.3", "", "news@l.example", "one.example", 5, 1),
    (
        "mx1.a.4",
        "bob@five.example",
        "news@l.example",
        "three.example",
        1,
        0,
    ),
];

fn queue(spool: &Arc<dyn Spool>, state: &std::path::Path) -> (Queue, watch::Receiver<bool>) {
    queue_in(World::kind(), spool, state)
}

fn queue_in(
    world: World,
    spool: &Arc<dyn Spool>,
    state: &std::path::Path,
) -> (Queue, watch::Receiver<bool>) {
    let kept = Kept::open(state).unwrap();
    let (pause, paused) = watch::channel(kept.is_paused());
    let engine = Engine::with_transport(
        settings(paused.clone()),
        spool.clone(),
        Arc::new(Clerk::default()),
        &prometheus::Registry::new(),
        Arc::new(world),
        clock(),
    );
    let queue = Queue::new(spool.clone(), engine, pause, kept, Arc::new(Lists));
    (queue, paused)
}

async fn bench() -> Bench {
    let spool: Arc<dyn Spool> = Arc::new(spool::memory::Memory::new());
    let now = Timestamp::now();
    for (ident, sender, list, domain, recipients, minutes) in MAIL {
        let age = Duration::from_secs(60 * minutes).as_millis() as u64;
        let to = |n: usize| Address::parse(&format!("u{n}@{domain}")).unwrap().into();
        let message = NewMessage {
            arrival: Timestamp(now.0 - age),
            reverse_path: ReversePath::parse(sender).unwrap(),
            parameters: MailParameters::default(),
            facts: ident.into(),
            body: vec!["Subject: s\r\n\r\nbody\r\n".into()],
            batches: vec![NewBatch {
                destination: Destination::Domain(Domain::parse(domain).unwrap()),
                class: Class::Ordinary,
                due: now,
                recipients: (0..recipients).map(to).collect(),
                template: list.into(),
                replies: Default::default(),
            }],
        };
        spool.accept(message, None).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let (queue, paused) = queue(&spool, folder.path());
    Bench {
        queue,
        spool,
        folder,
        paused,
    }
}

fn said(words: Value) -> Words {
    serde_json::from_value(words).unwrap()
}

impl Bench {
    async fn act(&self, verb: Verb, words: Value) -> Result<Value, Refusal> {
        self.queue.act(&said(words), verb, false).await
    }

    /// Recipients that are meant.
    async fn listed(&self, words: Value) -> u64 {
        let listed = self.queue.list(&said(words), None, 100).await.unwrap();
        let batches = listed["batches"].as_array().unwrap();
        batches
            .iter()
            .map(|line| line["recipients"].as_u64().unwrap())
            .sum()
    }
}

#[tokio::test]
async fn every_condition_finds_what_it_says() {
    let bench = bench().await;
    for (words, expected) in [
        (json!({}), 11),
        (json!({"list": "Dev@l.example"}), 5),
        (json!({"sender": "*@four.example"}), 5),
        (json!({"sender": "<>"}), 5),
        (json!({"domains": ["one.example"]}), 8),
        (json!({"domains": ["two.example", "three.example"]}), 3),
        (
            json!({"domains": ["one.example"], "list": "dev@l.example"}),
            3,
        ),
        (json!({"older": "1h"}), 3),
        (json!({"newer": "5m"}), 6),
        (json!({"older": "5m", "newer": "1h"}), 2),
        (json!({"lanes": ["backlog"]}), 3),
        (json!({"lanes": ["live", "retry"]}), 8),
        (json!({"ident": "mx1.a.2"}), 2),
        (json!({"held": true}), 0),
        (json!({"reply": "full"}), 0),
    ] {
        assert_eq!(bench.listed(words.clone()).await, expected, "{words}");
    }
}

#[tokio::test]
async fn a_hold_is_counted_first_named_and_undone_alone() {
    let bench = bench().await;
    let words = json!({"recipient": "u0@one.example"});
    let would = bench
        .queue
        .count(&said(words.clone()), Verb::Hold)
        .await
        .unwrap();
    assert_eq!(
        (&would["batches"], &would["recipients"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(would["destinations"][0]["destination"], "one.example");
    assert!(would["oldest_seconds"].as_u64() >= Some(12_000), "{would}");
    assert_eq!(
        bench.listed(json!({"held": true})).await,
        0,
        "counting changes nothing"
    );

    let first = bench.act(Verb::Hold, words).await.unwrap();
    assert_eq!(
        (&first["hold"], &first["recipients"]),
        (&json!(1), &json!(2))
    );
    let second = bench
        .act(Verb::Hold, json!({"domains": ["one.example"]}))
        .await
        .unwrap();
    assert_eq!(
        (&second["hold"], &second["recipients"]),
        (&json!(2), &json!(6))
    );
    let holds = bench.queue.holds().await.unwrap();
    assert_eq!(holds[0]["where"], "--recipient u0@one.example");
    assert_eq!(
        (&holds[0]["recipients"], &holds[1]["recipients"]),
        (&json!(2), &json!(6))
    );
    let none = bench
        .act(Verb::Hold, json!({"domains": ["nowhere.example"]}))
        .await
        .unwrap();
    assert_eq!(none["hold"], Value::Null, "a hold of nothing is none");

    let undone = bench.act(Verb::Release, json!({"hold": 2})).await.unwrap();
    assert_eq!(undone["recipients"], 6);
    assert_eq!(bench.listed(json!({"held": true})).await, 2);
    assert_eq!(bench.listed(json!({"hold": 1})).await, 2);
    let account = bench.queue.account().await.unwrap();
    assert_eq!(
        (&account["held"], &account["balances"]),
        (&json!(2), &json!(true))
    );
    bench
        .act(Verb::Release, json!({"all": true}))
        .await
        .unwrap();
    assert_eq!(bench.queue.holds().await.unwrap(), json!([]));
}

/// What the counts tell is what looking tells, wherever they tell it.
#[tokio::test]
async fn a_count_that_is_known_is_the_same_as_one_that_looks() {
    let bench = bench().await;
    let check = async |held: Option<&str>| {
        for (words, is_known) in [
            (json!({"all": true}), true),
            (json!({"domains": ["one.example", "two.example"]}), true),
            (json!({"domains": ["nowhere.example"]}), true),
            (json!({"lanes": ["live"]}), true),
            (json!({"lanes": ["backlog", "retry"]}), true),
            (json!({"older": "1h"}), true),
            (json!({"older": "5m", "newer": "100m"}), true),
            (json!({"older": "1h", "domains": ["one.example"]}), false),
            (json!({"list": "dev@l.example"}), false),
        ] {
            let now = Timestamp::now();
            let predicate = bench.queue.meant(&said(words.clone()), Verb::Hold).await;
            let (predicate, _) = predicate.unwrap();
            let known = known::count(&*bench.spool, &predicate, now).await.unwrap();
            assert_eq!(known.is_some(), is_known, "{words}");
            let Some(known) = known else { continue };
            let looked = bench.queue.look_through(&predicate).await.unwrap();
            assert_eq!(known.selected, looked.selected, "{words} {held:?}");
            if !known.by_age {
                let sums = |counted: &known::Counted| -> Vec<_> {
                    let by = counted.by.iter();
                    by.map(|(place, (sum, _))| (place.clone(), *sum)).collect()
                };
                assert_eq!(sums(&known), sums(&looked), "{words} {held:?}");
            }
            if held.is_none() && !known.by_age {
                assert_eq!(known.oldest, looked.oldest, "{words}");
            } else if let Some(oldest) = known.oldest {
                let looked = looked.oldest.unwrap();
                assert!(oldest <= looked && looked.since(oldest) < spool::Aged::GRAIN);
            }
        }
    };
    check(None).await;
    let held = "u0@one.example";
    bench
        .act(Verb::Hold, json!({"recipient": held}))
        .await
        .unwrap();
    check(Some(held)).await;
}

#[tokio::test]
async fn nothing_is_dropped_by_those_who_are_not_sure() {
    let bench = bench().await;
    let words = json!({"list": "dev@l.example"});
    let Refusal(status, why) = bench.act(Verb::Drop, words.clone()).await.unwrap_err();
    assert_eq!(status, 409);
    assert!(why.contains("5 recipients in 2 batches"), "{why}");
    assert_eq!(bench.listed(json!({})).await, 11);
    let done = bench
        .queue
        .act(&said(words), Verb::Drop, true)
        .await
        .unwrap();
    assert_eq!(done["recipients"], 5);
    assert_eq!(bench.listed(json!({})).await, 6);
    let account = bench.queue.account().await.unwrap();
    assert_eq!(
        (&account["dropped"], &account["balances"]),
        (&json!(5), &json!(true))
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_does() {
    let bench = bench().await;
    for (verb, words, expected) in [
        (Verb::Hold, json!({}), "--all"),
        (Verb::Retry, json!({"all": true, "held": true}), "leave one"),
        (Verb::Hold, json!({"held": true}), "release"),
        (Verb::Retry, json!({"hold": 1}), "release"),
        (
            Verb::Drop,
            json!({"site": "mx.nowhere.example"}),
            "queue sites",
        ),
        (Verb::Drop, json!({"refused": true}), "quarantine"),
        (Verb::Hold, json!({"older": "long"}), "--older"),
    ] {
        let Refusal(_, why) = bench.act(verb, words.clone()).await.unwrap_err();
        assert!(why.contains(expected), "{words}: {why}");
    }
    let missing = bench.queue.show(&"0".repeat(32)).await.unwrap_err();
    assert_eq!(missing.0, 404);
    assert!(
        bench
            .queue
            .show("joe")
            .await
            .unwrap_err()
            .1
            .contains("32 hex")
    );
    assert_eq!(bench.listed(json!({})).await, 11);
}

/// Here a domain is its own exchanger.
#[tokio::test]
async fn a_site_is_found_by_domains_that_were_never_tried() {
    let bench = bench().await;
    let world = World::kind();
    for (domain, code) in [("two.example", 451), ("three.example", 550)] {
        let domain = Domain::parse(domain).unwrap();
        let reply = Reply::new(code, (code as u8 / 100, 4, 3), "no exchanger");
        world.lookups.lock().unwrap().insert(domain, reply);
    }
    let (queue, _) = queue_in(world, &bench.spool, bench.folder.path());
    let site = |site: &str| said(json!({ "site": site }));
    let listed = queue.list(&site("One.example"), None, 100).await.unwrap();
    assert_eq!(listed["batches"].as_array().unwrap().len(), 2);
    assert_eq!(
        listed["unknown_domains"], 1,
        "two.example may lead there, three.example leads nowhere"
    );
    let counted = queue.count(&site("one.example"), Verb::Hold).await.unwrap();
    assert_eq!(
        (&counted["recipients"], &counted["unknown_domains"]),
        (&json!(8), &json!(1))
    );
    let held = queue
        .act(&site("one.example"), Verb::Hold, false)
        .await
        .unwrap();
    assert_eq!(
        (&held["recipients"], &held["unknown_domains"]),
        (&json!(8), &json!(1))
    );
    let released = queue
        .act(&site("one.example"), Verb::Release, false)
        .await
        .unwrap();
    assert_eq!(released["recipients"], 8);
    for (nowhere, expected) in [
        (
            "two.example",
            "1 domains could not be looked up (such as two.example)",
        ),
        ("three.example", "could not"),
    ] {
        let Refusal(code, why) = queue.count(&site(nowhere), Verb::Hold).await.unwrap_err();
        assert!(code == 404 && why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn the_top_adds_up_by_whatever_it_is_made() {
    let bench = bench().await;
    let top = async |by: &str, limit| {
        let all = Words::default();
        bench.queue.top(&all, by, "5m,10m,1h", limit).await.unwrap()
    };
    let by_domain = top("domain", 20).await;
    assert_eq!(by_domain["total"]["ages"], json!([6, 2, 0, 3]));
    assert_eq!(by_domain["lines"][0]["name"], "one.example");
    assert_eq!(by_domain["lines"][0]["ages"], json!([5, 0, 0, 3]));
    let by_list = top("list", 1).await;
    assert_eq!(by_list["lines"][0]["name"], "news@l.example");
    assert_eq!(by_list["others"]["recipients"], 5);
    let by_sender = top("sender", 20).await;
    assert_eq!(by_sender["lines"].as_array().unwrap().len(), 3);
    assert!(
        bench
            .queue
            .top(&Words::default(), "colour", "5m", 1)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_listing_goes_on_where_it_ended_and_shows_all_of_one() {
    let bench = bench().await;
    let mut after: Option<String> = None;
    let mut seen = std::collections::HashSet::new();
    loop {
        let page = bench
            .queue
            .list(&Words::default(), after.as_deref(), 3)
            .await
            .unwrap();
        let batches = page["batches"].as_array().unwrap().clone();
        seen.extend(batches.iter().map(|line| line["batch"].to_string()));
        match page["after"].as_str() {
            Some(next) => after = Some(next.into()),
            None => break,
        }
    }
    assert_eq!(seen.len(), MAIL.len());
    let shown = bench.queue.show("mx1.a.1").await.unwrap();
    assert_eq!(shown["reverse_path"], "ann@four.example");
    assert_eq!(
        shown["batches"][0]["recipients"].as_array().unwrap().len(),
        3
    );
    for id in [&shown["message"], &shown["batches"][0]["batch"]] {
        let again = bench.queue.show(id.as_str().unwrap()).await.unwrap();
        assert_eq!(again["ident"], "mx1.a.1");
    }
    for what in ["mx1.a.3", "u4@one.example", "<u4@one.example>"] {
        let why = bench.queue.why(what).await.unwrap();
        assert_eq!(why["waiting"][0]["ident"], "mx1.a.3", "{what}");
    }
}

#[tokio::test]
async fn pause_and_rate_are_in_force_again_after_a_restart() {
    let bench = bench().await;
    bench.queue.kept.pause(true).unwrap();
    bench.queue.kept.limit(Some(25.0)).unwrap();
    assert!(!*bench.paused.borrow());
    let (queue, paused) = queue(&bench.spool, bench.folder.path());
    assert!(*paused.borrow());
    let state = queue.state();
    assert_eq!(
        (&state["paused"], &state["drain_rate"]),
        (&json!(true), &json!(25.0))
    );
}
