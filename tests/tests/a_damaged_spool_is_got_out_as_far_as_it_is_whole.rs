//! The edge is dead, and its disk has changed a bit of one message's body and one of another's envelope record. Check and export name
//! both and exit 1; all that is whole lands in a Maildir and at a server, the damaged body beside it for whoever looks.

use std::fs;
use std::path::Path;

use end_to_end::Harness;
use end_to_end::alone::{RECIPIENT, edge, send};

const WHOLE: [&str; 4] = ["whole-1", "whole-2", "whole-3", "whole-4"];

/// Flips a bit behind the first `what` at or behind the first `from`.
fn flip(segment: &Path, from: &[u8], what: &[u8]) {
    let mut bytes = fs::read(segment).expect("a segment");
    let find = |start: usize, what: &[u8]| {
        let mut windows = bytes[start..].windows(what.len());
        start + windows.position(|one| one == what).expect("it is there")
    };
    let at = find(find(0, from), what) + what.len();
    bytes[at] ^= 1;
    fs::write(segment, &bytes).expect("it is ours");
}

/// Asks for something that is not all well, and returns what it says.
fn fails(harness: &Harness, words: &[&str]) -> String {
    let words: Vec<&str> = ["--json"].iter().chain(words).copied().collect();
    let said = harness.site.ask("mx-edge", &words);
    let said = said.expect_err("not all is whole");
    assert!(said.contains("exit status: 1"), "{said}");
    said
}

#[test]
fn a_damaged_spool_is_got_out_as_far_as_it_is_whole() {
    let mut harness = edge("");
    harness.site.start("mx-edge").expect("it starts");
    harness.site.wait_ready("mx-edge").expect("it is ready");
    for id in [
        "whole-1",
        "whole-2",
        "bad-body",
        "bad-record",
        "whole-3",
        "whole-4",
    ] {
        let reply = send(&harness, id);
        assert!(reply.starts_with("250"), "{reply}");
    }
    let segment = harness.segment("mx-edge");
    harness.site.kill("mx-edge");
    // Behind the body of the message before it comes the group whose record names the recipient.
    flip(&segment, b"Subject: bad-body", b"\x05staff\x0bol");
    flip(&segment, b"Subject: bad-body", b"Subject: bad-");

    let said = fails(&harness, &["spool", "check"]);
    assert!(
        said.contains("\"whole\":false") || said.contains("\"whole\": false"),
        "{said}"
    );
    let corrupt = said.split("corrupt_bodies").nth(1).expect("it is told");
    assert!(!corrupt.starts_with("\":[]"), "{said}");
    assert!(said.contains("groups_missing"), "{said}");

    let kept = tempfile::tempdir().expect("a temporary folder");
    let maildir = kept.path().join("maildir");
    let to = format!("maildir:{}", maildir.display());
    let said = fails(&harness, &["spool", "export", "--to", &to]);
    for told in [
        "its body does not match its checksum",
        "1 groups that were acknowledged are not whole",
    ] {
        assert!(said.contains(told), "{said}");
    }
    let texts = |folder: &str| -> Vec<String> {
        let all = fs::read_dir(maildir.join(folder)).expect("a Maildir");
        all.map(|entry| fs::read(entry.expect("an entry").path()).expect("mail"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    };
    let (whole, damaged) = (texts("new"), texts(".damaged/new"));
    assert_eq!((whole.len(), damaged.len()), (4, 1));
    for id in WHOLE {
        let subject = format!("Subject: {id}\r\n");
        assert!(whole.iter().any(|text| text.contains(&subject)), "{id}");
    }
    assert!(
        damaged[0].contains("X-Mailflow-Damage: its body"),
        "{}",
        damaged[0]
    );
    assert!(damaged[0].contains(RECIPIENT), "{}", damaged[0]);

    harness.site.start_sink().expect("a next hop");
    let to = format!("smtp:{}", harness.site.address("sink"));
    let said = fails(&harness, &["spool", "export", "--to", &to]);
    assert!(
        said.contains("its body does not match its checksum"),
        "{said}"
    );
    harness.wait("all that is whole arrives", || {
        (harness.subjects(RECIPIENT).len() >= WHOLE.len()).then_some(())
    });
    let arrived = harness.subjects(RECIPIENT);
    assert_eq!(arrived.keys().collect::<Vec<_>>(), WHOLE);
}
