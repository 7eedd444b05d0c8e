//! A list host with nothing of Mailflow in front of it: this process brings it mail over LMTP as an edge would, the sink takes what it
//! delivers. For claims about listserv's own spool.

use crate::client::{self, Client};
use crate::site::{Harness, hurried, settings};

/// Its lists, each with one member.
pub const LISTS: [&str; 2] = ["dev@lists.example", "staff@lists.example"];
/// The members, in the same order.
pub const MEMBERS: [&str; 2] = ["first@one.example", "second@two.example"];

/// Such a list host with `more` laid over its configuration; nothing is started yet.
pub fn list_host(more: &str) -> Harness {
    let mut options = hurried(settings());
    options.tls = false;
    options.scanners = 0;
    let mut harness = Harness::laid_out(options, true);
    // Nobody has scanned what comes from here.
    harness
        .site
        .lay_over("listserv", "[lmtp]\nunscanned = 'accept'\n");
    harness.site.lay_over("listserv", more);
    harness
}

/// Starts it; with its lists, once it is ready.
pub fn start(harness: &mut Harness) {
    harness.site.start("listserv").expect("it starts");
    harness.site.wait_ready("listserv").expect("it is ready");
    let there = harness.site.ask("listserv", &["list", "list"]);
    if there.is_ok_and(|lists| lists.contains(LISTS[0])) {
        return;
    }
    for (list, member) in LISTS.into_iter().zip(MEMBERS) {
        let made = harness.site.ask("listserv", &["list", "create", list]);
        made.expect("a list");
        let joined = harness
            .site
            .ask("listserv", &["member", "add", list, member]);
        joined.expect("a member");
    }
}

/// Brings a message for both lists under an ident, over a connection of its own: a reply a list, or the one that ended it before.
pub fn bring(harness: &Harness, ident: &str, message: &[u8]) -> Vec<String> {
    let door = harness.site.address("listserv");
    let brought = (|| {
        let (mut client, _) = Client::connect(door)?;
        client.say("LHLO edge.example")?;
        let known = "XFORWARD ADDR=192.0.2.7 HELO=client.sender.example";
        let reply = client.say(&format!("{known} IDENT={ident}"))?;
        assert!(reply.starts_with("250"), "{reply}");
        client.deliver("author@sender.example", &LISTS, message)
    })();
    let brought: std::io::Result<Vec<String>> = brought;
    brought.unwrap_or_else(|error| panic!("{error}\n{}", harness.logs()))
}

/// Likewise a small one with this subject; the one reply for all, since the spool tells every recipient the same.
pub fn send(harness: &Harness, ident: &str, id: &str) -> String {
    one(bring(harness, ident, &client::post(id, LISTS[0])))
}

/// The reply that all recipients had.
pub fn one(mut replies: Vec<String>) -> String {
    let last = replies.pop().expect("a reply");
    assert!(
        replies.iter().all(|reply| reply[..9] == last[..9]),
        "{replies:?} and {last}"
    );
    last
}

/// How often each message came to each member beyond the first time; panics when one of `kept` is missing somewhere.
pub fn repeated<'k>(harness: &Harness, kept: impl IntoIterator<Item = &'k String>) -> usize {
    let kept: Vec<&String> = kept.into_iter().collect();
    let mut more = 0;
    for member in MEMBERS {
        let subjects = harness.subjects(member);
        for id in &kept {
            assert!(
                subjects.contains_key(*id),
                "{id} was answered 250 and did not reach {member}\n{}",
                harness.logs()
            );
        }
        more += subjects.values().map(|count| count - 1).sum::<usize>();
    }
    more
}

/// Waits until all of these have come to both members, and nothing is left to be done.
pub fn wait_delivered<'k>(harness: &Harness, kept: impl IntoIterator<Item = &'k String> + Clone) {
    harness.wait("all that was acknowledged arrives", || {
        MEMBERS
            .iter()
            .all(|member| {
                let subjects = harness.subjects(member);
                kept.clone().into_iter().all(|id| subjects.contains_key(id))
            })
            .then_some(())
    });
    harness.wait("nothing is left", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
}
