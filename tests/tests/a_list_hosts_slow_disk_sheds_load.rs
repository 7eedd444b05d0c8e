//! Every sync of the running list host's journal takes two seconds, as told by strace: what is more than may wait is answered 451 for every
//! recipient within bounded time, the rest is kept, the list host is not ready and says why, and all is well again by itself.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::list_host::{list_host, repeated, send, start, wait_delivered};
use end_to_end::{Fault, Harness, Tracer};

const TEST: &str = "a_list_hosts_slow_disk_sheds_load";
const SYNC: Duration = Duration::from_secs(2);
const CLIENTS: u32 = 80;
const EVERY: Duration = Duration::from_millis(125);
/// For the group under way, its own, and whatever else this machine does.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Everybody who looks is told.
fn says_why(harness: &Harness) {
    harness.wait_readiness("listserv", "slow");
    assert_eq!(harness.metric("listserv", "spool_slow", ""), 1.0);
    let sync = harness.metric("listserv", "spool_sync_worst_seconds", "");
    assert!(sync >= 1.0, "{sync}");
    let status = harness.status("listserv");
    assert_eq!(status["program"]["vitals"]["slow"], true, "{status}");
    assert!(harness.site.log("listserv").contains("event=spool_slow"));
}

#[test]
fn a_list_hosts_slow_disk_sheds_load() {
    let mut harness = list_host("[spool]\nwaiting_max = '1s'\n");
    start(&mut harness);
    let reply = send(&harness, "edge-1.1.0", "first");
    assert!(reply.starts_with("250"), "{reply}");
    let fault = Fault {
        calls: "fdatasync,fsync",
        how: &format!("delay_enter={}", SYNC.as_micros()),
        when: "1+",
        file: &harness.segment("listserv"),
    };
    let log = harness.site.root().join("log/strace");
    let pid = harness.site.process("listserv").pid();
    let Some(tracer) = Tracer::attach(TEST, pid, &fault, &log) else {
        return;
    };
    let replies = Mutex::new(vec![("first".to_owned(), reply)]);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (harness, replies) = (&harness, &replies);
            scope.spawn(move || {
                // They come one after the other, whatever the others are told.
                thread::sleep(EVERY * client);
                let start = Instant::now();
                let id = format!("slow-{client}");
                let reply = send(harness, &format!("edge-2.1.{client:x}"), &id);
                assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
                replies.lock().expect("no client panics").push((id, reply));
            });
        }
        says_why(&harness);
    });
    let replies = replies.into_inner().expect("nobody panicked");
    let with = |start: &str| {
        let with = replies.iter().filter(|(_, reply)| reply.starts_with(start));
        with.map(|(id, _)| id.clone()).collect::<Vec<String>>()
    };
    let (mut kept, shed) = (with("250"), with("451 4.3.2"));
    let (taken, told) = (kept.len(), shed.len());
    assert!(taken > 1 && told > 0, "{taken} taken, {told} shed");
    assert_eq!(taken + told, replies.len(), "{replies:?}");

    drop(tracer);
    // What is let in shows how the disk is now.
    let mut after = 0;
    harness.wait("ready again", || {
        after += 1;
        let id = format!("after-{after}");
        if send(&harness, &format!("edge-3.1.{after:x}"), &id).starts_with("250") {
            kept.push(id);
        }
        let ready = local::http::get(harness.site.address("listserv.control"), "/readyz")?;
        (ready.0 == 200).then_some(())
    });
    harness.site.start_sink().expect("the members' host");
    wait_delivered(&harness, &kept);
    assert_eq!(repeated(&harness, &kept), 0, "each once");
}
