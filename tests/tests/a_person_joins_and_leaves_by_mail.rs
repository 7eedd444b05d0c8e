//! A stranger subscribes to the demonstration list by mail, confirms by replying, gets the next post, and leaves the same way;
//! somebody else's forged request changes nothing.

use end_to_end::{Harness, client, settings};
use local::configs::LIST;

const PERSON: &str = "Newcomer+lists@person.example";

#[test]
fn a_person_joins_and_leaves_by_mail() {
    let harness = Harness::stubbed(settings());

    // Somebody asks in the person's name. The person is asked back; without an answer nothing changes.
    submit(&harness, PERSON, "dev-subscribe@lists.example", "asks");
    let request = arrived(&harness, 1);
    let confirm = reply_to(&request);
    assert!(confirm.starts_with("dev-sc."), "{request}");
    assert!(
        request.contains("Auto-Submitted: auto-replied"),
        "{request}"
    );
    assert!(
        !members(&harness).contains("person.example"),
        "nobody joins unconfirmed"
    );

    // A cookie that was not ours is refused.
    let forged = confirm.replacen("-sc.", "-sc.1", 1);
    let reply = client::submit(
        door(&harness),
        PERSON,
        &[&forged],
        &client::post("forged", &forged),
    );
    println!("a forged confirmation: {reply:?}");
    submit(&harness, PERSON, &confirm, "confirms");
    harness.wait("the person is a member", || {
        members(&harness).contains("person.example").then_some(())
    });
    let welcome = arrived(&harness, 2);
    println!("{welcome}");

    submit(&harness, "author@sender.example", LIST, "a-post");
    harness.wait("the post reaches the new member", || {
        harness
            .subjects(PERSON)
            .keys()
            .any(|subject| subject == "a-post")
            .then_some(())
    });

    submit(&harness, PERSON, "dev-unsubscribe@lists.example", "leaves");
    let leave = harness.wait("the person is asked back", || {
        let texts = texts(&harness);
        texts
            .into_iter()
            .find(|text| reply_to(text).starts_with("dev-uc."))
    });
    assert!(
        members(&harness).contains("person.example"),
        "nobody leaves unconfirmed"
    );
    submit(&harness, PERSON, &reply_to(&leave), "confirms-leaving");
    harness.wait("the person has left", || {
        (!members(&harness).contains("person.example")).then_some(())
    });
}

fn door(harness: &Harness) -> std::net::SocketAddr {
    harness.site.address("mx-edge")
}

fn submit(harness: &Harness, from: &str, to: &str, id: &str) {
    let reply = client::submit(door(harness), from, &[to], &client::post(id, to));
    assert!(
        reply.as_deref().is_ok_and(|reply| reply.starts_with("250")),
        "{id}: {reply:?}\n{}",
        harness.logs()
    );
}

fn members(harness: &Harness) -> String {
    harness
        .site
        .ask("listserv", &["member", "list", LIST])
        .expect("listserv answers")
        .to_lowercase()
}

fn texts(harness: &Harness) -> Vec<String> {
    let messages = harness.arrived(PERSON);
    messages
        .iter()
        .map(|message| String::from_utf8_lossy(message).into_owned())
        .collect()
}

/// The newest of at least `count` messages to the person.
fn arrived(harness: &Harness, count: usize) -> String {
    harness.wait("an answer arrives", || {
        texts(harness).into_iter().nth(count - 1)
    })
}

fn reply_to(text: &str) -> String {
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let value = unfolded
        .lines()
        .find_map(|line| line.strip_prefix("Reply-To:"))
        .unwrap_or_default();
    value
        .trim()
        .trim_start_matches('<')
        .trim_end_matches('>')
        .to_owned()
}
