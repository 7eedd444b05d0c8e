//! Mail made to break a scanner or to slip through it: each is found in its documented class (docs/mail-flow.md), by the real spamd and
//! clamd where the claim is theirs, and the scanner's memory stays bounded.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use common::Scanner;
use common::edge::{Attempt, code, field, live, message};
use common::real::{World, attached, gtube, zip};
use common::stubs::Stubbed;
use flate2::Compression;
use flate2::write::GzEncoder;
use mail::verdict::Class;

/// What the scanner may have used at most, in KiB: messages here are up to 8 MiB, an inner archive up to 32 MiB.
const MEMORY_KIB_MAX: u64 = 300 << 10;

/// Files in Debian's package.
const FILES: usize = 44;

/// The class that the reply tells.
async fn class(scanner: &Scanner, attempt: &Attempt) -> Class {
    let (_, reply) = attempt.code(scanner).await;
    Class::told_in(&reply.text()).unwrap_or_else(|| panic!("{reply}"))
}

/// The header of an ordinary message with other content.
fn with(rest: &str) -> Bytes {
    let text = String::from_utf8(message("hostile", "").to_vec()).unwrap();
    let head = text.split_once("\r\n\r\n").unwrap().0;
    format!("{head}\r\n{rest}").into_bytes().into()
}

fn named(disposition: &str) -> Bytes {
    let part = format!(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee.\r\n--b\r\n\
         Content-Disposition: attachment; {disposition}\r\n\r\nhello\r\n--b--\r\n"
    );
    with(&part)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Everything that needs no daemon's judgement.
fn corpus() -> Vec<(&'static str, Bytes, Class)> {
    use Class::{Ambiguous, Banned, Unscanned};
    let zeros = vec![0; 40 << 20];
    let gzip_bomb: Vec<u8> = (0..9).flat_map(|_| gzip(&zeros)).collect();
    let levels = (0..20).fold(b"x".to_vec(), |inner, _| gzip(&inner));
    let mut encrypted = zip(b"x");
    let directory = encrypted
        .windows(4)
        .position(|w| w == b"PK\x01\x02")
        .unwrap();
    encrypted[6] |= 1;
    encrypted[directory + 8] |= 1;
    for at in 0..encrypted.len() - 5 {
        if encrypted[at..].starts_with(b"a.com") {
            encrypted[at..at + 5].copy_from_slice(b"a.txt");
        }
    }
    let nest = "Content-Type: message/rfc822\r\n\r\n".repeat(34_000);
    let parts = "--b\r\n\r\n\r\n".repeat(700_000);
    let parts = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}");
    let addresses = "a@b.example,\r\n ".repeat(400_000);
    let two =
        "Content-Type: multipart/mixed; boundary=a; boundary=b\r\n\r\n--a\r\n\r\nx\r\n--a--\r\n";
    let inside = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx --b\r\n--b--\r\n";
    vec![
        ("nesting bomb", with(&nest), Unscanned),
        ("part bomb", with(&parts), Unscanned),
        (
            "400,000 addresses",
            with(&format!("Cc: {addresses}x\r\n\r\nx\r\n")),
            Unscanned,
        ),
        (
            "long line",
            with(&format!("X: {}\r\n\r\nx\r\n", "x".repeat(4 << 20))),
            Unscanned,
        ),
        (
            "deep comments",
            with(&format!(
                "Content-Type: text/plain; name={}a.exe\r\n\r\nx\r\n",
                "(".repeat(60_000)
            )),
            Banned,
        ),
        ("gzip bomb", attached(&gzip_bomb, "a.gz"), Unscanned),
        ("gzip in gzip", attached(&levels, "a.gz"), Unscanned),
        ("encrypted zip", attached(&encrypted, "a.zip"), Unscanned),
        ("two boundaries", with(two), Ambiguous),
        ("boundary inside a line", with(inside), Ambiguous),
        ("plain name", named("filename=evil.exe"), Banned),
        (
            "repeated name",
            named("filename=a.txt; filename=evil.exe"),
            Banned,
        ),
        ("folded name", named("filename=\r\n evil.exe"), Banned),
        ("comment", named("filename=evil.()exe"), Banned),
        (
            "pieces out of order",
            named("filename*1=.exe; filename*0=evil"),
            Banned,
        ),
        (
            "encoded word",
            named("filename=\"=?utf-8?B?ZXZpbC5leGU=?=\""),
            Banned,
        ),
        (
            "percent signs",
            named("filename*=utf-8''evil%2Eexe"),
            Banned,
        ),
        ("trailing dot", named("filename=\"evil.exe. .\""), Banned),
        ("NUL", named("filename*=utf-8''a.txt%00.pdf"), Ambiguous),
        (
            "right to left",
            named("filename*=utf-8''a%E2%80%AEtxt.pdf"),
            Ambiguous,
        ),
        (
            "two names",
            named("filename=a.txt; filename=a.pdf"),
            Ambiguous,
        ),
        (
            "class id",
            named("filename=\"a.{00021401-0000-0000-c000-000000000046}\""),
            Banned,
        ),
        (
            "program in a document's clothes",
            attached(b"MZ\x90\0\x03\0\0\0", "letter.txt"),
            Banned,
        ),
        (
            "program in a zip",
            attached(&zip(b"MZ\x90\0\x03\0\0\0"), "a.zip"),
            Banned,
        ),
        (
            "message/partial",
            with("Content-Type: message/partial; id=a; number=1; total=2\r\n\r\nx\r\n"),
            Banned,
        ),
    ]
}

#[tokio::test]
async fn each_is_found_in_its_class_within_bounded_memory() {
    let Stubbed {
        mut scanner,
        list_host,
        spamd: _spamd,
        clamd: _clamd,
    } = Stubbed::with("").await;
    for (name, message, expected) in corpus() {
        let attempt = live(message);
        assert_eq!(class(&scanner, &attempt).await, expected, "{name}");
    }
    assert!(list_host.arrived().is_empty());
    let pid = scanner.child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
    assert!(scanner.child.try_wait().unwrap().is_none(), "it still runs");
}

#[tokio::test]
async fn a_bad_header_is_told_and_passed() {
    let Stubbed {
        scanner,
        list_host,
        spamd: _spamd,
        clamd: _clamd,
    } = Stubbed::with("").await;
    let attempt = live(with("Subject: again\r\nX-Name: J\u{fc}rgen\r\n\r\nx\r\n"));
    let replies = attempt.send(&scanner).await;
    assert_eq!(code(&replies[0]), "250 2.0.0");
    assert_eq!(Class::told_in(&replies[0].text()), Some(Class::BadHeader));
    let (_, verdict, rest) = list_host.only().opened();
    assert_eq!(verdict.class, Class::BadHeader);
    let told = field(&rest, "X-Mailflow-Class");
    assert_eq!(told, "bad_header; 8-bit text in X-Name");
}

#[tokio::test]
async fn none_of_the_foreign_test_files_passes() {
    let world = World::start().await;
    let folder = std::fs::read_dir("/usr/share/clamav-testfiles");
    let folder = folder.expect("apt-get install clamav-testfiles, or `make test`, which does it");
    let mut seen = 0;
    for entry in folder {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let content = std::fs::read(&path).unwrap();
        let attempt = live(attached(&content, &name));
        // Archives inside each other, one more than clamd opens once a mail is around them: it says OK, and our own look does not.
        let expected = match name.as_str() {
            "clam_cache_emax.tgz" => Class::Unscanned,
            _ => Class::Malware,
        };
        assert_eq!(class(&world.scanner, &attempt).await, expected, "{name}");
        seen += 1;
    }
    assert_eq!(seen, FILES, "files of clamav-testfiles");
    assert!(world.list_host.arrived().is_empty());
}

#[tokio::test]
async fn the_test_pattern_is_spam_however_it_is_written() {
    let world = World::start().await;
    let base64 = format!(
        "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        BASE64.encode(gtube())
    );
    let quoted = format!(
        "MIME-Version: 1.0\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n",
        gtube().replace('N', "=4E")
    );
    let html = format!(
        "MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<html><body><p>{}</p></body></html>\r\n",
        gtube()
    );
    for (name, message) in [
        ("plain", message("spam", &gtube())),
        ("base64", with(&base64)),
        ("quoted-printable", with(&quoted)),
        ("html", with(&html)),
    ] {
        assert_eq!(
            class(&world.scanner, &live(message)).await,
            Class::Spam,
            "{name}"
        );
    }
    assert!(world.list_host.arrived().is_empty());
    // Behind a megabyte of text nobody has seen it: it passes, and says so.
    let text = "The minutes of the meeting, as they were read and agreed.\r\n".repeat(18_000);
    let behind = live(message("long", &format!("{text}{}", gtube())));
    assert_eq!(code(&behind.send(&world.scanner).await[0]), "250 2.0.0");
    let (_, verdict, rest) = world.list_host.only().opened();
    assert_eq!(&*verdict.tests[0], "TRUNCATED_SCAN");
    let status = field(&rest, "X-Spam-Status");
    assert!(status.contains("tests=TRUNCATED_SCAN"), "{status}");
}
