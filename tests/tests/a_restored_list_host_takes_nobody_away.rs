//! A list host that was restored from an older copy publishes a directory that lacks what was made since. Edges hold it back and go on
//! with what they have, also when the restored host makes changes of its own, until an operator says that it counts.

use std::fs;
use std::path::Path;

use end_to_end::{Harness, hurried, settings};

/// What the edge itself says of an address. The list host behind it may no longer know it, which is another question.
fn lookup(harness: &Harness, address: &str) -> String {
    let asked = ["--json", "recipients", "lookup", address];
    let said = harness.site.ask("mx-edge", &asked);
    let said = said.unwrap_or_else(|error| panic!("{error}"));
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    answer["known"].as_str().unwrap_or_default().to_owned()
}

fn check(harness: &Harness, address: &str, expected: &str) {
    let known = lookup(harness, address);
    assert_eq!(known, expected, "{address}\n{}", harness.logs());
}

/// Copies the files of the directory's database; its program does not run.
fn copy(from: &Path, to: &Path) {
    for name in ["directory.sqlite", "directory.sqlite-wal"] {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("a copy");
        }
    }
    let _ = fs::remove_file(to.join("directory.sqlite-shm"));
}

fn create(harness: &Harness, list: &str) {
    let made = harness.site.ask("listserv", &["list", "create", list]);
    made.unwrap_or_else(|error| panic!("{error}"));
}

fn wait_known(harness: &Harness, address: &str) {
    harness.wait(&format!("{address} is known"), || {
        (lookup(harness, address) == "yes").then_some(())
    });
}

fn held_back(harness: &Harness, cause: &str) {
    harness.wait(&format!("a version is held back as {cause}"), || {
        let said = harness
            .site
            .ask("mx-edge", &["--json", "recipients", "show"])
            .ok()?;
        let sources: serde_json::Value = serde_json::from_str(&said).ok()?;
        (sources[0]["blocked"]["cause"] == cause).then_some(())
    });
}

#[test]
fn a_restored_list_host_takes_nobody_away() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    harness
        .site
        .lay_over("mx-edge", "[directory]\nwait = '2s'\npause_max = '1s'\n");
    harness.site.start_all().expect("the site starts");
    let state = harness.site.root().join("state/listserv");
    let kept = harness.site.root().join("copy");
    fs::create_dir(&kept).expect("a folder");

    harness.site.stop("listserv");
    copy(&state, &kept);
    harness.site.start("listserv").expect("it starts again");
    harness.site.wait_ready("listserv").expect("it is ready");
    for list in ["fresh@lists.example", "later@lists.example"] {
        create(&harness, list);
        wait_known(&harness, &list.replace('@', "-subscribe@"));
    }

    // The copy is put in place: two lists fewer, which no shrink guard would mind.
    harness.site.stop("listserv");
    copy(&kept, &state);
    harness
        .site
        .start("listserv")
        .expect("it starts with the copy");
    harness.site.wait_ready("listserv").expect("it is ready");
    held_back(&harness, "older");
    let blocked = || harness.metric("mx-edge", "mx_edge_source_blocked", "directory");
    harness.wait("the metric tells", || (blocked() == 1.0).then_some(()));
    let parted = || {
        harness.metric(
            "listserv",
            "listserv_directory_strange_versions_total",
            "parted",
        )
    };
    harness.wait("the list host knows that it lags", || {
        (parted() > 0.0).then_some(())
    });
    check(&harness, "fresh-subscribe@lists.example", "yes");

    // It goes on by itself, past the number that the edge has: still not its successor.
    for list in ["x1", "x2", "x3", "x4"] {
        create(&harness, &format!("{list}@lists.example"));
    }
    held_back(&harness, "foreign");
    check(&harness, "fresh-subscribe@lists.example", "yes");
    check(&harness, "x4-subscribe@lists.example", "no");

    // The operator decides.
    harness.wait("the newest version waits for the operator", || {
        let said = harness
            .site
            .ask("mx-edge", &["recipients", "accept", "--force"]);
        said.unwrap_or_else(|error| panic!("{error}"));
        (lookup(&harness, "x4@lists.example") == "yes").then_some(())
    });
    check(&harness, "fresh-subscribe@lists.example", "no");
    // From then on its changes come by themselves.
    create(&harness, "onward@lists.example");
    wait_known(&harness, "onward-subscribe@lists.example");
}
