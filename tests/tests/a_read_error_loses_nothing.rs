//! The disk of an edge with mail waiting refuses several reads of the journal (EIO), as told by strace, while the mail is passed on:
//! what could not be read rests, is read again, and all of it arrives once. Nothing is set aside.

use std::fs;

use end_to_end::alone::{RECIPIENT, edge, send};
use end_to_end::{Fault, Tracer};

const TEST: &str = "a_read_error_loses_nothing";
const MESSAGES: usize = 12;
/// The calls by which the journal reads, and which of them fail.
const READ: &str = "pread64,preadv,preadv2";
const REFUSED: &str = "1..7";

#[test]
fn a_read_error_loses_nothing() {
    let mut harness = edge("");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    for number in 0..MESSAGES {
        let reply = send(&harness, &format!("kept-{number}"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    // What it has in memory it would not read.
    harness.site.stop("mx-edge");
    harness.site.start("mx-edge").expect("it starts again");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let fault = Fault {
        calls: READ,
        how: "error=EIO",
        when: REFUSED,
        file: &harness.segment("mx-edge"),
    };
    let log = harness.site.root().join("log/strace");
    let pid = harness.site.process("mx-edge").pid();
    let Some(tracer) = Tracer::attach(TEST, pid, &fault, &log) else {
        return;
    };
    harness.site.start_sink().expect("a next hop");
    harness.wait("all that waited arrives", || {
        (harness.subjects(RECIPIENT).len() == MESSAGES).then_some(())
    });
    assert!(tracer.has_struck(), "nothing failed");
    drop(tracer);
    harness.wait("nothing waits", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    let arrived = harness.subjects(RECIPIENT);
    assert!(arrived.values().all(|&count| count == 1), "{arrived:?}");
    for metric in [
        "spool_set_aside_total",
        "spool_batches_set_aside_total",
        "spool_unreadable_batches",
    ] {
        assert_eq!(harness.metric("mx-edge", metric, ""), 0.0, "{metric}");
    }
    let corrupt = harness.site.root().join("state/mx-edge/spool/corrupt");
    assert_eq!(fs::read_dir(corrupt).expect("a folder").count(), 0);
}
