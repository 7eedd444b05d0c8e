//! Tables for header surgery: every octet that was not asked for stays.

use super::*;
use crate::mutation;

fn names(message: &[u8]) -> Vec<String> {
    fields(message)
        .map(|field| String::from_utf8_lossy(field.name).into_owned())
        .collect()
}

#[test]
fn walks() {
    fn check(message: &str, expected: &[&str], body: &str) {
        let bytes = message.as_bytes();
        assert_eq!(names(bytes), expected, "{message:?}");
        assert_eq!(&message[body_offset(bytes)..], body, "{message:?}");
        // What was walked and what was not make up the message.
        let walked: usize = fields(bytes).map(|field| field.raw.len()).sum();
        assert!(walked <= body_offset(bytes), "{message:?}");
    }
    check("A: 1\r\nB: 2\r\n\r\nbody\r\n", &["A", "B"], "body\r\n");
    check("A: 1\r\n\r\nB: 2\r\n\r\n", &["A"], "B: 2\r\n\r\n");
    check("A: 1\r\n two\r\n\tthree\r\nB:\r\n\r\n", &["A", "B"], "");
    check("A : 1\r\nB\t: 2\r\n\r\nx", &["A", "B"], "x");
    check("A: 1\r\n \r\n more\r\nB: 2\r\n\r\nx", &["A", "B"], "x");
    check(
        "From joe Fri Nov 20 12:00:00 2026\r\nA: 1\r\n\r\nx",
        &["A"],
        "x",
    );
    check(">From joe Fri\r\nA: 1\r\n\r\nx", &["A"], "x");
    check(
        "A: 1\r\nFrom joe Fri\r\nB: 2\r\n\r\nx",
        &["A"],
        "From joe Fri\r\nB: 2\r\n\r\nx",
    );
    check("From: joe\r\n\r\n", &["From"], "");
    check("\r\nA: 1\r\n", &[], "A: 1\r\n");
    check("", &[], "");
    check("\r\n", &[], "");
    check("hello\r\nA: 1\r\n\r\n", &[], "hello\r\nA: 1\r\n\r\n");
    check(" A: 1\r\nB: 2\r\n", &[], " A: 1\r\nB: 2\r\n");
    check(": 1\r\n", &[], ": 1\r\n");
    check("A B: 1\r\n", &[], "A B: 1\r\n");
    check("A: 1", &["A"], "");
    check("A: 1\r\n two", &["A"], "");
    check("A", &[], "A");
    check("A ", &[], "A ");
    check("A:", &["A"], "");
    check("A: 1\nB: 2\n\nx", &["A", "B"], "x");
    check("A: 1\r\nB\r\n: 2\r\n\r\n", &["A"], "B\r\n: 2\r\n\r\n");
    check("é: 1\r\n", &[], "é: 1\r\n");
    check("A: é\r\n\r\n", &["A"], "");
}

#[test]
fn texts() {
    fn check(field: &str, name: &str, text: &str) {
        let field = fields(field.as_bytes()).next().unwrap();
        assert!(field.is(name));
        assert!(!field.is("Other"));
        assert_eq!(field.text(), text);
    }
    check("Subject: hello\r\n", "subject", "hello");
    check(
        "Subject:hello\r\n\tthere\r\n  you \r\n",
        "SUBJECT",
        "hello\tthere  you",
    );
    check("Subject :\r\n", "Subject", "");
    check("Subject: \r\n x\r\n", "Subject", "x");
    assert_eq!(fields(b"A: \xff\r\n").next().unwrap().text(), "\u{fffd}");
}

#[test]
fn mbox_lines() {
    fn check(message: &str, len: usize) {
        assert_eq!(mbox_line(message.as_bytes()), len, "{message:?}");
    }
    check("From joe\r\nA: 1\r\n", 10);
    check(">From joe\nA: 1\n", 10);
    check("From joe", 8);
    check("From: joe\r\n", 0);
    check("A: 1\r\nFrom joe\r\n", 0);
    check("from joe\r\n", 0);
    check("", 0);
}

#[test]
fn strips() {
    fn check(message: &str, expected: &str) {
        let bytes = Bytes::copy_from_slice(message.as_bytes());
        let left = without(&bytes, |field| field.is("X-Spam"));
        assert_eq!(left, expected.as_bytes(), "{message:?}");
        let same = left.as_ptr() == bytes.as_ptr() && left.len() == bytes.len();
        assert_eq!(
            same,
            message == expected,
            "{message:?}: copied only when changed"
        );
    }
    check("A: 1\r\nB: 2\r\n\r\nbody", "A: 1\r\nB: 2\r\n\r\nbody");
    check("X-Spam: 1\r\nB: 2\r\n\r\nbody", "B: 2\r\n\r\nbody");
    check(
        "A: 1\r\nx-spam : 1\r\n 2\r\n\t3\r\nB: 2\r\n\r\nX-Spam: 1\r\n",
        "A: 1\r\nB: 2\r\n\r\nX-Spam: 1\r\n",
    );
    check("A: 1\r\nX-Spam: 1\r\nX-Spam: 2\r\n\r\n", "A: 1\r\n\r\n");
    check("X-Spam: 1\r\n\r\nbody", "\r\nbody");
    check("X-Spam: 1\r\n", "");
    check("X-Spam: 1", "");
    check(
        "From joe\r\nX-Spam: 1\r\nA: 1\r\n\r\n",
        "From joe\r\nA: 1\r\n\r\n",
    );
    check("X-Spammy: 1\r\n\r\n", "X-Spammy: 1\r\n\r\n");
    check("\r\nX-Spam: 1\r\n", "\r\nX-Spam: 1\r\n");
    check("", "");
}

#[test]
fn folds() {
    fn check(value: &str, expected: &str) {
        assert_eq!(fold("Name", value), expected, "{value:?}");
    }
    check("value", "Name: value\r\n");
    check("", "Name:\r\n");
    check("  a  b ", "Name: a  b\r\n");
    check("a\r\nBcc: b\0c", "Name: a  Bcc: b c\r\n");
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    check(&format!("{a} {b}"), &format!("Name: {a}\r\n {b}\r\n"));
    check(&format!("{a}\t {b}"), &format!("Name: {a}\r\n\t {b}\r\n"));
    let long = "x".repeat(500);
    check(
        &format!("a {long} b"),
        &format!("Name: a\r\n {long}\r\n b\r\n"),
    );
    check(&format!("a{}b", " ".repeat(2000)), "Name: a b\r\n");
    let word = "x".repeat(2000);
    let folded = fold("Name", &word);
    assert!(folded.lines().all(|line| line.len() <= 998));
    assert_eq!(folded.matches('x').count(), 2000);
}

#[test]
fn total() {
    let seeds: [&[u8]; 3] = [
        b"From joe\r\nA: 1\r\n two\r\nX : y\r\n\r\nbody\r\n",
        b"A: 1\r\nB: 2\r\n",
        "Betreff: ü ß 例え. A long line of words\twith tabs".as_bytes(),
    ];
    let spices: [&[u8]; 6] = [b"\r\n", b"\n", b"\r\n ", b":", b"X-Spam: 1\r\n", b"\0"];
    mutation::each(&seeds, &spices, 4000, |bytes| {
        let walked: usize = fields(bytes).map(|field| field.raw.len()).sum();
        let body = body_offset(bytes);
        assert!(walked <= body && body <= bytes.len());
        let message = Bytes::copy_from_slice(bytes);
        assert_eq!(without(&message, |_| false), message);
        let left = without(&message, |_| true);
        // A `From ` line that the fields above it kept from being the first one is the exception that `mbox_line` tells of.
        if mbox_line(&left) == mbox_line(bytes) {
            assert_eq!(fields(&left).count(), 0, "{message:?}");
        }
        for field in fields(bytes) {
            let text = field.text();
            let folded = fold("Name", &text);
            assert_eq!(fields(folded.as_bytes()).count(), 1, "{text:?}");
            assert!(
                folded
                    .split_terminator("\r\n")
                    .all(|line| line.len() <= 998)
            );
        }
    });
}
