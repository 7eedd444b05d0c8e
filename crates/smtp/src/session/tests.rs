//! Dialogues. Each is played twice: what the client sends between two replies at once, and byte by byte.
//!
//! `C: ` a line that the client sends; `C> ` bytes without CRLF; both know `\r`, `\n`, `\0`. `S: ` the start of a reply's line, `M: ` a
//! message that the handler was given, `R: ` the handler was told of a transaction's end, `T: ` the TLS handshake, `X: ` the end.

mod dialogue;
mod messages;
mod refusals;
mod tls;

use mail::Domain;

use super::*;
use crate::data::BareNewline;
use crate::testing::{Decider, settings};

/// A session with a handler that decides by address.
struct Peer {
    session: Session,
    handler: Decider,
    input: BytesMut,
    out: Vec<u8>,
    /// What was refused without asking.
    refusals: Vec<Refusal>,
    events: Vec<String>,
}

impl Peer {
    fn new(settings: Settings) -> Self {
        let facts = Facts {
            session: "1".into(),
            client: ([192, 0, 2, 1], 4711).into(),
            local: ([192, 0, 2, 2], 25).into(),
            helo: Box::default(),
            extended: false,
            tls: None,
            xforward: Default::default(),
            bare_newline: false,
        };
        let handler = Decider::new(settings.protocol);
        let session = Session::new(Arc::new(settings), facts);
        let (input, out) = Default::default();
        Self {
            session,
            handler,
            input,
            out,
            events: Vec::new(),
            refusals: Vec::new(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.turn() {}
        self.hear();
    }

    fn hear(&mut self) {
        let text = String::from_utf8(std::mem::take(&mut self.out)).unwrap();
        assert!(text.is_empty() || text.ends_with("\r\n"), "{text:?}");
        self.events.extend(
            text.split_terminator("\r\n")
                .map(|line| format!("S: {line}")),
        );
    }

    fn turn(&mut self) -> bool {
        let Self {
            session,
            input,
            out,
            ..
        } = self;
        let answer = match session.step(input, out) {
            Step::Read(_) => return false,
            Step::Close(ending) => {
                self.hear();
                let told = format!("X: {ending:?}");
                if self.events.last() != Some(&told) {
                    self.events.push(told);
                }
                return false;
            }
            Step::Room(bytes) => {
                session.grant(bytes);
                return true;
            }
            Step::Objected(refusal) => {
                self.refusals.push(*refusal);
                return true;
            }
            Step::Reset => {
                self.hear();
                self.events.push("R: ".to_owned());
                return true;
            }
            Step::StartTls => {
                session.secured(Tls {
                    version: "TLSv1.3".into(),
                    cipher: "none".into(),
                    peer_certificates: Arc::default(),
                });
                self.hear();
                self.events.push("T: ".to_owned());
                return true;
            }
            Step::Ask(Question::StartTls { .. }) => Ok(()),
            Step::Ask(Question::Message {
                facts,
                envelope,
                message,
            }) => {
                let recipients: Vec<String> = envelope
                    .recipients
                    .iter()
                    .map(|r| r.address.to_string())
                    .collect();
                let told = format!(
                    "M: {} <{}> {} {}{}",
                    facts.helo,
                    envelope.reverse_path,
                    recipients.join(","),
                    message.escape_ascii(),
                    facts
                        .xforward
                        .port
                        .map(|port| format!(" {port}"))
                        .unwrap_or_default(),
                );
                let replies = self.handler.decide_message(envelope);
                self.hear();
                self.events.push(told);
                self.session.answer_message(replies, &mut self.out);
                return true;
            }
            Step::Ask(Question::Connect { facts }) => match facts.client.port() {
                554 => Err(Reply::new(554, (5, 7, 1), "go away")),
                _ => Ok(()),
            },
            Step::Ask(Question::Helo { facts }) => Decider::decide(&facts.helo, ""),
            Step::Ask(Question::Mail { reverse_path, .. }) => Decider::decide(
                reverse_path.address().map_or("", |address| address.local()),
                "",
            ),
            Step::Ask(Question::Rcpt { recipient, .. }) => {
                Decider::decide(recipient.address.local(), "")
            }
        };
        session.answer(answer, out);
        true
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let text = text
        .replace("\\r", "\r")
        .replace("\\n", "\n")
        .replace("\\0", "\0");
    text.into_bytes()
}

fn play(settings: &Settings, dialogue: &str, piece: usize) {
    let mut peer = Peer::new(settings.clone());
    peer.feed(b"");
    let mut lines = dialogue
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty())
        .peekable();
    while lines.peek().is_some() {
        let mut sent = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('C')) {
            sent.extend(unescape(line.get(3..).unwrap_or_default()));
            if line.starts_with("C:") {
                sent.extend(b"\r\n");
            }
        }
        for bytes in sent.chunks(piece.min(sent.len().max(1))) {
            peer.feed(bytes);
        }
        let mut events = std::mem::take(&mut peer.events).into_iter();
        let sent = sent.escape_ascii();
        while let Some(expected) = lines.next_if(|line| !line.starts_with('C')) {
            let event = events.next();
            let found = event.as_deref().unwrap_or("nothing");
            assert!(
                found.starts_with(expected),
                "{expected:?}, not {found:?} after {sent}"
            );
        }
        assert_eq!(events.next(), None, "after {sent}");
    }
}

fn check(settings: &Settings, dialogue: &str) {
    play(settings, dialogue, usize::MAX);
    play(settings, dialogue, 1);
}

fn smtp() -> Settings {
    settings(Protocol::Smtp)
}

fn lmtp() -> Settings {
    settings(Protocol::Lmtp)
}

#[test]
fn a_refused_connection_is_not_greeted() {
    let mut peer = Peer::new(smtp());
    peer.session.facts.client.set_port(554);
    peer.feed(b"EHLO x\r\n");
    assert_eq!(peer.events, ["S: 554 5.7.1 go away", "X: Refused"]);
}

#[test]
fn stopping_waits_for_the_transaction() {
    let mut peer = Peer::new(smtp());
    for line in ["", "HELO x\r\n", "MAIL FROM:<>\r\n"] {
        peer.feed(line.as_bytes());
    }
    assert!(!peer.session.idle());
    peer.session.stop(&mut peer.out);
    assert!(peer.out.is_empty());
    peer.feed(b"RSET\r\n");
    assert!(peer.session.idle());
    peer.events.clear();
    peer.session.stop(&mut peer.out);
    peer.feed(b"MAIL FROM:<>\r\n");
    assert_eq!(peer.events.len(), 2, "{:?}", peer.events);
    assert!(peer.events[0].starts_with("S: 421 4.3.2"));
    assert_eq!(peer.events[1], "X: Shutdown");
}

#[test]
fn without_memory_a_message_is_read_to_its_end() {
    let mut peer = Peer::new(smtp());
    for line in [
        "",
        "HELO x\r\n",
        "MAIL FROM:<>\r\n",
        "RCPT TO:<a@example.org>\r\n",
        "DATA\r\n",
    ] {
        peer.feed(line.as_bytes());
    }
    peer.events.clear();
    peer.input.extend_from_slice(b"a\r\nMAIL FROM:<>\r\n");
    let step = peer.session.step(&mut peer.input, &mut peer.out);
    assert!(matches!(step, Step::Room(1..)), "{step:?}");
    peer.session.shed();
    peer.feed(b".\r\nNOOP\r\n");
    let events: Vec<&str> = peer
        .events
        .iter()
        .map(|event| &event[..event.len().min(12)])
        .collect();
    assert_eq!(events, ["S: 452 4.3.1", "R: ", "S: 250 2.0.0"]);
}

#[test]
fn a_handler_that_owes_a_reply_has_not_accepted() {
    let mut peer = Peer::new(lmtp());
    for line in [
        "",
        "LHLO x\r\n",
        "MAIL FROM:<>\r\n",
        "RCPT TO:<a@example.org>\r\n",
        "DATA\r\n",
    ] {
        peer.feed(line.as_bytes());
    }
    peer.input.extend_from_slice(b".\r\n");
    let Step::Room(bytes) = peer.session.step(&mut peer.input, &mut peer.out) else {
        panic!("no memory was asked for");
    };
    peer.session.grant(bytes);
    let step = peer.session.step(&mut peer.input, &mut peer.out);
    assert!(matches!(step, Step::Ask(_)), "{step:?}");
    peer.session.answer_message(Vec::new(), &mut peer.out);
    assert!(peer.out.starts_with(b"451 4.3.0"));
}

/// A sequence that is the same in every run.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

#[test]
fn every_command_gets_one_reply() {
    const COMMANDS: [&str; 24] = [
        "HELO x\r\n",
        "EHLO x\r\n",
        "LHLO x\r\n",
        "MAIL FROM:<a@example.org>\r\n",
        "MAIL FROM:<a@example.org> SIZE=999999999\r\n",
        "MAIL FROM:<550-a@example.org>\r\n",
        "RCPT TO:<b@example.org>\r\n",
        "RCPT TO:<c@example.org>\r\n",
        "RCPT TO:<550-b@example.org>\r\n",
        "RCPT TO:<data-550-b@example.org>\r\n",
        "RCPT TO:<nonsense>\r\n",
        "DATA\r\n",
        "DATA\r\n",
        "BDAT 6\r\nQUIT\r\n",
        "BDAT 6 LAST\r\nQUIT\r\n",
        "BDAT 2000001\r\n",
        "BDAT 0 LAST\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY x\r\n",
        "XFORWARD NAME=x\r\n",
        "AUTH PLAIN x\r\n",
        "\r\n",
        "NONSENSE\r\n",
    ];
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let mut settings = settings(protocol);
        settings.errors_max = usize::MAX;
        let mut peer = Peer::new(settings);
        peer.feed(b"");
        let mut sequence = Sequence(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20_000 {
            let command = COMMANDS[sequence.next(COMMANDS.len())];
            let recipients = match &peer.session.state {
                State::Transaction(envelope) => envelope.recipients.len(),
                State::Chunks(chunked) => chunked.incoming.envelope.recipients.len(),
                _ => 0,
            };
            let owed = match (protocol, recipients) {
                (Protocol::Smtp, _) | (Protocol::Lmtp, 0) => 1,
                (Protocol::Lmtp, recipients) => recipients,
            };
            let last = command.starts_with("BDAT") && command.contains("LAST");
            peer.events.clear();
            peer.feed(command.as_bytes());
            if command.starts_with("BDAT 2000001") {
                peer.feed(&vec![b'x'; 2_000_001]);
            }
            assert_eq!(
                replies(&peer.events),
                if last { owed } else { 1 },
                "{command:?} {:?}",
                peer.events
            );
            if peer.events[0].starts_with("S: 354") {
                peer.events.clear();
                peer.feed(b"QUIT\r\n.\r\n");
                assert_eq!(replies(&peer.events), owed, "{:?}", peer.events);
            }
        }
    }
}

/// Whole replies: a line each whose code is followed by a space.
fn replies(events: &[String]) -> usize {
    let last_line = |event: &&String| event.starts_with("S: ") && event.as_bytes()[6] == b' ';
    events.iter().filter(last_line).count()
}
