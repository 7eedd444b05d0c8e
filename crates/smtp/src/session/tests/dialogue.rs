//! Commands in and out of order.

use super::*;

#[test]
fn a_transaction() {
    check(
        &smtp(),
        r"
        S: 220 mx.example ESMTP
        C: EHLO client.example
        R:
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250-SIZE 1048576
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-ENHANCEDSTATUSCODES
        S: 250-CHUNKING
        S: 250 DSN
        C: MAIL FROM:<a@example.org> SIZE=20 BODY=8BITMIME
        S: 250 2.1.0
        C: RCPT TO:<b@example.org>
        S: 250 2.1.5
        C: RCPT TO:<postmaster>
        S: 250 2.1.5
        C: DATA
        S: 354 End
        C: Subject: x
        C:
        C: ..
        C: .
        M: client.example <a@example.org> b@example.org,postmaster@mx.example Subject: x\r\n\r\n.\r\n
        S: 250 2.0.0 taken
        R:
        C: NOOP
        S: 250 2.0.0
        C: QUIT
        S: 221 2.0.0
        X: Quit
        ",
    );
}

#[test]
fn commands_come_in_groups() {
    check(
        &smtp(),
        r"
        S: 220
        C: HELO client.example
        R:
        S: 250 mx.example
        C: MAIL FROM:<>
        C: RCPT TO:<550-a@example.org>
        C: RCPT TO:<b@example.org>
        C: NOOP
        C: DATA
        S: 250 2.1.0
        S: 550 5.7.1
        S: 250 2.1.5
        S: 250 2.0.0
        S: 354
        C: a
        C: .
        C: MAIL FROM:<a@example.org>
        C: RSET
        C: QUIT
        M: client.example <> b@example.org a\r\n
        S: 250 2.0.0 taken
        R:
        S: 250 2.1.0
        S: 250 2.0.0
        R:
        S: 221
        X: Quit
        ",
    );
}

#[test]
fn what_comes_out_of_order() {
    check(
        &smtp(),
        r"
        S: 220
        C: MAIL FROM:<a@example.org>
        S: 503 5.5.1 Bad sequence of commands: EHLO first
        C: RCPT TO:<a@example.org>
        S: 503 5.5.1
        C: DATA
        S: 503 5.5.1
        C: LHLO x
        S: 500 5.5.1 This is SMTP
        C: RSET
        S: 250 2.0.0
        C: NOOP
        S: 250 2.0.0
        C: HELO x
        R:
        S: 250 mx.example
        C: RCPT TO:<a@example.org>
        S: 503 5.5.1 Bad sequence of commands: MAIL first
        C: DATA
        S: 503 5.5.1
        C: MAIL FROM:<a@example.org>
        S: 250
        C: MAIL FROM:<b@example.org>
        S: 503 5.5.1 Bad sequence of commands: nested
        C: DATA
        S: 554 5.5.1 No valid
        C: RCPT TO:<b@example.org>
        S: 250
        C: EHLO y
        R:
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250 DSN
        C: DATA
        S: 503 5.5.1 Bad sequence of commands: MAIL first
        ",
    );
}

#[test]
fn the_other_commands() {
    check(
        &smtp(),
        r"
        S: 220
        C: EXPN x
        S: 502 5.5.1
        C: AUTH PLAIN x
        S: 502 5.5.1
        C: VRFY x
        S: 252
        C: HELP
        S: 214
        C: STARTTLS
        S: 502 5.5.1
        C: XFORWARD NAME=x
        S: 503 5.5.1
        C: GARBAGE
        S: 500 5.5.1
        C:
        S: 500 5.5.1
        C: NO\0OP
        S: 500 5.5.2
        C> NOOP\n
        S: 250
        C: HELO x
        R:
        S: 250
        C: XFORWARD NAME=x
        S: 550 5.7.0
        C: MAIL FROM:<a@example.org>
        S: 250
        C: AUTH PLAIN x
        S: 503 5.5.1
        C: QUIT
        S: 221
        X: Quit
        ",
    );
}

#[test]
fn another_protocol_ends_the_session() {
    check(
        &smtp(),
        r"
        S: 220
        C: GET / HTTP/1.1
        S: 554 5.5.1
        X: Foreign
        ",
    );
}

#[test]
fn a_refusal_leaves_the_transaction_as_it_was() {
    check(
        &smtp(),
        r"
        S: 220
        C: EHLO 550-x
        R:
        S: 550 5.7.1
        C: MAIL FROM:<a@example.org>
        S: 503 5.5.1 Bad sequence of commands: EHLO first
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<451-a@example.org>
        S: 451 4.7.1
        C: RCPT TO:<b@example.org>
        S: 503
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<550-b@example.org>
        S: 550
        C: RCPT TO:<b@example.org>
        S: 250
        C: RCPT TO:<nonsense>
        S: 501 5.1.3
        C: DATA
        S: 354
        C: .
        M: x <a@example.org> b@example.org
        S: 250
        R:
        ",
    );
}

#[test]
fn the_handler_may_hang_up() {
    check(
        &smtp(),
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<421-a@example.org>
        S: 421 4.7.1
        X: Refused
        ",
    );
    check(
        &smtp(),
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<data-421-b@example.org>
        C: DATA
        S: 250
        S: 250
        S: 354
        C: .
        M: x <a@example.org> data-421-b@example.org
        S: 421
        R:
        X: Refused
        ",
    );
}

#[test]
fn who_speaks_ahead_of_the_reply_to_ehlo_or_data_is_refused() {
    // Only at once: byte by byte each reply stands before the next command comes.
    let early = r"
        S: 220
        C: EHLO x
        C: MAIL FROM:<a@example.org>
        S: 554 5.5.0
        X: Pipelined
        ";
    play(&smtp(), early, usize::MAX);
    let message = r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: DATA
        C: MAIL FROM:<smuggled@example.org>
        C: .
        S: 250
        S: 250
        S: 554 5.5.0
        X: Pipelined
        ";
    play(&smtp(), message, usize::MAX);
    let refused = r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<550-b@example.org>
        C: DATA
        C: MAIL FROM:<smuggled@example.org>
        C: .
        S: 250
        S: 550
        S: 554 5.5.0
        X: Pipelined
        ";
    play(&smtp(), refused, usize::MAX);
    let empty_line = r"
        S: 220
        C: HELO x
        C:
        R:
        S: 250
        S: 500 5.5.1
        ";
    check(&smtp(), empty_line);
}

#[test]
fn what_is_switched_off_is_refused() {
    let mut settings = smtp();
    let off = [
        "PIPELINING",
        "size",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "DSN",
    ];
    settings.keywords_off = off.map(str::to_owned).to_vec();
    check(
        &settings,
        r"
        S: 220
        C: EHLO x
        R:
        S: 250 mx.example
        C: MAIL FROM:<a@example.org> SIZE=1
        S: 555 5.5.4
        C: MAIL FROM:<a@example.org> RET=FULL
        S: 555 5.5.4
        C: BDAT 6 LAST
        C: QUIT
        S: 502 5.5.1
        C: MAIL FROM:<a@example.org>
        S: 250
        ",
    );
}

#[test]
fn limits() {
    let mut settings = smtp();
    settings.recipients_max = 2;
    settings.errors_max = 3;
    check(
        &settings,
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<a@example.org>
        C: RCPT TO:<b@example.org>
        C: RCPT TO:<c@example.org>
        C: RCPT TO:<d@example.org>
        C: RCPT TO:<e@example.org>
        S: 250
        S: 250
        S: 250
        S: 452 4.5.3
        S: 452 4.5.3
        S: 452 4.5.3
        C: RSET
        S: 250
        R:
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<451-a@example.org>
        S: 451
        C: RCPT TO:<550-a@example.org>
        S: 550
        C: NONSENSE
        S: 500
        C: RCPT TO:<550-b@example.org>
        C: NOOP
        S: 550
        S: 421 4.7.0
        X: Errors
        ",
    );
    let long = format!("NOOP {}", "x".repeat(5000));
    check(
        &smtp(),
        &format!("S: 220\nC: {long}\nS: 500 5.5.2\nC: NOOP\nS: 250"),
    );
}

#[test]
fn eight_bit_addresses_need_smtputf8() {
    check(
        &smtp(),
        r"
        S: 220
        C: HELO x
        R:
        S: 250
        C: MAIL FROM:<é@example.org>
        S: 553 5.6.7
        C: MAIL FROM:<a@example.org>
        S: 250
        C: RCPT TO:<é@example.org>
        S: 553 5.6.7
        C: RSET
        S: 250
        R:
        C: MAIL FROM:<é@example.org> SMTPUTF8
        S: 250
        C: RCPT TO:<é@example.org>
        S: 250
        ",
    );
}

#[test]
fn the_hostname_of_postmaster_is_ours() {
    let mut settings = smtp();
    settings.hostname = Domain::parse("[192.0.2.2]").unwrap();
    check(
        &settings,
        r"
        S: 220 [192.0.2.2] ESMTP
        C: HELO x
        R:
        S: 250 [192.0.2.2]
        C: MAIL FROM:<>
        S: 250
        C: RCPT TO:<Postmaster>
        S: 250
        C: DATA
        S: 354
        C: .
        M: x <> postmaster@[192.0.2.2]
        S: 250
        R:
        ",
    );
}

#[test]
fn xclient_is_for_those_who_are_trusted() {
    check(
        &smtp(),
        r"
        S: 220
        C: HELO proxy.example
        R:
        S: 250
        C: XCLIENT ADDR=192.0.2.7
        S: 550 5.7.0
        ",
    );
    let mut trusting = smtp();
    trusting.guard.xclient = true;
    check(
        &trusting,
        r"
        S: 220
        C: XCLIENT ADDR=192.0.2.7
        S: 503 5.5.1
        C: HELO proxy.example
        R:
        S: 250
        C: XCLIENT ADDR=lists.example
        S: 501 5.5.4
        C: XCLIENT ADDR=192.0.2.7 PORT=25
        R:
        S: 220 mx.example
        C: MAIL FROM:<>
        S: 503 5.5.1
        C: HELO client.example
        R:
        S: 250
        C: MAIL FROM:<>
        S: 250
        C: XCLIENT ADDR=192.0.2.8
        S: 503 5.5.1
        C: RSET
        S: 250
        R:
        C: XCLIENT PORT=554
        R:
        S: 554 5.7.1 go away
        X: Refused
        ",
    );
}
