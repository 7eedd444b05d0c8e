//! The edge's spool stands on a small file system that runs out of bytes, of inodes, and is filled by mail: the edge is not ready and says
//! so before anybody is refused, answers 452 (at MAIL already while the next hop is away, or 421 to whoever comes), passes mail through
//! meanwhile, and takes mail again by itself. All that was answered 250 arrives.

use end_to_end::alone::{RECIPIENT, edge, send, send_large};
use end_to_end::{Client, Harness, SmallDisk};

const DISK_BYTES: u64 = 48 << 20;
const DISK_INODES: u64 = 400;
/// What is wanted free.
const BYTES_MIN: u64 = 16 << 20;
const INODES_MIN: u64 = 100;

/// The reply to MAIL alone, or to coming.
fn mail(harness: &Harness) -> String {
    let door = harness.site.address("mx-edge");
    let (mut client, greeting) = Client::connect(door).expect("it greets");
    if !greeting.starts_with("220") {
        return greeting;
    }
    client.say("EHLO client.sender.example").expect("an answer");
    client
        .say("MAIL FROM:<author@sender.example>")
        .expect("an answer")
}

/// There is no room, said to a message or, when no way in is left, to whoever comes.
fn has_no_room(reply: &str) -> bool {
    reply.starts_with("452 4.3.1") || reply.starts_with("421 4.3.1")
}

fn start(disk: &SmallDisk) -> Harness {
    let state = disk.path().join("state");
    let mut harness = edge(&format!(
        "state = '{}'\n[spool]\nsegment_bytes = '1MiB'\nfree_bytes_min = {BYTES_MIN}\nfree_inodes_min = {INODES_MIN}\n",
        state.display()
    ));
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    harness
}

/// Full already, with the next hop there and away, until `make_room` has been called.
fn full(harness: &mut Harness, kept: &mut usize, make_room: &dyn Fn()) {
    harness.wait_readiness("mx-edge", "full");
    assert_eq!(harness.metric("mx-edge", "spool_full", ""), 1.0);
    harness.site.start_sink().expect("a next hop");
    harness.wait("it goes through", || {
        send(harness, "through").starts_with("250").then_some(())
    });
    *kept += 1;
    harness.site.stop("sink");
    let reply = send(harness, "refused");
    assert!(has_no_room(&reply), "{reply}");
    harness.wait("the way through is shut, and MAIL says it", || {
        let _ = send(harness, "refused");
        has_no_room(&mail(harness)).then_some(())
    });
    make_room();
    harness.wait_readiness("mx-edge", "");
    assert_eq!(harness.metric("mx-edge", "spool_full", ""), 0.0);
    harness.wait("mail is taken again", || {
        send(harness, "kept").starts_with("250").then_some(())
    });
    *kept += 1;
}

/// Mail itself fills it, and being worked off empties it.
fn filled_by_mail(harness: &mut Harness, kept: &mut usize) {
    let mut spooled = 0;
    let refused = loop {
        let reply = send_large(harness, "large", 1 << 20);
        if !reply.starts_with("250") {
            break reply;
        }
        spooled += 1;
        assert!(spooled < 60, "a disk of {DISK_BYTES} bytes takes them all");
    };
    assert!(has_no_room(&refused), "{refused}");
    assert!(spooled > 5, "{spooled}");
    // It has not come to the end of the disk: half of the reserve is there.
    let free = harness.metric("mx-edge", "spool_free_bytes", "");
    assert!(free > (BYTES_MIN / 2) as f64, "{free}");
    assert_eq!(harness.metric("mx-edge", "spool_poisoned", ""), 0.0);
    *kept += spooled;
    harness.site.start_sink().expect("the next hop is back");
    harness.wait_readiness("mx-edge", "");
    harness.wait("all arrives", || {
        (harness.count(RECIPIENT) >= *kept).then_some(())
    });
    harness.site.stop("sink");
    // What is done gives its room back a little later.
    harness.wait("mail is taken again", || {
        send_large(harness, "large", 1 << 20)
            .starts_with("250")
            .then_some(())
    });
    *kept += 1;
}

#[test]
fn a_full_disk_says_452_and_recovers() {
    let test = "a_full_disk_says_452_and_recovers";
    let Some(disk) = SmallDisk::mount(test, DISK_BYTES, DISK_INODES) else {
        return;
    };
    let mut harness = start(&disk);
    let mut kept = 0;
    let free = harness.metric("mx-edge", "spool_free_bytes", "");
    assert!(
        free > BYTES_MIN as f64 && free <= DISK_BYTES as f64,
        "{free}"
    );

    disk.take_bytes(free as u64 - BYTES_MIN + 65_536)
        .expect("room for ballast");
    let make_room = || disk.take_bytes(0).expect("a file");
    full(&mut harness, &mut kept, &make_room);

    let free = harness.metric("mx-edge", "spool_free_inodes", "");
    disk.take_inodes(free as u64 - INODES_MIN + 5)
        .expect("inodes for ballast");
    let make_room = || disk.take_inodes(0).expect("a folder");
    full(&mut harness, &mut kept, &make_room);

    filled_by_mail(&mut harness, &mut kept);
    harness.site.start_sink().expect("the next hop is back");
    harness.wait("all that was kept arrives", || {
        (harness.count(RECIPIENT) >= kept).then_some(())
    });
    harness.wait("nothing is left", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    assert_eq!(harness.count(RECIPIENT), kept, "each once");
}
