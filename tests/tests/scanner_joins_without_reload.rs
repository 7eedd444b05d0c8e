//! A third scanner that is started by hand joins the pool and gets mail without any other file changing; draining one, and then
//! ending it, loses nothing and delays nobody.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

#[test]
fn scanner_joins_without_reload() {
    let mut harness = Harness::stubbed(hurried(settings()));
    send(&harness, "before", 4);
    let files = configurations(&harness);

    harness
        .site
        .start("scanner-3")
        .expect("a third scanner starts");
    harness.site.wait_ready("scanner-3").expect("it gets ready");
    harness.wait("the balancer knows it", || {
        (state_of(&harness, "scan-3") == "ready").then_some(())
    });
    assert_eq!(files, configurations(&harness), "no other file changed");
    let pids: Vec<u32> = ["balancer", "mx-edge"]
        .map(|name| harness.site.process(name).pid())
        .into();

    // With the two others drained by the operator all mail goes to the new one.
    for node in ["scan-1", "scan-2"] {
        harness
            .site
            .ask("balancer", &["drain", node])
            .expect("an operator drains a node");
        assert_eq!(state_of(&harness, node), "draining");
    }
    send(&harness, "third-alone", 6);
    assert!(verdicts(&harness, "scanner-3") >= 6, "{}", harness.logs());

    // And back. Then one is ended in the middle of traffic.
    for node in ["scan-1", "scan-2"] {
        harness
            .site
            .ask("balancer", &["undrain", node])
            .expect("an operator takes a node back");
    }
    let door = harness.site.address("mx-edge");
    let traffic = thread::spawn(move || {
        (0..60)
            .map(|number| {
                let id = format!("during-{number}");
                client::submit(
                    door,
                    "author@sender.example",
                    &[LIST],
                    &client::post(&id, LIST),
                )
            })
            .collect::<Vec<_>>()
    });
    harness.wait("traffic flows", || {
        (harness.count(MEMBERS[0]) > 15).then_some(())
    });
    harness.site.stop("scanner-1");
    for reply in traffic.join().expect("the client ends well") {
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{reply:?}\n{}",
            harness.logs()
        );
    }
    harness.wait("it has left", || {
        ["", "down"]
            .contains(&state_of(&harness, "scan-1").as_str())
            .then_some(())
    });
    harness.wait_arrived(4 + 6 + 60);
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert!(
            subjects.values().all(|&count| count == 1),
            "{member}: {subjects:?}"
        );
    }
    let now: Vec<u32> = ["balancer", "mx-edge"]
        .map(|name| harness.site.process(name).pid())
        .into();
    assert_eq!(pids, now, "nobody was restarted");
}

fn send(harness: &Harness, name: &str, count: usize) {
    let door = harness.site.address("mx-edge");
    for number in 0..count {
        let id = format!("{name}-{number}");
        let reply = client::submit(
            door,
            "author@sender.example",
            &[LIST],
            &client::post(&id, LIST),
        );
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{reply:?}\n{}",
            harness.logs()
        );
    }
}

/// A node's state as `balancer nodes --json` tells it; empty when it is unknown.
fn state_of(harness: &Harness, node: &str) -> String {
    let said = harness
        .site
        .ask("balancer", &["--json", "nodes"])
        .expect("the balancer answers");
    let answer: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let nodes = answer
        .get("nodes")
        .unwrap_or(&answer)
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = nodes.iter().find(|one| one["name"] == node);
    found
        .and_then(|one| one["state"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn verdicts(harness: &Harness, scanner: &str) -> usize {
    harness
        .site
        .log(scanner)
        .lines()
        .filter(|line| line.contains("event=\"verdict\"") || line.contains("event=verdict"))
        .count()
}

/// Every configuration but the third scanner's.
fn configurations(harness: &Harness) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(harness.site.root().join("etc"))
        .expect("configurations")
        .flatten()
        .filter(|entry| entry.file_name() != "scanner-3.toml")
        .map(|entry| {
            (
                entry.path(),
                fs::read(entry.path()).expect("a configuration"),
            )
        })
        .collect()
}
