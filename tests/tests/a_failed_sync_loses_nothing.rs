//! A sync or a write of the running edge's journal fails, as told by strace: nothing more is acknowledged, the edge is not ready and
//! says why, answers 451 and passes mail through. After a restart all that was answered 250 is there and arrives.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use end_to_end::alone::{RECIPIENT, edge, send};
use end_to_end::{Fault, Harness, Tracer};

const TEST: &str = "a_failed_sync_loses_nothing";
const CLIENTS: usize = 4;
/// A client gives up after so many messages that were all kept.
const MESSAGES_MAX: usize = 500;

/// The calls by which the journal writes and syncs.
const WRITE: &str = "pwrite64,pwritev,pwritev2";
const SYNC: &str = "fdatasync,fsync";

/// Rows: calls, error, which one.
const FAULTS: [(&str, &str, &str); 4] = [
    (SYNC, "EIO", "1"),
    (SYNC, "ENOSPC", "9"),
    (WRITE, "EIO", "5"),
    (WRITE, "ENOSPC", "12+"),
];

/// Several clients send until one message of each is not taken.
fn send_until_refused(harness: &Harness, round: usize, kept: &Mutex<BTreeSet<String>>) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 0..MESSAGES_MAX {
                    let id = format!("r{round}-{client}-{number}");
                    let reply = send(harness, &id);
                    if !reply.starts_with("250") {
                        assert!(reply.starts_with("451 4.3.0"), "{reply}");
                        return;
                    }
                    kept.lock().expect("no client panics").insert(id);
                }
                panic!("{MESSAGES_MAX} messages were kept\n{}", harness.logs());
            });
        }
    });
}

#[test]
fn a_failed_sync_loses_nothing() {
    let mut harness = edge("");
    let kept = Mutex::new(BTreeSet::new());
    for (round, (calls, error, when)) in FAULTS.into_iter().enumerate() {
        let what = format!("{calls} {error} {when}");
        harness.site.start("mx-edge").expect("it starts");
        harness.site.wait_ready("mx-edge").expect("it is ready");
        let first = format!("first-{round}");
        assert!(send(&harness, &first).starts_with("250"), "{what}");
        kept.lock().expect("nobody panicked").insert(first);
        let fault = Fault {
            calls,
            how: &format!("error={error}"),
            when,
            file: &harness.segment("mx-edge"),
        };
        let log = harness.site.root().join(format!("log/strace-{round}"));
        let pid = harness.site.process("mx-edge").pid();
        let Some(tracer) = Tracer::attach(TEST, pid, &fault, &log) else {
            return;
        };
        send_until_refused(&harness, round, &kept);
        assert!(tracer.has_struck(), "{what}: nothing failed");
        harness.wait_readiness("mx-edge", "poisoned");
        assert_eq!(harness.metric("mx-edge", "spool_poisoned", ""), 1.0);
        drop(tracer);
        // The disk is well again, and nothing is acknowledged all the same.
        let reply = send(&harness, "refused");
        assert!(reply.starts_with("451 4.3.0"), "{what}: {reply}");

        harness.site.start_sink().expect("a next hop");
        let through = format!("through-{round}");
        harness.wait("mail goes through", || {
            send(&harness, &through).starts_with("250").then_some(())
        });
        harness.site.stop("sink");
        kept.lock().expect("nobody panicked").insert(through);
        harness.site.stop("mx-edge");
    }
    harness.site.start_sink().expect("a next hop");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let kept = kept.into_inner().expect("nobody panicked");
    harness.wait("all that was acknowledged arrives", || {
        let subjects = harness.subjects(RECIPIENT);
        kept.iter()
            .all(|id| subjects.contains_key(id))
            .then_some(())
    });
    assert!(kept.len() > 20, "{}", kept.len());
}
