//! The list host's state stands on a small file system that runs out of bytes, of inodes, and is filled by mail: the list host is not
//! ready and says so before anybody is refused, answers 452 at MAIL, delivers what it has meanwhile, and takes mail again by itself.
//! All that was answered 250 reaches every member once.

use end_to_end::list_host::{LISTS, MEMBERS, bring, list_host, one, send, start};
use end_to_end::{Harness, SmallDisk, client};

const TEST: &str = "a_list_hosts_full_disk_says_452_and_recovers";
const DISK_BYTES: u64 = 48 << 20;
const DISK_INODES: u64 = 400;
/// What is wanted free.
const BYTES_MIN: u64 = 16 << 20;
const INODES_MIN: u64 = 100;

/// Brings messages, each under an ident of its own, and counts those that were taken.
struct Edge {
    sent: usize,
    kept: usize,
}

impl Edge {
    fn ident(&mut self) -> String {
        self.sent += 1;
        format!("edge-1.1.{:x}", self.sent)
    }

    fn send(&mut self, harness: &Harness) -> String {
        let ident = self.ident();
        self.counted(send(harness, &ident, "small"))
    }

    fn send_large(&mut self, harness: &Harness) -> String {
        let mut message = client::post("large", LISTS[0]);
        let line = format!("{}\r\n", "x".repeat(70));
        message.extend_from_slice(line.repeat((1 << 20) / line.len()).as_bytes());
        let ident = self.ident();
        self.counted(one(bring(harness, &ident, &message)))
    }

    fn counted(&mut self, reply: String) -> String {
        self.kept += usize::from(reply.starts_with("250"));
        reply
    }
}

/// Everybody who looks is told, before anybody is refused.
fn says_why(harness: &Harness) {
    harness.wait_readiness("listserv", "full");
    assert_eq!(harness.metric("listserv", "spool_full", ""), 1.0);
    assert_eq!(harness.metric("listserv", "spool_poisoned", ""), 0.0);
    let status = harness.status("listserv");
    assert_eq!(status["program"]["vitals"]["full"], true, "{status}");
    assert!(harness.site.log("listserv").contains("event=spool_full"));
}

/// Full already, until `make_room` has been called.
fn full(harness: &Harness, edge: &mut Edge, make_room: &dyn Fn()) {
    says_why(harness);
    let reply = edge.send(harness);
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    make_room();
    harness.wait_readiness("listserv", "");
    assert_eq!(harness.metric("listserv", "spool_full", ""), 0.0);
    let reply = edge.send(harness);
    assert!(reply.starts_with("250"), "{reply}\n{}", harness.logs());
}

/// Mail itself fills it while the members' host is away, and being worked off empties it.
fn filled_by_mail(harness: &mut Harness, edge: &mut Edge) {
    harness.site.stop("sink");
    let before = edge.kept;
    let refused = loop {
        let reply = edge.send_large(harness);
        if !reply.starts_with("250") {
            break reply;
        }
        assert!(
            edge.sent < 100,
            "a disk of {DISK_BYTES} bytes takes them all"
        );
    };
    assert!(refused.starts_with("452 4.3.1"), "{refused}");
    assert!(edge.kept > before + 5, "{} kept", edge.kept);
    // It has not come to the end of the disk: half of the reserve is there.
    let free = harness.metric("listserv", "spool_free_bytes", "");
    assert!(free > (BYTES_MIN / 2) as f64, "{free}");
    assert_eq!(harness.metric("listserv", "spool_poisoned", ""), 0.0);
    harness
        .site
        .start_sink()
        .expect("the members' host is back");
    harness.wait_readiness("listserv", "");
    // What is done gives its room back a little later.
    harness.wait("mail is taken again", || {
        edge.send_large(harness).starts_with("250").then_some(())
    });
}

#[test]
fn a_list_hosts_full_disk_says_452_and_recovers() {
    let Some(disk) = SmallDisk::mount(TEST, DISK_BYTES, DISK_INODES) else {
        return;
    };
    let state = disk.path().join("state");
    let mut harness = list_host(&format!(
        "state = '{}'\n[spool]\nsegment_bytes = '1MiB'\nfree_bytes_min = {BYTES_MIN}\nfree_inodes_min = {INODES_MIN}\n",
        state.display()
    ));
    harness.site.start_sink().expect("the members' host");
    start(&mut harness);
    let mut edge = Edge { sent: 0, kept: 0 };
    let free = harness.metric("listserv", "spool_free_bytes", "");
    assert!(
        free > BYTES_MIN as f64 && free <= DISK_BYTES as f64,
        "{free}"
    );
    disk.take_bytes(free as u64 - BYTES_MIN + 65_536)
        .expect("room for ballast");
    full(&harness, &mut edge, &|| {
        disk.take_bytes(0).expect("a file");
    });

    let free = harness.metric("listserv", "spool_free_inodes", "");
    disk.take_inodes(free as u64 - INODES_MIN + 5)
        .expect("inodes for ballast");
    full(&harness, &mut edge, &|| {
        disk.take_inodes(0).expect("a folder");
    });

    filled_by_mail(&mut harness, &mut edge);
    harness.wait("all that was kept arrives", || {
        let arrived = MEMBERS.map(|member| harness.count(member));
        arrived
            .iter()
            .all(|count| *count >= edge.kept)
            .then_some(())
    });
    harness.wait("nothing is left", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
    for member in MEMBERS {
        assert_eq!(harness.count(member), edge.kept, "{member}: each once");
    }
}
