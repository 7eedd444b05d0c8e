//! An edge with nothing of Mailflow behind it: one recipient from a file, the sink as its next hop. For claims about the edge's
//! own spool.

use std::fs;

use crate::client;
use crate::site::{Harness, hurried, settings};

/// Its one recipient.
pub const RECIPIENT: &str = "staff@old.example";

/// Such an edge with `more` laid over its configuration; nothing is started yet.
pub fn edge(more: &str) -> Harness {
    edge_for(&[RECIPIENT], more)
}

/// The same for other recipients.
pub fn edge_for(recipients: &[&str], more: &str) -> Harness {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let file = harness.site.root().join("recipients");
    fs::write(&file, recipients.join("\n") + "\n").expect("a file");
    let sink = harness.site.address("sink");
    harness.site.lay_over(
        "mx-edge",
        &format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['{}']\n\
             [next_hop]\nhosts = ['{sink}']\nprotocol = 'smtp'\ntrace = false\n",
            file.display()
        ),
    );
    harness.site.lay_over("mx-edge", more);
    harness
}

/// Sends one message over a connection of its own; the reply that decided it.
pub fn send(harness: &Harness, id: &str) -> String {
    send_bytes(harness, &client::post(id, RECIPIENT))
}

/// Likewise with a body of some bytes.
pub fn send_large(harness: &Harness, id: &str, bytes: usize) -> String {
    let mut message = client::post(id, RECIPIENT);
    let line = format!("{}\r\n", "x".repeat(70));
    message.extend_from_slice(line.repeat(bytes / line.len()).as_bytes());
    send_bytes(harness, &message)
}

fn send_bytes(harness: &Harness, message: &[u8]) -> String {
    let door = harness.site.address("mx-edge");
    client::submit(door, "author@sender.example", &[RECIPIENT], message)
        .unwrap_or_else(|error| panic!("{error}\n{}", harness.logs()))
}
