//! Somebody else holds the edge's listening socket, as systemd does, and the edge is stopped and started again and again while clients
//! send: no connection is refused, nobody is cut off within a transaction, and everything that was answered 250 arrives, once.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use end_to_end::{Client, Harness, hurried, post, settings};
use local::process::wait_for;
use rustix::process::{Pid, Signal, kill_process};

const KNOWN: &str = "staff@old.example";
const RESTARTS: usize = 4;
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// An edge that was given its socket; killed with the test.
struct Edge(Child);

impl Edge {
    /// As systemd starts it: the socket is descriptor 3, and LISTEN_PID is the process itself.
    fn start(harness: &Harness, socket: &TcpListener) -> Self {
        let socket = OwnedFd::from(socket.try_clone().expect("a copy"));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(harness.site.log_file("mx-edge"))
            .expect("a log");
        let shell = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --config \"$1\"";
        let child = Command::new("sh")
            .args(["-c", shell])
            .arg(harness.site.options().binaries.join("mx-edge"))
            .arg(harness.site.config_file("mx-edge"))
            .stdin(Stdio::from(socket))
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        Self(child)
    }

    /// SIGTERM, and waits; its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it runs");
        wait_for(PATIENCE, || self.0.try_wait().ok().flatten())?.code()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    taken: Mutex<Vec<String>>,
    told_later: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// Sends one post after the other, each until it is taken; a new connection for each second one.
fn client(number: usize, server: SocketAddr, seen: &Seen, over: &AtomicBool) {
    let wrong = |what: String| seen.wrong.lock().expect("no panic").push(what);
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = match Client::connect(server) {
            Ok((client, greeting)) if greeting.starts_with("220") => client,
            Ok((_, greeting)) if greeting.starts_with("421 4.3.2") => {
                seen.told_later.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            other => {
                return wrong(format!(
                    "connect: {:?}",
                    other.map(|(_, greeting)| greeting)
                ));
            }
        };
        for _ in 0..2 {
            let id = format!("c{number}-{sent}");
            // 421 only where no transaction is open: to EHLO and to MAIL.
            let mut begin = || {
                let hello = client.say("EHLO client.sender.example")?;
                match hello.starts_with("250") {
                    true => client.say("MAIL FROM:<author@sender.example>"),
                    false => Ok(hello),
                }
            };
            match begin() {
                Ok(reply) if reply.starts_with("250") => {}
                Ok(reply) if reply.starts_with("421 4.3.2") => {
                    seen.told_later.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                // Told 421 while it was about to speak; the word is still in the pipe or lost with it.
                Err(_) => break,
                Ok(reply) => return wrong(format!("MAIL: {reply}")),
            }
            let rest = client.say(&format!("RCPT TO:<{KNOWN}>")).and_then(|reply| {
                if !reply.starts_with("250") {
                    return Ok(reply);
                }
                client.say("DATA")?;
                client.send(&post(&id, KNOWN))?;
                client.say(".")
            });
            match rest {
                Ok(reply) if reply.starts_with("250") => {
                    seen.taken.lock().expect("no panic").push(id);
                    sent += 1;
                }
                other => return wrong(format!("within a transaction: {other:?}")),
            }
        }
    }
}

#[test]
fn a_restart_refuses_no_connection() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let root = harness.site.root().to_owned();
    fs::write(root.join("recipients"), format!("{KNOWN}\n")).expect("a file");
    harness.site.lay_over(
        "mx-edge",
        &format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['{}/recipients']\n[spf]\nenabled = false\n\
             [next_hop]\nhosts = ['{}']\nprotocol = 'smtp'\ntrace = false\n",
            root.display(),
            harness.site.address("sink")
        ),
    );
    harness.site.start_sink().expect("a next hop");
    // Writes the configuration; and without a socket it binds its own.
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    harness.site.stop("mx-edge");

    let door = harness.site.address("mx-edge");
    let socket = TcpListener::bind(door).expect("the edge's address");
    let mut edge = Edge::start(&harness, &socket);
    let (seen, over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
            thread::spawn(move || client(number, door, &seen, &over))
        })
        .collect();
    let count = || seen.taken.lock().expect("no panic").len();
    for _ in 0..RESTARTS {
        let before = count();
        harness.wait("mail flows", || {
            let trouble = !seen.wrong.lock().expect("no panic").is_empty();
            (count() >= before + 20 || trouble).then_some(())
        });
        assert_eq!(edge.stop(), Some(0), "{}", harness.logs());
        edge = Edge::start(&harness, &socket);
    }
    let before = count();
    harness.wait("mail flows after the last restart", || {
        (count() >= before + 20).then_some(())
    });
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client");
    }
    let wrong = seen.wrong.lock().expect("no panic");
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", harness.logs());
    let taken = seen.taken.lock().expect("no panic");
    let start = Instant::now();
    harness.wait("everything that was taken arrives", || {
        (harness.count(KNOWN) >= taken.len()).then_some(())
    });
    let subjects = harness.subjects(KNOWN);
    for id in taken.iter() {
        assert_eq!(subjects.get(id), Some(&1), "{id}");
    }
    println!(
        "{RESTARTS} restarts, {} messages, {} told to come later, {:?} to arrive",
        taken.len(),
        seen.told_later.load(Ordering::Relaxed),
        start.elapsed()
    );
    assert_eq!(edge.stop(), Some(0));
}
