//! Any bytes after DATA and in chunks: the same however they are cut; what comes out is CRLF lines, and goes out and comes back the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use smtp::data::{BareNewline, ChunkReader, Content, DotReader, Stuffer, canonical};

const BYTES_MAX: u64 = 1 << 20;

fn data(pieces: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let mut content = Content::new(BYTES_MAX, BareNewline::Normalize);
    let mut reader = DotReader::default();
    let mut before = 0;
    for piece in pieces {
        content.grant(content.wants(piece.len()));
        if let Some(read) = reader.read(piece, &mut content) {
            return content
                .finish()
                .ok()
                .map(|message| (message, before + read));
        }
        before += piece.len();
    }
    None
}

fn chunks(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut content = Content::new(BYTES_MAX, BareNewline::Normalize);
    let mut reader = ChunkReader::default();
    for piece in pieces {
        content.grant(content.wants(piece.len()));
        reader.read(piece, &mut content);
    }
    reader.end(&mut content);
    content.finish().ok()
}

fn check_lines(message: &[u8]) {
    let mut last = 0;
    for &byte in message {
        assert_eq!(byte == b'\n', last == b'\r', "a bare newline came out");
        last = byte;
    }
    assert!(message.is_empty() || message.ends_with(b"\r\n"));
}

fuzz_target!(|bytes: &[u8]| {
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    let whole = data(&[bytes]);
    assert_eq!(whole, data(&single));
    if let Some((message, read)) = whole {
        check_lines(&message);
        assert!(bytes[..read].ends_with(b"\r\n.\r\n") || read == 3);
    }
    let Some(message) = chunks(&[bytes]) else {
        return;
    };
    assert_eq!(Some(&message), chunks(&single).as_ref());
    check_lines(&message);
    let parts: Vec<Bytes> = bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    let mut stuffer = Stuffer::default();
    let mut wire = Vec::new();
    for part in canonical(&parts) {
        stuffer.write(&part, &mut wire);
    }
    stuffer.end(&mut wire);
    assert_eq!(data(&[&wire]), Some((message, wire.len())));
});
