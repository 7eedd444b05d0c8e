//! Any bytes as command lines: no panic, the same lines however they are cut, and replies that fit the wire.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use smtp::command::{Command, Extensions, Line, LineReader};
use smtp::xforward::Xforward;

fn lines(pieces: &[&[u8]]) -> Vec<Line> {
    let mut reader = LineReader::default();
    let mut input = BytesMut::new();
    let mut lines = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        lines.extend(std::iter::from_fn(|| reader.next(&mut input)));
    }
    lines
}

fuzz_target!(|bytes: &[u8]| {
    let whole = lines(&[bytes]);
    assert_eq!(whole, lines(&bytes.chunks(1).collect::<Vec<_>>()));
    for line in whole {
        let (Line::Whole(line) | Line::BareLf(line)) = line else {
            continue;
        };
        match Command::parse(&line, &Extensions::ALL) {
            Ok(Command::Xforward(arguments)) => {
                let _ = Xforward::default().read(&arguments);
            }
            Ok(_) => {}
            Err(error) => {
                let mut wire = Vec::new();
                error.reply().write(&mut wire);
                assert!(
                    wire.split_inclusive(|&byte| byte == b'\n')
                        .all(|line| line.len() <= 512)
                );
            }
        }
    }
});
