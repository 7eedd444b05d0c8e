//! While 2,000 messages come in, programs are killed with SIGKILL at any moment and started again: every message that was
//! answered 250 arrives, and none more often than the stated window allows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use end_to_end::{Client, Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

const MESSAGES: usize = 2_000;
const CLIENTS: usize = 8;
/// Deliveries that one kill of listserv may repeat: those under way and those settled within the last group (design: 256 or 10 ms).
const WINDOW: usize = 256 + 100;

#[test]
fn kill_9_loses_nothing() {
    let mut harness = Harness::stubbed(hurried(settings()));
    let next = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(AtomicBool::new(false));
    let door = harness.site.address("mx-edge");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, accepted) = (next.clone(), accepted.clone());
            thread::spawn(move || send_until_told(door, &next, &accepted))
        })
        .collect();

    let victims = [
        "listserv",
        "scanner-1",
        "mx-edge",
        "balancer",
        "scanner-2",
        "listserv",
        "mx-edge",
    ];
    let (mut round, mut kills) = (0, BTreeMap::<&str, usize>::new());
    while !done.load(Ordering::Relaxed) {
        let victim = victims[round % victims.len()];
        // Moments that wander through the work: after a number of messages that is not a multiple of anything here.
        let target = next.load(Ordering::Relaxed) + 97 + 13 * (round % 5);
        harness.wait("clients go on", || {
            (next.load(Ordering::Relaxed) >= target.min(MESSAGES)).then_some(())
        });
        harness.site.kill(victim);
        *kills.entry(victim).or_default() += 1;
        harness.site.start(victim).expect("it starts again");
        round += 1;
        done.store(next.load(Ordering::Relaxed) >= MESSAGES, Ordering::Relaxed);
    }
    for client in clients {
        client.join().expect("a client ends well");
    }
    for name in harness.site.programs() {
        harness
            .site
            .wait_ready(&name)
            .expect("everything is ready again");
    }

    let accepted = accepted.lock().expect("clients have ended").clone();
    assert!(kills.values().sum::<usize>() >= 10, "{kills:?}");
    assert!(
        accepted.len() > MESSAGES / 2,
        "{} of {MESSAGES} were accepted",
        accepted.len()
    );
    harness.wait("all that was accepted arrives", || {
        MEMBERS
            .iter()
            .all(|member| harness.count(member) >= accepted.len())
            .then_some(())
    });
    harness.wait("both spools run empty", || {
        (harness.queued("mx-edge")? == 0 && harness.queued("listserv")? == 0).then_some(())
    });
    let mut repeated = 0;
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        for id in &accepted {
            assert!(
                subjects.contains_key(id),
                "{id} was answered 250 and did not reach {member}\n{}",
                harness.logs()
            );
        }
        repeated += subjects.values().map(|count| count - 1).sum::<usize>();
    }
    let window = kills.get("listserv").copied().unwrap_or(0) * WINDOW;
    println!(
        "{} accepted, kills {kills:?}, {repeated} deliveries repeated, window {window}",
        accepted.len()
    );
    assert!(
        repeated <= window,
        "{repeated} deliveries were repeated, the window is {window}"
    );
}

/// Takes the next number and sends its message once. A message whose session broke was not acknowledged, and is not sent
/// again, so that whatever arrives more than once was repeated by the product.
fn send_until_told(door: std::net::SocketAddr, next: &AtomicUsize, accepted: &Mutex<Vec<String>>) {
    let mut session: Option<Client> = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MESSAGES {
            return;
        }
        let id = format!("m{number}");
        while session.is_none() {
            session = Client::hello(door).ok();
            if session.is_none() {
                // The edge is just being started; asking again is all a client can do.
                thread::sleep(Duration::from_millis(20));
            }
        }
        let reply = session.as_mut().map(|session| {
            session.submit("author@sender.example", &[LIST], &client::post(&id, LIST))
        });
        match reply {
            Some(Ok(reply)) if reply.starts_with("250") => {
                accepted.lock().expect("no client panics").push(id);
            }
            Some(Ok(_)) => {}
            _ => session = None,
        }
    }
}
