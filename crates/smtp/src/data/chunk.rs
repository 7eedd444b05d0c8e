//! Reads chunks of BDAT (RFC 3030): as many bytes as were announced, whatever they are.
//!
//! No dots here, but the same care for newlines, across the borders of chunks: what follows us may speak DATA.

use super::content::Content;

/// A message that comes in chunks.
#[derive(Debug, Default)]
pub struct ChunkReader {
    /// The last byte was a CR, which is withheld.
    after_cr: bool,
}

impl ChunkReader {
    /// Reads bytes of a chunk.
    pub fn read(&mut self, input: &[u8], content: &mut Content) {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if std::mem::take(&mut self.after_cr) {
                if byte == b'\n' {
                    content.push(b"\r\n");
                    at += 1;
                    continue;
                }
                content.push_bare_newline();
            }
            match byte {
                b'\r' => self.after_cr = true,
                b'\n' => content.push_bare_newline(),
                _ => {
                    let rest = &input[at..];
                    let text = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    content.push(&rest[..text]);
                    at += text;
                    continue;
                }
            }
            at += 1;
        }
    }

    /// The last chunk has been read: a line that was left open is ended, so that a message is the same whichever way it came.
    pub fn end(self, content: &mut Content) {
        if self.after_cr {
            content.push_bare_newline();
        } else if !content.at_line_start() {
            content.push(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::{BareNewline, Fault};
    use super::*;

    fn read(pieces: &[&[u8]], policy: BareNewline) -> Result<Vec<u8>, Fault> {
        let mut reader = ChunkReader::default();
        let mut content = Content::new(20, policy);
        for piece in pieces {
            content.grant(content.wants(piece.len()));
            reader.read(piece, &mut content);
        }
        content.grant(content.wants(0));
        reader.end(&mut content);
        content.finish()
    }

    fn check(policy: BareNewline, rows: &[(&str, Result<&str, Fault>)]) {
        for (input, expected) in rows {
            let expected = expected.map(|message| message.as_bytes().to_vec());
            let bytes = input.as_bytes();
            assert_eq!(read(&[bytes], policy), expected, "whole: {input:?}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(&single, policy), expected, "byte by byte: {input:?}");
            for at in 0..bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(
                    read(&[head, tail], policy),
                    expected,
                    "split at {at}: {input:?}"
                );
            }
        }
    }

    #[test]
    fn chunks_become_crlf_lines() {
        check(
            BareNewline::Normalize,
            &[
                ("", Ok("")),
                ("a\r\n", Ok("a\r\n")),
                ("a", Ok("a\r\n")),
                ("a\r", Ok("a\r\n")),
                ("a\n", Ok("a\r\n")),
                ("a\rb\r\n", Ok("a\r\nb\r\n")),
                ("a\r\r\n", Ok("a\r\n\r\n")),
                ("a\r\n.\r\nb\r\n", Ok("a\r\n.\r\nb\r\n")),
                ("a\n.\nb", Ok("a\r\n.\r\nb\r\n")),
                ("..a\r\n", Ok("..a\r\n")),
                ("123456789012345678", Ok("123456789012345678\r\n")),
                ("1234567890123456789", Err(Fault::TooLarge)),
                ("123456789012345678901\r\n", Err(Fault::TooLarge)),
            ],
        );
    }

    #[test]
    fn bare_newlines_are_refused() {
        check(
            BareNewline::Refuse,
            &[
                ("a\r\nb\r\n", Ok("a\r\nb\r\n")),
                ("a", Ok("a\r\n")),
                ("a\nb\r\n", Err(Fault::BareNewline)),
                ("a\rb\r\n", Err(Fault::BareNewline)),
                ("a\r", Err(Fault::BareNewline)),
            ],
        );
    }
}
