//! While mail comes in, is spooled, expanded, delivered and refused, both programs that own mail are killed with SIGKILL again and again:
//! in the end the account of each says how every recipient ended, and it adds up.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};
use serde_json::Value;

const ROUNDS: usize = 8;
const EACH: usize = 12;

/// Its account; the command fails when it does not balance.
fn account(harness: &Harness, program: &str) -> Value {
    let said = harness.site.ask(program, &["--json", "reconcile"]);
    let said = said.unwrap_or_else(|error| panic!("{program}: {error}"));
    serde_json::from_str(&said).expect("JSON is printed")
}

#[test]
fn every_recipient_is_accounted_for() {
    let mut harness = Harness::stubbed(hurried(settings()));
    let mut accepted = 0;
    for round in 0..ROUNDS {
        // Without a list host the edge spools; then it passes on what it has.
        let victim = ["listserv", "mx-edge"][round % 2];
        if victim == "listserv" {
            harness.site.kill(victim);
        }
        let door = harness.site.address("mx-edge");
        for number in 0..EACH {
            let id = format!("m{round}-{number}");
            let reply = client::submit(
                door,
                "author@sender.example",
                &[LIST],
                &client::post(&id, LIST),
            );
            accepted += usize::from(reply.is_ok_and(|reply| reply.starts_with("250")));
        }
        if victim == "mx-edge" {
            harness.site.kill(victim);
        }
        harness.site.start(victim).expect("it starts again");
        harness.site.wait_ready(victim).expect("it is ready again");
        for program in ["listserv", "mx-edge"] {
            account(&harness, program);
        }
    }
    assert_eq!(accepted, ROUNDS * EACH, "{}", harness.logs());
    harness.wait_arrived(accepted);
    harness.wait("both spools run empty", || {
        (harness.queued("mx-edge")? == 0 && harness.queued("listserv")? == 0).then_some(())
    });

    let lists = account(&harness, "listserv");
    let figure = |account: &Value, name: &str| account[name].as_u64().expect("a figure");
    let members = (accepted * MEMBERS.len()) as u64;
    assert_eq!(figure(&lists, "accepted"), accepted as u64, "{lists}");
    assert_eq!(figure(&lists, "expanded"), accepted as u64, "{lists}");
    assert_eq!(figure(&lists, "made"), members, "{lists}");
    assert_eq!(figure(&lists, "delivered"), members, "{lists}");
    assert_eq!(figure(&lists, "waiting"), 0, "{lists}");
    let edge = account(&harness, "mx-edge");
    assert!(
        figure(&edge, "accepted") > 0,
        "some went by the spool: {edge}"
    );
    assert_eq!(figure(&edge, "waiting"), 0, "{edge}");
    for account in [&lists, &edge] {
        assert_eq!(figure(account, "unaccounted"), 0, "{account}");
        assert_eq!(account["difference"], 0, "{account}");
    }
}
