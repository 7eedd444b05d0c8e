//! One transaction, answered in every way.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_command_at_a_time() {
    checks(&[
        (PLAIN, "C: MAIL\nS: 550 5.7.1 x\nC: QUIT\nS: 221 x", "550 550"),
        (PLAIN, "C: MAIL\nS: 421 x\nX", "Mail: 421 x"),
        (PLAIN, "C: MAIL\nX", "Mail: connection closed"),
        (PLAIN, "C: MAIL\nZ", "Mail: no answer in time"),
        (PLAIN, "C: MAIL\nS: 354 x\nX", "Mail: not an SMTP reply: Mail answered 354 x"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 550 x\nC: RCPT\nS: 450 y\nC: QUIT\nS: 221 x", "550 450"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 421 x\nX", "Rcpt: 421 x"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nX", "Rcpt: connection closed"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 450 x\nC: DATA\nS: 554 x\nC: QUIT\nS: 221 x", "554 450"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 450 x\nC: DATA\nS: 250 x\nX", "Data: not an SMTP reply: DATA answered 250 x"),
        (PLAIN, "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 450 x\nC: DATA\nZ", "Data: no answer in time"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn data_in_a_group() {
    let data = format!("{PIPELINING}{ENVELOPE}C: DATA\n");
    checks(&[
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nS: 250 x\nC: QUIT\nS: 221 x", "250 250"),
        (&data, "S: 250 x\nS: 550 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nS: 451 x\nC: QUIT\nS: 221 x", "550 451"),
        // Nobody was accepted, and yet the server wants a message: it gets a lone dot.
        (&data, "S: 250 x\nS: 550 x\nS: 450 x\nS: 354 x\nM: .\\r\\n\nS: 554 x\nC: QUIT\nS: 221 x", "550 450"),
        (&data, "S: 250 x\nS: 550 x\nS: 450 x\nS: 354 x\nM: .\\r\\n\nZ", "550 450"),
        (&data, "S: 250 x\nS: 550 x\nS: 450 x\nS: 554 x\nC: QUIT\nS: 221 x", "550 450"),
        (&data, "S: 450 x\nS: 503 x\nS: 503 x\nS: 503 x\nC: QUIT\nS: 221 x", "450 450"),
        (&data, "S: 450 x\nX", "450 450"),
        (&data, "S: 250 x\nS: 550 x\nS: 550 x\nX", "550 550"),
        (&data, "S: 250 x\nS: 550 x\nX", "Rcpt: connection closed"),
        (&data, "S: 250 x\nS: 250 x\nS: 421 x\nX", "Rcpt: 421 x"),
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 421 x\nX", "Data: 421 x"),
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nX", "End: connection closed"),
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nZ", "End: no answer in time"),
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nS: 421 x\nX", "421 421"),
        (&data, "S: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\nS: 354 x\nX", "End: not an SMTP reply: the message answered 354 x"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_small_chunk_travels_with_its_envelope() {
    let chunk = format!("{CHUNKING}{ENVELOPE}C: BDAT 3 LAST\nB: 3\n");
    checks(&[
        (
            &chunk,
            "S: 250 x\nS: 250 x\nS: 250 x\nS: 250 x\nC: QUIT\nS: 221 x",
            "250 250",
        ),
        (
            &chunk,
            "S: 250 x\nS: 550 x\nS: 250 x\nS: 250 x\nC: QUIT\nS: 221 x",
            "550 250",
        ),
        (
            &chunk,
            "S: 250 x\nS: 550 x\nS: 450 x\nS: 554 x\nC: QUIT\nS: 221 x",
            "550 450",
        ),
        (
            &chunk,
            "S: 550 x\nS: 503 x\nS: 503 x\nS: 503 x\nC: QUIT\nS: 221 x",
            "550 550",
        ),
        (&chunk, "S: 550 x\nX", "550 550"),
        (&chunk, "S: 250 x\nS: 550 x\nS: 550 x\nX", "550 550"),
        // Everything was sent: it may have been accepted though little of it was answered.
        (&chunk, "X", "End: connection closed"),
        (&chunk, "Z", "End: no answer in time"),
        (&chunk, "S: 250 x\nS: 250 x\nX", "End: connection closed"),
        (
            &chunk,
            "S: 250 x\nS: 250 x\nS: 250 x\nX",
            "End: connection closed",
        ),
        // In these it was not: the server gave up before.
        (&chunk, "S: 421 x\nX", "Mail: 421 x"),
        (&chunk, "S: 250 x\nS: 421 x\nX", "Rcpt: 421 x"),
        (
            &chunk,
            "S: 250 x\nS: 250 x\nS: 250 x\nS: 421 x\nX",
            "421 421",
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn large_messages() {
    let message =
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(4096);
    let bytes = message.len();
    let chunk = format!("{CHUNKING}{ENVELOPE}S: 250 x\nS: 550 x\nS: 250 x\nC: BDAT {bytes} LAST\n");
    let data = format!("{PIPELINING}{ENVELOPE}C: DATA\nS: 250 x\nS: 550 x\nS: 250 x\nS: 354 x\n");
    for (script, expected) in [
        (
            format!("{chunk}B: {bytes}\nS: 250 x\nC: QUIT\nS: 221 x"),
            "550 250",
        ),
        (format!("{chunk}B: 1000\nX"), "Data: broken pipe"),
        (format!("{chunk}B: 1000\nS: 421 x\nX"), "Data: 421 x"),
        (format!("{chunk}B: 1000\nS: 552 x\nX"), "550 552"),
        (format!("{chunk}B: 1000\nZ"), "Data: no answer in time"),
        (format!("{chunk}B: {bytes}\nX"), "End: connection closed"),
        (
            format!("{data}B: {bytes}\nM: .\\r\\n\nS: 250 x\nC: QUIT\nS: 221 x"),
            "550 250",
        ),
        (format!("{data}B: 1000\nX"), "Data: broken pipe"),
        (format!("{data}B: 1000\nS: 552 x\nX"), "550 552"),
        // Said too early, but it is the reply.
        (
            format!("{data}S: 552 x\nB: {bytes}\nM: .\\r\\n\nC: QUIT\nS: 221 x"),
            "550 552",
        ),
    ] {
        let mut case = case(&script);
        case.message = &message;
        check(case, expected).await;
    }
    let nobody = format!("{CHUNKING}{ENVELOPE}S: 250 x\nS: 550 x\nS: 450 x\nC: QUIT\nS: 221 x");
    let mut case = case(&nobody);
    case.message = &message;
    check(case, "550 450").await;
}

#[tokio::test(start_paused = true)]
async fn lmtp() {
    let hello = "S: 220 x LMTP\nC: LHLO client.example\nS: 250-x\nS: 250 PIPELINING\n";
    let chunking =
        "S: 220 x LMTP\nC: LHLO client.example\nS: 250-x\nS: 250-CHUNKING\nS: 250 PIPELINING\n";
    let data = format!(
        "{hello}{ENVELOPE}C: DATA\nS: 250 x\nS: 250 x\nS: 250 x\nS: 354 x\nM: x\\r\\n.\\r\\n\n"
    );
    let chunk = format!("{chunking}{ENVELOPE}C: BDAT 3 LAST\nB: 3\nS: 250 x\n");
    for (script, expected) in [
        (
            format!("{data}S: 250 x\nS: 452 x\nC: QUIT\nS: 221 x"),
            "250 452",
        ),
        (format!("{data}X"), "End: connection closed"),
        // What was said of the first recipient stands.
        (format!("{data}S: 250 x\nX"), "250 451"),
        (format!("{data}S: 250 x\nS: 421 x\nX"), "250 421"),
        (format!("{data}S: 421 x\nX"), "421 421"),
        (
            format!("{chunk}S: 250 x\nS: 250 x\nS: 250 x\nS: 550 x\nC: QUIT\nS: 221 x"),
            "250 550",
        ),
        (
            format!("{chunk}S: 550 x\nS: 250 x\nS: 250 x\nC: QUIT\nS: 221 x"),
            "550 250",
        ),
        (
            format!("{chunk}S: 550 x\nS: 550 x\nS: 503 x\nC: QUIT\nS: 221 x"),
            "550 550",
        ),
        (
            format!("{hello}{ENVELOPE}C: DATA\nS: 250 x\nS: 550 x\nS: 550 x\nS: 354 x\nM: .\\r\\n"),
            "550 550",
        ),
    ] {
        let mut case = case(&script);
        case.options.protocol = Protocol::Lmtp;
        check(case, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_go_where_they_are_offered() {
    let mut full = envelope("s@example.org", &["a@example.org", "b@example.org"]);
    full.parameters.body = Body::EightBitMime;
    full.parameters.smtputf8 = true;
    full.parameters.ret = Some(Ret::Headers);
    full.parameters.envid = Some("a+b c".into());
    full.recipients[0].parameters.notify = Some(Notify {
        success: true,
        failure: false,
        delay: true,
    });
    full.recipients[0].parameters.orcpt = Some(OriginalRecipient {
        kind: "rfc822".into(),
        address: "x=y@example.org".into(),
    });
    full.recipients[1].parameters.notify = Some(Notify {
        success: false,
        failure: false,
        delay: false,
    });
    full.recipients[1].parameters.orcpt = Some(OriginalRecipient {
        kind: "utf-8".into(),
        address: "é+@example.org".into(),
    });
    let end = "S: 250 x\nC: QUIT\nS: 221 x";
    let offered = format!(
        "S: 220 x\nC: EHLO\nS: 250-x\nS: 250-SIZE 1000\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-DSN\nS: 250 XFORWARD PORT NAME\n\
        C= XFORWARD PORT=1 NAME=[UNAVAILABLE]\nS: 250 x\n\
        C= MAIL FROM:<s@example.org> SIZE=3 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+20c\nS: 250 x\n\
        C= RCPT TO:<a@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy@example.org\nS: 250 x\n\
        C= RCPT TO:<b@example.org> NOTIFY=NEVER ORCPT=utf-8;\\x{{E9}}\\x{{2B}}@example.org\nS: 250 x\n\
        C: DATA\nS: 354 x\nM: x\\r\\n.\\r\\n\n{end}"
    );
    let plain = format!(
        "{PLAIN}C= MAIL FROM:<s@example.org>\nS: 250 x\nC= RCPT TO:<a@example.org>\nS: 250 x\nC= RCPT TO:<b@example.org>\nS: 250 x\n\
        C: DATA\nS: 354 x\nM: x\\r\\n.\\r\\n\n{end}"
    );
    for script in [offered, plain] {
        let mut case = case(&script);
        case.envelope = full.clone();
        check(case, "250 250").await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_smtputf8_fails_where_it_is_not_offered() {
    let eight_bit = "Subject: é\r\n\r\nx\r\n".as_bytes();
    let body = "Subject: e\r\n\r\né\r\n".as_bytes();
    let plain = format!(
        "{PLAIN}C: MAIL FROM:<s@example.org>\nS: 250 x\nC: RCPT TO:<b@example.org>\nS: 250 x\nC: DATA\nS: 354 x\nM: {}.\\r\\n\nS: 250 x\nC: QUIT\nS: 221 x",
        body.escape_ascii()
    );
    let nothing = format!("{PLAIN}C: QUIT\nS: 221 x");

    let mut one = case(&plain);
    one.envelope.recipients[0].address = Address::parse("é@example.org").unwrap();
    one.envelope.parameters.smtputf8 = true;
    one.message = body;
    check(one, "553 250").await;

    let mut header = case(&nothing);
    header.envelope.parameters.smtputf8 = true;
    header.message = eight_bit;
    check(header, "553 553").await;

    let mut sender = case(&nothing);
    sender.envelope.reverse_path = mail::ReversePath::parse("é@example.org").unwrap();
    check(sender, "553 553").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_server_takes_is_not_sent() {
    let hello = |size: &str| format!("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 SIZE{size}\n");
    let sent = "C: MAIL FROM:<s@example.org> SIZE=3\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 250 x\nC: DATA\nS: 354 x\n\
                M: x\\r\\n.\\r\\n\nS: 250 x\n";
    let quit = "C: QUIT\nS: 221 x";
    // 0 and nothing are no limit, nonsense is none either.
    for size in [" 3", " 0", "", " much", " 18446744073709551616"] {
        check(case(&format!("{}{sent}{quit}", hello(size))), "250 250").await;
    }
    check(case(&format!("{}{quit}", hello(" 2"))), "552 552").await;
}

#[tokio::test(start_paused = true)]
async fn each_reply_is_told_with_where_it_was_given() {
    use Phase::{Data, End, Helo, Mail, Rcpt};
    let table = [
        ("C: MAIL\nS: 451 x", [Mail, Mail]),
        (
            "C: MAIL\nS: 250 x\nC: RCPT\nS: 550 x\nC: RCPT\nS: 450 x",
            [Rcpt, Rcpt],
        ),
        (
            "C: MAIL\nS: 250 x\nC: RCPT\nS: 550 x\nC: RCPT\nS: 250 x\nC: DATA\nS: 451 x",
            [Rcpt, Data],
        ),
        (
            "C: MAIL\nS: 250 x\nC: RCPT\nS: 250 x\nC: RCPT\nS: 250 x\nC: DATA\nS: 354 x\nM: x\\r\\n.\\r\\n\nS: 550 x",
            [End, End],
        ),
    ];
    for (script, expected) in table {
        let told = phases(&case(&format!("{PLAIN}{script}\nC: QUIT\nS: 221 x"))).await;
        assert_eq!(told, expected, "{script}");
    }
    let mut unsent = case("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 SIZE 2\nC: QUIT\nS: 221 x");
    unsent.envelope.parameters.smtputf8 = true;
    assert_eq!(phases(&unsent).await, [Helo, Helo]);
}

async fn phases(case: &Case<'_>) -> Vec<Phase> {
    let (stream, theirs) = duplex(16 * 1024);
    let playing = tokio::spawn(server(theirs, case.script.to_owned(), usize::MAX));
    let mut connection = Connection::open(stream, &case.options).await.unwrap();
    let message = [Bytes::copy_from_slice(case.message)];
    let answers = connection.send(&case.envelope, &message).await.unwrap();
    connection.quit().await;
    playing.await.unwrap();
    answers.iter().map(|answer| answer.phase).collect()
}

#[tokio::test(start_paused = true)]
async fn many_recipients_do_not_meet_a_server_that_only_writes() {
    // 16 KiB each way: the server answers while it reads, the client must read while it writes.
    let recipients: Vec<String> = (0..2000).map(|n| format!("{n:0>60}@example.org")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let rcpt = format!("C: RCPT\nS: 250 {}\n", "x".repeat(400)).repeat(2000);
    let script = format!(
        "{CHUNKING}C: MAIL\nS: 250 x\n{rcpt}C: BDAT 3 LAST\nB: 3\nS: 250 x\nC: QUIT\nS: 221 x"
    );
    let mut case = case(&script);
    case.envelope = envelope("", &recipients);
    let told = outcome(&case, usize::MAX).await;
    assert!(
        told == "250 ".repeat(2000).trim_end(),
        "{}",
        &told[..told.len().min(100)]
    );
}
