//! A running edge holds mail because its inside is down. An operator lists it, looks at one, sees where it waits, holds, releases, retries
//! and drops by conditions (counted first), and takes a copy that can be exported; the account adds up after each of it.

use std::fs;

use end_to_end::alone::{RECIPIENT, edge};
use end_to_end::{Harness, client};
use serde_json::Value;

const BOSS: &str = "boss@old.example";
const GUEST: &str = "guest@old.example";
/// Who is written to, and how often.
const SENT: [(&str, usize); 3] = [(RECIPIENT, 3), (BOSS, 2), (GUEST, 1)];

/// A command's answer.
fn ask(harness: &Harness, words: &str) -> Value {
    let arguments: Vec<&str> = ["--json"].into_iter().chain(words.split(' ')).collect();
    let said = harness.site.ask("mx-edge", &arguments);
    let said = said.unwrap_or_else(|error| panic!("{error}\n{}", harness.logs()));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words}: {error}: {said}"))
}

/// What a command that must fail complains of.
fn refused(harness: &Harness, words: &[&str]) -> String {
    let output = harness.site.command("mx-edge", words).expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{words:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the account adds up, and so many wait.
fn balances(harness: &Harness, waiting: u64) -> Value {
    let account = ask(harness, "reconcile");
    assert_eq!(account["balances"], true, "{account}");
    assert_eq!(account["unaccounted"], 0, "{account}");
    assert_eq!(account["difference"], 0, "{account}");
    assert_eq!(account["waiting"], waiting, "{account}");
    account
}

/// What is being attempted when an operator means it is treated once that attempt has ended.
fn wait_account(harness: &Harness, kind: &str, recipients: u64) {
    harness.wait("what was meant is treated", || {
        (ask(harness, "reconcile")[kind] == recipients).then_some(())
    });
}

/// The inside is away, and no wait ends by itself while a test lasts.
fn with_mail() -> Harness {
    let mut harness =
        edge("[forward]\nretry_first = '10m'\nretry_longest = '10m'\nprobe_interval = '10m'\n");
    let known: String = SENT.iter().map(|(to, _)| format!("{to}\n")).collect();
    fs::write(harness.site.root().join("recipients"), known).expect("a file");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let door = harness.site.address("mx-edge");
    for (to, count) in SENT {
        for number in 0..count {
            let id = format!("{number}-{to}");
            let reply =
                client::submit(door, "author@sender.example", &[to], &client::post(&id, to));
            assert!(
                reply.as_ref().is_ok_and(|is| is.starts_with("250")),
                "{reply:?}"
            );
        }
    }
    harness.wait("all of them are seen", || {
        let batches = ask(&harness, "queue list");
        (batches["batches"].as_array()?.len() == 6).then_some(())
    });
    harness
}

fn looked_at(harness: &Harness) {
    let batches = ask(harness, "queue list")["batches"].clone();
    let batches = batches.as_array().expect("batches").clone();
    assert_eq!(batches.len(), 6, "{batches:?}");
    let of_boss = ask(harness, &format!("queue list --recipient {BOSS}"));
    let of_boss = of_boss["batches"].as_array().expect("batches").clone();
    assert_eq!(of_boss.len(), 2, "{of_boss:?}");
    assert!(of_boss.iter().all(|batch| batch["first_recipient"] == BOSS));

    let (ident, message) = (&of_boss[0]["ident"], &of_boss[0]["message"]);
    for name in [ident, message] {
        let name = name.as_str().expect("a name");
        let shown = ask(harness, &format!("queue show {name}"));
        assert_eq!(&shown["message"], message, "{shown}");
        assert_eq!(
            shown["batches"].as_array().map(Vec::len),
            Some(1),
            "{shown}"
        );
    }
    let nobody = refused(harness, &["queue", "show", "edge-9.1.1"]);
    assert!(nobody.contains("nothing of this name waits"), "{nobody}");

    let top = ask(harness, "queue top --by domain");
    let line = &top["lines"][0];
    assert_eq!(top["lines"].as_array().map(Vec::len), Some(1), "{top}");
    assert!(line.to_string().contains("old.example"), "{top}");
    assert_eq!(
        top["total"]["recipients"]
            .as_u64()
            .or(top["total"][0].as_u64()),
        Some(6),
        "{top}"
    );
    // Told to go now, it meets an inside that does not answer.
    let retried = ask(harness, "queue retry --all");
    assert_eq!(retried["recipients"], 6, "{retried}");
    harness.wait("the inside is met and shut", || {
        let sites = ask(harness, "queue sites");
        (sites[0]["gate"] == "shut").then_some(())
    });
    // As a person sees it.
    for words in [
        &["queue", "list"][..],
        &["queue", "top"],
        &["queue", "sites"],
        &["queue", "state"],
    ] {
        let text = harness.site.ask("mx-edge", words).expect("an answer");
        assert!(!text.trim().is_empty() && !text.starts_with('{'), "{text}");
    }
    balances(harness, 6);
}

/// Counted first, held, and undone; what is not held goes on.
fn held_and_released(harness: &mut Harness) {
    let meant = format!("queue hold --recipient {RECIPIENT}");
    let would = ask(harness, &format!("{meant} --dry-run"));
    assert_eq!(
        (&would["would"], &would["recipients"]),
        (&"hold".into(), &3.into()),
        "{would}"
    );
    assert_eq!(
        ask(harness, "queue state")["held"],
        0,
        "a count holds nothing"
    );
    let held = ask(harness, &meant);
    assert_eq!(held["recipients"], 3, "{held}");
    let hold = held["hold"].as_u64().expect("a hold's number");
    let listed = ask(harness, "queue list --held");
    assert_eq!(
        listed["batches"].as_array().map(Vec::len),
        Some(3),
        "{listed}"
    );
    wait_account(harness, "held", 3);
    balances(harness, 5);

    // The inside is back; what would wait for ten minutes is told to go.
    harness.site.start_sink().expect("a next hop");
    let retried = ask(harness, "queue retry --all");
    assert!(retried["recipients"].as_u64() >= Some(2), "{retried}");
    harness.wait("what is not held arrives", || {
        (harness.count(BOSS) == 2).then_some(())
    });
    harness.wait("and nothing but what is held is left", || {
        (harness.queued("mx-edge")? == 3).then_some(())
    });
    assert_eq!(harness.count(RECIPIENT), 0, "held mail stays");
    balances(harness, 3);
    let would = ask(harness, &format!("queue release --hold {hold} --dry-run"));
    assert_eq!(would["recipients"], 3, "{would}");
    let released = ask(harness, &format!("queue release --hold {hold}"));
    assert_eq!(released["recipients"], 3, "{released}");
    harness.wait("what was held arrives", || {
        (harness.count(RECIPIENT) == 3).then_some(())
    });
}

/// Nothing ends by mistake; what ends is told.
fn dropped(harness: &Harness) {
    let unsaid = refused(harness, &["queue", "hold"]);
    assert!(unsaid.contains("--all"), "{unsaid}");
    let meant = ["queue", "drop", "--recipient", GUEST];
    let unsure = refused(harness, &meant);
    assert!(
        unsure.contains("1 recipients") && unsure.contains("--yes"),
        "{unsure}"
    );
    let would = ask(harness, &format!("{} --dry-run", meant.join(" ")));
    assert_eq!(
        (&would["would"], &would["recipients"]),
        (&"drop".into(), &1.into()),
        "{would}"
    );
    balances(harness, 6);
    let done = ask(harness, &format!("{} --yes", meant.join(" ")));
    assert_eq!(done["recipients"], 1, "{done}");
    wait_account(harness, "dropped", 1);
    balances(harness, 5);
    let ended = ask(harness, "ended");
    assert!(ended.to_string().contains(GUEST), "{ended}");
    assert!(harness.site.log("mx-edge").contains("event=dropped"));
}

/// A copy of the running spool is sound, and its mail can be got out of it.
fn exported(harness: &Harness, messages: usize) {
    let copy = harness.site.root().join("copy");
    let copy = copy.display();
    ask(harness, &format!("spool backup {copy}"));
    ask(harness, &format!("spool check {copy}"));
    let folder = harness.site.root().join("exported");
    let to = format!("maildir:{}", folder.display());
    let said = harness.site.ask(
        "mx-edge",
        &["spool", "export", &copy.to_string(), "--held", "--to", &to],
    );
    said.expect("it is exported");
    let there = fs::read_dir(folder.join("new")).expect("a Maildir").count();
    assert_eq!(there, messages);
}

#[test]
fn an_operator_works_the_edges_queue() {
    let mut harness = with_mail();
    looked_at(&harness);
    exported(&harness, 6);
    dropped(&harness);
    held_and_released(&mut harness);
    harness.wait("nothing is left", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    let account = balances(&harness, 0);
    assert_eq!(account["accepted"], 6, "{account}");
    assert_eq!(account["delivered"], 5, "{account}");
    assert_eq!(account["dropped"], 1, "{account}");
    assert_eq!(harness.count(GUEST), 0);
}
