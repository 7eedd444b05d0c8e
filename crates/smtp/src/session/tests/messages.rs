//! Messages by DATA and BDAT, and what each recipient is told.

use super::*;

#[test]
fn a_refused_message_is_read_to_its_end() {
    let mut settings = smtp();
    settings.message_bytes_max = 10;
    check(
        &settings,
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org> SIZE=11
        S: 552 5.3.4
        C: MAIL FROM:<a@example.org> SIZE=10
        S: 250
        C: RCPT TO:<b@example.org>
        S: 250
        C: DATA
        S: 354
        C: 123456789
        C: MAIL FROM:<smuggled@example.org>
        C: .
        S: 552 5.3.4
        R:
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<b@example.org>
        S: 250
        C: DATA
        S: 354
        C: 12345678
        C: .
        M: x <a@example.org> b@example.org 12345678\r\n
        S: 250
        R:
        ",
    );
}

#[test]
fn bare_newlines() {
    let dialogue = |reply: &str, newline_reply: &str| {
        format!(
            r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<b@example.org>
        S: 250
        C: DATA
        S: 354
        C: a\n.\nMAIL FROM:<smuggled@example.org>
        C> \n.\r\n
        C> \r.\r\r\n.\n
        C: .
        C> \r\n.\r\n
        {reply}
        R:
        C> NOOP\n
        {newline_reply}
        "
        )
    };
    let message = concat!(
        r"a\r\n.\r\nMAIL FROM:<smuggled@example.org>\r\n",
        r"\r\n.\r\n\r\n.\r\n\r\n\r\n.\r\n\r\n"
    );
    let taken = format!("M: x <a@example.org> b@example.org {message}\n        S: 250");
    check(&smtp(), &dialogue(&taken, "S: 250"));
    let mut refusing = smtp();
    refusing.bare_newline = BareNewline::Refuse;
    check(&refusing, &dialogue("S: 550 5.5.2", "S: 500 5.5.2"));
}

#[test]
fn chunks() {
    check(
        &smtp(),
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: BDAT 3
        C> a\r\n
        C: BDAT 4
        C> .\r\nb
        C: BDAT 0 LAST
        S: 250 2.1.0
        S: 250 2.1.5
        S: 250 2.0.0 Ok, go on
        S: 250 2.0.0 Ok, go on
        M: x <a@example.org> b@example.org a\r\n.\r\nb\r\n
        S: 250 2.0.0 taken
        R:
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: BDAT 6 LAST
        C: QUIT
        C: MAIL FROM:<>
        C: BDAT 0 LAST
        S: 250
        S: 250
        M: x <a@example.org> b@example.org QUIT\r\n
        S: 250
        R:
        S: 250
        S: 554 5.5.1
        ",
    );
}

#[test]
fn a_refused_chunk_is_consumed() {
    let mut settings = smtp();
    settings.message_bytes_max = 4;
    check(
        &settings,
        r"
        S: 220
        C: BDAT 6 LAST
        C: QUIT
        S: 503 5.5.1
        C: HELO x
        R:
        S: 250
        C: BDAT 6
        C: QUIT
        S: 503 5.5.1
        C: MAIL FROM:<a@example.org>
        C: BDAT 6
        C: QUIT
        S: 250
        S: 554 5.5.1
        C: RCPT TO:<b@example.org>
        C: BDAT 6
        C: QUIT
        S: 250
        S: 552 5.3.4
        C: RCPT TO:<c@example.org>
        S: 503 5.5.1 Bad sequence of commands: BDAT
        C: DATA
        S: 503 5.5.1
        C: MAIL FROM:<>
        S: 503 5.5.1
        C: NOOP
        S: 250
        C: BDAT 6
        C: QUIT
        S: 552
        C: BDAT 6 LAST
        C: QUIT
        S: 552
        R:
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<b@example.org>
        S: 250
        C: BDAT 2
        C> x\r
        S: 250
        C: RSET
        S: 250
        R:
        C: BDAT x
        S: 501 5.5.4
        X: Foreign
        ",
    );
}

#[test]
fn bare_newlines_in_chunks() {
    let mut settings = smtp();
    settings.bare_newline = BareNewline::Refuse;
    check(
        &settings,
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.org>
        S: 250
        S: 250
        C: BDAT 2
        C> a\r
        S: 250
        C: BDAT 2
        C> \nb
        S: 250
        C: BDAT 2 LAST
        C> \nc
        S: 550 5.5.2
        R:
        ",
    );
}

#[test]
fn lmtp_replies_for_each_recipient() {
    check(
        &lmtp(),
        r"
        S: 220 mx.example LMTP
        C: EHLO x
        S: 500 5.5.1 This is LMTP
        C: HELO x
        S: 500 5.5.1
        C: MAIL FROM:<>
        S: 503 5.5.1 Bad sequence of commands: LHLO first
        C: LHLO x
        R:
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250-SIZE
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-ENHANCEDSTATUSCODES
        S: 250-CHUNKING
        S: 250 DSN
        C: MAIL FROM:<>
        C: DATA
        S: 250
        S: 503 5.5.1 No valid
        C: RCPT TO:<a@example.org>
        C: RCPT TO:<550-b@example.org>
        C: RCPT TO:<data-452-c@example.org>
        C: DATA
        S: 250
        S: 550
        S: 250
        S: 354
        C: .
        M: x <> a@example.org,data-452-c@example.org
        S: 250 2.0.0
        S: 452 4.7.1
        R:
        C: MAIL FROM:<>
        C: RCPT TO:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: BDAT 1
        C> x
        C: BDAT 0 LAST
        S: 250
        S: 250
        S: 250
        S: 250 2.0.0 Ok, go on
        M: x <> a@example.org,b@example.org x\r\n
        S: 250
        S: 250
        R:
        ",
    );
    let mut small = lmtp();
    small.message_bytes_max = 1;
    check(
        &small,
        r"
        S: 220
        C: LHLO x
        R:
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250 DSN
        C: MAIL FROM:<>
        C: RCPT TO:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: DATA
        S: 250
        S: 250
        S: 250
        S: 354
        C: x
        C: .
        S: 552 5.3.4
        S: 552 5.3.4
        R:
        ",
    );
}

#[test]
fn xforward_is_about_one_message() {
    let mut settings = smtp();
    settings.xforward = true;
    check(
        &settings,
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: XFORWARD PORT=x
        S: 501 5.5.4
        C: XFORWARD NAME=client.example PORT=4711
        C: XFORWARD HELO=y
        C: MAIL FROM:<>
        C: XFORWARD NAME=z
        C: RCPT TO:<a@example.org>
        S: 250
        S: 250
        S: 250
        S: 503 5.5.1 Bad sequence of commands: XFORWARD
        S: 250
        C: DATA
        S: 354
        C: a
        C: .
        M: x <> a@example.org a\r\n 4711
        S: 250
        R:
        C: MAIL FROM:<>
        C: RCPT TO:<a@example.org>
        C: DATA
        S: 250
        S: 250
        S: 354
        C: b
        C: .
        M: x <> a@example.org b\r\n
        S: 250
        R:
        ",
    );
}
