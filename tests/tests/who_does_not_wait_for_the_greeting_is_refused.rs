//! A client that speaks before it is greeted is refused at RCPT with what it said, in the same session, and postmaster hears from it
//! all the same; one that waits is served at once, and need not wait again, not even after a restart; one that speaks another
//! protocol is shown out.

use std::fs;

use end_to_end::{Harness, client, hurried, settings};

const KNOWN: &str = "staff@old.example";
const ROLE: &str = "postmaster@old.example";
const IMPATIENT: &str = "127.0.0.21";
const PATIENT: &str = "127.0.0.22";

/// Sends its first words at once, then plays by the rules; prints every reply.
const HASTY: &str = "import socket, sys\n\
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), source_address=(sys.argv[3], 0), timeout=30)\n\
    f = s.makefile('rwb')\n\
    def say(text):\n    f.write(text.encode() + b'\\r\\n'); f.flush()\n\
    def hear():\n    while True:\n        line = f.readline().decode()\n        print(line, end='')\n        if line[3:4] != '-': return\n\
    say(sys.argv[4])\n\
    hear()\n\
    hear()\n\
    for line in sys.argv[5:]:\n    say(line); hear()\n";

/// Waits for the greeting and sends mail; prints the greeting and the reply to RCPT.
const CALM: &str = "import smtplib, sys\n\
    client = smtplib.SMTP(source_address=(sys.argv[3], 0), local_hostname='client.example')\n\
    print(client.connect(sys.argv[1], int(sys.argv[2])))\n\
    client.ehlo()\n\
    client.mail('author@sender.example')\n\
    print(client.rcpt(sys.argv[4]))\n\
    client.quit()\n";

fn talk(harness: &Harness, program: &str, words: &[&str]) -> String {
    let door = harness.site.address("mx-edge");
    let (host, port) = (door.ip().to_string(), door.port().to_string());
    let mut arguments = vec![host.as_str(), port.as_str()];
    arguments.extend(words);
    client::python(program, &arguments)
}

#[test]
fn who_does_not_wait_for_the_greeting_is_refused() {
    let mut harness = Harness::laid_out(hurried(settings()), true);
    let root = harness.site.root().to_owned();
    fs::write(root.join("recipients"), format!("{KNOWN}\n")).expect("a file");
    harness.site.lay_over(
        "mx-edge",
        &format!(
            "[directory]\nservers = []\n[recipients]\nfiles = ['{}/recipients']\n[spf]\nenabled = false\n\
             [next_hop]\nhosts = ['{}']\nprotocol = 'smtp'\ntrace = false\n\
             [screen]\nwait = '1s'\nwait_stressed = '1s'\nskip_networks = []\n",
            root.display(),
            harness.site.address("sink")
        ),
    );
    harness.site.start("mx-edge").expect("the edge starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let screened = |harness: &Harness, outcome: &str| {
        let labels = format!("outcome=\"{outcome}\"");
        harness.metric("mx-edge", "mx_edge_screened_sessions_total", &labels)
    };

    let mail = "MAIL FROM:<author@sender.example>";
    let (known, role) = (format!("RCPT TO:<{KNOWN}>"), format!("RCPT TO:<{ROLE}>"));
    let words = [IMPATIENT, "EHLO bot.example", mail, &known, &role, "QUIT"];
    let said = talk(&harness, HASTY, &words);
    let replies: Vec<&str> = said.lines().collect();
    assert!(
        replies[0].starts_with("220-") && replies[1].starts_with("220 "),
        "{said}"
    );
    let refused = replies.iter().find(|line| line.starts_with("554 5.5.1"));
    assert!(
        refused.is_some_and(|line| line.contains("EHLO bot.example")),
        "{said}"
    );
    assert!(
        said.contains("250 2.1.5"),
        "postmaster hears from it: {said}"
    );
    assert!(said.trim_end().ends_with("closing connection"), "{said}");
    harness.wait("it is counted", || {
        (screened(&harness, "spoke_first") == 1.0).then_some(())
    });

    let calm = |harness: &Harness| talk(harness, CALM, &[PATIENT, KNOWN]);
    let said = calm(&harness);
    assert!(
        said.contains("(250, ") && said.matches("220").count() <= 1,
        "{said}"
    );
    harness.wait("it has passed", || {
        (screened(&harness, "passed") == 1.0).then_some(())
    });
    let again = calm(&harness);
    assert!(again.contains("(250, "), "{again}");
    harness.wait("it need not wait again", || {
        (screened(&harness, "known") == 1.0).then_some(())
    });

    harness.site.stop("mx-edge");
    harness.site.start("mx-edge").expect("it starts again");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    let after = calm(&harness);
    assert!(after.contains("(250, "), "{after}");
    harness.wait("it is still known", || {
        (screened(&harness, "known") == 1.0).then_some(())
    });

    // A browser that was talked into posting a form to us (and is known by now).
    let said = talk(&harness, HASTY, &[PATIENT, "POST / HTTP/1.1"]);
    assert!(said.contains("554 5.5.1"), "{said}");
}
