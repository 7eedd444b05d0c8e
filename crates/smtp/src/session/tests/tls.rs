//! STARTTLS.

use super::*;

fn with_certificate(mut settings: Settings) -> Settings {
    settings.tls = Some(crate::testing::certificate().0);
    settings
}

#[test]
fn starttls_forgets_what_was_said() {
    check(
        &with_certificate(smtp()),
        r"
        S: 220
        C: EHLO x
        R:
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250-SIZE
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-ENHANCEDSTATUSCODES
        S: 250-CHUNKING
        S: 250-DSN
        S: 250 STARTTLS
        C: STARTTLS now
        S: 501 5.5.4
        C: MAIL FROM:<a@example.org>
        S: 250
        C: STARTTLS
        S: 503 5.5.1 Bad sequence of commands: STARTTLS within
        C: RSET
        S: 250
        R:
        C: STARTTLS
        S: 220 2.0.0
        R:
        T:
        C: MAIL FROM:<a@example.org>
        S: 503 5.5.1 Bad sequence of commands: EHLO first
        C: EHLO x
        R:
        S: 250-mx.example
        S: 250-PIPELINING
        S: 250-SIZE
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-ENHANCEDSTATUSCODES
        S: 250-CHUNKING
        S: 250 DSN
        C: STARTTLS
        S: 503 5.5.1 Bad sequence of commands: TLS is already
        ",
    );
}

#[test]
fn what_is_injected_behind_starttls_is_dropped() {
    // Only at once: what comes after the handshake has begun is no longer plaintext.
    let injected = r"
        S: 220
        C: STARTTLS
        C: EHLO evil
        C: MAIL FROM:<evil@example.org>
        S: 220
        R:
        T:
        C: RCPT TO:<b@example.org>
        S: 503 5.5.1 Bad sequence of commands: EHLO first
        ";
    play(&with_certificate(smtp()), injected, usize::MAX);
}

#[test]
fn tls_can_be_required() {
    let mut settings = with_certificate(lmtp());
    settings.tls_required = true;
    settings.xforward = true;
    check(
        &settings,
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
        S: 250-DSN
        S: 250-STARTTLS
        S: 250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE
        C: MAIL FROM:<>
        S: 530 5.7.0
        C: XFORWARD NAME=x
        S: 530 5.7.0
        C: NOOP
        S: 250
        C: STARTTLS
        S: 220
        R:
        T:
        C: LHLO x
        R:
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-
        S: 250-DSN
        S: 250 XFORWARD
        C: MAIL FROM:<>
        S: 250
        ",
    );
}
