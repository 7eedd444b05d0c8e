//! Posts from the real world arrive once for each of the three members, byte-identical to what was sent but for the header
//! fields that docs/mail-flow.md names.

use std::collections::BTreeMap;
use std::fs;

use end_to_end::corpus::{Sample, real_world};
use end_to_end::{Harness, python, settings};
use local::configs::{LIST, MEMBERS};

/// Sends every file named in a manifest with smtplib over one session; prints `PATH CODE REPLY`.
const SEND: &str = r#"
import smtplib, sys
host, port, to, manifest = sys.argv[1:5]
server = smtplib.SMTP(host, int(port), timeout=60)
for path in open(manifest).read().split("\n"):
    data = open(path, "rb").read()
    try:
        server.ehlo_or_helo_if_needed()
        server.sendmail("author@sender.example", [to], data, ["BODY=8BITMIME"])
        print(path, 250)
    except smtplib.SMTPDataError as error:
        print(path, error.smtp_code, error.smtp_error.decode())
    except smtplib.SMTPServerDisconnected as error:
        print(path, 0, error)
        server = smtplib.SMTP(host, int(port), timeout=60)
server.quit()
"#;

/// Fields that are put in front on the way (docs/mail-flow.md), the sink's two among them.
const ADDED: &[&str] = &[
    "return-path",
    "delivered-to",
    "received",
    "list-id",
    "list-post",
    "list-help",
    "list-subscribe",
    "list-unsubscribe",
    "list-owner",
    "sender",
    "precedence",
    "x-mailflow-class",
    "x-spam-flag",
    "x-spam-score",
    "x-spam-level",
    "x-spam-status",
    "x-virus-scanned",
];

/// Fields of the sender that are taken off on the way (docs/mail-flow.md), beside all X-Spam-* and X-Virus-*.
const REMOVED: &[&str] = &[
    "return-path",
    "sender",
    "precedence",
    "list-id",
    "list-post",
    "list-help",
    "list-subscribe",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-owner",
    "list-archive",
];

#[test]
fn real_mail_arrives_byte_identical() {
    let harness = Harness::real(settings());
    let samples = real_world();
    let replies = send(&harness, &samples);

    let mut expected: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let (mut passed, mut refused) = (0, Vec::new());
    for (sample, reply) in samples.iter().zip(&replies) {
        if reply.starts_with("250") {
            passed += 1;
            *expected.entry(kept(&sample.message)).or_default() += 1;
        } else {
            refused.push(format!("{}: {reply}", sample.path.display()));
            let structural = reply.starts_with("550 5.6.0")
                || reply.starts_with("550 5.7.1")
                || reply.starts_with("554 5.4.6");
            assert!(
                structural,
                "{}\n{}",
                refused[refused.len() - 1],
                harness.logs()
            );
        }
    }
    println!(
        "{passed} of {} passed; refused:\n{}",
        samples.len(),
        refused.join("\n")
    );
    assert!(
        passed * 10 > samples.len() * 8,
        "most real mail passes: {passed}\n{}",
        refused.join("\n")
    );

    harness.wait_arrived(passed);
    for member in MEMBERS {
        let mut missing = expected.clone();
        for message in harness.arrived(member) {
            let original = expected
                .keys()
                .filter(|original| message.ends_with(original))
                .max_by_key(|original| original.len())
                .unwrap_or_else(|| {
                    panic!("not as it was sent:\n{}", String::from_utf8_lossy(&message))
                });
            for name in field_names(&message[..message.len() - original.len()]) {
                assert!(ADDED.contains(&name.as_str()), "{name} was put in front");
            }
            let left = missing.get_mut(original).expect("a key of expected");
            assert!(
                *left > 0,
                "arrived twice for {member}:\n{}",
                String::from_utf8_lossy(&message)
            );
            *left -= 1;
        }
        assert!(
            missing.values().all(|&left| left == 0),
            "something is missing for {member}"
        );
    }
}

/// Writes the samples where python can read them and sends them; a reply for each, in order.
fn send(harness: &Harness, samples: &[Sample]) -> Vec<String> {
    let folder = harness.site.root().join("sent");
    fs::create_dir_all(&folder).expect("a folder");
    let mut paths = Vec::new();
    for (number, sample) in samples.iter().enumerate() {
        let path = folder.join(number.to_string());
        fs::write(&path, &sample.message).expect("a sample is written");
        paths.push(path.display().to_string());
    }
    let manifest = harness.site.root().join("manifest");
    fs::write(&manifest, paths.join("\n")).expect("the manifest is written");
    let door = harness.site.address("mx-edge");
    let (host, port) = (door.ip().to_string(), door.port().to_string());
    let said = python(SEND, &[&host, &port, LIST, &manifest.display().to_string()]);
    let reply_of = |path: &String| {
        let line = said
            .lines()
            .find(|line| line.split(' ').next() == Some(path));
        line.map(|line| line[path.len() + 1..].to_owned())
            .unwrap_or_else(|| panic!("no reply for {path}:\n{said}"))
    };
    paths.iter().map(reply_of).collect()
}

/// The message without the fields that are taken off.
fn kept(message: &[u8]) -> Vec<u8> {
    // An mbox separator on top is no field, and is taken off with them.
    let separator = if message.starts_with(b"From ") {
        line_end(message)
    } else {
        0
    };
    let (fields, rest) = split(&message[separator..]);
    let mut kept: Vec<u8> = fields
        .into_iter()
        .filter(|field| !is_removed(&name(field)))
        .flatten()
        .copied()
        .collect();
    kept.extend(rest);
    kept
}

fn is_removed(name: &str) -> bool {
    REMOVED.contains(&name) || name.starts_with("x-spam-") || name.starts_with("x-virus-")
}

fn field_names(header: &[u8]) -> Vec<String> {
    let (fields, rest) = split(header);
    // The blank line is put in where a message had no header of its own.
    assert!(
        rest.is_empty() || rest == b"\r\n",
        "not a header: {:?}",
        String::from_utf8_lossy(rest)
    );
    fields.into_iter().map(name).collect()
}

fn name(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == b':').unwrap_or(0);
    String::from_utf8_lossy(&field[..end]).trim().to_lowercase()
}

/// The header's fields, and all that follows them: from the blank line, or from the first line that is no field.
fn split(message: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut fields, mut rest) = (Vec::new(), message);
    while is_field(rest) {
        let mut end = line_end(rest);
        while rest.get(end).is_some_and(|byte| b" \t".contains(byte)) {
            end += line_end(&rest[end..]);
        }
        let (field, after) = rest.split_at(end);
        fields.push(field);
        rest = after;
    }
    (fields, rest)
}

fn is_field(text: &[u8]) -> bool {
    let name = text
        .iter()
        .take_while(|&&byte| byte.is_ascii_graphic() && byte != b':')
        .count();
    let blank = text[name..]
        .iter()
        .take_while(|byte| b" \t".contains(byte))
        .count();
    name > 0 && text.get(name + blank) == Some(&b':')
}

fn line_end(text: &[u8]) -> usize {
    text.windows(2)
        .position(|pair| pair == b"\r\n")
        .map_or(text.len(), |at| at + 2)
}
