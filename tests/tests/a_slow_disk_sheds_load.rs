//! Every sync of the running edge's journal takes two seconds, as told by strace: what is more than may wait is answered 451 (or 421 at once) within
//! bounded time, the rest is kept, the edge is not ready and says why, mail passes through, and all is well again by itself.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::alone::{RECIPIENT, edge, send};
use end_to_end::{Fault, Tracer};

const TEST: &str = "a_slow_disk_sheds_load";
const SYNC: Duration = Duration::from_secs(2);
const CLIENTS: u32 = 80;
const EVERY: Duration = Duration::from_millis(125);
/// For the group under way, its own, and whatever else this machine does.
const ANSWER_MAX: Duration = Duration::from_secs(15);

#[test]
fn a_slow_disk_sheds_load() {
    let mut harness = edge("[spool]\nwaiting_max = '1s'\n");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    assert!(send(&harness, "first").starts_with("250"));
    let mut kept = 1;
    let fault = Fault {
        calls: "fdatasync,fsync",
        how: &format!("delay_enter={}", SYNC.as_micros()),
        when: "1+",
        file: &harness.segment("mx-edge"),
    };
    let log = harness.site.root().join("log/strace");
    let pid = harness.site.process("mx-edge").pid();
    let Some(tracer) = Tracer::attach(TEST, pid, &fault, &log) else {
        return;
    };
    let replies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (harness, replies) = (&harness, &replies);
            scope.spawn(move || {
                // They come one after the other, whatever the others are told.
                thread::sleep(EVERY * client);
                let start = Instant::now();
                let reply = send(harness, &format!("slow-{client}"));
                assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
                replies.lock().expect("no client panics").push(reply);
            });
        }
        harness.wait_readiness("mx-edge", "slow");
        assert_eq!(harness.metric("mx-edge", "spool_slow", ""), 1.0);
        let sync = harness.metric("mx-edge", "spool_sync_worst_seconds", "");
        assert!(sync >= 1.0, "{sync}");
    });
    let replies = replies.into_inner().expect("nobody panicked");
    let count = |start: &str| replies.iter().filter(|is| is.starts_with(start)).count();
    // To a message, or to whoever comes while the next hop is away too.
    let shed = count("451 4.3.2") + count("421 4.3.1");
    let taken = count("250");
    assert!(taken > 0 && shed > 0, "{taken} taken, {shed} shed");
    assert_eq!(taken + shed, replies.len(), "{replies:?}");
    kept += taken;

    drop(tracer);
    // What is let in shows how the disk is now.
    let mut after = 0;
    harness.wait("ready again", || {
        after += usize::from(send(&harness, "after").starts_with("250"));
        let ready = local::http::get(harness.site.address("mx-edge.control"), "/readyz")?;
        (ready.0 == 200).then_some(())
    });
    kept += after;
    harness.site.start_sink().expect("a next hop");
    harness.wait("all that was kept arrives", || {
        (harness.count(RECIPIENT) >= kept).then_some(())
    });
}
