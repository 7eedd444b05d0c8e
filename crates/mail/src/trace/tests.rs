//! Tables for the trace header: what goes in comes out, and hostile values come out clean.

use super::*;
use crate::{header, mutation};

fn trace() -> Trace {
    Trace {
        ident: Ident::parse("edge-1.68f0.1f").unwrap(),
        custody: Custody::Live,
        arrival: Timestamp(1_795_176_245_123),
        client: "192.0.2.1".parse().unwrap(),
        helo: "mail.example.org".into(),
        spf: Spf::Pass,
        exempt: false,
        verdict: None,
    }
}

/// The trace as it comes out of a message that starts with its header.
fn read(header: &str) -> Option<Trace> {
    let message = format!("{header}Received: x\r\n\r\nbody");
    let mut fields = header::fields(message.as_bytes());
    let field = fields.next().unwrap();
    assert!(field.is(NAME));
    assert!(fields.next().unwrap().is("Received"), "{header:?}");
    Trace::parse(&field.text())
}

#[test]
fn form() {
    assert_eq!(
        trace().header(),
        "X-Mailflow-Trace: v=1; ident=edge-1.68f0.1f; custody=live;\r\n arrival=1795176245123; \
         client=192.0.2.1; helo=mail.example.org; spf=pass;\r\n exempt=no\r\n"
    );
}

#[test]
fn comes_back() {
    fn check(trace: &Trace) {
        let header = trace.header();
        assert!(
            header.split_terminator("\r\n").all(|line| line.len() <= 78),
            "{header:?}"
        );
        assert_eq!(read(&header).as_ref(), Some(trace), "{header:?}");
    }
    check(&trace());
    for spf in [
        Spf::Fail,
        Spf::SoftFail,
        Spf::Neutral,
        Spf::None,
        Spf::TempError,
        Spf::PermError,
    ] {
        check(&Trace { spf, ..trace() });
    }
    check(&Trace {
        ident: Ident::new(&"e".repeat(32), u64::MAX, u64::MAX).unwrap(),
        custody: Custody::Spooled,
        arrival: Timestamp(u64::MAX),
        client: "2001:db8::1".parse().unwrap(),
        helo: "[IPv6:2001:db8::1]".into(),
        exempt: true,
        verdict: Some("abcDEF-_".repeat(256).into()),
        ..trace()
    });
    check(&Trace {
        helo: "".into(),
        ..trace()
    });
    check(&Trace {
        helo: "my host; spf=pass % = é".into(),
        ..trace()
    });
    check(&Trace {
        helo: "é".repeat(127).into(),
        ..trace()
    });
}

#[test]
fn hostile_values_are_cleaned() {
    fn check(helo: &str, expected: &str) {
        let seen = read(
            &Trace {
                helo: helo.into(),
                ..trace()
            }
            .header(),
        );
        assert_eq!(
            seen.map(|trace| trace.helo),
            Some(expected.into()),
            "{helo:?}"
        );
    }
    check("a\r\nX-Evil: 1\r\n\r\nbody", "a??X-Evil: 1????body");
    check("a\0b\x1b[31m\u{85}", "a?b?[31m?");
    check(&"é".repeat(200), &"é".repeat(127));
    let mapped = Trace {
        client: "::ffff:192.0.2.1".parse().unwrap(),
        ..trace()
    };
    assert_eq!(read(&mapped.header()), Some(trace()));
    let token = Trace {
        verdict: Some("ab;spf=fail\r\nX: 1".into()),
        ..trace()
    };
    assert_eq!(
        read(&token.header()).and_then(|t| t.verdict),
        Some("abspf=failX:1".into())
    );
}

#[test]
fn not_ours_or_not_whole() {
    const GOOD: &str =
        "v=1;ident=e.1.2;custody=live;arrival=5;client=::1;helo=h;spf=pass;exempt=no";
    fn check(value: &str, good: bool) {
        assert_eq!(Trace::parse(value).is_some(), good, "{value:?}");
    }
    check(GOOD, true);
    check(&format!("{GOOD};later=thing"), true);
    check(&format!("{GOOD};verdict=abc"), true);
    check(&format!("{GOOD};verdict="), false);
    check(&format!("{GOOD};spf=pass"), false);
    check(&format!("{GOOD};"), false);
    check("", false);
    check("v=1", false);
    check("pass", false);
    for item in GOOD.split(';') {
        check(&GOOD.replace(item, ""), false);
        check(
            &GOOD
                .replacen(&format!("{item};"), "", 1)
                .replace(";exempt=no", ""),
            false,
        );
    }
    for (from, to) in [
        ("v=1", "v=2"),
        ("ident=e.1.2", "ident=E.1.2"),
        ("custody=live", "custody=Live"),
        ("arrival=5", "arrival=-5"),
        ("arrival=5", "arrival=99999999999999999999"),
        ("arrival=5", "arrival=+5"),
        ("exempt=no", "exempt=no;verdict=é"),
        ("client=::1", "client=localhost"),
        ("client=::1", "client=::1%eth0"),
        ("helo=h", "helo=%"),
        ("helo=h", "helo=%0"),
        ("helo=h", "helo=%0d%0a"),
        ("helo=h", "helo=%FF"),
        ("helo=h", "helo=%+1"),
        ("spf=pass", "spf=passed"),
        ("exempt=no", "exempt=maybe"),
    ] {
        check(&GOOD.replace(from, to), false);
    }
    check(&format!("{GOOD};x={}", "y".repeat(9000)), false);
    check(&format!("{GOOD};helo={}", "h"), false);
}

#[test]
fn total() {
    let whole = Trace {
        verdict: Some("abc".into()),
        ..trace()
    }
    .header();
    let seeds: [&[u8]; 2] = [
        whole.trim_start_matches("X-Mailflow-Trace: ").as_bytes(),
        b"v=1;",
    ];
    let spices: [&[u8]; 6] = [b";", b"=", b"%", b"%c3%a9", b"helo=x", b"\xc3"];
    mutation::each(&seeds, &spices, 4000, |bytes| {
        if let Some(trace) = Trace::parse(&String::from_utf8_lossy(bytes)) {
            assert_eq!(read(&trace.header()), Some(trace));
        }
    });
}
