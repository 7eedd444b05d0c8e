//! With listserv, both scanners or the balancer stopped, or frozen with their sockets open, mail is still answered 250 in
//! bounded time, kept by the edge, and arrives once after the return.

use std::time::{Duration, Instant};

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

/// Far above the edge's budget in this test, far below a client's patience.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Who is taken away together.
const ABSENT: [&[&str]; 3] = [&["listserv"], &["scanner-1", "scanner-2"], &["balancer"]];

#[test]
fn inside_down_mail_is_kept() {
    let mut harness = Harness::stubbed(hurried(settings()));
    let mut sent = Vec::new();
    for absent in ABSENT {
        for name in absent {
            harness.site.stop(name);
        }
        send(&harness, &mut sent, &format!("stopped-{}", absent[0]));
        for name in absent {
            harness.site.start(name).expect("it starts again");
        }
        harness.wait_arrived(sent.len());

        for name in absent {
            harness.site.process(name).freeze();
        }
        send(&harness, &mut sent, &format!("frozen-{}", absent[0]));
        for name in absent {
            harness.site.process(name).thaw();
        }
        harness.wait_arrived(sent.len());
    }
    // A last live one: whatever would have come twice has come by then.
    send(&harness, &mut sent, "last");
    harness.wait_arrived(sent.len());
    harness.wait("the edge's spool runs empty", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert!(
            subjects.values().all(|&count| count == 1),
            "{member}: {subjects:?}"
        );
        assert_eq!(subjects.len(), sent.len(), "{member}: {subjects:?}");
    }
}

fn send(harness: &Harness, sent: &mut Vec<String>, subject: &str) {
    let door = harness.site.address("mx-edge");
    for number in 0..3 {
        let subject = format!("{subject}-{number}");
        let start = Instant::now();
        let reply = client::submit(
            door,
            "author@sender.example",
            &[LIST],
            &client::post(&subject, LIST),
        );
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
            "{subject}: {reply:?}\n{}",
            harness.logs()
        );
        assert!(
            start.elapsed() < ANSWER_MAX,
            "{subject}: answered after {:?}",
            start.elapsed()
        );
        sent.push(subject);
    }
}
