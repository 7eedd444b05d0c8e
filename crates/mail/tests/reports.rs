//! Delivery status notifications as a full parser reads them (RFC 3464, RFC 3461 6.3, RFC 6533).

#![allow(clippy::unwrap_used)]

use mail::dsn::{Action, Report, Status, needed};
use mail::envelope::{OriginalRecipient, Ret};
use mail::structure::{Limits, scan};
use mail::{Address, Domain, MailParameters, Recipient, Reply, Timestamp};
use mail_parser::{MessageParser, MimeHeaders, PartType};

const MESSAGE: &str = "X-Mailflow-Trace: v=1; secret\r\nReceived: from a\r\n by b\r\nSubject: hello\r\n\r\nthe body\r\n";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A report's parts: content types, and text of each.
struct Parts {
    bytes: Vec<u8>,
    kinds: Vec<String>,
    texts: Vec<String>,
}

/// What differs from test to test.
struct Given<'a> {
    action: Action,
    parameters: MailParameters,
    retry_until: Option<Timestamp>,
    message: &'a str,
    unique: &'a str,
}

impl Default for Given<'_> {
    fn default() -> Self {
        Self {
            action: Action::Failed,
            parameters: MailParameters::default(),
            retry_until: None,
            message: MESSAGE,
            unique: "00ff",
        }
    }
}

/// Writes a report and takes it apart.
fn parts(recipients: &[Recipient], reply: &Reply, given: Given<'_>) -> Parts {
    let statuses: Vec<Status<'_>> = recipients
        .iter()
        .map(|recipient| Status {
            recipient,
            reply,
            remote: Some("mx.example.net"),
            phase: Some("RCPT"),
            at: Some(Timestamp(1_795_176_300_000)),
        })
        .collect();
    let report = Report {
        action: given.action,
        reporting_host: &Domain::parse("lists.example").unwrap(),
        to: &address("joe@example.org"),
        parameters: &given.parameters,
        arrival: Timestamp(1_795_176_245_123),
        retry_until: given.retry_until,
        statuses: &statuses,
        message: given.message.as_bytes(),
        now: Timestamp(1_795_176_305_000),
        unique: given.unique,
    };
    let bytes = report.write();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        assert!(
            line.ends_with(b"\r\n") && line.len() <= 1000,
            "{}",
            line.escape_ascii()
        );
    }
    assert_eq!(scan(&bytes, &Limits::default()).err(), None);
    let message = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(message.parts.len(), 4, "{}", bytes.escape_ascii());
    let root = message.parts[0].content_type().unwrap();
    assert_eq!(
        (root.ctype(), root.subtype()),
        ("multipart", Some("report"))
    );
    assert_eq!(root.attribute("report-type"), Some("delivery-status"));
    let kind = |part: &mail_parser::MessagePart<'_>| {
        let kind = part.content_type().unwrap();
        format!("{}/{}", kind.ctype(), kind.subtype().unwrap())
    };
    let raw = |part: &mail_parser::MessagePart<'_>| {
        let bytes = &bytes[part.offset_body as usize..part.offset_end as usize];
        String::from_utf8_lossy(bytes).into_owned()
    };
    let kinds = message.parts[1..].iter().map(kind).collect();
    let texts = message.parts[1..].iter().map(raw).collect();
    Parts {
        kinds,
        texts,
        bytes,
    }
}

fn refused() -> Reply {
    Reply::new(550, (5, 1, 1), "no such user")
}

#[test]
fn failure() {
    let mut ann: Recipient = address("ann@example.net").into();
    ann.parameters.orcpt = Some(OriginalRecipient {
        kind: "rfc822".into(),
        address: "Ann+x@old.example".into(),
    });
    let bob: Recipient = address("\"b ob\"@example.net").into();
    let given = Given {
        parameters: MailParameters {
            envid: Some("QQ314159".into()),
            ..MailParameters::default()
        },
        ..Given::default()
    };
    let parts = parts(&[ann, bob], &refused(), given);
    assert_eq!(
        parts.kinds,
        [
            "text/plain",
            "message/delivery-status",
            "text/rfc822-headers"
        ]
    );
    assert_eq!(
        parts.texts[1],
        "Reporting-MTA: dns; lists.example\r\nOriginal-Envelope-Id: QQ314159\r\n\
         Arrival-Date: Fri, 20 Nov 2026 12:04:05 +0000\r\n\r\n\
         Original-Recipient: rfc822; Ann+x@old.example\r\nFinal-Recipient: rfc822; ann@example.net\r\n\
         Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\nLast-Attempt-Date: Fri, 20 Nov 2026 12:05:00 +0000\r\n\r\n\
         Final-Recipient: rfc822; \"b ob\"@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Remote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
         Last-Attempt-Date: Fri, 20 Nov 2026 12:05:00 +0000\r\n"
    );
    assert_eq!(
        parts.texts[2],
        "Received: from a\r\n by b\r\nSubject: hello\r\n"
    );
    let text = &parts.texts[0];
    assert!(
        text.contains("<ann@example.net>") && text.contains("no such user"),
        "{text}"
    );
    assert!(text.contains("mx.example.net said at RCPT:"), "{text}");
    let message = MessageParser::default().parse(&parts.bytes).unwrap();
    let header = |name: &'static str| message.header_raw(name).unwrap().trim();
    assert_eq!(header("Auto-Submitted"), "auto-replied");
    assert_eq!(header("To"), "<joe@example.org>");
    assert_eq!(header("Date"), "Fri, 20 Nov 2026 12:05:05 +0000");
    assert_eq!(header("Message-ID"), "<00ff@lists.example>");
    assert!(header("From").ends_with("<MAILER-DAEMON@lists.example>"));
}

#[test]
fn delay_and_relay() {
    let ann: Recipient = address("ann@example.net").into();
    let greylisted = Reply::plain(451, "later\nplease");
    let given = Given {
        action: Action::Delayed,
        retry_until: Some(Timestamp(1_795_608_245_123)),
        ..Given::default()
    };
    let delayed = parts(std::slice::from_ref(&ann), &greylisted, given);
    let status = &delayed.texts[1];
    assert!(
        status.contains("Action: delayed\r\nStatus: 4.0.0\r\n"),
        "{status}"
    );
    assert!(
        status.contains("Diagnostic-Code: smtp; 451 later please\r\n"),
        "{status}"
    );
    assert!(
        status.ends_with("Will-Retry-Until: Wed, 25 Nov 2026 12:04:05 +0000\r\n"),
        "{status}"
    );
    assert!(
        delayed.texts[0].contains("until Wed, 25 Nov 2026"),
        "{}",
        delayed.texts[0]
    );
    let accepted = Reply::new(250, (2, 0, 0), "ok");
    let given = Given {
        action: Action::Relayed,
        ..Given::default()
    };
    let relayed = parts(std::slice::from_ref(&ann), &accepted, given);
    assert!(relayed.texts[1].contains("Action: relayed\r\nStatus: 2.0.0\r\n"));
    for (action, word) in [
        (Action::Delivered, "delivered"),
        (Action::Expanded, "expanded"),
    ] {
        let given = Given {
            action,
            ..Given::default()
        };
        let done = parts(std::slice::from_ref(&ann), &accepted, given);
        let status = format!("Action: {word}\r\nStatus: 2.0.0\r\n");
        assert!(done.texts[1].contains(&status), "{}", done.texts[1]);
        assert!(
            done.texts[0].contains("was delivered to"),
            "{}",
            done.texts[0]
        );
    }
}

#[test]
fn what_is_kept_for_a_later_report_makes_the_same_one() {
    let large = format!("{MESSAGE}{}", "x\r\n".repeat(22_000));
    let long = "A: b\r\n".repeat(40_000);
    for message in [
        MESSAGE,
        &large,
        &long,
        "no header\r\n",
        "",
        "From joe\r\nA: b\r\n\r\nx",
    ] {
        for action in [Action::Failed, Action::Delayed] {
            for ret in [None, Some(Ret::Headers), Some(Ret::Full)] {
                let parameters = MailParameters {
                    ret,
                    ..MailParameters::default()
                };
                let (kept, kept_ret) = needed(action, &parameters, message.as_bytes());
                assert!(kept.len() <= 128 * 1024, "{}", kept.len());
                let write = |message: &str, ret| {
                    let given = Given {
                        action,
                        parameters: MailParameters {
                            ret,
                            ..MailParameters::default()
                        },
                        message,
                        ..Given::default()
                    };
                    parts(&[address("ann@example.net").into()], &refused(), given).bytes
                };
                let kept = std::str::from_utf8(kept).unwrap();
                assert!(
                    write(message, ret) == write(kept, Some(kept_ret)),
                    "{action:?} {ret:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_returned() {
    /// `expected`: the third part's type and bytes.
    fn check(message: &str, action: Action, ret: Option<Ret>, expected: (&str, &str)) {
        let ann: Recipient = address("ann@example.net").into();
        let parameters = MailParameters {
            ret,
            ..MailParameters::default()
        };
        let given = Given {
            action,
            parameters,
            message,
            ..Given::default()
        };
        let parts = parts(&[ann], &refused(), given);
        let what = &message[..message.len().min(60)];
        assert_eq!(parts.kinds[2], expected.0, "{what:?}");
        assert_eq!(parts.texts[2].trim_end(), expected.1.trim_end(), "{what:?}");
    }
    let header = "Received: from a\r\n by b\r\nSubject: hello\r\n";
    let whole = format!("{header}\r\nthe body\r\n");
    let headers = ("text/rfc822-headers", header);
    check(MESSAGE, Action::Failed, None, headers);
    check(MESSAGE, Action::Failed, Some(Ret::Headers), headers);
    check(
        MESSAGE,
        Action::Failed,
        Some(Ret::Full),
        ("message/rfc822", &whole),
    );
    check(MESSAGE, Action::Delayed, Some(Ret::Full), headers);
    check(MESSAGE, Action::Relayed, Some(Ret::Full), headers);
    let large = format!("{MESSAGE}{}", "x\r\n".repeat(22_000));
    check(&large, Action::Failed, Some(Ret::Full), headers);
    check(
        &format!("From joe\r\n{MESSAGE}"),
        Action::Failed,
        None,
        headers,
    );
    let long = "A: b\r\n".repeat(20_000);
    check(
        &long,
        Action::Failed,
        None,
        ("text/rfc822-headers", &"A: b\r\n".repeat(10_922)),
    );
    check(
        "no header\r\n",
        Action::Failed,
        None,
        ("text/rfc822-headers", ""),
    );
}

#[test]
fn international() {
    let mut ann: Recipient = address("änn@bücher.example").into();
    ann.parameters.orcpt = Some(OriginalRecipient {
        kind: "utf-8".into(),
        address: "änn@alt.example".into(),
    });
    let parameters = MailParameters {
        smtputf8: true,
        ret: Some(Ret::Full),
        ..MailParameters::default()
    };
    let given = Given {
        parameters,
        message: "Subject: Grüße\r\n\r\nÜ\r\n",
        ..Given::default()
    };
    let global = parts(std::slice::from_ref(&ann), &refused(), given);
    assert_eq!(
        global.kinds,
        [
            "text/plain",
            "message/global-delivery-status",
            "message/global"
        ]
    );
    let status = &global.texts[1];
    assert!(
        status.contains("Original-Recipient: utf-8; änn@alt.example\r\n"),
        "{status}"
    );
    assert!(
        status.contains("Final-Recipient: utf-8; änn@xn--bcher-kva.example\r\n"),
        "{status}"
    );
    // The same original recipient of a mailbox that is ASCII by now.
    ann.address = address("ann@example.net");
    let ascii = parts(&[ann], &refused(), Given::default());
    assert!(ascii.bytes.is_ascii());
    let status = &ascii.texts[1];
    assert!(
        status.contains("Original-Recipient: utf-8; \\x{E4}nn@alt.example\r\n"),
        "{status}"
    );
}

#[test]
fn hostile_values_stay_in_their_place() {
    let mut ann: Recipient = address("ann@example.net").into();
    ann.parameters.orcpt = Some(OriginalRecipient {
        kind: "rfc822\r\nX: 1".into(),
        address: "a\r\n\r\n--x".into(),
    });
    let reply = Reply {
        code: 550,
        enhanced: None,
        lines: vec!["a\r\n\r\nAction: delivered".into(), "é".repeat(3000)],
    };
    let parameters = MailParameters {
        envid: Some("a\r\nAction: delivered\r\n\r\n".into()),
        ..MailParameters::default()
    };
    // A message that holds what would have been the boundary.
    let message = "Subject: x\r\n=_dsn_a_b_0_=: 1\r\n\r\n--=_dsn_a_b_1_=--\r\n";
    let given = Given {
        parameters,
        message,
        unique: "a@b",
        ..Given::default()
    };
    let parts = parts(&[ann], &reply, given);
    let status = &parts.texts[1];
    assert_eq!(
        status.lines().filter(|line| line.is_empty()).count(),
        1,
        "{status}"
    );
    assert_eq!(
        status
            .lines()
            .filter(|line| line.starts_with("Action:"))
            .count(),
        1,
        "{status}"
    );
    assert!(parts.bytes.is_ascii());
}

#[test]
fn bounded() {
    let ann: Recipient = address("ann@example.net").into();
    let many = vec![ann; 1500];
    let parts = parts(&many, &refused(), Given::default());
    assert_eq!(parts.texts[1].matches("Final-Recipient").count(), 1000);
    assert!(parts.texts[0].contains("and 500 more recipients"));
}

#[test]
fn the_third_part_is_the_message() {
    let ann: Recipient = address("ann@example.net").into();
    let parameters = MailParameters {
        ret: Some(Ret::Full),
        ..MailParameters::default()
    };
    let given = Given {
        parameters,
        ..Given::default()
    };
    let parts = parts(&[ann], &refused(), given);
    let report = MessageParser::default().parse(&parts.bytes).unwrap();
    let PartType::Message(returned) = &report.parts[3].body else {
        panic!("{:?}", report.parts[3].body);
    };
    assert_eq!(returned.subject(), Some("hello"));
    assert_eq!(
        returned.body_text(0).as_deref().map(str::trim),
        Some("the body")
    );
}
