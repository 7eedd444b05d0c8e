//! A server's greeting, read as far as it has come (RFC 5321 4.2, 4.2.1). Takes bytes, returns a value.

/// Longest greeting, bytes; eight lines of 512.
pub const GREETING_BYTES_MAX: usize = 4096;

/// How far a greeting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More must come.
    More,
    /// A whole 220.
    Welcome,
    /// A whole reply that is not 220: the node does not want us.
    Refusal,
    /// Not SMTP or LMTP, or endless.
    Nonsense,
}

/// Looks at all bytes that have come so far.
pub fn read(bytes: &[u8]) -> Progress {
    let mut rest = bytes;
    let mut code: Option<&[u8]> = None;
    loop {
        let line = match rest.iter().position(|&b| b == b'\n') {
            Some(end) => &rest[..=end],
            None if bytes.len() > GREETING_BYTES_MAX => return Progress::Nonsense,
            // A line that starts wrongly will not end well.
            None if starts_as_reply(rest) => return Progress::More,
            None => return Progress::Nonsense,
        };
        if line.len() < 5 || !starts_as_reply(line) || !line.ends_with(b"\r\n") {
            return Progress::Nonsense;
        }
        if code.is_some_and(|code| code != &line[..3]) {
            return Progress::Nonsense;
        }
        code = Some(&line[..3]);
        if line[3] == b'-' {
            rest = &rest[line.len()..];
            continue;
        }
        return match &line[..3] {
            b"220" => Progress::Welcome,
            _ => Progress::Refusal,
        };
    }
}

/// Three digits, then a blank, a hyphen or the line's end; or the beginning of that.
fn starts_as_reply(line: &[u8]) -> bool {
    let head = &line[..line.len().min(3)];
    head.iter().all(u8::is_ascii_digit)
        && line
            .get(3)
            .is_none_or(|byte| matches!(byte, b' ' | b'-' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and byte by byte: before the end it is `More`, or the nonsense that it turns out to be.
    fn check(bytes: &[u8], expected: Progress) {
        assert_eq!(read(bytes), expected, "{}", bytes.escape_ascii());
        for end in 0..bytes.len() {
            let progress = read(&bytes[..end]);
            let early = progress == Progress::More
                || (expected == Progress::Nonsense && progress == Progress::Nonsense);
            assert!(early, "{} {progress:?}", bytes[..end].escape_ascii());
        }
    }

    #[test]
    fn greetings() {
        check(b"220 scan-1 LMTP ready\r\n", Progress::Welcome);
        check(b"220\r\n", Progress::Welcome);
        check(
            b"220-scan-1 LMTP\r\n220-please wait\r\n220 go\r\n",
            Progress::Welcome,
        );
        check(b"421 4.3.2 too many sessions\r\n", Progress::Refusal);
        check(b"554-no\r\n554 really\r\n", Progress::Refusal);
        check(b"220-scan-1 LMTP\r\n", Progress::More);
        check(b"HTTP/1.1 400 Bad Request\r\n", Progress::Nonsense);
        check(b"220_what\r\n", Progress::Nonsense);
        check(b"220 bare\n", Progress::Nonsense);
        check(b"220-a\r\n221 b\r\n", Progress::Nonsense);
        check(b"22\r\n", Progress::Nonsense);
        check(b"\r\n", Progress::Nonsense);
    }

    #[test]
    fn an_endless_greeting_is_nonsense() {
        let mut endless = b"220 ".to_vec();
        endless.resize(GREETING_BYTES_MAX, b'x');
        assert_eq!(read(&endless), Progress::More);
        endless.push(b'x');
        assert_eq!(read(&endless), Progress::Nonsense);
        let lines = b"220-again\r\n".repeat(400);
        assert_eq!(read(&lines), Progress::Nonsense);
    }
}
