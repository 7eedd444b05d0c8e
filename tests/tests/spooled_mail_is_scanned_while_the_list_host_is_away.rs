//! Mail that an edge spooled with neither scanners nor a list host there is scanned as soon as there are scanners; when the list host is
//! back all of it flows at a probe, long before any message's own wait is over, and none is scanned a second time.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

const MAILS: usize = 20;

/// Recipients that wait for a list host, scanned.
fn scanned_waiting(harness: &Harness) -> Option<u64> {
    let said = harness
        .site
        .ask("mx-edge", &["--json", "queue", "tally"])
        .ok()?;
    let lines: serde_json::Value = serde_json::from_str(&said).ok()?;
    let lines = lines.as_array()?.iter();
    let list = lines.filter(|line| {
        line["destination"]
            .as_str()
            .is_some_and(|d| d.contains("list"))
    });
    Some(list.filter_map(|line| line["recipients"].as_u64()).sum())
}

#[test]
fn spooled_mail_is_scanned_while_the_list_host_is_away() {
    let mut options = hurried(settings());
    let forward =
        "[forward]\nretry_first = '10m'\nretry_longest = '10m'\nprobe_interval = '500ms'\n";
    options.overrides.push(("mx-edge".into(), forward.into()));
    let canary = "[scan]\ncanary_interval = '1h'\n";
    options.overrides.push(("scanner".into(), canary.into()));
    let mut harness = Harness::stubbed(options);
    for name in ["listserv", "scanner-1", "scanner-2"] {
        harness.site.stop(name);
    }
    let door = harness.site.address("mx-edge");
    for number in 0..MAILS {
        let post = client::post(&format!("kept-{number}"), LIST);
        let reply = client::submit(door, "author@sender.example", &[LIST], &post);
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{reply:?}\n{}",
            harness.logs()
        );
    }
    assert_eq!(harness.queued("mx-edge"), Some(MAILS as u64));
    assert_eq!(scanned_waiting(&harness), Some(0));

    for name in ["scanner-1", "scanner-2"] {
        harness
            .site
            .start(name)
            .unwrap_or_else(|error| panic!("{error}"));
    }
    harness.wait("all of it is scanned, with no list host there", || {
        (scanned_waiting(&harness)? == MAILS as u64).then_some(())
    });
    let scans = |harness: &Harness| harness.stubs.as_ref().expect("stubs").spamd_scans();
    let scanned = scans(&harness);
    assert!(scanned >= MAILS as u64, "{scanned}");
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [0, 0, 0]);

    harness
        .site
        .start("listserv")
        .unwrap_or_else(|error| panic!("{error}"));
    harness.wait_arrived(MAILS);
    harness.wait("the edge's spool runs empty", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    assert_eq!(scans(&harness), scanned, "none was scanned again");
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [MAILS; 3]);
}
