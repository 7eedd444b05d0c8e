//! An edge on its first day, with the list host away, takes the directory from a sibling over mutual TLS, by the list host's
//! signature: it refuses unknown users and takes known ones. What changes at the list host reaches an edge within seconds.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use end_to_end::{Client, Harness, client, hurried, settings};
use local::configs::LIST;
use local::process::Process;

/// An address on loopback that was free a moment ago.
fn free(near: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((near.ip(), 0)).expect("a port");
    listener.local_addr().expect("an address")
}

/// A second edge, configured as the first one but for its folder, its addresses and where it asks.
struct Newborn {
    door: SocketAddr,
    control: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Newborn {
    fn new(harness: &Harness, sibling: SocketAddr) -> Self {
        let site = &harness.site;
        let (door, control) = (site.address("mx-edge"), site.address("mx-edge.control"));
        let newborn = Self {
            door: free(door),
            control: free(door),
            config: site.root().join("etc/newborn.toml"),
            log: site.root().join("log/newborn.log"),
            process: None,
        };
        let elder = fs::read_to_string(site.config_file("mx-edge")).expect("the first edge's");
        let listens = format!("listen = \"{sibling}\"");
        let mut text = elder.clone();
        for (from, to) in [
            (door.to_string(), newborn.door.to_string()),
            (control.to_string(), newborn.control.to_string()),
            ("/state/mx-edge".into(), "/state/newborn".into()),
            (
                "/control/mx-edge.sock".into(),
                "/control/newborn.sock".into(),
            ),
            (listens, format!("siblings = [\"{sibling}\"]")),
        ] {
            assert!(text.contains(&from), "{from} is not in\n{elder}");
            text = text.replace(&from, &to);
        }
        fs::write(&newborn.config, text).expect("a configuration");
        newborn
    }

    fn start(&mut self, harness: &Harness) {
        let mut command = Command::new(harness.site.options().binaries.join("mx-edge"));
        command.arg("--config").arg(&self.config);
        let process = Process::start("newborn", command, &self.log);
        self.process = Some(process.expect("it starts"));
        harness.wait("the newborn edge listens", || Client::hello(self.door).ok());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn reply(door: SocketAddr, to: &str) -> String {
    let post = client::post("post", to);
    client::submit(door, "author@sender.example", &[to], &post).unwrap_or_else(|error| error)
}

#[test]
fn a_newborn_edge_learns_from_a_sibling() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let listen = free(harness.site.address("mx-edge"));
    let keys = format!("[directory]\nlisten = '{listen}'\nwait = '20s'\npause_max = '1s'\n");
    harness.site.lay_over("mx-edge", &keys);
    harness.site.start_all().expect("the site starts");
    let elder = harness.site.address("mx-edge");

    // A new list is known at the edge at once, and only the difference went there.
    assert!(reply(elder, "fresh@lists.example").starts_with("550 5.1.1"));
    harness
        .site
        .ask("listserv", &["list", "create", "fresh@lists.example"])
        .expect("a list");
    let made = Instant::now();
    harness.wait("the edge knows the new list", || {
        let answer = reply(elder, "fresh-subscribe@lists.example");
        answer.starts_with("250").then_some(())
    });
    let took = made.elapsed();
    eprintln!("known at the edge after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");

    harness.site.stop("listserv");
    let mut newborn = Newborn::new(&harness, listen);

    // The sibling is away too: nobody is known, and nobody unknown.
    harness.site.stop("mx-edge");
    newborn.start(&harness);
    for address in [LIST, "nobody@lists.example"] {
        let answer = reply(newborn.door, address);
        assert!(answer.starts_with("451"), "{address}: {answer}");
    }

    harness.site.start("mx-edge").expect("the sibling is back");
    harness.wait("the newborn edge is ready", || {
        let (code, _) = local::http::get(newborn.control, "/readyz")?;
        (code == 200).then_some(())
    });
    let log = newborn.log();
    assert!(log.contains("directory_from_sibling"), "{log}");
    for (address, expected) in [
        (LIST, "250"),
        ("fresh-subscribe@lists.example", "250"),
        ("nobody@lists.example", "550 5.1.1"),
        ("somebody@elsewhere.example", "554 5.7.1"),
    ] {
        let answer = reply(newborn.door, address);
        assert!(answer.starts_with(expected), "{address}: {answer}\n{log}");
    }

    // It has it for itself now, and listens to the list host again when that is back.
    newborn.process.take().expect("it runs").stop();
    harness.site.stop("mx-edge");
    newborn.start(&harness);
    assert!(reply(newborn.door, "nobody@lists.example").starts_with("550 5.1.1"));
    harness
        .site
        .start("listserv")
        .expect("the list host is back");
    harness.site.wait_ready("listserv").expect("it is ready");
    harness
        .site
        .ask("listserv", &["list", "create", "later@lists.example"])
        .expect("a list");
    harness.wait("the newborn edge knows the later list", || {
        let answer = reply(newborn.door, "later-subscribe@lists.example");
        answer.starts_with("250").then_some(())
    });
    newborn.process.take().expect("it runs").stop();
}
