//! Reads replies (RFC 5321 4.2). A server is a stranger: lines and bytes are bounded, text is cleaned before anybody sees it.

use bytes::BytesMut;
use mail::{EnhancedStatus, Reply};

/// Octets of a reply line with its CRLF. RFC 5321 4.5.3.1.5 has 512; servers that quote back an address exceed it.
pub const REPLY_LINE_BYTES_MAX: usize = 2048;
/// Lines of a reply. The longest EHLO replies have some thirty.
pub const REPLY_LINES_MAX: usize = 128;
/// Octets of a line's text that are kept, as [`Reply`] demands.
const TEXT_BYTES_MAX: usize = 480;

/// A reply that is being read.
#[derive(Debug, Default)]
pub struct ReplyReader {
    lines: Vec<String>,
    code: u16,
    enhanced: Option<EnhancedStatus>,
}

impl ReplyReader {
    /// Takes the next reply out of `input`; `None` when its end has not arrived, an error when this is not SMTP.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, String> {
        loop {
            let end = memchr::memchr(b'\n', input);
            if end.unwrap_or(input.len()) >= REPLY_LINE_BYTES_MAX {
                return Err(format!("a line of more than {REPLY_LINE_BYTES_MAX} octets"));
            }
            let Some(end) = end else {
                return Ok(None);
            };
            let line = input.split_to(end + 1);
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if self.read_line(line)? {
                let Self {
                    lines,
                    code,
                    enhanced,
                } = std::mem::take(self);
                return Ok(Some(Reply {
                    code,
                    enhanced,
                    lines,
                }));
            }
        }
    }

    /// Reads a line; `true` when it is the reply's last.
    fn read_line(&mut self, line: &[u8]) -> Result<bool, String> {
        let (code, last, text) = split(line).ok_or_else(|| format!("{:?}", clean(line)))?;
        if self.lines.is_empty() {
            self.code = code;
        } else if self.code != code {
            return Err(format!(
                "a reply that begins with {} and goes on with {code}",
                self.code
            ));
        }
        if self.lines.len() >= REPLY_LINES_MAX {
            return Err(format!("a reply of more than {REPLY_LINES_MAX} lines"));
        }
        let mut text = text;
        if let Some((enhanced, rest)) = enhanced(text)
            && u16::from(enhanced.0) == code / 100
            && (self.lines.is_empty() || self.enhanced == Some(enhanced))
        {
            self.enhanced = Some(enhanced);
            text = rest;
        }
        self.lines.push(clean(text));
        Ok(last)
    }
}

/// Code, whether it is the last line, and text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) || !(b'2'..=b'5').contains(&code[0]) {
        return None;
    }
    let code = code
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Some((code, true, rest)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

/// The enhanced status at the start of a text, and what follows it.
fn enhanced(text: &[u8]) -> Option<(EnhancedStatus, &[u8])> {
    let end = text
        .iter()
        .position(|&byte| byte == b' ')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let mut parts = word.split(|&byte| byte == b'.').map(|part| {
        let digits = (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
        digits.then(|| {
            part.iter()
                .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
        })
    });
    let class = u8::try_from(parts.next()??).ok()?;
    let subject = parts.next()??;
    let detail = parts.next()??;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    parts
        .next()
        .is_none()
        .then_some((EnhancedStatus(class, subject, detail), rest))
}

fn clean(text: &[u8]) -> String {
    let mut clean = String::new();
    for character in String::from_utf8_lossy(text).chars() {
        let character = if character.is_control() {
            '?'
        } else {
            character
        };
        if clean.len() + character.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        clean.push(character);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all of the input; replies as code, enhanced status and lines, joined.
    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut reader = ReplyReader::default();
        let mut input = BytesMut::new();
        let mut replies = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(reply) = reader.next(&mut input)? {
                let enhanced = reply
                    .enhanced
                    .map(|enhanced| format!("{enhanced} "))
                    .unwrap_or_default();
                replies.push(format!(
                    "{} {enhanced}{}",
                    reply.code,
                    reply.lines.join("/")
                ));
            }
        }
        Ok(replies)
    }

    fn check(input: &[u8], expected: Result<&[&str], &str>) {
        let expected = expected
            .map(|replies| {
                replies
                    .iter()
                    .map(|&reply| reply.to_owned())
                    .collect::<Vec<_>>()
            })
            .map_err(str::to_owned);
        assert_eq!(read(&[input]), expected, "whole: {}", input.escape_ascii());
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(
            read(&bytes),
            expected,
            "byte by byte: {}",
            input.escape_ascii()
        );
    }

    #[test]
    fn replies() {
        for (input, expected) in [
            ("", &[][..]),
            ("250 ok", &[]),
            ("250 ok\r\n", &["250 ok"]),
            ("250 ok\n", &["250 ok"]),
            ("250\r\n", &["250 "]),
            ("250-\r\n250 \r\n", &["250 /"]),
            (
                "250-a\r\n250-b\r\n250 c\r\n354 go\r\n",
                &["250 a/b/c", "354 go"],
            ),
            ("550 5.1.1 no such user\r\n", &["550 5.1.1 no such user"]),
            ("550 5.1.1\r\n", &["550 5.1.1 "]),
            ("550-5.7.1 a\r\n550 5.7.1 b\r\n", &["550 5.7.1 a/b"]),
            ("550-5.7.1 a\r\n550 b\r\n", &["550 5.7.1 a/b"]),
            ("550-5.7.1 a\r\n550 5.7.2 b\r\n", &["550 5.7.1 a/5.7.2 b"]),
            // A class that contradicts the code is text.
            ("550 2.0.0 ok\r\n", &["550 2.0.0 ok"]),
            ("250 5.7.1.1 ok\r\n", &["250 5.7.1.1 ok"]),
            ("250 2.1000.1 ok\r\n", &["250 2.1000.1 ok"]),
            ("250 a\x1b[2Jb\r\n", &["250 a?[2Jb"]),
            ("250-a\rb\r\n250 c\r\n", &["250 a?b/c"]),
        ] {
            check(input.as_bytes(), Ok(expected));
        }
        check(b"250 a\xff\r\n", Ok(&["250 a\u{fffd}"]));
    }

    #[test]
    fn not_replies() {
        for (input, expected) in [
            (
                "HTTP/1.1 400 Bad Request\r\n",
                "\"HTTP/1.1 400 Bad Request\"",
            ),
            ("\r\n", "\"\""),
            ("25\r\n", "\"25\""),
            ("150 hm\r\n", "\"150 hm\""),
            ("600 hm\r\n", "\"600 hm\""),
            ("250_ok\r\n", "\"250_ok\""),
            ("2500 ok\r\n", "\"2500 ok\""),
            (
                "250-a\r\n251 b\r\n",
                "a reply that begins with 250 and goes on with 251",
            ),
        ] {
            check(input.as_bytes(), Err(expected));
        }
    }

    #[test]
    fn bounds() {
        let line = format!("250 {}\r\n", "x".repeat(3000));
        check(line.as_bytes(), Err("a line of more than 2048 octets"));
        check(
            &line.as_bytes()[..2500],
            Err("a line of more than 2048 octets"),
        );
        let lines = "250-x\r\n".repeat(REPLY_LINES_MAX + 1);
        check(lines.as_bytes(), Err("a reply of more than 128 lines"));
        let text = read(&[format!("250 {}\r\n", "é".repeat(500)).as_bytes()]).unwrap();
        assert_eq!(text, [format!("250 {}", "é".repeat(240))]);
    }
}
