//! With listserv down clean mail is scanned once: the signed verdict that the edge keeps is presented when listserv is back, and
//! neither spamd nor clamd sees the message again. With the daemons mute nothing passes unscanned, then or later.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

const MAILS: usize = 5;

#[test]
fn a_verdict_outlives_the_list_hosts_absence() {
    let mut options = hurried(settings());
    // Canaries scan too; with none due in this test, every scan that the stubs count is a message.
    options
        .overrides
        .push(("scanner".into(), "[scan]\ncanary_interval = '1h'\n".into()));
    let mut harness = Harness::stubbed(options);
    let before = scans(&harness);

    harness.site.stop("listserv");
    send(&harness, "kept");
    let scanned = scans(&harness);
    assert_eq!(
        scanned,
        (before.0 + MAILS as u64, before.1 + MAILS as u64),
        "each was scanned once"
    );
    harness
        .site
        .start("listserv")
        .expect("listserv starts again");
    harness.wait_arrived(MAILS);
    assert_eq!(scans(&harness), scanned, "none was scanned again");

    // Now both daemons accept connections and say nothing.
    harness.stubs.as_ref().expect("stubs").silence(true);
    send(&harness, "unscanned");
    harness.wait("they wait at the edge", || {
        (harness.queued("mx-edge")? == MAILS as u64).then_some(())
    });
    for member in MEMBERS {
        assert_eq!(
            harness.count(member),
            MAILS,
            "nothing unscanned has passed to {member}"
        );
    }
    harness.stubs.as_ref().expect("stubs").silence(false);
    harness.wait_arrived(2 * MAILS);
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert!(
            subjects.values().all(|&count| count == 1),
            "{member}: {subjects:?}"
        );
        for message in harness.arrived(member) {
            let text = String::from_utf8_lossy(&message).into_owned();
            assert!(
                text.contains("X-Spam-Status: No, score=0.1") && text.contains("STUB_HAM"),
                "{text}"
            );
            assert!(text.contains("X-Virus-Scanned: ClamAV 1.4.6"), "{text}");
            assert!(!text.contains("X-Mailflow-Trace"), "{text}");
        }
    }
}

fn scans(harness: &Harness) -> (u64, u64) {
    let stubs = harness.stubs.as_ref().expect("stubs");
    (stubs.spamd_scans(), stubs.clamd_scans())
}

fn send(harness: &Harness, name: &str) {
    let door = harness.site.address("mx-edge");
    for number in 0..MAILS {
        let id = format!("{name}-{number}");
        let reply = client::submit(
            door,
            "author@sender.example",
            &[LIST],
            &client::post(&id, LIST),
        );
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{id}: {reply:?}\n{}",
            harness.logs()
        );
    }
}
