//! An edge that has never loaded a directory answers 451, never 550; once loaded it keeps it on disk, so that with listserv gone
//! and the edge restarted unknown users are still refused and known ones still taken.

use end_to_end::{Client, Harness, client, hurried, settings};
use local::configs::LIST;

#[test]
fn empty_directory_refuses_nobody() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    harness
        .site
        .start("mx-edge")
        .expect("the edge starts alone");
    let door = harness.site.address("mx-edge");
    harness.wait("the edge listens", || Client::hello(door).ok());
    let (code, reasons) =
        local::http::get(harness.site.address("mx-edge.control"), "/readyz").expect("it answers");
    assert_eq!(code, 503, "{reasons}");
    for address in [LIST, "nobody@lists.example"] {
        let reply = client::submit(
            door,
            "author@sender.example",
            &[address],
            &client::post("early", address),
        );
        assert!(
            reply.as_deref().is_ok_and(|reply| reply.starts_with("451")),
            "{address}: {reply:?}"
        );
    }

    harness
        .site
        .start_all_but(&["mx-edge"])
        .expect("the rest starts");
    harness
        .site
        .wait_ready("mx-edge")
        .expect("the edge gets ready by itself");
    for name in ["listserv", "mx-edge"] {
        harness.site.stop(name);
    }
    harness
        .site
        .start("mx-edge")
        .expect("the edge starts again");
    harness.wait("the edge knows whom there is", || {
        let reply = client::submit(
            door,
            "author@sender.example",
            &[LIST],
            &client::post("kept", LIST),
        );
        reply
            .is_ok_and(|reply| reply.starts_with("250"))
            .then_some(())
    });
    let reply = client::submit(
        door,
        "author@sender.example",
        &["nobody@lists.example"],
        b"",
    );
    assert!(
        reply
            .as_deref()
            .is_ok_and(|reply| reply.starts_with("550 5.1.1")),
        "{reply:?}"
    );
}
