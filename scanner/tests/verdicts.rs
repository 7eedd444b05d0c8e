//! Claims about what becomes of a message, with daemons that judge by plain words.

#![allow(clippy::unwrap_used)]

mod common;

use common::edge::{Attempt, codes, field, live, message, names};
use common::list_host::ListHost;
use common::stubs::{Stub, Stubbed as World};
use common::{Scanner, keys, soon, until};
use mail::Timestamp;
use mail::verdict::{Action, Class, Classes, Token, Verdict, digest};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

impl World {
    async fn start() -> Self {
        Self::with("").await
    }

    fn scans(&self) -> (usize, usize) {
        (self.spamd.scans(), self.clamd.scans())
    }

    /// What was offered is the sum of what became of it.
    async fn adds_up(&self) {
        let offered = self
            .scanner
            .metric("scanner_recipients_offered_total", &[])
            .await;
        let outcomes = self.scanner.metric("scanner_recipients_total", &[]).await;
        assert!(offered > 0.0);
        assert_eq!(offered, outcomes);
    }
}

#[tokio::test]
async fn ham_passes_with_its_own_fields_and_without_strangers() {
    let world = World::start().await;
    let text = String::from_utf8(message("ham", "Hello.").to_vec()).unwrap();
    let clean = text.clone();
    let forged = text.replacen(
        "From:",
        "X-Spam-Flag: NO\r\nX-Mailflow-Trace: forged\r\nx-virus-scanned: by me,\r\n really\r\nFrom:",
        1,
    );
    let attempt = live(forged.into_bytes().into());
    let (code, reply) = attempt.code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    let arrived = world.list_host.only();
    assert_eq!(arrived.envelope, attempt.envelope());
    let sent = attempt.trace.clone().unwrap();
    assert_eq!(arrived.xforward.ident, Some(sent.ident.clone()));
    assert_eq!(arrived.xforward.addr, Some(sent.client));
    assert_eq!(arrived.xforward.helo.as_deref(), Some("client.example"));
    let (mut trace, verdict, rest) = arrived.opened();
    trace.verdict = None;
    assert_eq!(trace, sent);
    assert_eq!(
        (verdict.class, verdict.score_hundredths),
        (Class::Clean, Some(-10))
    );
    assert_eq!(
        names(&rest)[..3],
        ["X-Spam-Status", "X-Virus-Scanned", "Received"]
    );
    assert_eq!(
        field(&rest, "X-Spam-Status"),
        "No, score=-0.1 required=6.3 tests=GOOD_RULE"
    );
    assert_eq!(
        field(&rest, "X-Virus-Scanned"),
        "ClamAV 1.4.6/1/stub at scan.example"
    );
    assert!(
        rest.ends_with(clean.as_bytes()),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    world.adds_up().await;
}

#[tokio::test]
async fn spam_below_kill_is_marked_and_passed() {
    let world = World::with("levels.kill = 10").await;
    let replies = live(message("SPAMMY", "Buy.")).send(&world.scanner).await;
    assert_eq!(codes(&replies), ["250 2.0.0"]);
    let (_, verdict, rest) = world.list_host.only().opened();
    assert_eq!(verdict.class, Class::Spammy);
    assert_eq!(field(&rest, "X-Spam-Flag"), "YES");
    assert_eq!(field(&rest, "X-Spam-Level"), "******");
    world.adds_up().await;
}

#[tokio::test]
async fn live_spam_is_refused_but_for_postmaster() {
    let world = World::start().await;
    let attempt = live(message("GTUBE", "Buy.")).to(&["dev", "Postmaster", "abuse", "ops"]);
    let replies = attempt.send(&world.scanner).await;
    assert_eq!(
        codes(&replies),
        ["550 5.7.1", "250 2.0.0", "250 2.0.0", "550 5.7.1"]
    );
    assert!(replies[0].text().contains("[mx1.5f.2a]"), "{}", replies[0]);
    let arrived = world.list_host.only();
    let to: Vec<&str> = arrived
        .envelope
        .recipients
        .iter()
        .map(|r| r.address.local())
        .collect();
    assert_eq!(to, ["Postmaster", "abuse"]);
    let (_, verdict, rest) = arrived.opened();
    assert_eq!(verdict.class, Class::Spammy, "marked, not quarantined");
    assert_eq!(field(&rest, "X-Spam-Flag"), "YES");
    world.adds_up().await;
}

#[tokio::test]
async fn spooled_spam_and_malware_are_quarantined() {
    let world = World::start().await;
    for (subject, class) in [("GTUBE", Class::Spam), ("EICAR", Class::Malware)] {
        let attempt = live(message(subject, "Bad.")).spooled();
        let replies = attempt.send(&world.scanner).await;
        assert_eq!(codes(&replies), ["250 2.0.0"]);
        let (_, verdict, _) = world.list_host.arrived().last().unwrap().opened();
        assert_eq!(verdict.class, class);
    }
    let mixed = live(message("GTUBE", "Bad."))
        .spooled()
        .to(&["dev", "postmaster"]);
    assert_eq!(
        codes(&mixed.send(&world.scanner).await),
        ["250 2.0.0", "250 2.0.0"]
    );
    let arrived = world.list_host.arrived();
    let classes: Vec<Class> = arrived[2..].iter().map(|a| a.opened().1.class).collect();
    assert_eq!(
        classes,
        [Class::Spam, Class::Spammy],
        "two transactions, two verdicts"
    );
    world.adds_up().await;
}

#[tokio::test]
async fn malware_is_refused_for_everybody() {
    let world = World::start().await;
    let attempt = live(message("EICAR", "Bad.")).to(&["dev", "postmaster"]);
    let replies = attempt.send(&world.scanner).await;
    assert_eq!(codes(&replies), ["550 5.7.1", "550 5.7.1"]);
    assert!(replies[0].text().contains("Eicar-Test"), "{}", replies[0]);
    assert!(world.list_host.arrived().is_empty());
    world.adds_up().await;
}

#[tokio::test]
async fn a_structure_that_cannot_be_trusted_reaches_no_daemon() {
    let world = World::start().await;
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(200);
    let text = String::from_utf8(message("deep", "").to_vec()).unwrap();
    let head = text.split_once("\r\n\r\n").unwrap().0;
    let deep = format!("{head}\r\n{nested}\r\n");
    let attempt = live(deep.into_bytes().into());
    assert_eq!(codes(&attempt.send(&world.scanner).await), ["550 5.6.0"]);
    assert!(world.list_host.arrived().is_empty());
    assert_eq!(
        codes(&attempt.spooled().send(&world.scanner).await),
        ["250 2.0.0"]
    );
    let (_, verdict, rest) = world.list_host.only().opened();
    assert_eq!(verdict.class, Class::Unscanned);
    assert_eq!(verdict.action, Action::Quarantine);
    assert!(field(&rest, "X-Virus-Scanned").starts_with("no, at scan.example: "));
    assert_eq!(world.scans(), (0, 0));
    world.adds_up().await;
}

#[tokio::test]
async fn exempt_mail_is_passed_unscanned() {
    let world = World::start().await;
    let attempt = live(message("GTUBE", "Our own.")).traced(|trace| trace.exempt = true);
    assert_eq!(codes(&attempt.send(&world.scanner).await), ["250 2.0.0"]);
    assert_eq!(world.scans(), (0, 0));
    let arrived = world.list_host.only();
    assert_eq!(
        names(&arrived.message)[..2],
        ["X-Mailflow-Trace", "Received"]
    );
    assert!(arrived.message.ends_with(&attempt.message));
    assert_eq!(
        world
            .scanner
            .metric("scanner_recipients_total", &["exempt"])
            .await,
        1.0
    );
    world.adds_up().await;
}

#[tokio::test]
async fn mail_without_a_trace_is_scanned_as_live() {
    let world = World::start().await;
    let untraced = |message| Attempt {
        trace: None,
        ..live(message)
    };
    let ham = untraced(message("ham", "Hello."));
    assert_eq!(codes(&ham.send(&world.scanner).await), ["250 2.0.0"]);
    assert_eq!(names(&world.list_host.only().message)[0], "X-Spam-Status");
    let spam = untraced(message("GTUBE", "Buy."));
    assert_eq!(codes(&spam.send(&world.scanner).await), ["550 5.7.1"]);
}

#[tokio::test]
async fn a_daemon_that_is_gone_defers() {
    let world = World::start().await;
    let address = world.spamd.address;
    world.spamd.stop().await;
    let ham = live(message("ham", "Hello."));
    let (code, reply) = ham.code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    assert_eq!(Token::from_lines(&reply.lines), None, "there is no verdict");
    world.scanner.becomes("down").await;
    assert_eq!(codes(&ham.send(&world.scanner).await), ["451 4.3.0"]);
    assert!(world.list_host.arrived().is_empty());
    // Malware needs no score.
    let malware = live(message("EICAR", "Bad."));
    assert_eq!(codes(&malware.send(&world.scanner).await), ["550 5.7.1"]);
    let spamd = Stub::spamd_again(address).await;
    world.scanner.becomes("ready").await;
    assert_eq!(codes(&ham.send(&world.scanner).await), ["250 2.0.0"]);
    assert_eq!(spamd.scans(), 1);
}

#[tokio::test]
async fn without_a_list_host_scanning_goes_on() {
    let world = World::start().await;
    let address = world.list_host.address.to_string();
    drop(world.list_host);
    until("the list host's port is closed", async || {
        TcpStream::connect(&address).await.err()
    })
    .await;
    let ham = live(message("ham", "Hello."));
    let (code, reply) = ham.code(&world.scanner).await;
    assert_eq!(code, "451 4.4.1", "{reply}");
    let last = reply.lines.last().unwrap();
    assert_eq!(last, "list host cannot be reached, scanned as clean");
    let (token, verdict) = ham.verdict(&reply);
    assert_eq!(verdict.class, Class::Clean);
    let spam = live(message("GTUBE", "Buy."));
    assert_eq!(codes(&spam.send(&world.scanner).await), ["550 5.7.1"]);
    let spooled = spam.spooled();
    let (code, reply) = spooled.code(&world.scanner).await;
    assert_eq!(code, "451 4.4.1");
    assert_eq!(spooled.verdict(&reply).1.class, Class::Spam);
    assert_eq!((world.spamd.scans(), world.clamd.scans()), (3, 3));

    let list_host = ListHost::at(&address, None).await;
    until("the list gate is open", async || {
        (world.scanner.metric("scanner_gate_open", &["list"]).await == 1.0).then_some(())
    })
    .await;
    let again = ham
        .spooled()
        .traced(|trace| trace.verdict = Some(token.into()));
    assert_eq!(codes(&again.send(&world.scanner).await), ["250 2.0.0"]);
    let scans = (world.spamd.scans(), world.clamd.scans());
    assert_eq!(scans, (3, 3), "a presented verdict is not made anew");
    let (_, passed, rest) = list_host.only().opened();
    assert_eq!(passed, verdict, "it does not get younger, either");
    assert!(field(&rest, "X-Spam-Status").starts_with("No, "));
}

/// A token about a message, changed in one respect; and how often the two daemons are asked all the same.
async fn presents(world: &World, change: impl FnOnce(&mut Verdict), asked: (usize, usize)) {
    let ham = live(message("ham", "Hello."));
    let mut verdict = Verdict {
        class: Class::Clean,
        found: Classes::default(),
        action: Action::Pass,
        score_hundredths: Some(-10),
        required_hundredths: 500,
        tests: vec!["GOOD_RULE".into()],
        reason: "".into(),
        rules: "1".into(),
        signatures: "ClamAV 1.4.6/1/stub".into(),
        time: Timestamp::now(),
    };
    change(&mut verdict);
    let token = Token::sign(&verdict, &digest(&ham.message), &keys());
    let before = world.scans();
    let attempt = ham.traced(|trace| trace.verdict = Some(token.into()));
    assert_eq!(codes(&attempt.send(&world.scanner).await), ["250 2.0.0"]);
    let after = world.scans();
    assert_eq!(
        (after.0 - before.0, after.1 - before.1),
        asked,
        "{verdict:?}"
    );
}

#[tokio::test]
async fn a_presented_verdict_holds_while_it_is_fresh() {
    let world = World::with("token.age_max = '1h'").await;
    presents(&world, |_| {}, (0, 0)).await;
    let hours = |hours: u64| Timestamp(Timestamp::now().0 - hours * 3_600_000);
    presents(&world, |verdict| verdict.time = hours(2), (1, 1)).await;
    presents(&world, |verdict| verdict.rules = "0".into(), (1, 0)).await;
    presents(
        &world,
        |verdict| verdict.signatures = "ClamAV 0".into(),
        (0, 1),
    )
    .await;
    presents(&world, |verdict| verdict.score_hundredths = None, (1, 0)).await;
    presents(&world, |verdict| verdict.found.add(Class::Malware), (0, 1)).await;
    presents(
        &world,
        |verdict| verdict.found.add(Class::Unscanned),
        (0, 1),
    )
    .await;

    let other = live(message("other", "Another message."));
    let stolen = live(message("ham", "Hello."));
    let token = {
        let verdict = world.list_host.arrived()[0].opened().1;
        Token::sign(&verdict, &digest(&stolen.message), &keys())
    };
    let before = world.scans().0;
    let forged = other.traced(|trace| trace.verdict = Some(token.into()));
    assert_eq!(codes(&forged.send(&world.scanner).await), ["250 2.0.0"]);
    assert_eq!(
        world.scans().0,
        before + 1,
        "a verdict speaks of one message alone"
    );
}

#[tokio::test]
async fn a_list_hosts_replies_are_passed_on() {
    let world = World::start().await;
    let attempt = live(message("ham", "Hello.")).to(&["dev", "closed", "full"]);
    let replies = attempt.send(&world.scanner).await;
    assert_eq!(codes(&replies), ["250 2.0.0", "550 5.7.2", "452 4.3.1"]);
    assert_eq!(replies[1].text(), "members only");
    assert_eq!(replies[2].lines.last().unwrap(), "spool is full");
    assert_eq!(attempt.verdict(&replies[2]).1.class, Class::Clean);
    assert_eq!(Token::from_lines(&replies[1].lines), None);
    world.adds_up().await;
}

/// Reads a reply to its last line.
async fn reply(stream: &mut BufReader<&mut TcpStream>) {
    let mut line = String::new();
    while !line.get(3..).is_some_and(|rest| rest.starts_with(' ')) {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0);
    }
}

/// Sends a message up to its end and returns without reading a reply.
async fn say(scanner: &Scanner, attempt: &Attempt) -> TcpStream {
    let mut stream = TcpStream::connect(scanner.lmtp).await.unwrap();
    let mut commands = vec![
        "LHLO mx1".to_owned(),
        "MAIL FROM:<ann@sender.example>".into(),
    ];
    let recipients = attempt.recipients.iter();
    commands.extend(recipients.map(|recipient| format!("RCPT TO:<{recipient}>")));
    commands.push("DATA".into());
    let dialogue = async {
        let mut stream = BufReader::new(&mut stream);
        reply(&mut stream).await;
        for command in commands {
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .await
                .unwrap();
            reply(&mut stream).await;
        }
        for part in attempt.parts() {
            stream.write_all(&part).await.unwrap();
        }
        stream.write_all(b".\r\n").await.unwrap();
    };
    soon("354", dialogue).await;
    stream
}

#[tokio::test]
async fn nothing_is_passed_on_for_a_client_that_has_gone() {
    let world = World::start().await;
    let stream = say(&world.scanner, &live(message("HOLD", "Wait."))).await;
    world.spamd.holds(1).await;
    drop(stream);
    let gone = async || {
        world
            .scanner
            .metric("scanner_relays_total", &["client_gone"])
            .await
    };
    until("the client is missed", async || {
        world.scanner.log().contains("client_gone").then_some(())
    })
    .await;
    world.spamd.let_go();
    world.clamd.let_go();
    until("the client is missed", async || {
        (gone().await == 1.0).then_some(())
    })
    .await;
    assert!(world.list_host.arrived().is_empty());
    world.adds_up().await;
}

#[tokio::test]
async fn spooled_mail_takes_half_of_the_slots() {
    let world = World::with("spamd.scans_max = 2").await;
    let held = live(message("HOLD-SPAMD-ONLY", "Wait.")).spooled();
    let _first = say(&world.scanner, &held).await;
    world.spamd.holds(1).await;
    // The second spooled one finds no slot, and does not wait for ever; live mail finds one.
    world.scanner.reload("scan.deadline = '300ms'").await;
    let spooled = live(message("spooled", "Hello.")).spooled();
    let (code, reply) = spooled.code(&world.scanner).await;
    assert_eq!(code, "451 4.3.2", "{reply}");
    assert_eq!(world.spamd.scans(), 1);
    let live = live(message("live", "Hello."));
    assert_eq!(codes(&live.send(&world.scanner).await), ["250 2.0.0"]);
    world.spamd.let_go();
    until("the slot is free again", async || {
        let (code, _) = spooled.code(&world.scanner).await;
        (code == "250 2.0.0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_mute_daemon_costs_no_more_than_the_deadline() {
    let world = World::with("scan.deadline = '300ms'").await;
    let held = live(message("HOLD-SPAMD-ONLY", "Wait."));
    let (code, reply) = held.code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    let trouble = world
        .scanner
        .metric("scanner_trouble_total", &["spamd", "timed_out"])
        .await;
    assert_eq!(trouble, 1.0);
    world.adds_up().await;
}
