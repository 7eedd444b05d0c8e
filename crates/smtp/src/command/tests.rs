//! Tables of command lines.

use super::*;
use mail::Body;
use mail::envelope::Ret;

fn parse(line: &[u8]) -> Result<Command, CommandError> {
    Command::parse(line, &Extensions::ALL)
}

/// Lines, and what they say in a short form.
fn check(rows: &[(&str, &str)]) {
    for (line, expected) in rows {
        let told = match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => format!(
                "mail <{}>{}",
                mail.reverse_path,
                mail.size.map(|size| format!(" {size}")).unwrap_or_default()
            ),
            Ok(Command::Rcpt(Rcpt {
                forward_path: ForwardPath::Postmaster,
                ..
            })) => "rcpt postmaster".to_owned(),
            Ok(Command::Rcpt(Rcpt {
                forward_path: ForwardPath::Mailbox(address),
                ..
            })) => {
                format!("rcpt <{address}>")
            }
            Ok(command) => format!("{command:?}"),
            Err(error) => {
                let reply = error.reply();
                format!("{} {}", reply.code, reply.enhanced.unwrap())
            }
        };
        assert_eq!(told, *expected, "{line:?}");
    }
}

#[test]
fn verbs() {
    check(&[
        ("HELO a.example", r#"Helo("a.example")"#),
        ("ehlo a.example", r#"Ehlo("a.example")"#),
        ("LHLO  a.example ", r#"Lhlo("a.example")"#),
        ("EHLO a\u{e9} b", r#"Ehlo("a???b")"#),
        ("EHLO", "501 5.5.4"),
        ("HELO ", "501 5.5.4"),
        ("DATA", "Data"),
        ("DATA ", "Data"),
        ("DATA x", "501 5.5.4"),
        ("RSET", "Rset"),
        ("RSET x", "501 5.5.4"),
        ("NOOP", "Noop"),
        ("NOOP anything at all", "Noop"),
        ("QUIT", "Quit"),
        ("QUIT now", "501 5.5.4"),
        ("VRFY joe", "Vrfy"),
        ("EXPN staff", "Expn"),
        ("HELP", "Help"),
        ("HELP MAIL", "Help"),
        ("STARTTLS", "StartTls"),
        ("STARTTLS now", "501 5.5.4"),
        ("AUTH PLAIN AGpvZQBqb2U=", "Auth"),
        ("XFORWARD NAME=a", r#"Xforward("NAME=a")"#),
        ("BDAT 0", "Bdat { bytes: 0, last: false }"),
        ("BDAT 12 LAST", "Bdat { bytes: 12, last: true }"),
        ("bdat 12 last", "Bdat { bytes: 12, last: true }"),
        (
            "BDAT 99999999999999999999",
            "Bdat { bytes: 18446744073709551615, last: false }",
        ),
        ("BDAT", "501 5.5.4"),
        ("BDAT -1", "501 5.5.4"),
        ("BDAT 1x", "501 5.5.4"),
        ("BDAT 1 FIRST", "501 5.5.4"),
        ("BDAT 1 LAST LAST", "501 5.5.4"),
        ("", "500 5.5.1"),
        (" NOOP", "500 5.5.1"),
        ("NOOPS", "500 5.5.1"),
        ("GET / HTTP/1.1", "554 5.5.1"),
        ("NO\0OP", "500 5.5.2"),
        ("NOOP \0", "500 5.5.2"),
        ("NOOP\rQUIT", "500 5.5.2"),
        ("MAIL\tFROM:<a@example.org>", "500 5.5.2"),
    ]);
}

#[test]
fn paths() {
    check(&[
        ("MAIL FROM:<>", "mail <>"),
        ("MAIL FROM:<a@example.org>", "mail <a@example.org>"),
        ("mail from:<a@example.org>", "mail <a@example.org>"),
        ("MAIL FROM: <a@example.org>", "mail <a@example.org>"),
        ("MAIL  FROM:<a@example.org> ", "mail <a@example.org>"),
        (
            "MAIL FROM:<Joe.User@EXAMPLE.org.>",
            "mail <Joe.User@example.org>",
        ),
        (
            "MAIL FROM:<@a.example,@b.example:c@example.org>",
            "mail <c@example.org>",
        ),
        (
            "MAIL FROM:<@[IPv6:::1]:c@example.org>",
            "mail <c@example.org>",
        ),
        ("MAIL FROM:<a@[192.0.2.1]>", "mail <a@[192.0.2.1]>"),
        (
            "MAIL FROM:<a@[IPv6:2001:db8::1]>",
            "mail <a@[IPv6:2001:db8::1]>",
        ),
        (
            r#"MAIL FROM:<"a b"@example.org>"#,
            r#"mail <"a b"@example.org>"#,
        ),
        (
            r#"MAIL FROM:<"a>b"@example.org> SIZE=1"#,
            r#"mail <"a>b"@example.org> 1"#,
        ),
        (
            r#"MAIL FROM:<"a\"b"@example.org>"#,
            r#"mail <"a\"b"@example.org>"#,
        ),
        ("MAIL FROM:<a@example.org>extra", "501 5.5.4"),
        ("MAIL FROM:<a@example.org><b@example.org>", "501 5.5.4"),
        ("MAIL FROM:a@example.org", "501 5.5.4"),
        ("MAIL FROM:<a@example.org", "501 5.5.4"),
        ("MAIL FROM<a@example.org>", "501 5.5.4"),
        ("MAIL TO:<a@example.org>", "501 5.5.4"),
        ("MAIL FROM:", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:<@a.example>", "501 5.5.4"),
        ("MAIL FROM:<@:a@example.org>", "501 5.5.4"),
        (r#"MAIL FROM:<"a@example.org>"#, "501 5.5.4"),
        ("MAIL FROM:<a>", "501 5.1.7"),
        ("MAIL FROM:<a@>", "501 5.1.7"),
        ("MAIL FROM:<a b@example.org>", "501 5.1.7"),
        ("MAIL FROM:<a\u{e9}@example.org>", "553 5.6.7"),
        ("MAIL FROM:<a@ex\u{e4}mple.org>", "553 5.6.7"),
        (
            "MAIL FROM:<a\u{e9}@example.org> SMTPUTF8",
            "mail <a\u{e9}@example.org>",
        ),
        (
            "MAIL FROM:<a@ex\u{e4}mple.org> SMTPUTF8",
            "mail <a@xn--exmple-cua.org>",
        ),
        ("RCPT TO:<a@example.org>", "rcpt <a@example.org>"),
        ("RCPT TO: <a@example.org>", "rcpt <a@example.org>"),
        ("RCPT TO:<postmaster>", "rcpt postmaster"),
        ("RCPT TO:<PostMaster>", "rcpt postmaster"),
        ("RCPT TO:<@a.example:b@example.org>", "rcpt <b@example.org>"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a>", "501 5.1.3"),
        ("RCPT TO:<a@example.org>x", "501 5.5.4"),
        ("RCPT FROM:<a@example.org>", "501 5.5.4"),
        (
            "RCPT TO:<a\u{e9}@example.org>",
            "rcpt <a\u{e9}@example.org>",
        ),
    ]);
}

#[test]
fn text_that_is_not_utf_8() {
    let error = parse(b"MAIL FROM:<a\xff@example.org>").unwrap_err();
    assert_eq!(error, CommandError::EightBit);
    let error = parse(b"MAIL FROM:<a\xff@example.org> SMTPUTF8").unwrap_err();
    assert_eq!(error.reply().code, 501);
    let error = parse(b"RCPT TO:<a\xff@example.org>").unwrap_err();
    assert_eq!(error.reply().code, 501);
}

#[test]
fn parameters_of_mail() {
    check(&[
        ("MAIL FROM:<> SIZE=0", "mail <> 0"),
        ("MAIL FROM:<> SIZE=100000000", "mail <> 100000000"),
        (
            "MAIL FROM:<> size=99999999999999999999",
            "mail <> 18446744073709551615",
        ),
        ("MAIL FROM:<>  SIZE=1  BODY=7BIT ", "mail <> 1"),
        ("MAIL FROM:<> SIZE", "501 5.5.4"),
        ("MAIL FROM:<> SIZE=", "501 5.5.4"),
        ("MAIL FROM:<> SIZE=-1", "501 5.5.4"),
        ("MAIL FROM:<> SIZE=1 SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<> BODY", "501 5.5.4"),
        ("MAIL FROM:<> SMTPUTF8=1", "501 5.5.4"),
        ("MAIL FROM:<> RET=SOME", "501 5.5.4"),
        ("MAIL FROM:<> ENVID=", "501 5.5.4"),
        ("MAIL FROM:<> ENVID=a+0Db", "501 5.5.4"),
        ("MAIL FROM:<> AUTH=<>", "555 5.5.4"),
        ("MAIL FROM:<> NOTIFY=NEVER", "555 5.5.4"),
        ("MAIL FROM:<a@b.example> REQUIRETLS", "555 5.5.4"),
        ("MAIL FROM:<> X", "555 5.5.4"),
    ]);
    let line = b"MAIL FROM:<> body=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314159";
    let Ok(Command::Mail(mail)) = parse(line) else {
        panic!("refused")
    };
    let expected = MailParameters {
        body: Body::EightBitMime,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("QQ+314159".into()),
    };
    assert_eq!(mail.parameters, expected);
}

#[test]
fn parameters_of_rcpt() {
    for (text, expected) in [
        ("", Some((None, None))),
        ("NOTIFY=NEVER", Some((Some((false, false, false)), None))),
        (
            "NOTIFY=success,FAILURE",
            Some((Some((true, true, false)), None)),
        ),
        ("NOTIFY=DELAY", Some((Some((false, false, true)), None))),
        ("NOTIFY=NEVER,DELAY", None),
        ("NOTIFY=", None),
        ("NOTIFY", None),
        ("NOTIFY=DELAY NOTIFY=DELAY", None),
        (
            "ORCPT=rfc822;a+2Bb@example.org",
            Some((None, Some(("rfc822", "a+b@example.org")))),
        ),
        (
            "ORCPT=UTF-8;\u{e9}@example.org",
            Some((None, Some(("utf-8", "\u{e9}@example.org")))),
        ),
        ("ORCPT=rfc822;\u{e9}@example.org", None),
        ("ORCPT=rfc822;", None),
        ("ORCPT=;a@example.org", None),
        ("ORCPT=rfc822", None),
        ("ORCPT=rfc822;a+0A@example.org", None),
        ("SIZE=1", None),
    ] {
        let parsed = parse(format!("RCPT TO:<a@example.org> {text}").as_bytes());
        let told = match parsed {
            Ok(Command::Rcpt(rcpt)) => {
                let notify = rcpt
                    .parameters
                    .notify
                    .map(|n| (n.success, n.failure, n.delay));
                let orcpt = rcpt
                    .parameters
                    .orcpt
                    .map(|o| (o.kind.to_string(), o.address.to_string()));
                Some((notify, orcpt))
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => None,
        };
        let expected = expected.map(|(notify, orcpt)| {
            (
                notify,
                orcpt.map(|(kind, address)| (kind.to_owned(), address.to_owned())),
            )
        });
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn what_is_not_offered_is_not_understood() {
    let none = Extensions {
        size: false,
        eight_bit_mime: false,
        smtputf8: false,
        dsn: false,
        ..Extensions::ALL
    };
    for line in [
        "MAIL FROM:<> SIZE=1",
        "MAIL FROM:<> BODY=7BIT",
        "MAIL FROM:<> SMTPUTF8",
        "MAIL FROM:<> RET=FULL",
        "MAIL FROM:<> ENVID=x",
        "RCPT TO:<a@example.org> NOTIFY=NEVER",
        "RCPT TO:<a@example.org> ORCPT=rfc822;a@example.org",
    ] {
        let error = Command::parse(line.as_bytes(), &none).unwrap_err();
        assert_eq!(error.reply().code, 555, "{line}");
    }
    let error = Command::parse("RCPT TO:<\u{e9}@example.org>".as_bytes(), &none).unwrap_err();
    assert_eq!(error, CommandError::EightBit);
}

#[test]
fn what_no_mail_client_says_is_foreign() {
    for (line, foreign) in [
        ("GET / HTTP/1.1", true),
        ("POST /mail HTTP/1.0", true),
        ("connect 192.0.2.1:25 HTTP/1.1", true),
        ("Subject: cheap watches", true),
        ("X-Mailer: y", true),
        ("From:", true),
        ("MAIL FROM:<>", false),
        ("GETAWAY", false),
        (": x", false),
        ("1a: x", false),
        ("noop: ", true),
    ] {
        let parsed = parse(line.as_bytes());
        let found = matches!(parsed, Err(CommandError::Foreign));
        assert_eq!(found, foreign, "{line}: {parsed:?}");
    }
}
