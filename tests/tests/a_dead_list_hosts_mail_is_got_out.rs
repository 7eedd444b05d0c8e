//! A copy of the running list host's spool is made while mail waits; the host is killed; its spool is read without it, its mail got
//! out into a Maildir and to a server, once; and the copy, put in place, holds what waited when it was made.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};
use serde_json::Value;

const BEFORE: usize = 5;
const AFTER: usize = 2;

fn send(harness: &Harness, from: usize, to: usize) {
    let door = harness.site.address("mx-edge");
    for number in from..to {
        let subject = format!("post-{number}");
        let post = client::post(&subject, LIST);
        let reply = client::submit(door, "author@sender.example", &[LIST], &post);
        assert!(
            reply.as_ref().is_ok_and(|reply| reply.starts_with("250")),
            "{reply:?}"
        );
    }
    let all = (to * MEMBERS.len()) as u64;
    harness.wait("the posts are expanded and wait", || {
        (harness.queued("listserv")? == all).then_some(())
    });
}

fn json(harness: &Harness, words: &[&str]) -> Value {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    let said = harness.site.ask("listserv", &words);
    let said = said.unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&said).expect("JSON is printed")
}

#[test]
fn a_dead_list_hosts_mail_is_got_out() {
    let mut options = hurried(settings());
    let paused = "[delivery]\npaused = true\n";
    options.overrides.push(("listserv".into(), paused.into()));
    let mut harness = Harness::stubbed(options);
    let kept = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| kept.path().join(name).display().to_string();
    let copy = place("copy");

    send(&harness, 0, BEFORE);
    let copied = json(&harness, &["spool", "backup", &copy]);
    assert!(copied["bytes"].as_u64() > Some(0), "{copied}");
    send(&harness, BEFORE, BEFORE + AFTER);
    let running = harness.site.ask("listserv", &["spool", "check"]);
    let refused = running.expect_err("a spool in use is not read");
    assert!(refused.contains("running process"), "{refused}");
    harness.site.kill("listserv");

    let report = json(&harness, &["spool", "check"]);
    assert_eq!(report["whole"], true, "{report}");
    assert_eq!(report["messages"], BEFORE + AFTER, "{report}");

    let maildir = place("maildir");
    let to = format!("maildir:{maildir}");
    let told = json(&harness, &["spool", "export", "--to", &to]);
    assert_eq!(told["messages"], BEFORE + AFTER, "{told}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("{maildir}/new")).expect("a Maildir") {
        let path = entry.expect("an entry").path();
        found.push(std::fs::read_to_string(path).expect("mail"));
    }
    assert_eq!(found.len(), BEFORE + AFTER);
    for member in MEMBERS {
        let line = format!("X-Envelope-To: <{member}>");
        assert!(found.iter().all(|mail| mail.contains(&line)), "{member}");
    }

    let to = format!("smtp:{}", harness.site.address("sink"));
    let done = place("done");
    let export = ["spool", "export", "--to", &to, "--done", &done];
    let told = json(&harness, &export);
    let all = (BEFORE + AFTER) * MEMBERS.len();
    assert_eq!(told["recipients_exported"], all, "{told}");
    assert_eq!(told["complete"], true, "{told}");
    harness.wait_arrived(BEFORE + AFTER);
    let again = json(&harness, &export);
    assert_eq!(again["recipients_exported"], 0, "{again}");
    assert_eq!(again["recipients_done_before"], all, "{again}");
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert_eq!(subjects.len(), BEFORE + AFTER, "{member}: {subjects:?}");
        assert!(subjects.values().all(|&count| count == 1), "{subjects:?}");
    }

    let occupied = harness.site.ask("listserv", &["spool", "restore", &copy]);
    let refused = occupied.expect_err("a spool is never overwritten unasked");
    assert!(refused.contains("is there already"), "{refused}");
    let restored = harness
        .site
        .ask("listserv", &["spool", "restore", &copy, "--replace"]);
    let restored = restored.unwrap_or_else(|error| panic!("{error}"));
    assert!(restored.contains("spool.replaced-1"), "{restored}");
    harness.site.start("listserv").expect("it starts again");
    harness.wait("the copy is served", || {
        (harness.queued("listserv")? == (BEFORE * MEMBERS.len()) as u64).then_some(())
    });
}
