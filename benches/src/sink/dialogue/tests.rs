//! Dialogues, each played with what the client sends at once, and byte by byte. `C: ` a line of the client, `S: ` one of the sink,
//! `W: ` it waits, `T:` it starts TLS, `X:` it closes.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::sink::{Settings, Shared};

fn shared(change: impl FnOnce(&mut Settings)) -> Arc<Shared> {
    let mut settings = Settings::default();
    change(&mut settings);
    Arc::new(Shared::new(&settings, &settings.listen).unwrap())
}

fn rules(texts: &[&str]) -> Arc<Shared> {
    shared(|settings| settings.rules = texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// What the sink does, in lines.
fn play(dialogue: &mut Dialogue, mut input: &[u8], said: &mut Vec<String>) {
    loop {
        let mut out = Vec::new();
        let (taken, next) = dialogue.step(input, &mut out);
        input = &input[taken..];
        let out = String::from_utf8(out).unwrap();
        said.extend(
            out.split_terminator("\r\n")
                .map(|line| format!("S: {line}")),
        );
        match next {
            Next::Read => {
                assert!(input.is_empty(), "it takes all before it reads more");
                return;
            }
            Next::Wait(duration) => said.push(format!("W: {}", duration.as_millis())),
            Next::StartTls => {
                said.push("T:".to_owned());
                dialogue.secured();
            }
            Next::Close => {
                said.push("X:".to_owned());
                return;
            }
        }
    }
}

fn check(shared: impl Fn() -> Arc<Shared>, script: &str) {
    let script: Vec<&str> = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let sent: String = script
        .iter()
        .filter_map(|line| line.strip_prefix("C:"))
        .map(str::trim_start)
        .map(|line| format!("{line}\r\n"))
        .collect();
    let expected: Vec<&str> = script
        .into_iter()
        .filter(|line| !line.starts_with("C:"))
        .collect();
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for piece in [sent.len(), 7, 1] {
        let mut dialogue = Dialogue::new(shared(), local);
        let mut said = Vec::new();
        play(&mut dialogue, b"", &mut said);
        for input in sent.as_bytes().chunks(piece) {
            if said.last().is_some_and(|last| last == "X:") {
                break;
            }
            play(&mut dialogue, input, &mut said);
        }
        assert_eq!(said, expected, "in pieces of {piece}");
    }
}

#[test]
fn mail_is_taken() {
    check(
        || shared(|_| {}),
        "S: 220 sink.invalid ESMTP
         C: EHLO me
         S: 250-sink.invalid
         S: 250-PIPELINING
         S: 250-SIZE 134217728
         S: 250-8BITMIME
         S: 250-SMTPUTF8
         S: 250-ENHANCEDSTATUSCODES
         S: 250-CHUNKING
         S: 250 DSN
         C: mail from: <a@b> SIZE=5
         S: 250 2.0.0 Ok
         C: RCPT TO:<c@d>
         S: 250 2.1.5 Ok
         C: DATA
         S: 354 End data with <CR><LF>.<CR><LF>
         C: Subject: x
         C:
         C: ..
         C: MAIL FROM:<x>
         C: .
         S: 250 2.0.0 Ok
         C: MAIL FROM:<>
         S: 250 2.0.0 Ok
         C: RCPT TO:<c@d>
         S: 250 2.1.5 Ok
         C: BDAT 6
         C: QUIT
         S: 250 2.0.0 Ok
         C: BDAT 0 LAST
         S: 250 2.0.0 Ok
         C: RSET
         S: 250 2.0.0 Ok
         C: NOOP
         S: 250 2.0.0 Ok
         C: QUIT
         S: 221 2.0.0 Bye
         X:",
    );
}

#[test]
fn what_is_out_of_order_is_refused() {
    check(
        || shared(|settings| settings.keywords_off = vec!["chunking".into()]),
        "S: 220 sink.invalid ESMTP
         C: RCPT TO:<c@d>
         S: 503 5.5.1 Bad sequence of commands
         C: DATA
         S: 554 5.5.1 No valid recipients
         C: MAIL FROM:a@b
         S: 501 5.5.4 Syntax
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: MAIL FROM:<a@b>
         S: 503 5.5.1 Bad sequence of commands
         C: RCPT TO:<>
         S: 501 5.5.4 Syntax
         C: BDAT 4 LAST
         S: 500 5.5.1 Command not known here
         C: STARTTLS
         S: 500 5.5.1 Command not known here
         C: LHLO me
         S: 500 5.5.1 Command not known here",
    );
}

#[test]
fn a_chunk_for_nobody_is_no_command() {
    check(
        || shared(|_| {}),
        "S: 220 sink.invalid ESMTP
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: BDAT 6 LAST
         C: QUIT
         S: 554 5.5.1 No valid recipients
         C: NOOP
         S: 250 2.0.0 Ok",
    );
}

#[test]
fn rules_refuse_wait_and_hang_up() {
    let texts = [
        "connect=wait 10ms",
        "mail:bad@*=550 5.7.1 no",
        "rcpt:slow@*=wait 20ms",
        "rcpt:no@*=450 4.2.0 later",
        "data:full@*=452 4.2.2 full",
        "data=wait 30ms",
        "data:gone@*=drop",
    ];
    check(
        || rules(&texts),
        "W: 10
         S: 220 sink.invalid ESMTP
         C: MAIL FROM:<bad@b>
         S: 550 5.7.1 no
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: RCPT TO:<no@d>
         S: 450 4.2.0 later
         C: RCPT TO:<slow@d>
         W: 20
         S: 250 2.1.5 Ok
         C: BDAT 6 LAST
         C: body
         W: 30
         S: 250 2.0.0 Ok
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: RCPT TO:<full@d>
         S: 250 2.1.5 Ok
         C: BDAT 6 LAST
         C: body
         S: 452 4.2.2 full
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: RCPT TO:<gone@d>
         S: 250 2.1.5 Ok
         C: BDAT 6 LAST
         C: body
         W: 30
         X:",
    );
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let make = || {
        shared(|settings| {
            settings.protocol = Protocol::Lmtp;
            settings.rules = vec!["data:full@*=452 4.2.2 full".parse().unwrap()];
        })
    };
    check(
        make,
        "S: 220 sink.invalid ESMTP
         C: EHLO me
         S: 500 5.5.1 Command not known here
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: DATA
         S: 503 5.5.1 No valid recipients
         C: RCPT TO:<c@d>
         S: 250 2.1.5 Ok
         C: RCPT TO:<full@d>
         S: 250 2.1.5 Ok
         C: BDAT 6 LAST
         C: body
         S: 250 2.0.0 Ok
         S: 452 4.2.2 full",
    );
}

#[test]
fn a_session_may_have_an_end() {
    let make = || {
        shared(|settings| {
            settings.session_messages_max = 1;
            settings.message_bytes_max = 5;
        })
    };
    check(
        make,
        "S: 220 sink.invalid ESMTP
         C: MAIL FROM:<a@b>
         S: 250 2.0.0 Ok
         C: RCPT TO:<c@d>
         S: 250 2.1.5 Ok
         C: BDAT 6 LAST
         C: body
         S: 552 5.3.4 Message is larger than SIZE allows
         C: MAIL FROM:<a@b>
         S: 421 4.7.0 Enough messages in this session
         X:",
    );
}

#[test]
fn tls_starts_once() {
    check(
        || shared(|settings| settings.tls = true),
        "S: 220 sink.invalid ESMTP
         C: STARTTLS
         S: 220 2.0.0 Ready
         T:
         C: STARTTLS
         S: 500 5.5.1 Command not known here",
    );
}

#[test]
fn what_was_refused_is_not_counted_as_taken() {
    let shared = rules(&["rcpt:no@*=550 5.1.1 no", "data:full@*=452 4.2.2 full"]);
    let mut dialogue = Dialogue::new(shared.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut said = Vec::new();
    let transaction = |recipients: &[&str]| {
        let recipients = recipients.iter().map(|to| format!("RCPT TO:<{to}@d>\r\n"));
        let recipients: String = recipients.collect();
        format!("MAIL FROM:<a@b>\r\n{recipients}BDAT 2 LAST\r\n\r\n")
    };
    for recipients in [&["a", "no", "b"][..], &["a", "full"], &["no"]] {
        play(&mut dialogue, transaction(recipients).as_bytes(), &mut said);
    }
    let told = shared.counts.json();
    assert_eq!(told["messages"], 1, "{said:#?}");
    assert_eq!(told["recipients"], 2);
    assert_eq!(told["refused"], 2);
    assert_eq!(told["deferred"], 1);
}
