//! With the haproxy.cfg that is shipped, real HAProxy takes the balancer's place: scanners tell it by agent-check that half of their daemons
//! are gone, that they are drained and that they end, and no client hears of any of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use end_to_end::{Harness, Stubs, client, hurried, settings};
use local::configs::{LIST, MEMBERS};
use local::process::Process;

#[test]
fn haproxy_can_stand_in_the_balancers_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let second = Stubs::start(folder.path());
    let mut harness = Harness::laid_out(hurried(settings()), true);
    // The first node has two spamds; the site's own is the other one.
    let own = harness.stubs.as_ref().expect("stubs").spamd.clone();
    let spamds = format!(
        "[spamd]\naddresses = ['{}', '{}']\nscans_max = 4\n[clamd]\nscans_max = 8\n",
        own.display(),
        second.spamd.display()
    );
    harness.site.lay_over("scanner-1", &spamds);
    harness
        .site
        .start_all()
        .unwrap_or_else(|error| panic!("{error}"));
    harness.site.stop("balancer");
    let haproxy = Haproxy::before(&harness);
    haproxy.wait(&harness, "scan-1", "UP", "100");
    haproxy.wait(&harness, "scan-2", "UP", "100");

    let mut sent = send(&harness, "both", 8);
    let shares = [1, 2].map(|node| verdicts(&harness, node));
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");

    // Half of a node's daemons are half its weight.
    second.silence(true);
    haproxy.wait(&harness, "scan-1", "UP", "50");
    second.silence(false);
    haproxy.wait(&harness, "scan-1", "UP", "100");

    let drain = |word: &str| harness.site.ask("scanner-1", &[word]);
    drain("drain").expect("an operator drains a node");
    haproxy.wait(&harness, "scan-1", "DRAIN", "");
    let before = verdicts(&harness, 1);
    sent += send(&harness, "drained", 8);
    assert_eq!(verdicts(&harness, 1), before, "it gets nothing new");
    drain("undrain").expect("and takes it back");
    haproxy.wait(&harness, "scan-1", "UP", "100");

    // One ends while mail flows, and nobody hears of it.
    let door = harness.site.address("mx-edge");
    let traffic = std::thread::spawn(move || {
        (0..40)
            .map(|n| submit(door, &format!("ends-{n}")))
            .collect::<Vec<_>>()
    });
    harness.wait("traffic flows", || {
        (harness.count(MEMBERS[0]) > sent + 10).then_some(())
    });
    harness.site.stop("scanner-2");
    for reply in traffic.join().expect("the client ends well") {
        assert!(reply.starts_with("250"), "{reply}\n{}", harness.logs());
    }
    haproxy.wait(&harness, "scan-2", "DOWN", "");
    sent += 40 + send(&harness, "alone", 4);
    harness.wait_arrived(sent);
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        assert!(subjects.values().all(|&count| count == 1), "{subjects:?}");
    }
}

fn submit(door: std::net::SocketAddr, id: &str) -> String {
    let from = "author@sender.example";
    client::submit(door, from, &[LIST], &client::post(id, LIST))
        .unwrap_or_else(|error| error.to_string())
}

fn send(harness: &Harness, name: &str, count: usize) -> usize {
    for number in 0..count {
        let reply = submit(harness.site.address("mx-edge"), &format!("{name}-{number}"));
        assert!(reply.starts_with("250"), "{reply}\n{}", harness.logs());
    }
    count
}

fn verdicts(harness: &Harness, node: usize) -> usize {
    let log = harness.site.log(&format!("scanner-{node}"));
    log.lines()
        .filter(|line| line.contains("event=verdict"))
        .count()
}

/// HAProxy with the configuration that is shipped, its addresses changed to those of a site.
struct Haproxy {
    process: Process,
    socket: PathBuf,
}

impl Haproxy {
    fn before(harness: &Harness) -> Self {
        let root = harness.site.root();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/etc/haproxy.cfg");
        let mut config = fs::read_to_string(shipped).expect("the shipped configuration");
        let socket = root.join("haproxy.sock");
        let door = harness.site.address("balancer");
        let port = |name: &str| harness.site.address(name).port().to_string();
        let changes = [
            (
                "/run/haproxy/admin.sock".to_owned(),
                socket.display().to_string(),
            ),
            ("127.0.0.1:10024".into(), door.to_string()),
            (
                "127.0.0.1:10025".into(),
                harness.site.address("scanner-1").to_string(),
            ),
            (
                "127.0.0.1:10035".into(),
                harness.site.address("scanner-2").to_string(),
            ),
            (
                "agent-port 10026".into(),
                format!("agent-port {}", port("scanner-1.agent")),
            ),
            (
                "agent-port 10036".into(),
                format!("agent-port {}", port("scanner-2.agent")),
            ),
            // So that a test need not last as long as an outage.
            ("inter 2s".into(), "inter 200ms".into()),
            ("slowstart 3s".into(), "slowstart 200ms".into()),
        ];
        for (from, to) in changes {
            assert!(config.contains(&from), "haproxy.cfg has no {from}");
            config = config.replace(&from, &to);
        }
        let file = root.join("haproxy.cfg");
        fs::write(&file, config).expect("its configuration");
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::start("haproxy", command, &root.join("haproxy.log"));
        Self {
            process: process
                .unwrap_or_else(|error| panic!("{error}; `make test` installs haproxy")),
            socket,
        }
    }

    /// Waits until a node has this status and weight, as HAProxy shows it.
    fn wait(&self, harness: &Harness, node: &str, status: &str, weight: &str) {
        harness.wait(
            &format!("{node} {status} {weight}: {}", self.process.log()),
            || {
                let shown = self.shown(node)?;
                (shown["status"].starts_with(status)
                    && (weight.is_empty() || shown["weight"] == weight))
                    .then_some(())
            },
        );
    }

    /// A node's line of `show stat`.
    fn shown(&self, node: &str) -> Option<BTreeMap<String, String>> {
        let mut socket = UnixStream::connect(&self.socket).ok()?;
        socket.write_all(b"show stat\n").ok()?;
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
        let line = lines.find(|line| line.starts_with(&format!("scanners,{node},")))?;
        let values = names.iter().zip(line.split(','));
        Some(
            values
                .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                .collect(),
        )
    }
}
