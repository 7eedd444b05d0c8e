//! Reads what follows DATA: ends only at CRLF.CRLF, strips exactly one dot at the start of a line (RFC 5321 4.1.1.4, 4.5.2).
//!
//! A line starts after CRLF and nowhere else; a dot after a bare CR or LF is text. Every other reading of the end of data (LF.LF,
//! CR.CR, CRLF.CR ...) lets a stranger smuggle a second message behind the back of a hop that reads it another way.

use super::content::Content;

/// The end of data, searched incrementally. Begins as if a CRLF had just been read, so that the first line needs no special case.
#[derive(Debug, Default)]
pub struct DotReader {
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// After CRLF.
    #[default]
    LineStart,
    /// After CRLF and a dot, which is withheld.
    Dot,
    /// After CRLF, a dot and CR.
    DotCr,
    /// Within a line.
    Line,
    /// Within a line, after a CR, which is withheld.
    Cr,
}

impl DotReader {
    /// Reads on. `Some(n)`: the message has ended within the first `n` bytes, the rest is not its; `None`: all of `input` was its.
    pub fn read(&mut self, input: &[u8], content: &mut Content) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (self.place, byte) {
                (Place::DotCr, b'\n') => return Some(at + 1),
                (Place::LineStart, b'.') => self.place = Place::Dot,
                (Place::Dot, b'\r') => self.place = Place::DotCr,
                (Place::Cr, b'\n') => {
                    content.push(b"\r\n");
                    self.place = Place::LineStart;
                }
                (Place::DotCr | Place::Cr, _) => {
                    // The withheld CR was a bare one; the byte is looked at again, as text of a line.
                    content.push_bare_newline();
                    self.place = Place::Line;
                    continue;
                }
                (_, b'\r') => self.place = Place::Cr,
                (_, b'\n') => {
                    content.push_bare_newline();
                    self.place = Place::Line;
                }
                (_, _) => {
                    let rest = &input[at..];
                    let text = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    content.push(&rest[..text]);
                    self.place = Place::Line;
                    at += text;
                    continue;
                }
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::{BareNewline, Fault};
    use super::*;

    /// Input, the message (or the fault) at its end, and what is left behind the end; `None` when it does not end.
    type Row = (
        &'static str,
        Option<(Result<&'static str, Fault>, &'static str)>,
    );

    const BYTES_MAX: u64 = 20;

    type Ended = (Result<Vec<u8>, Fault>, Vec<u8>);

    fn read(pieces: &[&[u8]], policy: BareNewline) -> Option<Ended> {
        let mut reader = DotReader::default();
        let mut content = Content::new(BYTES_MAX, policy);
        let mut pieces = pieces.iter();
        while let Some(piece) = pieces.next() {
            content.grant(content.wants(piece.len()));
            if let Some(read) = reader.read(piece, &mut content) {
                let mut rest = piece[read..].to_vec();
                pieces.for_each(|piece| rest.extend_from_slice(piece));
                return Some((content.finish(), rest));
            }
        }
        None
    }

    fn check(policy: BareNewline, rows: &[Row]) {
        for &(input, expected) in rows {
            let expected = expected.map(|(message, rest)| {
                (
                    message.map(|message| message.as_bytes().to_vec()),
                    rest.as_bytes().to_vec(),
                )
            });
            let input = input.as_bytes();
            let told = String::from_utf8_lossy(input);
            assert_eq!(read(&[input], policy), expected, "whole: {told:?}");
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(read(&bytes, policy), expected, "byte by byte: {told:?}");
            for at in 0..input.len() {
                let (head, tail) = input.split_at(at);
                assert_eq!(
                    read(&[head, tail], policy),
                    expected,
                    "split at {at}: {told:?}"
                );
            }
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends() {
        let ends = |message, rest| Some((Ok(message), rest));
        check(
            BareNewline::Normalize,
            &[
                // The end.
                (".\r\n", ends("", "")),
                ("\r\n.\r\n", ends("\r\n", "")),
                ("a\r\n.\r\n", ends("a\r\n", "")),
                ("a\r\n\r\n.\r\nQUIT\r\n", ends("a\r\n\r\n", "QUIT\r\n")),
                (".\r\n.\r\n", ends("", ".\r\n")),
                // Exactly one dot is stripped, only at the start of a line.
                ("..\r\n.\r\n", ends(".\r\n", "")),
                ("...\r\n.\r\n", ends("..\r\n", "")),
                (".a\r\n.\r\n", ends("a\r\n", "")),
                ("a\r\n..b\r\n.\r\n", ends("a\r\n.b\r\n", "")),
                ("a.\r\n.b.\r\n.\r\n", ends("a.\r\nb.\r\n", "")),
                (". \r\n.\r\n", ends(" \r\n", "")),
                // Not the end: every shape by which mail was smuggled.
                ("a\n.\n", None),
                ("a\n.\r\n", None),
                ("a\r\n.\n", None),
                ("a\r.\r", None),
                ("a\r.\r\n", None),
                ("a\r\n.\r", None),
                ("a\r\n.\r\r\n", None),
                ("a\r\n.\rb\r\n", None),
                ("a\r\n.\n\r\n", None),
                ("a\n\r.\n\r", None),
                ("a\r\n\r.\r\n", None),
                ("a\r\n.\0\r\n", None),
                ("a\r\n. \r\n", None),
                (".", None),
                ("", None),
                // What those become.
                ("a\n.\nb\r\n.\r\n", ends("a\r\n.\r\nb\r\n", "")),
                ("a\n.\r\nb\r\n.\r\n", ends("a\r\n.\r\nb\r\n", "")),
                ("a\r\n.\nb\r\n.\r\n", ends("a\r\n\r\nb\r\n", "")),
                ("a\r.\rb\r\n.\r\n", ends("a\r\n.\r\nb\r\n", "")),
                ("a\r\n.\r\r\n.\r\n", ends("a\r\n\r\n\r\n", "")),
                ("a\r\n.\rb\r\n.\r\n", ends("a\r\n\r\nb\r\n", "")),
                ("\n\n.\r\n\r\n.\r\n", ends("\r\n\r\n.\r\n\r\n", "")),
                ("a\r\r\nb\r\n.\r\n", ends("a\r\n\r\nb\r\n", "")),
                ("a\n..b\r\n.\r\n", ends("a\r\n..b\r\n", "")),
                // A NUL and 8-bit text are a message's own business.
                ("a\0é\r\n.\r\n", ends("a\0é\r\n", "")),
            ],
        );
    }

    #[test]
    fn bare_newlines_are_refused_at_the_end() {
        let refused = |rest| Some((Err(Fault::BareNewline), rest));
        check(
            BareNewline::Refuse,
            &[
                ("a\r\n.\r\n", Some((Ok("a\r\n"), ""))),
                ("a\nb\r\n.\r\nQUIT", refused("QUIT")),
                ("a\rb\r\n.\r\n", refused("")),
                ("a\n.\n", None),
                ("a\r\n.\n.\r\n\r\n.\r\nx", refused("x")),
                ("a\r\n.\r\r\n.\r\n", refused("")),
            ],
        );
    }

    #[test]
    fn a_message_too_large_is_read_to_its_end() {
        let refused = |rest| Some((Err(Fault::TooLarge), rest));
        check(
            BareNewline::Normalize,
            &[
                (
                    "123456789012345678\r\n.\r\n",
                    Some((Ok("123456789012345678\r\n"), "")),
                ),
                ("1234567890123456789\r\n.\r\nQUIT\r\n", refused("QUIT\r\n")),
                (
                    "..23456789012345678\r\n.\r\n",
                    Some((Ok(".23456789012345678\r\n"), "")),
                ),
                // The limit is on the message, not on how it came over the wire.
                ("12345678901234567\n\r\n.\r\n", refused("")),
                (
                    "123456789012345678901234567890\r\n.a\r\n..\r\n.\r\n.",
                    refused("."),
                ),
            ],
        );
    }
}
