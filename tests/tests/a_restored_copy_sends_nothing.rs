//! With `deliver = "sink"` a list host takes and expands mail and keeps it: nothing leaves, it says so wherever it is asked, and no
//! command changes that. Started with "smtp" again it sends what it kept, once.

use end_to_end::{Harness, client, hurried, settings};
use local::configs::{LIST, MEMBERS};

#[test]
fn a_restored_copy_sends_nothing() {
    let mut harness = Harness::stubbed(hurried(settings()));
    harness.site.stop("listserv");
    let sink = "[delivery]\ndeliver = \"sink\"\n";
    harness.site.lay_over("listserv", sink);
    harness
        .site
        .start("listserv")
        .unwrap_or_else(|error| panic!("{error}"));

    let door = harness.site.address("mx-edge");
    let post = client::post("kept", LIST);
    let reply = client::submit(door, "author@sender.example", &[LIST], &post);
    assert!(
        reply.as_ref().is_ok_and(|reply| reply.starts_with("250")),
        "{reply:?}"
    );
    harness.wait("the post is expanded and kept", || {
        (harness.queued("listserv")? == MEMBERS.len() as u64).then_some(())
    });

    let control = harness.site.address("listserv.control");
    let (code, said) = local::http::get(control, "/readyz").expect("it answers");
    assert_eq!(code, 503, "{said}");
    assert!(said.contains("nothing leaves"), "{said}");
    let (_, status) = local::http::get(control, "/status").expect("it answers");
    assert!(status.contains("\"deliver\":\"sink\""), "{status}");
    let refused = harness.site.ask("listserv", &["queue", "resume"]);
    let refused = refused.expect_err("a command does not undo it");
    assert!(refused.contains("sink"), "{refused}");
    let nudged = harness.site.ask("listserv", &["queue", "nudge"]);
    nudged.unwrap_or_else(|error| panic!("{error}"));
    let state = harness.site.ask("listserv", &["queue", "state"]);
    let state = state.unwrap_or_else(|error| panic!("{error}"));
    assert!(state.contains("deliver: sink"), "{state}");
    // Everything that could have sent it has been woken.
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [0, 0, 0]);
    assert_eq!(harness.queued("listserv"), Some(MEMBERS.len() as u64));

    harness.site.stop("listserv");
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [0, 0, 0]);
    let smtp = "[delivery]\ndeliver = \"smtp\"\n";
    harness.site.lay_over("listserv", smtp);
    harness
        .site
        .start("listserv")
        .unwrap_or_else(|error| panic!("{error}"));
    harness
        .site
        .wait_ready("listserv")
        .unwrap_or_else(|error| panic!("{error}"));
    harness.wait_arrived(1);
    harness.wait("the queue runs empty", || {
        (harness.queued("listserv")? == 0).then_some(())
    });
    assert_eq!(MEMBERS.map(|member| harness.count(member)), [1, 1, 1]);
}
