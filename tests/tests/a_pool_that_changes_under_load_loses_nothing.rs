//! While clients go on sending, a node joins, is drained, is killed, is frozen, and loses its rules: every message is answered 250, arrives
//! once, and was scanned. How long each change takes to be over is printed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use end_to_end::{Harness, Stubs, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

const CLIENTS: usize = 4;
/// Between two messages of one client: a load that two cores carry beside everything else.
const PAUSE: Duration = Duration::from_millis(100);

#[test]
fn a_pool_that_changes_under_load_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = Stubs::start(folder.path());
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let own = format!("[spamd]\naddresses = ['{}']\n", rules.spamd.display());
    harness.site.lay_over("scanner-3", &own);
    harness
        .site
        .start_all()
        .unwrap_or_else(|error| panic!("{error}"));
    let load = Load::start(harness.site.address("mx-edge"));
    let mut over = BTreeMap::new();
    let mut took = |what, began: Instant| {
        over.insert(what, began.elapsed());
    };
    wait_share(&harness, &[1, 2]);

    harness
        .site
        .start("scanner-3")
        .expect("a third scanner starts");
    harness.wait("it is in the pool", || is(&harness, "scan-3", "ready"));
    let began = Instant::now();
    wait_share(&harness, &[1, 2, 3]);
    took("joined: from ready to its share", began);

    let began = Instant::now();
    ask(&harness, &["drain", "scan-1"]);
    wait_share(&harness, &[2, 3]);
    took("drained", began);
    ask(&harness, &["undrain", "scan-1"]);
    wait_share(&harness, &[1, 2, 3]);

    let began = Instant::now();
    harness.site.kill("scanner-1");
    wait_share(&harness, &[2, 3]);
    took("killed", began);
    harness.site.start("scanner-1").expect("it starts again");
    wait_share(&harness, &[1, 2, 3]);

    let began = Instant::now();
    harness.site.process("scanner-2").freeze();
    wait_share(&harness, &[1, 3]);
    took("frozen", began);
    harness.site.process("scanner-2").thaw();
    wait_share(&harness, &[1, 2, 3]);

    // Its canary is spam that it no longer knows.
    let began = Instant::now();
    rules.forget(true);
    harness.wait("it is out", || is(&harness, "scan-3", "down"));
    took("without rules", began);
    wait_share(&harness, &[1, 2]);
    rules.forget(false);
    wait_share(&harness, &[1, 2, 3]);

    let accepted = load.stop();
    harness.wait_arrived(accepted);
    harness.wait("the spool is empty", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert_eq!(subjects.len(), accepted, "{member}");
        assert!(subjects.values().all(|&count| count == 1), "{subjects:?}");
        for message in harness.arrived(member) {
            let text = String::from_utf8_lossy(&message);
            let head = text.split("\r\n\r\n").next().unwrap_or_default();
            for field in ["X-Spam-Status: No", "X-Virus-Scanned: ClamAV"] {
                assert!(head.contains(field), "not scanned:\n{head}");
            }
        }
    }
    println!("{accepted} accepted, each arrived once and was scanned; over after {over:#?}");
}

/// Clients that send one message after another, each of which must be answered 250.
struct Load {
    ended: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(door: SocketAddr) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicUsize::new(0));
        let clients = (0..CLIENTS).map(|_| {
            let (ended, next) = (ended.clone(), next.clone());
            thread::spawn(move || {
                let mut accepted = 0;
                while !ended.load(Ordering::Relaxed) {
                    let id = format!("load-{}", next.fetch_add(1, Ordering::Relaxed));
                    let post = client::post(&id, LIST);
                    let reply = client::submit(door, "author@sender.example", &[LIST], &post);
                    let reply = reply.unwrap_or_else(|error| panic!("{id}: {error}"));
                    assert!(reply.starts_with("250"), "{id}: {reply}");
                    accepted += 1;
                    thread::sleep(PAUSE);
                }
                accepted
            })
        });
        Self {
            clients: clients.collect(),
            ended,
        }
    }

    /// How many were accepted.
    fn stop(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        let accepted = self.clients.into_iter().map(|client| client.join());
        accepted
            .map(|count| count.expect("a client ends well"))
            .sum()
    }
}

/// Waits until just these nodes get mail, each of them at least half of an equal share.
fn wait_share(harness: &Harness, nodes: &[usize]) {
    harness.wait(&format!("{nodes:?} share the load"), || {
        let before = verdicts(harness);
        harness.wait("mail flows", || {
            let now: usize = verdicts(harness).values().sum();
            (now >= before.values().sum::<usize>() + 8 * nodes.len()).then_some(())
        });
        let after = verdicts(harness);
        let got = |node: &usize| after[node] - before.get(node).copied().unwrap_or(0);
        let all = after.keys().all(|node| match nodes.contains(node) {
            true => got(node) >= 4,
            false => got(node) == 0,
        });
        (all && nodes.iter().all(|node| after.contains_key(node))).then_some(())
    });
}

/// Verdicts so far, by node.
fn verdicts(harness: &Harness) -> BTreeMap<usize, usize> {
    let count = |node: usize| {
        let log = harness.site.log(&format!("scanner-{node}"));
        log.lines()
            .filter(|line| line.contains("event=verdict"))
            .count()
    };
    [1, 2, 3].map(|node| (node, count(node))).into()
}

fn ask(harness: &Harness, command: &[&str]) {
    harness
        .site
        .ask("balancer", command)
        .expect("the balancer obeys");
}

fn is(harness: &Harness, node: &str, state: &str) -> Option<()> {
    let said = harness.site.ask("balancer", &["--json", "nodes"]).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&said).ok()?;
    let mut nodes = answer["nodes"].as_array()?.iter();
    let node = nodes.find(|one| one["name"] == node)?;
    (node["state"] == state).then_some(())
}
