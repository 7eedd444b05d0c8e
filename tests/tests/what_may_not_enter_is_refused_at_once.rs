//! An unknown user and a relay attempt are refused at RCPT, a message announced with 100 MB at MAIL; postmaster is always there.

use end_to_end::{Client, Harness, client, settings};
use local::configs::LIST;

#[test]
fn what_may_not_enter_is_refused_at_once() {
    let harness = Harness::stubbed(settings());
    let door = harness.site.address("mx-edge");
    let mut client = Client::hello(door).expect("a session");

    let reply = client
        .say("MAIL FROM:<author@sender.example> SIZE=104857600")
        .expect("a reply");
    assert!(reply.starts_with("552 5.3.4"), "{reply}");

    assert_says(&mut client, "MAIL FROM:<author@sender.example>", "250");
    assert_says(&mut client, "RCPT TO:<nobody@lists.example>", "550 5.1.1");
    assert_says(
        &mut client,
        "RCPT TO:<dev-nonsense@lists.example>",
        "550 5.1.1",
    );
    assert_says(
        &mut client,
        "RCPT TO:<somebody@elsewhere.example>",
        "554 5.7.1",
    );
    assert_says(
        &mut client,
        "RCPT TO:<dev%elsewhere.example@lists.example>",
        "550 5.1.1",
    );
    assert_says(&mut client, "RCPT TO:<dev-subscribe@lists.example>", "250");
    assert_says(&mut client, &format!("RCPT TO:<{LIST}>"), "250");
    assert_says(&mut client, "RSET", "250");
    for address in [
        "postmaster@lists.example",
        "abuse@LISTS.example",
        "Postmaster",
    ] {
        assert_says(&mut client, "MAIL FROM:<>", "250");
        assert_says(&mut client, &format!("RCPT TO:<{address}>"), "250");
        assert_says(&mut client, "RSET", "250");
    }

    // The same refusal as a client sees it that people use, over STARTTLS.
    let swaks = client::run(std::process::Command::new("swaks").args([
        "-tls",
        "--server",
        &door.to_string(),
        "--from",
        "author@sender.example",
        "--to",
        "nobody@lists.example",
    ]));
    assert!(
        swaks.contains("TLS started") && swaks.contains("550 5.1.1"),
        "{swaks}"
    );
    let canaries_only = harness.metric("mx-edge", "mx_edge_messages_total", "") == 0.0;
    assert!(canaries_only, "no message was taken");
}

fn assert_says(client: &mut Client, line: &str, expected: &str) {
    let reply = client.say(line).expect("a reply");
    assert!(reply.starts_with(expected), "{line}: {reply}");
}
