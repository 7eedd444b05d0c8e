//! A sync or a write of the running list host's journal fails, as told by strace: nothing more is acknowledged or delivered, every recipient
//! is answered 451, the list host is not ready and its log, status and metrics say why. After a restart all that was answered 250 is there and
//! reaches every member, the rest is taken when it comes again under its ident, and no more comes twice than was under way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use end_to_end::list_host::{LISTS, list_host, repeated, send, start, wait_delivered};
use end_to_end::{Fault, Harness, Tracer};

const TEST: &str = "a_list_hosts_failed_sync_loses_nothing";
const CLIENTS: usize = 4;
/// A client gives up after so many messages that were all kept.
const MESSAGES_MAX: usize = 500;
/// Attempts under way at once; each is of one member.
const ATTEMPTS_MAX: usize = 4;
/// Deliveries that one failure may repeat: those under way and those of the group that was to be settled, which takes what
/// has ended in 10 ms (design: 256 or 10 ms; four attempts at a time end no more than this in it).
const WINDOW: usize = 5 * ATTEMPTS_MAX;

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

/// Messages by their id: the ident under which each was brought.
type Messages = Mutex<BTreeMap<String, String>>;

/// Several clients send until one message of each is not taken.
fn send_until_refused(harness: &Harness, round: usize, kept: &Messages, refused: &Messages) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 0..MESSAGES_MAX {
                    let id = format!("r{round}-{client}-{number}");
                    let ident = format!("edge-{client}.{round:x}.{number:x}");
                    let reply = send(harness, &ident, &id);
                    let taken = reply.starts_with("250");
                    assert!(taken || reply.starts_with("451 4.3.0"), "{reply}");
                    let messages = if taken { kept } else { refused };
                    messages.lock().expect("no client panics").insert(id, ident);
                    if !taken {
                        return;
                    }
                }
                panic!("{MESSAGES_MAX} messages were kept\n{}", harness.logs());
            });
        }
    });
}

/// What was refused comes again, as an edge brings it.
fn bring_again(harness: &Harness, kept: &Messages, refused: &Messages) {
    let mut refused = refused.lock().expect("nobody panicked");
    let mut kept = kept.lock().expect("nobody panicked");
    while let Some((id, ident)) = refused.pop_first() {
        let reply = send(harness, &ident, &id);
        assert!(reply.starts_with("250"), "{id}: {reply}");
        kept.insert(id, ident);
    }
}

/// Everybody who looks is told.
fn says_why(harness: &Harness) {
    harness.wait_readiness("listserv", "poisoned");
    assert_eq!(harness.metric("listserv", "spool_poisoned", ""), 1.0);
    assert_eq!(harness.metric("listserv", "service_ready", ""), 0.0);
    let status = harness.status("listserv");
    assert_eq!(status["program"]["vitals"]["poisoned"], true, "{status}");
    let why = status["reasons"]["spool"].as_str().unwrap_or_default();
    assert!(why.contains("poisoned"), "{status}");
    assert!(
        harness
            .site
            .log("listserv")
            .contains("event=spool_poisoned")
    );
}

#[test]
fn a_list_hosts_failed_sync_loses_nothing() {
    let mut harness = list_host(&format!("[delivery]\nattempts_max = {ATTEMPTS_MAX}\n"));
    harness.site.start_sink().expect("the members' host");
    let (kept, refused) = (Messages::default(), Messages::default());
    for (round, (calls, error, when)) in FAULTS.into_iter().enumerate() {
        let what = format!("{calls} {error} {when}");
        start(&mut harness);
        bring_again(&harness, &kept, &refused);
        let first = (format!("first-{round}"), format!("edge-9.{round:x}.0"));
        let reply = send(&harness, &first.1, &first.0);
        assert!(reply.starts_with("250"), "{what}: {reply}");
        kept.lock()
            .expect("nobody panicked")
            .insert(first.0, first.1);
        let fault = Fault {
            calls,
            how: &format!("error={error}"),
            when,
            file: &harness.segment("listserv"),
        };
        let log = harness.site.root().join(format!("log/strace-{round}"));
        let pid = harness.site.process("listserv").pid();
        let Some(tracer) = Tracer::attach(TEST, pid, &fault, &log) else {
            return;
        };
        send_until_refused(&harness, round, &kept, &refused);
        assert!(tracer.has_struck(), "{what}: nothing failed");
        says_why(&harness);
        drop(tracer);
        // The disk is well again, and nothing is acknowledged all the same, at MAIL already.
        let reply = send(&harness, &format!("edge-8.{round:x}.0"), "refused");
        assert!(reply.starts_with("451 4.3.0"), "{what}: {reply}");
        harness.site.stop("listserv");
    }
    start(&mut harness);
    bring_again(&harness, &kept, &refused);
    let kept = kept.into_inner().expect("nobody panicked");
    wait_delivered(&harness, kept.keys());
    let repeated = repeated(&harness, kept.keys());
    println!("{} kept, {repeated} deliveries repeated", kept.len());
    assert!(kept.len() > 20, "{}", kept.len());
    assert!(repeated <= FAULTS.len() * WINDOW, "{repeated} repeated");
    // What was never answered 250 under any ident is not there.
    assert!(
        !harness
            .subjects(end_to_end::list_host::MEMBERS[0])
            .contains_key("refused")
    );
    let account = harness.site.ask("listserv", &["--json", "reconcile"]);
    let account = account.unwrap_or_else(|error| panic!("{} lists: {error}", LISTS.len()));
    assert!(account.contains("\"balances\":true"), "{account}");
}
