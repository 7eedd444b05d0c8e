//! Tables for the structural pre-scan: what passes, what is objected to, and how fast bombs are refused.

use super::*;
use crate::mutation;

/// Scans a message of CRLF lines written with LF.
fn scan_text(text: &str) -> Result<Structure, Objection> {
    scan(text.replace('\n', "\r\n").as_bytes(), &Limits::default())
}

#[test]
fn counts() {
    /// `expected`: parts and depth.
    fn check(text: &str, expected: (usize, usize)) {
        let structure = scan_text(text).unwrap_or_else(|objection| panic!("{text}: {objection}"));
        assert_eq!((structure.parts, structure.depth), expected, "{text}");
    }
    check("", (1, 0));
    check("Subject: x\n\nbody\n", (1, 0));
    check("\nbody\n", (1, 0));
    check("no header at all\n", (1, 0));
    check(
        "From joe Fri Nov 20\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n--B--\n",
        (2, 1),
    );
    check(
        "Content-Type: text/plain; boundary=B\n\n--B\n\n--B--\n",
        (1, 0),
    );
    check("Content-Type: multipart/mixed\n\n--B\n\n--B--\n", (1, 0));
    check(
        "Content-Type: multipart/mixed; boundary=B\n\nno delimiter\n",
        (1, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\n\na\n--B\n\nb\n--B--\nend\n",
        (3, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B \t\n\na\n--B-- \n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\n\nno end\n",
        (2, 1),
    );
    check(
        "CONTENT-TYPE: MULTIPART/MIXED; BOUNDARY=B\n\n--B\n\na\n--B--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed;\n\tboundary=\n \"B\"\n\n--B\n\na\n--B--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=\"a b\"; x=y\n\n--a b\n\na\n--a b--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=\"--=_x\"\n\n----=_x\n\na\n----=_x--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=\"---\"\n\n-----\n\na\n-------\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed (all of it); boundary=B\n\n--B\n\n--B--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=\"Boundary_1\"\n\n--Boundary_1\n\n--Boundary_1--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\n\nboundary=C --C\n--B--\n",
        (2, 1),
    );
    check(
        "Content-Type: multipart/mixed; boundary=B\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n--B--\n",
        (2, 1),
    );
    // A delimiter may start like one of a multipart around it.
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: multipart/alternative; boundary=B1\n\n\
         --B1\n\na\n--B1--\n\n--B\n\nb\n--B--\n",
        (4, 2),
    );
    check("Content-Type: message/rfc822\n\nSubject: y\n\nz\n", (2, 1));
    check(
        "Content-Type: message/delivery-status\n\nContent-Type: message/rfc822\n\n",
        (1, 0),
    );
    check(
        "Content-Type: message/global-headers\n\nSubject: x\n",
        (1, 0),
    );
    check(
        "Content-Type: multipart/digest; boundary=B\n\n--B\n\nSubject: a\n\nb\n--B\nContent-Type: text/plain\n\n--B--\n",
        (4, 2),
    );
    // A bounce whose message was cut off.
    check(
        "Content-Type: multipart/report; boundary=B\n\n--B\nContent-Type: message/rfc822\n\n\
         Content-Type: multipart/mixed; boundary=C\n\n--C\n\ncut\n--B--\n",
        (4, 3),
    );
    // An attached message that is its header alone.
    check(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: message/rfc822\n\nSubject: x\n--B--\n",
        (4, 2),
    );
    // base64 and quoted-printable of a nested message.
    check(
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n\
         Q29udGVudC1UeXBlOiBtZXNzYWdlL3JmYzgyMg0KDQpTdWJqZWN0OiB6DQoNCg==\n",
        (4, 2),
    );
    check(
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n\
         Content-Type: message=2Frfc822=\n=0A=0ASubject: z\n",
        (4, 2),
    );
}

#[test]
fn header_counts() {
    let text = "Received: a\nReceived: b\n c\nSubject: x\n\nReceived: no\n";
    let structure = scan_text(text).unwrap();
    assert_eq!(
        structure,
        Structure {
            depth: 0,
            parts: 1,
            header_bytes: 42,
            header_fields: 3,
            received: 2,
            line_bytes: 12,
        }
    );
}

#[test]
fn a_boundary_is_as_long_as_somebody_makes_it() {
    let boundary = |bytes| {
        let b = "b".repeat(bytes);
        scan_text(&format!(
            "Content-Type: multipart/mixed; boundary={b}\n\n--{b}\n\n--{b}--\n"
        ))
    };
    assert!(boundary(200).is_ok());
    assert_eq!(boundary(201), Err(Objection::BoundaryTooLong(200)));
}

#[test]
fn ambiguous() {
    fn check(text: &str) {
        let seen = scan_text(text);
        assert!(
            matches!(seen, Err(Objection::Ambiguous(_))),
            "{text}: {seen:?}"
        );
    }
    const PARTS: &str = "\n--B\n\na\n--B--\n";
    let header = |header: &str| check(&format!("{header}\n{PARTS}"));
    header("Content-Type: multipart/mixed; boundary=A; boundary=B");
    header("Content-Type: multipart/mixed; boundary=A\nContent-Type: multipart/mixed; boundary=B");
    header("Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=B");
    header("Content-Type: text/plain\nContent-Type: text/html");
    header("Content-Type : multipart/mixed; boundary=B");
    header("Content-Type: multipart/mixed; boundary=(x)B");
    header("Content-Type: multipart/mixed; boundary=B(x)");
    header("Content-Type: multipart/mixed; (boundary=A) boundary=B");
    header("Content-Type: multipart/mixed; name=\"boundary=A\"; boundary=B");
    header("Content-Type: (x) multipart/mixed; boundary=B");
    header("Content-Type: \"multipart/mixed\"; boundary=B");
    header("Content-Type: multipart /mixed; boundary=B");
    header("Content-Type: multipart; boundary=B");
    header("Content-Type: text/plain multipart/mixed; boundary=B");
    header("Content-Type: multipart/mixed boundary=B");
    header("Content-Type: multipart/mixed; boundary=\"B");
    header("Content-Type: multipart/mixed; boundary=B\"");
    header("Content-Type: multipart/mixed; boundary=\"\\B\"");
    header("Content-Type: multipart/mixed; boundary=\"B\\\"C\"");
    header("Content-Type: multipart/mixed; boundary=boundary=B");
    header("Content-Type: multipart/mixed; boundary=\n boundary=B");
    header("Content-Type: multipart/mixed; boundary=B C");
    header("Content-Type: multipart/mixed; boundary=\"B \"");
    header("Content-Type: multipart/mixed; boundary=\"\"");
    header("Content-Type: multipart/mixed; boundary=Bé");
    header("Content-Type: multipart/mixed; boundary*=us-ascii''B");
    header("Content-Type: multipart/mixed; boundary*0=B");
    header("Content-Type: multipart/mixed; boundary*0*=B");
    header("Content-Type: multipart/mixed; boundary=A; boundary*0=B");
    header("Subject: x\nno field\nContent-Type: multipart/mixed; boundary=B");
    header("Subject: x\n \nContent-Type: multipart/mixed; boundary=B");
    header("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64 (x)");
    header("Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: 7bit");
    header("Content-Type: message/rfc822\nno field\n\nContent-Type: message/rfc822");
    let body = |body: &str| {
        check(&format!(
            "Content-Type: multipart/mixed; boundary=B\n\n{body}"
        ))
    };
    body("text --B\n");
    body("--B text\n");
    body("--B1\n");
    body("---B\n");
    body(" --B\n");
    body("--B\n\na\n--B--\n--B\n\nb\n--B--\n");
    body("--B--\n--B\n");
    body("--B--\nContent-Type: message/rfc822\n\n");
    body("--B\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\na\n--B--\n--B--\n");
    // The text of a part holds the delimiter of what is around it: over to most readers, not to all.
    body(
        "--B\nContent-Type: multipart/mixed; boundary=C\n\n--C\n\na\n--B\n\nb\n--C\n\nc\n--C--\n--B--\n",
    );
    // An outer delimiter that starts like an open inner one.
    check(
        "Content-Type: multipart/mixed; boundary=B1\n\n--B1\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n--B1--\n",
    );
}

#[test]
fn bounds() {
    fn check(message: &str, limits: Limits, expected: Result<(), Objection>) {
        let seen = scan(message.as_bytes(), &limits).map(drop);
        assert_eq!(seen, expected, "{:?}", &message[..message.len().min(80)]);
    }
    use Objection::*;
    let limits = Limits {
        depth: 3,
        parts: 4,
        header_bytes: 100,
        header_fields: 3,
        line_bytes: 80,
    };
    let nested = |levels| "Content-Type: message/rfc822\r\n\r\n".repeat(levels);
    check(&nested(3), limits, Ok(()));
    check(&nested(4), Limits { parts: 9, ..limits }, Err(TooDeep(3)));
    check(
        &nested(4),
        Limits { depth: 9, ..limits },
        Err(TooManyParts(4)),
    );
    let parts = |count| {
        format!(
            "Content-Type: multipart/mixed; boundary=B\r\n{}",
            "\r\n--B\r\n".repeat(count)
        )
    };
    check(&parts(3), limits, Ok(()));
    check(&parts(4), limits, Err(TooManyParts(4)));
    check(
        &format!("A: {}\r\nB: {}\r\n", "x".repeat(45), "x".repeat(45)),
        limits,
        Ok(()),
    );
    check(
        &format!("A: {}\r\nB: {}\r\n", "x".repeat(45), "x".repeat(46)),
        limits,
        Err(HeaderTooLong(100)),
    );
    check(
        &format!("A:\r\n{}", " x\r\n".repeat(25)),
        limits,
        Err(HeaderTooLong(100)),
    );
    check("A:\r\nB:\r\nC:\r\n\r\nD:\r\nE:\r\n", limits, Ok(()));
    check(
        "A:\r\nB:\r\nC:\r\nD:\r\n\r\n",
        limits,
        Err(TooManyFields(3)),
    );
    check(&format!("\r\n{}\r\n", "x".repeat(80)), limits, Ok(()));
    check(
        &format!("\r\n{}\r\n", "x".repeat(81)),
        limits,
        Err(LineTooLong(80)),
    );
    check(
        &format!("\r\n{}", "x".repeat(81)),
        limits,
        Err(LineTooLong(80)),
    );
    // A nested header counts as one of its own, and into the sum.
    check(
        &format!("{}A:\r\nB:\r\nC:\r\nD:\r\n", nested(1)),
        limits,
        Err(TooManyFields(3)),
    );
    let part = format!("\r\n--B\r\n{}", "A:\r\n".repeat(30));
    let many = format!(
        "Content-Type: multipart/mixed; boundary=B\r\n{}",
        part.repeat(80)
    );
    let wide = Limits {
        parts: 1000,
        header_bytes: 100_000,
        header_fields: 31,
        ..limits
    };
    check(&many, wide, Err(TooManyFields(31 * 64)));
    let wide = Limits {
        header_bytes: 121,
        header_fields: 1000,
        ..wide
    };
    check(&many, wide, Err(HeaderTooLong(121 * 16)));
}

/// Inputs that killed or filled parsers; each is refused after a short look, whatever its size.
#[test]
fn bombs() {
    fn check(message: &[u8], expected: fn(&Objection) -> bool) {
        let seen = scan(message, &Limits::default());
        let what = String::from_utf8_lossy(&message[..message.len().min(60)]);
        assert!(
            seen.as_ref().err().is_some_and(expected),
            "{what:?}: {seen:?}"
        );
    }
    let too_deep: fn(&Objection) -> bool = |o| matches!(o, Objection::TooDeep(50));
    let too_many: fn(&Objection) -> bool = |o| matches!(o, Objection::TooManyParts(1000));
    let ambiguous: fn(&Objection) -> bool = |o| matches!(o, Objection::Ambiguous(_));
    let nest = "Content-Type: message/rfc822\r\n\r\n".repeat(34_000);
    check(nest.as_bytes(), too_deep);
    let multipart: String = (0..40_000)
        .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}x\r\n\r\n--b{n}x\r\n"))
        .collect();
    check(multipart.as_bytes(), too_deep);
    let start = "Content-Type: multipart/mixed; boundary=B\r\n\r\n";
    check(
        format!("{start}{}", "--B\r\n\r\nx\r\n".repeat(3_000_000)).as_bytes(),
        too_many,
    );
    check(
        format!("{start}{}", "--B".repeat(20_000)).as_bytes(),
        ambiguous,
    );
    // The same nest, hidden in base64 and quoted-printable.
    use base64::Engine as _;
    let mime = base64::engine::general_purpose::STANDARD.encode(&nest);
    let lines: Vec<&str> = (0..mime.len())
        .step_by(76)
        .map(|at| &mime[at..mime.len().min(at + 76)])
        .collect();
    let head = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding:";
    check(
        format!("{head} base64\r\n\r\n{}", lines.join("\r\n")).as_bytes(),
        too_deep,
    );
    let quoted = nest.replace('/', "=2F");
    check(
        format!("{head} quoted-printable\r\n\r\n{quoted}").as_bytes(),
        too_deep,
    );
    let quoted = format!("{head} quoted-printable\r\n\r\n").repeat(40);
    check(quoted.as_bytes(), ambiguous);
    let missing: String = (0..500)
        .map(|n| format!("--B\r\nContent-Type: multipart/mixed; boundary=never{n}x\r\n\r\n"))
        .collect();
    check(format!("{start}{missing}").as_bytes(), ambiguous);
    check("a@b, ".repeat(400_000).as_bytes(), |o| {
        matches!(o, Objection::LineTooLong(_))
    });
    check(
        format!("To: {}", "a@b,\r\n ".repeat(400_000)).as_bytes(),
        |o| matches!(o, Objection::HeaderTooLong(_)),
    );
    check("A:\r\n".repeat(2_000_000).as_bytes(), |o| {
        matches!(o, Objection::TooManyFields(_))
    });
    // Long boundaries that are nearly found everywhere, fifty of them.
    let near: String = (0..45)
        .map(|n| {
            let boundary = format!("{}{n:02}", "-a".repeat(90));
            format!(
                "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
            )
        })
        .collect();
    check(
        format!(
            "{near}\r\n{}",
            format!("--{}\r\n", "-a".repeat(89)).repeat(100_000)
        )
        .as_bytes(),
        ambiguous,
    );
}

#[test]
fn deep_comments_are_linear() {
    let comments = format!(
        "Content-Type: {}{} text/plain\r\n\r\nx",
        "(".repeat(30_000),
        ")".repeat(30_000)
    );
    assert!(scan(comments.as_bytes(), &Limits::default()).is_ok());
    let words = format!(
        "Content-Type: multipart/mixed; {}\r\n\r\nx",
        "xboundary ".repeat(6000)
    );
    assert!(scan(words.as_bytes(), &Limits::default()).is_ok());
}

#[test]
fn total() {
    let seeds: [&[u8]; 3] = [
        b"From joe\r\nContent-Type: multipart/mixed; boundary=\"B\"\r\n\r\n--B\r\n\r\na\r\n--B--\r\n",
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nQ29udGVudC1UeXBlOg==\r\n",
        b"Content-Type: multipart/digest; boundary=B (x)\r\n\r\n--B\r\n\r\nSubject: \r\n y\r\n--B--\r\n",
    ];
    let spices: [&[u8]; 10] = [
        b"--B",
        b"\r\n",
        b"\r\n\r\n",
        b"(",
        b"\"",
        b"\\",
        b"=",
        b";",
        b"\r\n ",
        b"\xff",
    ];
    let mut passed = 0;
    mutation::each(&seeds, &spices, 4000, |message| {
        passed += usize::from(scan(message, &Limits::default()).is_ok());
    });
    assert!(passed > 1000, "{passed}");
}
