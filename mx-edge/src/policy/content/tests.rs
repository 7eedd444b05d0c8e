//! Which rule meets which message, in which order, and what a structure may be.

use super::*;

fn rule(name: &str, field: &str, pattern: &str, then: Then) -> HeaderRule {
    HeaderRule {
        name: name.into(),
        field: field.into(),
        of: Of::Message,
        pattern: pattern.parse().unwrap(),
        then,
        value: format!("X-Rule: {name}"),
        action: Action::Enforce,
    }
}

fn body(name: &str, pattern: &str, then: Then) -> BodyRule {
    BodyRule {
        name: name.into(),
        pattern: pattern.parse().unwrap(),
        then,
        value: String::new(),
        action: Action::Enforce,
    }
}

fn checks(change: impl FnOnce(&mut Config)) -> Checks {
    let mut config = Config::default();
    change(&mut config);
    Checks::new(&config).unwrap()
}

/// `pills refused, mailer warned`: what each rule does, in their order.
fn named(checks: &Checks, message: &str) -> String {
    let decision = checks.judge(message.as_bytes()).decision;
    let named = decision.named.iter();
    let named: Vec<String> = named.map(|(rule, what)| format!("{rule} {what}")).collect();
    named.join(", ")
}

#[test]
fn a_field_is_seen_unfolded_decoded_and_as_it_stands() {
    let checks = checks(|config| {
        config.policy.headers = vec![
            rule("pills", "Subject", "cheap +pills", Then::Hold),
            rule("mailer", "X-Mailer", "^bulk", Then::Hold),
            rule("folded", "Subject", "\r\n\t", Then::Hold),
            rule("encoded", "Subject", "^=[?]utf-8[?]", Then::Hold),
            rule("any", "*", "^x-worm: yes$", Then::Hold),
        ];
    });
    for (message, expected) in [
        ("Subject: hello\r\n\r\ncheap pills\r\n", ""),
        ("subject: Cheap Pills\r\n\r\n", "pills held"),
        ("Subject: cheap\r\n  pills\r\n\r\n", "pills held"),
        ("Subject: cheap\r\n\tpills\r\n\r\n", "folded held"),
        (
            "Subject: =?UTF-8?B?Y2hlYXAgcGlsbHM=?=\r\n\r\n",
            "pills held, encoded held",
        ),
        (
            "Subject: =?utf-8?q?cheap?=\r\n =?utf-8?q?_pills?=\r\n\r\n",
            "pills held, encoded held",
        ),
        ("X-Mailer: Bulker\r\nX-Mailer: bulk\r\n\r\n", "mailer held"),
        ("X-Mailer: not bulk\r\n\r\n", ""),
        ("X-Worm: yes\r\n\r\n", "any held"),
        ("Subject: hello\r\n\r\nSubject: cheap pills\r\n", ""),
        ("", ""),
    ] {
        assert_eq!(named(&checks, message), expected, "{message:?}");
    }
}

#[test]
fn parts_have_headers_of_their_own() {
    let of = |name: &str, of: Of| HeaderRule {
        of,
        ..rule(name, "Content-Type", "name=.*[.]exe", Then::Hold)
    };
    let checks = checks(|config| {
        config.policy.headers = vec![
            of("message", Of::Message),
            of("parts", Of::Parts),
            of("any", Of::Any),
        ];
    });
    let outer = "Content-Type: application/x; name=a.exe\r\n\r\nx\r\n";
    let inner = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
                 Content-Type: application/x;\r\n name=\"a.exe\"\r\n\r\nx\r\n--b--\r\n";
    let nested = format!("Content-Type: message/rfc822\r\n\r\n{outer}");
    assert_eq!(named(&checks, outer), "message held, any held");
    assert_eq!(named(&checks, inner), "parts held, any held");
    assert_eq!(named(&checks, &nested), "parts held, any held");
}

#[test]
fn the_first_that_refuses_or_discards_is_the_last() {
    let checks = checks(|config| {
        let rules = &mut config.policy;
        rules.headers = vec![
            HeaderRule {
                action: Action::Warn,
                ..rule("told", "Subject", "a", Then::Reject)
            },
            HeaderRule {
                action: Action::Off,
                ..rule("off", "Subject", "a", Then::Reject)
            },
            rule("put", "Subject", "a", Then::Prepend),
            rule("put-too", "Subject", "a", Then::Prepend),
            rule("moved", "Subject", "a", Then::Redirect),
            rule("kept", "Subject", "a", Then::Hold),
            rule("kept-too", "Subject", "a", Then::Hold),
            rule("gone", "Subject", "b", Then::Discard),
            rule("no", "Subject", "b", Then::Reject),
        ];
        rules.body = vec![body("text", "^worm$", Then::Reject)];
        rules.body_bytes_max = 10;
    });
    let judged = checks.judge(b"Subject: a\r\n\r\nhello\r\n");
    assert_eq!(judged.prepended, "X-Rule: put\r\nX-Rule: put-too\r\n");
    assert_eq!(judged.redirected.as_deref(), Some("moved"));
    assert_eq!(judged.decision.hold.as_deref(), Some("kept"));
    assert_eq!(judged.decision.warned.len(), 1);
    let ended = named(&checks, "Subject: ab\r\n\r\n");
    assert!(ended.ends_with("kept-too held, gone discarded"), "{ended}");
    for (message, expected) in [
        ("Subject: x\r\n\r\nhello\r\nWORM\r\n", ""),
        ("Subject: x\r\n\r\nWorm\r\nhello\r\n", "text refused"),
        ("Subject: x\r\n\r\nhi\r\nworm\r\n", "text refused"),
        ("Subject: x\r\n\r\na worm\r\n", ""),
        ("Subject: worm\r\n\r\n", ""),
        ("\r\nworm\r\n", "text refused"),
    ] {
        assert_eq!(named(&checks, message), expected, "{message:?}");
    }
}

fn structure(checks: &Checks, message: &str) -> String {
    let decision = checks.structure(message.as_bytes());
    let (refused, warned) = (decision.refusal, decision.warned.first().cloned());
    let found = refused.or(warned).map(|finding| {
        assert_eq!(finding.reason, Reason::Structure);
        finding.evidence
    });
    found.unwrap_or_default()
}

#[test]
fn a_structure_has_limits() {
    let nest = |levels| "Content-Type: message/rfc822\r\n\r\n".repeat(levels) + "x\r\n";
    let parts = |count| {
        let head = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
        head.to_owned() + &"--b\r\n\r\nx\r\n".repeat(count) + "--b--\r\n"
    };
    let fields = |count| "A: b\r\n".repeat(count) + "\r\nx\r\n";
    let boundary = |length| {
        let b = "b".repeat(length);
        format!("Content-Type: multipart/mixed; boundary={b}\r\n\r\n--{b}\r\n\r\nx\r\n--{b}--\r\n")
    };
    let long = |bytes| format!("A: {}\r\n\r\nx\r\n", "b".repeat(bytes));
    let usual = checks(|_| {});
    for (message, expected) in [
        (nest(100), ""),
        (nest(101), "nested deeper than 100 levels"),
        (nest(30_000), "nested deeper than 100 levels"),
        (parts(999), ""),
        (parts(1000), "more than 1000 parts"),
        (fields(1000), ""),
        (fields(1001), "more than 1000 header fields"),
        (boundary(200), ""),
        (boundary(201), "boundary longer than 200 bytes"),
        (long(262_000), ""),
        (long(263_000), "header longer than 262144 bytes"),
        // The scanner's to judge.
        (
            String::from("Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx\r\n"),
            "",
        ),
    ] {
        let shown = &message[..message.len().min(80)];
        assert_eq!(structure(&usual, &message), expected, "{shown:?}");
    }
    let warns = checks(|config| config.policy.structure = Action::Warn);
    assert!(warns.structure(nest(101).as_bytes()).refusal.is_none());
    assert_eq!(
        structure(&warns, &nest(101)),
        "nested deeper than 100 levels"
    );
    let off = checks(|config| config.policy.structure = Action::Off);
    assert_eq!(structure(&off, &nest(101)), "");
}
