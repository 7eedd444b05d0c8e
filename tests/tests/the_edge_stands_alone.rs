//! An edge with nothing of Mailflow behind it: recipients from a plain file and a Postfix map, any SMTP server as next hop. While
//! that server is away mail is kept; once it is back, everything arrives once, and without Mailflow's own fields.

use std::fs;

use end_to_end::{Harness, client, hurried, settings};

const IN_FILE: &str = "staff@old.example";
const IN_MAP: &str = "sales@shop.example";

#[test]
fn the_edge_stands_alone() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let root = harness.site.root().to_owned();
    fs::write(
        root.join("recipients"),
        format!("# people of the old domain\n{IN_FILE}\n"),
    )
    .expect("a file");
    fs::write(
        root.join("virtual"),
        format!("# virtual(5)\n{IN_MAP}  shop-team\n@any.example whoever\n"),
    )
    .expect("a map");
    let root = root.display();
    harness.site.lay_over(
        "mx-edge",
        &format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['{root}/recipients']\npostfix_maps = ['{root}/virtual']\n\
             [next_hop]\nhosts = ['{}']\nprotocol = 'smtp'\ntrace = false\n",
            harness.site.address("sink")
        ),
    );
    harness.site.start_sink().expect("a next hop");
    harness.site.start("mx-edge").expect("the edge starts");
    harness
        .site
        .wait_ready("mx-edge")
        .expect("it is ready with nothing inside");

    let known = [
        IN_FILE,
        IN_MAP,
        "anybody@any.example",
        "postmaster@old.example",
    ];
    for address in known {
        assert_answer(&harness, address, "250");
    }
    for (address, expected) in [
        ("nobody@old.example", "550 5.1.1"),
        ("nobody@shop.example", "550 5.1.1"),
        ("somebody@elsewhere.example", "554 5.7.1"),
    ] {
        assert_answer(&harness, address, expected);
    }

    harness.site.stop("sink");
    assert_answer(&harness, IN_FILE, "250");
    harness.site.start_sink().expect("the next hop is back");
    harness.wait("the kept one arrives", || {
        (harness.count(IN_FILE) == 2).then_some(())
    });
    harness.wait("nothing is left", || {
        (harness.queued("mx-edge")? == 0).then_some(())
    });
    for address in known {
        let expected = if address == IN_FILE { 2 } else { 1 };
        let arrived = harness.arrived(address);
        assert_eq!(arrived.len(), expected, "{address}");
        for message in arrived {
            let text = String::from_utf8_lossy(&message).into_owned();
            assert!(!text.contains("X-Mailflow-Trace"), "{text}");
            assert!(
                text.contains("Received: from client.sender.example"),
                "{text}"
            );
        }
    }
}

fn assert_answer(harness: &Harness, address: &str, expected: &str) {
    let door = harness.site.address("mx-edge");
    let message = client::post("alone", address);
    let reply = client::submit(door, "author@sender.example", &[address], &message);
    assert!(
        reply
            .as_deref()
            .is_ok_and(|reply| reply.starts_with(expected)),
        "{address}: {reply:?}\n{}",
        harness.logs()
    );
}
