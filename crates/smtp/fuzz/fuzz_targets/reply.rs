//! Any bytes as replies: no panic, bounded, the same however they are cut, and clean enough for our own wire.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use smtp::client::reply::{REPLY_LINES_MAX, ReplyReader};

fn replies(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut reader = ReplyReader::default();
    let mut input = BytesMut::new();
    let mut replies = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(reply)) => {
                    assert!(reply.lines.len() <= REPLY_LINES_MAX);
                    assert!(reply.lines.iter().all(|line| line.len() <= 480));
                    let mut wire = Vec::new();
                    reply.write(&mut wire);
                    assert!(wire.ends_with(b"\r\n"));
                    replies.push(reply.to_string());
                }
                Ok(None) => break,
                Err(_) => return (replies, false),
            }
        }
    }
    (replies, true)
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(
        replies(&[bytes]),
        replies(&bytes.chunks(1).collect::<Vec<_>>())
    );
});
