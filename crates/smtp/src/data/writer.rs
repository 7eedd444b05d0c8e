//! The sending side: canonical lines for BDAT, stuffed dots and the final dot for DATA.
//!
//! A message that comes in canonical form goes out byte for byte; nothing else ever grows on the way, no empty line at its end either.

use bytes::Bytes;

/// Brings a message into canonical form: bare CR and LF become CRLF, an open last line is ended. Canonical parts are not copied.
pub fn canonical(parts: &[Bytes]) -> Vec<Bytes> {
    let mut lines = Lines::default();
    let mut canonical: Vec<Bytes> = Vec::with_capacity(parts.len() + 1);
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let before = lines;
        canonical.push(if lines.accept(part) {
            part.clone()
        } else {
            lines = before;
            Bytes::from(lines.mend(part))
        });
    }
    match lines {
        Lines::Start => {}
        Lines::Within => canonical.push(Bytes::from_static(b"\r\n")),
        Lines::Cr => canonical.push(Bytes::from_static(b"\n")),
    }
    canonical
}

/// Where in a line the writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lines {
    #[default]
    Start,
    Within,
    /// A CR went out; LF must follow.
    Cr,
}

impl Lines {
    /// Reads over a part; `false` when it is not canonical. A CR at its very end stays open for the next part.
    fn accept(&mut self, part: &[u8]) -> bool {
        let mut at = 0;
        if *self == Self::Cr {
            if part.first() != Some(&b'\n') {
                return false;
            }
            *self = Self::Start;
            at = 1;
        }
        for found in memchr::memchr2_iter(b'\r', b'\n', part) {
            if found < at {
                continue;
            }
            match (part[found], part.get(found + 1)) {
                (b'\r', Some(b'\n')) => at = found + 2,
                (b'\r', None) => {
                    *self = Self::Cr;
                    return true;
                }
                _ => return false,
            }
        }
        if at < part.len() {
            *self = Self::Within;
        } else if !part.is_empty() {
            *self = Self::Start;
        }
        true
    }

    fn mend(&mut self, part: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len() + part.len() / 16 + 2);
        for &byte in part {
            match (*self, byte) {
                (Self::Cr, b'\n') => {
                    out.push(b'\n');
                    *self = Self::Start;
                    continue;
                }
                (Self::Cr, _) => {
                    out.push(b'\n');
                    *self = Self::Start;
                }
                _ => {}
            }
            match byte {
                b'\r' => {
                    out.push(b'\r');
                    *self = Self::Cr;
                }
                b'\n' => {
                    out.extend_from_slice(b"\r\n");
                    *self = Self::Start;
                }
                _ => {
                    out.push(byte);
                    *self = Self::Within;
                }
            }
        }
        out
    }
}

/// Stuffs dots into canonical lines and ends them with the dot.
#[derive(Debug)]
pub struct Stuffer {
    /// The last byte that went out; a line feed before the first.
    last: u8,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { last: b'\n' }
    }
}

impl Stuffer {
    /// Appends a piece of a canonical message; pieces may be cut anywhere.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut from = 0;
        for dot in memchr::memchr_iter(b'.', piece) {
            let before = if dot == 0 { self.last } else { piece[dot - 1] };
            if before == b'\n' {
                out.extend_from_slice(&piece[from..dot]);
                out.push(b'.');
                from = dot;
            }
        }
        out.extend_from_slice(&piece[from..]);
        if let Some(&last) = piece.last() {
            self.last = last;
        }
    }

    /// Appends the end of data.
    pub fn end(self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.last, b'\n', "canonical text ends its last line");
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::{BareNewline, Content};
    use super::super::dot::DotReader;
    use super::*;

    fn write(parts: &[&[u8]]) -> Vec<u8> {
        let parts: Vec<Bytes> = parts
            .iter()
            .map(|part| Bytes::copy_from_slice(part))
            .collect();
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for piece in canonical(&parts) {
            stuffer.write(&piece, &mut out);
        }
        stuffer.end(&mut out);
        out
    }

    /// A message and its form on the wire, whole, byte by byte and split at every position.
    fn check(rows: &[(&str, &str)]) {
        for (message, expected) in rows {
            let bytes = message.as_bytes();
            let expected = expected.as_bytes();
            assert_eq!(write(&[bytes]), expected, "whole: {message:?}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(write(&single), expected, "byte by byte: {message:?}");
            for at in 0..bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(
                    write(&[head, b"", tail]),
                    expected,
                    "split at {at}: {message:?}"
                );
            }
            let mut content = Content::new(1000, BareNewline::Refuse);
            content.grant(content.wants(expected.len()));
            let read = DotReader::default().read(expected, &mut content);
            assert_eq!(read, Some(expected.len()), "the reader's end: {message:?}");
            assert!(content.finish().is_ok(), "no bare newline: {message:?}");
        }
    }

    #[test]
    fn dots_are_stuffed_and_newlines_are_crlf() {
        check(&[
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            ("\r\n", "\r\n.\r\n"),
            ("a\r\n\r\n", "a\r\n\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("..a\r\n.b\r\n", "...a\r\n..b\r\n.\r\n"),
            ("a.b\r\n", "a.b\r\n.\r\n"),
            ("a\r\n.\r\nMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r\r\nb", "a\r\n\r\nb\r\n.\r\n"),
            ("a\n\rb\n", "a\r\n\r\nb\r\n.\r\n"),
        ]);
    }

    #[test]
    fn a_canonical_message_is_not_copied() {
        let part = Bytes::from_static(b"a\r\nb\r\n");
        let sent = canonical(std::slice::from_ref(&part));
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].as_ptr(), part.as_ptr());
    }
}
