//! Claims about verdicts, with the real spamd and clamd.

#![allow(clippy::unwrap_used)]

mod common;

use common::daemons::Daemons;
use common::edge::{field, live, message};
use common::real::{World, attached, eicar, gtube, zip};
use mail::verdict::Class;

#[tokio::test]
async fn ham_passes_with_its_fields() {
    let world = World::start().await;
    let attempt = live(message(
        "Minutes",
        "Hello Bob,\r\n\r\nhere are the minutes of the meeting.",
    ));
    let (code, reply) = attempt.code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    let (_, verdict, rest) = world.list_host.only().opened();
    assert_eq!(verdict.class, Class::Clean);
    assert!(field(&rest, "X-Spam-Status").starts_with("No, score="));
    assert!(field(&rest, "X-Virus-Scanned").starts_with("ClamAV "));
    assert!(
        rest.ends_with(&attempt.message),
        "the message itself is untouched"
    );
}

#[tokio::test]
async fn spamd_sees_the_client_that_the_edge_saw() {
    let world = World::with("spamd.user = 'dev'\nspamd.compress = true").await;
    // As an edge writes it, for a client without a name.
    let received = format!(
        "Received: from client.example ([203.0.113.7])\r\n\tby mx1.example (Mailflow) with ESMTP id mx1.5f.2a\r\n\
         \tfor <dev@lists.example>;\r\n\t{}\r\n",
        mail::Timestamp::now().rfc5322()
    );
    let rest = message("Minutes", "Hello Bob, here are the minutes of the meeting.");
    let at = rest.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    let ham = live([received.as_bytes(), &rest[at..]].concat().into());
    let (code, reply) = ham.code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    let (_, _, rest) = world.list_host.only().opened();
    let status = field(&rest, "X-Spam-Status");
    let tests: Vec<&str> = status.split(['=', ',', ' ']).collect();
    assert!(tests.contains(&"CLIENT_SEEN"), "{status}");
    for missing in ["NO_RELAYS", "NO_RECEIVED", "UNPARSEABLE_RELAY"] {
        assert!(!tests.contains(&missing), "{status}");
    }
    let spam = live(message("spam", &gtube()));
    assert_eq!(spam.code(&world.scanner).await.0, "550 5.7.1");
}

#[tokio::test]
async fn spam_and_malware_are_refused() {
    let world = World::start().await;
    let table = [
        ("spam", message("spam", &gtube()), "GTUBE"),
        ("plain", message("plain", &eicar()), "Eicar"),
        ("base64", attached(eicar().as_bytes(), "a.com"), "Eicar"),
        ("zip", attached(&zip(eicar().as_bytes()), "a.zip"), "Eicar"),
    ];
    for (name, message, word) in table {
        let (code, reply) = live(message).code(&world.scanner).await;
        assert_eq!(code, "550 5.7.1", "{name}: {reply}");
        let log = world.scanner.log();
        assert!(
            reply.text().contains(word) || log.contains(word),
            "{name}: {reply}"
        );
    }
    assert!(world.list_host.arrived().is_empty());
}

#[tokio::test]
async fn what_clamd_passes_unseen_is_found_out() {
    let table = [
        ("StreamMaxLength 2M\n", 2 << 20),
        ("StreamMaxLength 25M\nMaxFileSize 2M\n", 2 << 20),
        ("StreamMaxLength 25M\nMaxScanSize 2M\n", 2 << 20),
        ("StreamMaxLength 25M\n", 8 << 20),
    ];
    for (limits, expected) in table {
        let daemons = Daemons::with_clamd(limits);
        let address = scanner::endpoint::Endpoint::Unix(daemons.clamd_address().into());
        let found = common::until("clamd answers", async || {
            scanner::size::measure(&address, 8 << 20).await.ok()
        });
        let found = found.await;
        // Ours is a whole mail, clamd counts a little otherwise.
        let wanted = expected - (128 << 10)..=expected;
        assert!(wanted.contains(&found), "{limits}: {found}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_gone_defers_until_it_is_back() {
    let mut world = World::start().await;
    let ham = || live(message("Minutes", "Hello Bob, here are the minutes."));
    world.daemons.stop_spamd().await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    assert!(reply.text().contains("spamd"), "{reply}");
    world.scanner.becomes("down").await;
    world.daemons.start_spamd();
    world.scanner.becomes("ready").await;
    world.daemons.stop_clamd().await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    assert!(reply.text().contains("clamd"), "{reply}");
    world.scanner.becomes("down").await;
    world.daemons.start_clamd();
    world.scanner.becomes("ready").await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    assert_eq!(world.list_host.arrived().len(), 1);
}

#[tokio::test]
async fn the_command_shows_a_files_verdict() {
    let world = World::start().await;
    let table = [
        ("ham", "Hello Bob, here are the minutes.", "clean"),
        ("spam", &gtube(), "spam"),
    ];
    for (name, body, class) in table {
        let file = world.scanner.dir().join(name);
        // As files on this host are: with lone line feeds.
        let text = String::from_utf8(message(name, body).to_vec()).unwrap();
        std::fs::write(&file, text.replace("\r\n", "\n")).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_scanner"))
            .arg("--config")
            .arg(world.scanner.config())
            .args(["verdict", &file.display().to_string()])
            .output()
            .await
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(shown.starts_with(class), "{shown}");
        assert!(shown.contains("signatures: ClamAV"), "{shown}");
    }
    assert!(world.list_host.arrived().is_empty());
}
