//! What a table says of which evidence, in which order, and which lines are none.

use super::*;

const NOW: &str = "2026-11-25T00:00:00Z";

fn evidence(helo: &str, from: &str, to: &str) -> Evidence {
    let mut evidence = Evidence::new("192.0.2.1".parse().unwrap());
    evidence.greeted(helo, false);
    evidence.sender(&ReversePath::parse(from).unwrap());
    evidence.recipient(to, Timestamp::parse_rfc3339(NOW).unwrap());
    evidence
}

fn read(about: Subject, lines: &str) -> Table {
    Table::read("t", about, Action::Enforce, lines).unwrap()
}

/// The word of what it says.
fn word_of(says: Says) -> String {
    match says {
        Says::Nothing => "nothing".into(),
        Says::Needs(question) => format!("needs {}", question.label()),
        Says::Permits(_) => "permit".into(),
        Says::Refuses(_) => "reject".into(),
        Says::Holds(_) => "hold".into(),
    }
}

fn check(about: Subject, lines: &str, evidence: &Evidence, expected: &str) {
    let said = word_of(read(about, lines).says(evidence));
    assert_eq!(said, expected, "{about:?} {lines:?} {evidence:?}");
}

#[test]
fn the_first_line_that_has_a_sender_decides() {
    let lines = "Joe@One.example permit\n@one.example reject you send bulk\n.one.example hold # subdomains\n\
                 bulk@ reject\n<> dunno\n@two.example reject until=2026-11-01T00:00:00Z\n@two.example hold\n";
    for (from, expected) in [
        ("joe@one.example", "permit"),
        ("JOE@ONE.example", "permit"),
        ("ann@one.example", "reject"),
        ("ann@a.b.one.example", "hold"),
        ("ann@anotherone.example", "nothing"),
        ("bulk@three.example", "reject"),
        // The earlier line, although the later one says more.
        ("bulk@one.example", "reject"),
        ("", "nothing"),
        ("ann@two.example", "hold"),
    ] {
        check(
            Subject::Sender,
            lines,
            &evidence("h.example", from, "x@y.example"),
            expected,
        );
    }
    let said = read(Subject::Sender, lines).says(&evidence("h", "ann@one.example", "x@y.example"));
    assert_eq!(
        said,
        Says::Refuses("ann@one.example (t: you send bulk)".into())
    );
    let null = evidence("h.example", "", "x@y.example");
    check(Subject::Sender, "<> hold", &null, "hold");
    let domain_first = "@one.example reject\njoe@one.example permit";
    let joe = evidence("h.example", "joe@one.example", "x@y.example");
    check(Subject::Sender, domain_first, &joe, "reject");
}

#[test]
fn names_and_recipients_have_tables_too() {
    let known = evidence("Mail.One.example", "ann@a.example", "Dev@lists.example");
    check(Subject::Helo, "mail.one.example reject", &known, "reject");
    check(Subject::Helo, ".one.example hold", &known, "hold");
    check(Subject::Helo, "one.example hold", &known, "nothing");
    check(Subject::Recipient, "dev@lists.example hold", &known, "hold");
    check(
        Subject::Recipient,
        "@lists.example reject",
        &known,
        "reject",
    );
    let literal = evidence("[192.0.2.1]", "", "x@y.example");
    check(Subject::Helo, ".example reject", &literal, "nothing");
}

#[test]
fn a_name_that_is_not_confirmed_permits_nobody() {
    let mut known = evidence("h.example", "", "x@y.example");
    let table = "mail.one.example permit\n.pool.example reject";
    check(Subject::ClientName, table, &known, "needs client_name");
    for (name, expected) in [
        (ClientName::Confirmed("mail.one.example".into()), "permit"),
        (
            ClientName::Unconfirmed("mail.one.example".into()),
            "nothing",
        ),
        (ClientName::Unconfirmed("1.pool.example".into()), "reject"),
        (ClientName::Missing, "nothing"),
    ] {
        known.client_name = Asked::Known(name);
        check(Subject::ClientName, table, &known, expected);
    }
}

#[test]
fn hosts_are_asked_for_once_and_silence_says_nothing() {
    let subject = Subject::SenderMx;
    let lines = "192.0.2.7 permit\n192.0.2.0/24 reject\n2001:db8::/32 hold";
    let mut known = evidence("h.example", "ann@one.example", "x@y.example");
    check(subject, lines, &known, "needs sender_mx");
    check(
        subject,
        lines,
        &evidence("h.example", "", "x@y.example"),
        "nothing",
    );
    for (addresses, expected) in [
        (&["203.0.113.1", "192.0.2.9"][..], "reject"),
        // The earlier line of the two.
        (&["192.0.2.9", "192.0.2.7"], "permit"),
        (&["2001:db8::1"], "hold"),
        (&[], "nothing"),
    ] {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        known
            .hosts
            .insert(subject, Asked::Known(addresses.collect()));
        check(subject, lines, &known, expected);
    }
    known.hosts.insert(subject, Asked::Silent);
    check(subject, lines, &known, "nothing");
    // Another sender has other hosts.
    known.sender(&ReversePath::parse("bob@two.example").unwrap());
    check(subject, lines, &known, "needs sender_mx");
}

#[test]
fn a_bad_line_is_named() {
    for (about, lines, said) in [
        (
            Subject::Sender,
            "@one.example reject\nno-at reject",
            "line 2",
        ),
        (Subject::Sender, "@one.example drop", "\"drop\""),
        (Subject::Sender, "@one.example", "none of permit"),
        (Subject::Sender, "@ reject", "\"@\""),
        (Subject::Recipient, "<> reject", "none of an address"),
        (Subject::Helo, "a..b reject", "a..b"),
        (Subject::HeloA, "one.example reject", "neither an address"),
        (Subject::Helo, "a.example reject until=soon", "\"soon\""),
    ] {
        let error = Table::read("t", about, Action::Enforce, lines).unwrap_err();
        assert!(error.contains(said), "{lines:?}: {error}");
    }
    let gone = TableFile {
        name: "t".into(),
        about: Subject::Helo,
        file: "/nonexistent/table".into(),
        action: Action::Enforce,
    };
    let error = Tables::load(&[gone]).unwrap_err();
    assert!(error.contains("/nonexistent/table"), "{error}");
}
