//! Tables for verdict tokens: what is signed verifies, and nothing else does.

use super::*;
use crate::mutation;

fn keys(secrets: &[&[u8]]) -> Keys {
    let secrets: Vec<Vec<u8>> = secrets.iter().map(|s| s.to_vec()).collect();
    Keys::new(&secrets).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn verdict() -> Verdict {
    Verdict {
        class: Class::Spam,
        found: [Class::Spam, Class::BadHeader].into_iter().collect(),
        action: Action::Quarantine,
        score_hundredths: Some(-1250),
        required_hundredths: 500,
        tests: vec!["BAYES_99".into(), "URIBL_BLACK".into()],
        reason: "".into(),
        rules: "2026-11-20.3".into(),
        signatures: "ClamAV 1.4.3/27000/Fri Nov 20 2026".into(),
        time: Timestamp(1_795_176_245_123),
    }
}

#[test]
fn secrets() {
    fn check(secrets: &[usize], good: bool) {
        let secrets: Vec<_> = secrets.iter().map(|len| vec![7; *len]).collect();
        assert_eq!(Keys::new(&secrets).is_some(), good, "{secrets:?}");
    }
    check(&[16], true);
    check(&[64, 16], true);
    check(&[], false);
    check(&[15], false);
    check(&[32, 0], false);
    assert_eq!(format!("{:?}", keys(&[&[7; 16], &[8; 16]])), "Keys(2)");
}

#[test]
fn tags() {
    let (old, new) = (keys(&[&[1; 16]]), keys(&[&[2; 16], &[1; 16]]));
    let tag = old.sign(&[b"ab", b"c"]);
    // HMAC-SHA256 by another implementation, over 0000000000000002 "ab" 0000000000000001 "c".
    let expected = "1b0eb2d03b7ab8a1d35cdd1e575593b5d1f10d43e473ca26bc78ee9ccc196943";
    assert_eq!(hex(&tag), expected);
    assert!(new.verify(&[b"ab", b"c"], &tag), "the second key verifies");
    assert!(!old.verify(&[b"ab", b"c"], &new.sign(&[b"ab", b"c"])));
    assert!(!old.verify(&[b"a", b"bc"], &tag), "where parts end counts");
    assert!(!old.verify(&[b"abc"], &tag));
    assert!(!old.verify(&[b"ab", b"c", b""], &tag));
    assert!(old.verify(&[b"ab", b"c"], &tag[..16]));
    assert!(!old.verify(&[b"ab", b"c"], &tag[..15]));
    assert!(!old.verify(&[b"ab", b"c"], &[]));
    let longer: Vec<u8> = tag.iter().copied().chain([0]).collect();
    assert!(!old.verify(&[b"ab", b"c"], &longer));
    for at in 0..tag.len() {
        let mut flipped = tag;
        flipped[at] ^= 1;
        assert!(!old.verify(&[b"ab", b"c"], &flipped), "{at}");
    }
}

#[test]
fn digests() {
    let plain = digest(b"A: 1\r\nB: 2\r\n\r\nbody");
    // sha256sum of nothing.
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex(&digest(b"")), nothing);
    let same = |message: &[u8]| digest(message) == plain;
    assert!(same(
        b"X-Mailflow-Trace: v=1;\r\n x=y\r\nA: 1\r\nB: 2\r\n\r\nbody"
    ));
    assert!(same(
        b"A: 1\r\nx-mailflow-trace:\r\nB: 2\r\nX-Mailflow-Trace: 2\r\n\r\nbody"
    ));
    assert!(!same(b"A: 1\r\nB: 2\r\n\r\nbody\r\n"));
    assert!(!same(b"A: 1\r\nB: 2\r\n\r\nX-Mailflow-Trace: 2\r\nbody"));
    assert!(!same(b"B: 2\r\nA: 1\r\n\r\nbody"));
}

#[test]
fn tokens_come_back() {
    fn check(verdict: &Verdict) {
        let keys = keys(&[&[1; 32]]);
        let token = Token::sign(verdict, &[9; 32], &keys);
        assert!(token.len() <= token::TOKEN_BYTES_MAX);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_eq!(
            Token::verify(&token, &[9; 32], &keys).as_ref(),
            Some(verdict)
        );
        assert_eq!(
            Token::verify(&token, &[8; 32], &keys),
            None,
            "another message"
        );
        let rotated = self::keys(&[&[2; 32], &[1; 32]]);
        assert_eq!(
            Token::verify(&token, &[9; 32], &rotated).as_ref(),
            Some(verdict)
        );
        assert_eq!(
            Token::verify(&token, &[9; 32], &self::keys(&[&[2; 32]])),
            None
        );
        let lines = Token::to_lines(&token);
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= 400 && line.starts_with("verdict="))
        );
        assert_eq!(Token::from_lines(&lines), Some(token));
    }
    check(&verdict());
    for class in Class::ALL {
        let found = Class::ALL.into_iter().filter(|other| *other <= class);
        check(&Verdict {
            class,
            found: found.collect(),
            ..verdict()
        });
    }
    for action in Action::ALL {
        check(&Verdict {
            action,
            ..verdict()
        });
    }
    check(&Verdict {
        score_hundredths: None,
        required_hundredths: i32::MIN,
        tests: Vec::new(),
        reason: "Win.Test.EICAR_HDB-1 é; =\r\n".into(),
        rules: "".into(),
        signatures: "".into(),
        time: Timestamp(u64::MAX),
        ..verdict()
    });
    check(&Verdict {
        tests: (0..80).map(|n| format!("RULE_NUMBER_{n}").into()).collect(),
        ..verdict()
    });
}

#[test]
fn tokens_are_cut_to_fit() {
    let keys = keys(&[&[1; 32]]);
    let many = Verdict {
        tests: (0..5000)
            .map(|n| format!("RULE_NUMBER_{n}").into())
            .collect(),
        reason: "é".repeat(5000).into(),
        rules: "r".repeat(5000).into(),
        signatures: "s".repeat(5000).into(),
        ..verdict()
    };
    let token = Token::sign(&many, &[9; 32], &keys);
    assert!(
        (2000..=token::TOKEN_BYTES_MAX).contains(&token.len()),
        "{}",
        token.len()
    );
    let seen = Token::verify(&token, &[9; 32], &keys).unwrap();
    assert_eq!(&*seen.reason, "é".repeat(100));
    assert!(seen.tests.len() > 20 && many.tests.starts_with(&seen.tests));
    assert_eq!(Token::to_lines(&token).len(), 6);
}

#[test]
fn any_change_makes_a_token_nobodys() {
    let keys = keys(&[&[1; 32]]);
    let token = Token::sign(&verdict(), &[9; 32], &keys);
    let check = |changed: &str| {
        assert_eq!(Token::verify(changed, &[9; 32], &keys), None, "{changed:?}");
    };
    for at in 0..token.len() {
        for b in [b'A', b'-', b'=', b' ', b'z'] {
            let mut changed = token.clone().into_bytes();
            if changed[at] != b {
                changed[at] = b;
                check(std::str::from_utf8(&changed).unwrap());
            }
        }
        for bit in 0..7 {
            let mut changed = token.clone().into_bytes();
            changed[at] ^= 1 << bit;
            check(std::str::from_utf8(&changed).unwrap());
        }
        check(&token[..at]);
        check(&token[at + 1..]);
    }
    check(&format!("{token}A"));
    check(&format!("{token}=="));
    check(&format!(" {token}"));
    check(&"A".repeat(100_000));
    mutation::each(
        &[token.as_bytes()],
        &[b"A", b"\r\n", b"\xc3\xa9"],
        4000,
        |bytes| {
            if bytes != token.as_bytes() {
                check(&String::from_utf8_lossy(bytes));
            }
        },
    );
}

#[test]
fn lines_without_or_with_too_much() {
    fn check(lines: &[&str], expected: Option<&str>) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(Token::from_lines(&lines).as_deref(), expected, "{lines:?}");
    }
    check(&[], None);
    check(&["list host cannot be reached"], None);
    check(&["verdict="], None);
    check(&["verdict=abc", "verdict=def", "list host"], Some("abcdef"));
    check(&["one", "verdict=abc ", "two"], Some("abc"));
    check(&[" verdict=abc"], None);
    let piece = format!("verdict={}", "x".repeat(392));
    check(&[piece.as_str(); 5], Some(&"x".repeat(1960)));
    check(&[piece.as_str(); 6], None);
    assert_eq!(Token::to_lines(""), Vec::<String>::new());
}
