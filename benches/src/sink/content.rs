//! A message as it comes in, of which only its size and the start of its header are kept. Pure.

use memchr::memmem;

/// What is kept of a header: our own fields and those that hosts between put before them.
const HEADER_BYTES_MAX: usize = 4096;
/// What ends DATA. Read as if a line had ended just before the message (RFC 5321 4.1.1.4).
const END: &[u8; 5] = b"\r\n.\r\n";

/// A message that is coming in.
#[derive(Debug, Default)]
pub struct Content {
    bytes: u64,
    header: Vec<u8>,
}

/// How far the end of DATA has been read.
#[derive(Debug)]
pub struct End {
    /// So many octets of [`END`] stand at the end of what was read.
    matched: usize,
}

impl Default for End {
    fn default() -> Self {
        Self { matched: 2 }
    }
}

impl Content {
    /// A new message in the same memory.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.header.clear();
    }

    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let room = HEADER_BYTES_MAX - self.header.len();
        self.header
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Octets so far, dots stuffed if they came so.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its header, or the start of it.
    pub fn header(&self) -> &[u8] {
        let end = memmem::find(&self.header, b"\r\n\r\n");
        &self.header[..end.map_or(self.header.len(), |end| end + 2)]
    }
}

impl End {
    /// Where DATA ends in what has come, behind the final dot's line; none when it does not.
    pub fn find(&mut self, input: &[u8]) -> Option<usize> {
        let mut at = 0;
        while self.matched > 0 && at < input.len() {
            self.step(input[at]);
            at += 1;
            if self.matched == END.len() {
                return Some(at);
            }
        }
        if self.matched > 0 || at == input.len() {
            return None;
        }
        if let Some(found) = memmem::find(&input[at..], END) {
            return Some(at + found + END.len());
        }
        for &byte in &input[at.max(input.len().saturating_sub(END.len() - 1))..] {
            self.step(byte);
        }
        None
    }

    fn step(&mut self, byte: u8) {
        self.matched = match byte {
            _ if byte == END[self.matched] => self.matched + 1,
            // What does not go on may begin anew: at a CR, or at a CRLF of which the CR is matched.
            b'\r' => 1,
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the end is found, with the input whole, byte by byte and cut at every place.
    fn check(input: &str, expected: Option<usize>) {
        let input = input.as_bytes();
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            let mut end = End::default();
            let found = end.find(head).or_else(|| {
                let found = end.find(tail);
                found.map(|found| cut + found)
            });
            assert_eq!(found, expected, "{} cut at {cut}", input.escape_ascii());
        }
        let mut end = End::default();
        let found = input
            .iter()
            .position(|byte| end.find(std::slice::from_ref(byte)).is_some());
        assert_eq!(
            found.map(|at| at + 1),
            expected,
            "{} byte by byte",
            input.escape_ascii()
        );
    }

    #[test]
    fn only_a_dot_alone_ends_data() {
        check("", None);
        check(".\r\n", Some(3));
        check("a\r\n.\r\nMAIL", Some(6));
        check("\r\n.\r\n", Some(5));
        check("a.\r\n.\r\n", Some(7));
        check("..\r\n.\r\n", Some(7));
        check("a\r\n..\r\nb\r\n", None);
        check("a\n.\n", None);
        check("a\r\n.\n", None);
        check("a\n.\r\n", None);
        check("a\r.\r\n", None);
        check("a\r\r\n.\r\n", Some(7));
        check("a\r\n.\r\r\n.\r\n", Some(10));
        check("a\r\n\r\n.\r\n", Some(8));
    }

    #[test]
    fn the_header_is_kept_and_the_body_is_not() {
        let mut content = Content::default();
        for piece in ["A: 1\r\nB", ": 2\r\n\r", "\nbody\r\n"] {
            content.push(piece.as_bytes());
        }
        assert_eq!(content.header(), b"A: 1\r\nB: 2\r\n");
        assert_eq!(content.bytes(), 20);
        content.clear();
        content.push(&[b'x'; 3 * HEADER_BYTES_MAX]);
        assert_eq!(content.header().len(), HEADER_BYTES_MAX);
        assert_eq!(content.bytes(), 3 * HEADER_BYTES_MAX as u64);
    }
}
