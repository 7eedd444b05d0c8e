//! Spam and malware that the edge had to take unscanned, because no scanner could be reached, end in listserv's quarantine:
//! nobody gets them and nobody gets a bounce. What an operator releases arrives once.

use end_to_end::{Harness, client, hurried, settings, stub};
use local::configs::{LIST, MEMBERS};

#[test]
fn spooled_spam_is_quarantined_and_released_once() {
    let mut harness = Harness::stubbed(hurried(settings()));
    harness.site.stop("balancer");
    for (subject, line) in [
        ("spam", stub::gtube()),
        ("malware", stub::eicar()),
        ("good", "words".into()),
    ] {
        let mut message = client::post(subject, LIST);
        message.extend(format!("{line}\r\n").bytes());
        let door = harness.site.address("mx-edge");
        let reply = client::submit(door, "forged@victim.example", &[LIST], &message);
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{subject}: {reply:?}"
        );
    }
    harness
        .site
        .start("balancer")
        .expect("the balancer starts again");
    harness.wait_arrived(1);
    let held = harness.wait("two messages are held", || {
        let held = list(&harness);
        (held.len() == 2).then_some(held)
    });
    for item in &held {
        assert_eq!(item["reverse_path"], "forged@victim.example", "{item}");
        assert_eq!(item["recipients"][0], LIST, "{item}");
    }
    harness.wait("the edge has passed everything on", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    for member in MEMBERS {
        assert_eq!(
            harness.subjects(member).into_keys().collect::<Vec<_>>(),
            ["good"],
            "{member}"
        );
    }
    assert_eq!(
        harness.count("forged@victim.example"),
        0,
        "no bounce to a forged sender"
    );

    let spam = held.iter().find(|item| {
        item["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("spam"))
    });
    let id = spam.unwrap_or_else(|| panic!("{held:?}"))["id"].to_string();
    harness
        .site
        .ask("listserv", &["quarantine", "release", &id])
        .expect("an operator releases it");
    let again = harness
        .site
        .command("listserv", &["quarantine", "release", &id])
        .expect("listserv answers");
    assert!(!again.status.success(), "it is released once: {again:?}");
    harness.wait_arrived(2);
    harness.wait("listserv's queue runs empty", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert_eq!(subjects.get("spam"), Some(&1), "{member}: {subjects:?}");
        assert!(!subjects.contains_key("malware"), "{member}: {subjects:?}");
    }
    assert_eq!(list(&harness).len(), 1);
}

/// What `listserv quarantine list` shows.
fn list(harness: &Harness) -> Vec<serde_json::Value> {
    let said = harness
        .site
        .ask("listserv", &["--json", "quarantine", "list"])
        .expect("listserv answers");
    serde_json::from_str::<serde_json::Value>(&said)
        .ok()
        .and_then(|answer| answer.as_array().cloned())
        .unwrap_or_else(|| panic!("{said}"))
}
