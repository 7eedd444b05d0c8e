//! Cuts command lines out of what has arrived, never holding more than one line's limit of them.

use bytes::{Buf, Bytes, BytesMut};

/// Octets of a command line with its CRLF. RFC 5321 4.5.3.1.4 has 512; DSN adds 500 and more (RFC 3461 4), SMTPUTF8 its own.
pub const COMMAND_BYTES_MAX: usize = 2048;

/// One line, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its CRLF.
    Whole(Bytes),
    /// A line that ended in LF alone, without it.
    BareLf(Bytes),
    /// The end of a line that was too long; the line is gone.
    TooLong,
}

/// Where in a line the reader is.
#[derive(Clone, Copy, Debug, Default)]
pub enum LineReader {
    /// Lines fit.
    #[default]
    Within,
    /// The line was too long: everything up to its end is dropped.
    Dropping,
}

impl LineReader {
    /// Takes the next line out of `input`; `None` when its end has not arrived.
    pub fn next(&mut self, input: &mut BytesMut) -> Option<Line> {
        let found = memchr::memchr(b'\n', input);
        let Some(end) = found.filter(|&end| end < COMMAND_BYTES_MAX) else {
            return self.overlong(found, input);
        };
        let mut line = input.split_to(end + 1).freeze();
        line.truncate(end);
        if let Self::Dropping = std::mem::take(self) {
            return Some(Line::TooLong);
        }
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
            Some(Line::Whole(line))
        } else {
            Some(Line::BareLf(line))
        }
    }

    fn overlong(&mut self, end: Option<usize>, input: &mut BytesMut) -> Option<Line> {
        if let Some(end) = end {
            input.advance(end + 1);
            *self = Self::Within;
            return Some(Line::TooLong);
        }
        if input.len() >= COMMAND_BYTES_MAX || matches!(self, Self::Dropping) {
            input.clear();
            *self = Self::Dropping;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<Line>, Vec<u8>) {
        let mut reader = LineReader::default();
        let mut input = BytesMut::new();
        let mut lines = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            lines.extend(std::iter::from_fn(|| reader.next(&mut input)));
        }
        (lines, input.to_vec())
    }

    #[test]
    fn lines() {
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        let long = "x".repeat(COMMAND_BYTES_MAX - 2);
        let fits = Line::Whole(Bytes::from(long.clone()));
        for (input, expected, rest) in [
            (String::new(), vec![], ""),
            ("NOOP".to_owned(), vec![], "NOOP"),
            (
                "NOOP\r\nQUIT\r\nx".to_owned(),
                vec![whole("NOOP"), whole("QUIT")],
                "x",
            ),
            ("\r\n".to_owned(), vec![whole("")], ""),
            (
                "NOOP\n".to_owned(),
                vec![Line::BareLf(Bytes::from_static(b"NOOP"))],
                "",
            ),
            ("a\rb\r\n".to_owned(), vec![whole("a\rb")], ""),
            (format!("{long}\r\n"), vec![fits], ""),
            (
                format!("{long}x\r\nNOOP\r\n"),
                vec![Line::TooLong, whole("NOOP")],
                "",
            ),
            (
                format!("{long}{long}{long}\r\nNOOP\r\n"),
                vec![Line::TooLong, whole("NOOP")],
                "",
            ),
        ] {
            let bytes = input.as_bytes();
            let expected = (expected, rest.as_bytes().to_vec());
            assert_eq!(read(&[bytes]), expected, "whole");
            assert_eq!(
                read(&bytes.chunks(1).collect::<Vec<_>>()),
                expected,
                "byte by byte"
            );
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut reader = LineReader::default();
        let mut input = BytesMut::new();
        for _ in 0..100 {
            input.extend_from_slice(&[b'x'; 1000]);
            assert_eq!(reader.next(&mut input), None);
            assert!(input.len() < COMMAND_BYTES_MAX);
        }
    }
}
