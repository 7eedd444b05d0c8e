//! Any bytes from a client: no panic, no endless loop, replies that fit the wire.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mail::{Domain, Reply};
use smtp::Protocol;
use smtp::server::{BareNewline, Facts, Settings, Timeouts};
use smtp::session::{Question, Session, Step};

fn session(protocol: Protocol) -> Session {
    let second = Duration::from_secs(1);
    let settings = Settings {
        protocol,
        hostname: Domain::parse("mx.example").expect("a domain"),
        message_bytes_max: 1000,
        recipients_max: 5,
        errors_max: 50,
        bare_newline: BareNewline::Normalize,
        tls: None,
        tls_required: false,
        xforward: true,
        keywords_off: Vec::new(),
        timeouts: Timeouts {
            command: second,
            data_block: second,
            handshake: second,
            session: second,
        },
        guard: smtp::server::Guard::default(),
        memory_kib: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    let facts = Facts {
        session: "1".into(),
        client: ([192, 0, 2, 1], 1).into(),
        local: ([192, 0, 2, 2], 25).into(),
        helo: Box::default(),
        extended: false,
        tls: None,
        xforward: Default::default(),
    };
    Session::new(Arc::new(settings), facts)
}

/// Feeds until the session wants more; `false` when it has closed.
fn feed(session: &mut Session, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
    for _ in 0..10 * input.len() + 100 {
        let message = match session.step(input, out) {
            Step::Read(_) => return true,
            Step::StartTls | Step::Close(_) => return false,
            Step::Reset | Step::Objected(_) => continue,
            Step::Room(bytes) => {
                session.grant(bytes);
                continue;
            }
            Step::Ask(Question::Message { .. }) => true,
            Step::Ask(_) => false,
        };
        match message {
            true => session.answer_message(Vec::new(), out),
            false => session.answer(Ok(()), out),
        }
    }
    panic!("the session goes round in circles");
}

fuzz_target!(|bytes: &[u8]| {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        for size in [bytes.len().max(1), 1, 5] {
            let mut session = session(protocol);
            let (mut input, mut out) = (BytesMut::new(), Vec::new());
            let _ = feed(&mut session, &mut input, &mut out);
            for piece in bytes.chunks(size) {
                input.extend_from_slice(piece);
                if !feed(&mut session, &mut input, &mut out) {
                    break;
                }
            }
            for line in out.split_inclusive(|&byte| byte == b'\n') {
                assert!(line.ends_with(b"\r\n") && line.len() <= 512);
            }
        }
    }
});
