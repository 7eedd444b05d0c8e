//! Greetings, TLS, deadlines, and one connection for several transactions.

use super::*;

#[tokio::test(start_paused = true)]
async fn greetings() {
    checks(&[
        ("X", "", "Greeting: connection closed"),
        ("Z", "", "Greeting: no answer in time"),
        ("S> 220-x\nZ", "", "Greeting: no answer in time"),
        ("S: 554 5.7.1 no\nX", "", "Greeting: 554 5.7.1 no"),
        ("S: 421 busy\nX", "", "Greeting: 421 busy"),
        ("S: 250 x\nX", "", "Greeting: 250 x"),
        (
            "S: SSH-2.0-x\nX",
            "",
            "Greeting: not an SMTP reply: \"SSH-2.0-x\"",
        ),
        (
            "S: 220-x\nS: 221 x\nX",
            "",
            "Greeting: not an SMTP reply: a reply that begins with 220 and goes on with 221",
        ),
        ("S: 220 x\nC: EHLO\nX", "", "Helo: connection closed"),
        ("S: 220 x\nC: EHLO\nZ", "", "Helo: no answer in time"),
        ("S: 220 x\nC: EHLO\nS: 421 x\nX", "", "Helo: 421 x"),
        ("S: 220 x\nC: EHLO\nS: 451 x\nX", "", "Helo: 451 x"),
        (
            "S: 220 x\nC: EHLO\nS: 502 x\nC: HELO\nS: 554 y\nX",
            "",
            "Helo: 554 y",
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn helo_is_said_to_who_does_not_know_ehlo() {
    let script = r"
        S: 220 x
        C: EHLO
        S: 500 x
        C= HELO client.example
        S: 250 x
        C= MAIL FROM:<s@example.org>
        S: 250 x
        C= RCPT TO:<a@example.org>
        S: 250 x
        C= RCPT TO:<b@example.org>
        S: 251 x
        C= DATA
        S: 354 x
        M: x\r\n.\r\n
        S: 250 x
        C= QUIT
        S: 221 x";
    check(case(script), "250 250").await;
    let mut lmtp = case("S: 220 x\nC: LHLO\nS: 500 x\nX");
    lmtp.options.protocol = Protocol::Lmtp;
    check(lmtp, "Helo: 500 x").await;
}

#[tokio::test(start_paused = true)]
async fn tls_is_required_or_not() {
    let (_, client) = certificate();
    let name = || "mx.example".try_into().unwrap();
    for (script, required, opportunistic) in [
        (format!("{PLAIN}C: MAIL\nS: 550 x\nC: QUIT\nS: 221 x"), None, Some("550 550")),
        (format!("{PLAIN}X"), Some("Helo: STARTTLS is not offered"), None),
        ("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 x\nX".to_owned(), Some("Helo: STARTTLS is not offered"), None),
        ("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 x\nC: MAIL\nS: 550 x\nC: QUIT\nS: 221 x".to_owned(), None, Some("550 550")),
        ("S: 220 x\nC: EHLO\nS: 500 x\nX".to_owned(), Some("Helo: 500 x"), None),
    ] {
        if let Some(expected) = required {
            let mut case = case(&script);
            case.options.tls = TlsPolicy::Required(client.clone(), name());
            check(case, expected).await;
        }
        if let Some(expected) = opportunistic {
            let mut case = case(&script);
            case.options.tls = TlsPolicy::Opportunistic(client.clone(), name());
            check(case, expected).await;
        }
    }
    // What came in the clear behind the reply to STARTTLS is not taken for what TLS brought.
    let injected = r"
        S: 220 x
        C: EHLO
        S: 250-x
        S: 250 STARTTLS
        C: STARTTLS
        S> 220 x\r\n250 injected\r\n
        Z";
    let mut case = case(injected);
    case.options.tls = TlsPolicy::Required(client, name());
    let told = outcome(&case, usize::MAX).await;
    assert_eq!(
        told,
        "Helo: not an SMTP reply: replies behind that to STARTTLS"
    );
}

#[tokio::test(start_paused = true)]
async fn each_phase_has_its_deadline() {
    let data = format!("{PLAIN}C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 250 x\nC: DATA\n");
    for (script, seconds) in [
        ("Z".to_owned(), 1),
        ("S: 220 x\nZ".to_owned(), 2),
        (format!("{PLAIN}Z"), 3),
        (format!("{PLAIN}C: MAIL\nS: 250 x\nZ"), 4),
        (format!("{data}Z"), 5),
        (format!("{data}S: 354 x\nZ"), 7),
    ] {
        let s = Duration::from_secs;
        let mut case = case(&script);
        case.options.timeouts = Timeouts {
            connect: s(9),
            greeting: s(1),
            helo: s(2),
            mail: s(3),
            rcpt: s(4),
            data_start: s(5),
            data_block: s(6),
            data_end: s(7),
            rest: s(8),
        };
        let began = Instant::now();
        let told = outcome(&case, usize::MAX).await;
        assert!(told.ends_with("no answer in time"), "{told}");
        assert_eq!(began.elapsed().as_secs(), seconds, "{script}");
    }
}

/// Two transactions on one connection.
async fn twice(script: &str) -> (Result<Vec<u16>, String>, Result<Vec<u16>, String>) {
    let (stream, theirs) = duplex(16 * 1024);
    let playing = tokio::spawn(server(theirs, script.to_owned(), usize::MAX));
    let mut connection = Connection::open(stream, &options(Protocol::Smtp))
        .await
        .unwrap();
    let mut told = Vec::new();
    for _ in 0..2 {
        let envelope = envelope("s@example.org", &["a@example.org"]);
        let sent = connection
            .send(&envelope, &[Bytes::from_static(b"x\r\n")])
            .await;
        told.push(match sent {
            Ok(replies) => Ok(replies.iter().map(|answer| answer.reply.code).collect()),
            Err(trouble) => Err(trouble.to_string()),
        });
        // Lets the script come to its next line: to what it says unasked, or to its end.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    connection.quit().await;
    playing.await.unwrap();
    let second = told.pop().unwrap();
    (told.pop().unwrap(), second)
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again() {
    let one = "C: MAIL\nC: RCPT\nC: BDAT 3 LAST\nB: 3\n";
    let taken = format!("{one}S: 250 x\nS: 250 x\nS: 250 x\n");
    let quit = "C: QUIT\nS: 221 x";
    assert_eq!(
        twice(&format!("{CHUNKING}{taken}{taken}{quit}")).await,
        (Ok(vec![250]), Ok(vec![250]))
    );
    // A transaction that did not come to its end is reset, in the flight of the next.
    let nobody = format!("{one}S: 250 x\nS: 550 x\nS: 503 x\nC: RSET\n");
    let reset = format!("{CHUNKING}{nobody}{one}S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\n{quit}");
    assert_eq!(twice(&reset).await, (Ok(vec![550]), Ok(vec![250])));
    let refused = format!("{one}S: 550 x\nS: 503 x\nS: 503 x\n");
    assert_eq!(
        twice(&format!("{CHUNKING}{refused}{taken}{quit}")).await,
        (Ok(vec![550]), Ok(vec![250]))
    );
    // A server that closes between two transactions has accepted nothing of the second.
    let closed = (Ok(vec![250]), Err("Mail: connection closed".to_owned()));
    let script = format!("{CHUNKING}{taken}X");
    assert_eq!(twice(&script).await, closed);
    let idle = (Ok(vec![250]), Err("Mail: 421 idle".to_owned()));
    assert_eq!(
        twice(&format!("{CHUNKING}{taken}S: 421 idle\nX")).await,
        idle
    );
    let unasked = Err("Mail: not an SMTP reply: a reply to nothing: 250 x".to_owned());
    assert_eq!(
        twice(&format!("{CHUNKING}{taken}S: 250 x\nX")).await,
        (Ok(vec![250]), unasked)
    );
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_was_dropped_half_way_is_not_continued() {
    let (stream, theirs) = duplex(16 * 1024);
    let playing = tokio::spawn(server(theirs, format!("{PLAIN}C: MAIL\nZ"), usize::MAX));
    let mut connection = Connection::open(stream, &options(Protocol::Smtp))
        .await
        .unwrap();
    let envelope = envelope("s@example.org", &["a@example.org"]);
    let message = [Bytes::from_static(b"x\r\n")];
    let patience = Duration::from_secs(1);
    assert!(
        timeout(patience, connection.send(&envelope, &message))
            .await
            .is_err()
    );
    let trouble = connection.send(&envelope, &message).await.unwrap_err();
    assert_eq!(trouble.to_string(), "Mail: connection closed");
    playing.abort();
}
