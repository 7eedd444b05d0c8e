//! What a session refuses on its own account: told to the handler once each, with what is known, and worded as everything is.

use mail::Severity;

use super::*;
use crate::objection::Wording;

const BEGUN: &str = "EHLO x\r\nMAIL FROM:<a@example.org>\r\n";
const TOLD: &str = "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n";

fn strict() -> Settings {
    let mut settings = settings(Protocol::Smtp);
    settings.recipients_max = 1;
    settings.message_bytes_max = 10;
    settings.bare_newline = crate::data::BareNewline::Refuse;
    settings
}

/// Begun, and fed line by line.
fn peer(settings: Settings, input: &str) -> Peer {
    let mut peer = Peer::new(settings);
    peer.feed(b"");
    for line in input.split_inclusive('\n') {
        peer.feed(line.as_bytes());
    }
    peer
}

/// What the handler was told, `label from to said`.
fn told(peer: &Peer) -> Vec<String> {
    let line = |refusal: &Refusal| {
        let Refusal {
            objection,
            reply,
            from,
            to,
            said,
        } = refusal;
        let permanent = reply.severity() == Severity::Permanent;
        assert_eq!(objection.is_permanent(), permanent, "{refusal:?}");
        format!("{} {from} {} {said}", objection.label(), to.join(","))
    };
    peer.refusals.iter().map(line).collect()
}

#[test]
fn what_is_refused_without_asking_is_told_with_what_is_known() {
    let within = |line: &str| format!("{BEGUN}{line}\r\n");
    let message = |text: &str| format!("{TOLD}{text}\r\n.\r\n");
    for (input, expected) in [
        ("NONSENSE\x01\r\n".to_owned(), r"syntax   NONSENSE\x01"),
        ("DATA\r\n".into(), "sequence   DATA"),
        (
            "EHLO x\r\nMAIL FROM:<@bad>\r\n".into(),
            "sender_syntax @bad  MAIL FROM:<@bad>",
        ),
        (
            "EHLO x\r\nMAIL FROM:<a@example.org> SIZE=11\r\n".into(),
            "announced_too_large a@example.org  MAIL FROM:<a@example.org> SIZE=11",
        ),
        // Nobody was named: there is no transaction.
        ("RCPT TO:<a b@c>\r\n".into(), "syntax   RCPT TO:<a b@c>"),
        (
            within("RCPT TO:<b@>"),
            "recipient_syntax a@example.org b@ RCPT TO:<b@>",
        ),
        (
            within("RCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>"),
            "too_many_recipients a@example.org c@example.org RCPT TO:<c@example.org>",
        ),
        (format!("{BEGUN}BDAT 2\r\nxx"), "sequence a@example.org  "),
        (
            within("MAIL FROM:<>"),
            "sequence a@example.org  MAIL FROM:<>",
        ),
        (
            within("GET / HTTP/1.1"),
            "foreign a@example.org  GET / HTTP/1.1",
        ),
        (within("BDAT x"), "syntax a@example.org  BDAT x"),
        (
            message("123456789"),
            "too_large a@example.org b@example.org ",
        ),
        (message("a\nb"), "bare_newline a@example.org b@example.org "),
    ] {
        let peer = peer(strict(), &input);
        assert_eq!(told(&peer), [expected], "{input:?} {:?}", peer.events);
    }
    let asked = peer(strict(), &within("RCPT TO:<550-b@example.org>"));
    assert!(asked.refusals.is_empty(), "the handler knows");
}

#[test]
fn the_end_of_a_session_is_told_with_the_transaction_it_cuts() {
    let mut late = peer(strict(), TOLD);
    late.session.timed_out(&mut late.out);
    late.feed(b"");
    assert_eq!(told(&late), ["timed_out a@example.org b@example.org "]);
    let mut idle = peer(strict(), "EHLO x\r\n");
    idle.session.stop(&mut idle.out);
    idle.feed(b"");
    assert_eq!(told(&idle), ["stopping   "]);
    let mut ahead = peer(strict(), "");
    ahead.feed(b"EHLO x\r\nMAIL FROM:<>\r\n");
    assert_eq!(told(&ahead), ["pipelined   EHLO x"]);
    let mut settings = strict();
    settings.errors_max = 2;
    let errs = peer(settings, "EHLO x\r\nX\r\nY\r\n");
    assert_eq!(
        told(&errs),
        ["syntax   X", "syntax   Y", "too_many_errors   "]
    );
}

/// A client that sends on is told again, its handler is not.
#[test]
fn a_message_in_chunks_is_refused_once() {
    let begun = format!("{BEGUN}RCPT TO:<b@example.org>\r\n");
    for end in ["RSET\r\n", "BDAT 2\r\nxx", "BDAT 2 LAST\r\nxx"] {
        let peer = peer(strict(), &format!("{begun}BDAT 12\r\n123456789012{end}"));
        let refused = told(&peer);
        assert_eq!(refused, ["too_large a@example.org b@example.org "], "{end}");
    }
}

#[derive(Debug)]
struct Soft;

const SIGNATURE: &str = " [1] https://help.example/";

impl Wording for Soft {
    fn refusal(&self, facts: &Facts, mut reply: Reply) -> Reply {
        reply.code = 400 + reply.code % 100;
        let last = reply.lines.last_mut().unwrap();
        last.push_str(&format!(" [{}] https://help.example/", facts.session));
        reply
    }
}

#[test]
fn every_refusal_is_worded_and_the_sessions_own_are_told_once() {
    const COMMANDS: [&str; 13] = [
        "HELO x\r\n",
        "MAIL FROM:<a@example.org>\r\n",
        "MAIL FROM:<a@example.org> SIZE=999999999\r\n",
        "MAIL FROM:<@>\r\n",
        "RCPT TO:<b@example.org>\r\n",
        "RCPT TO:<nonsense>\r\n",
        "DATA\r\n",
        "BDAT 13 LAST\r\n1234567890123",
        "RSET\r\n",
        "XFORWARD NAME=x\r\n",
        "STARTTLS\r\n",
        "\r\n",
        "NONSENSE\r\n",
    ];
    let mut settings = strict();
    settings.errors_max = usize::MAX;
    settings.guard.wording = Some(Arc::new(Soft));
    let mut peer = peer(settings, "");
    let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
    let mut refusals = 0;
    for _ in 0..20_000 {
        let command = COMMANDS[sequence.next(COMMANDS.len())];
        peer.events.clear();
        peer.refusals.clear();
        peer.feed(command.as_bytes());
        if peer.events[0].starts_with("S: 354") {
            peer.feed(b"a\nb\r\n.\r\n");
        }
        assert!(!peer.events.iter().any(|event| event.starts_with("S: 5")));
        let no = |event: &&String| event.starts_with("S: 4");
        let said: Vec<&String> = peer.events.iter().filter(no).collect();
        let told = peer.refusals.iter();
        let told: Vec<String> = told.map(|one| format!("S: {}", one.reply)).collect();
        assert_eq!(said, told.iter().collect::<Vec<_>>(), "{command:?}");
        assert!(
            said.iter().all(|line| line.ends_with(SIGNATURE)),
            "{said:?}"
        );
        refusals += said.len();
    }
    assert!(refusals > 5_000, "{refusals}");

    let begun = "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<550-b@example.org>\r\n";
    let mut settings = strict();
    settings.guard.wording = Some(Arc::new(Soft));
    settings.errors_max = 1;
    let peer = self::peer(settings, begun);
    let said = &peer.events[peer.events.len() - 3..];
    assert_eq!(said[0], format!("S: 450 5.7.1 decided so{SIGNATURE}"));
    assert!(said[1].starts_with("S: 421") && said[1].ends_with(SIGNATURE));
    assert_eq!(said[2], "X: Errors", "worded softly, it is an error still");
}
